"""Whisper's encoder on short windows is transformers' own forward pass; only frames of the sound are kept."""

from pathlib import Path

import numpy as np
import pytest
import torch
from encoder_pools import tone
from transformers import Wav2Vec2FeatureExtractor, WhisperConfig, WhisperFeatureExtractor, WhisperModel

from msakit.data.media import write_audio
from msakit.encoders import load_encoder
from msakit.encoders.audio import AudioEncoder
from msakit.encoders.base import EncoderError, SegmentError
from msakit.encoders.whisper import WhisperEncoder

REAL = Path(__file__).parents[3] / "shared" / "models" / "whisper-tiny.en"


def config(positions: int) -> WhisperConfig:
    return WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=8,
        max_source_positions=positions,
        max_target_positions=4,
        vocab_size=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper") / "tiny"
    torch.manual_seed(0)
    WhisperModel(config(1500)).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def sound(folder: Path, seconds: float) -> dict[str, str]:
    write_audio(folder / f"{seconds}.wav", tone(seconds, 120, np.random.default_rng(0)), 16000)
    return {"audio": str(folder / f"{seconds}.wav")}


def assert_near(features, states, tolerance=4e-3):
    for layer, state in zip(features, states, strict=True):
        np.testing.assert_allclose(layer.astype(np.float32), state.numpy(), atol=tolerance, rtol=tolerance)


def shortened(checkpoint: Path, positions: int) -> WhisperModel:
    """The same weights in a model of transformers that has so few positions."""
    whole = WhisperModel.from_pretrained(checkpoint).eval()
    short = WhisperModel(config(positions)).eval()
    state = whole.state_dict()
    state["encoder.embed_positions.weight"] = state["encoder.embed_positions.weight"][:positions]
    short.load_state_dict(state)
    return short


def test_the_forward_pass_is_that_of_transformers_on_as_many_positions(checkpoint, tmp_path):
    encoder = load_encoder({"kind": "whisper", "path": checkpoint, "every": 1})
    items = [encoder.prepare(sound(tmp_path, seconds)) for seconds in (0.5, 0.73, 0.5)]
    batch = encoder.encode(items)
    assert [features.shape for features in batch] == [(3, 25, 16), (3, 37, 16), (3, 25, 16)]  # 20 ms a frame
    for mel, features in zip(items, batch, strict=True):
        positions = mel.shape[1] // 2
        with torch.inference_mode():
            encoded = shortened(checkpoint, positions).encoder(torch.from_numpy(mel)[None], output_hidden_states=True)
        assert_near(features, [state[0, : positions - 1] for state in encoded.hidden_states])
    np.testing.assert_array_equal(batch[0], encoder.encode([items[2]])[0])


def test_the_input_is_that_of_a_window_of_30_seconds_up_to_the_end_of_the_sound(checkpoint, tmp_path):
    """So that hidden state 0, the convolutions' output, is that of the full window; those behind it differ."""
    encoder = load_encoder({"kind": "whisper", "path": checkpoint, "every": 1})
    row = sound(tmp_path, 0.73)
    mel = encoder.prepare(row)
    from msakit.data.media import read_audio

    samples = read_audio(Path(row["audio"]), rate=16000)
    full = WhisperFeatureExtractor()(samples, sampling_rate=16000, return_tensors="np")["input_features"]
    np.testing.assert_allclose(mel, full[0, :, : mel.shape[1]], atol=1e-5)
    (features,) = encoder.encode([mel])
    whole = WhisperModel.from_pretrained(checkpoint).encoder.eval()
    with torch.inference_mode():
        states = whole(torch.from_numpy(full), output_hidden_states=True).hidden_states
    assert_near(features[:1], [states[0][0, :37]])
    assert not np.allclose(features[2].astype(np.float32), states[2][0, :37].numpy(), atol=1e-2)


def test_a_sound_as_long_as_the_window_is_the_full_forward_pass(checkpoint, tmp_path):
    """Longer ones are encoded window by window."""
    encoder = load_encoder({"kind": "whisper", "path": checkpoint, "every": 10})
    mel = encoder.prepare(sound(tmp_path, 31.0))
    (features,) = encoder.encode([mel])
    assert features.shape == (3, 155, 16)
    whole = WhisperModel.from_pretrained(checkpoint).encoder.eval()
    with torch.inference_mode():
        states = whole(torch.from_numpy(mel[None, :, :3000]), output_hidden_states=True).hidden_states
    assert_near(features[:, :150], [state[0, ::10] for state in states])
    # The window of the clip before leaves no trace.
    short = encoder.prepare(sound(tmp_path, 0.5))
    fresh = load_encoder({"kind": "whisper", "path": checkpoint, "every": 10})
    np.testing.assert_array_equal(encoder.encode([short])[0], fresh.encode([short])[0])


def test_what_it_says_of_itself(checkpoint, tmp_path):
    encoder = load_encoder({"kind": "whisper", "path": checkpoint})
    assert (encoder.dim, encoder.n_layers, encoder.frame_rate, encoder.modality) == (16, 3, 5.0, "audio")
    assert encoder.size(encoder.prepare(sound(tmp_path, 1.0))) == 51
    before = encoder.config()
    encoder.encode([encoder.prepare(sound(tmp_path, 0.5))])
    assert encoder.config() == before
    write_audio(tmp_path / "short.wav", np.zeros(100, dtype=np.float32), 16000)
    with pytest.raises(SegmentError, match="100 samples, fewer than the 320"):
        encoder.prepare({"audio": str(tmp_path / "short.wav")})


def test_the_two_kinds_of_sound_models_point_to_each_other(trained, checkpoint):
    whisper = WhisperModel.from_pretrained(checkpoint)
    with pytest.raises(EncoderError, match=r"WhisperModel, which reads no raw sound: .*kind 'whisper'"):
        AudioEncoder(whisper, Wav2Vec2FeatureExtractor(), "tiny")
    with pytest.raises(EncoderError, match="is a WavLMModel, no Whisper: choose kind 'audio'"):
        WhisperEncoder.from_pretrained(trained["wavlm"])


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no Whisper tiny.en at {REAL}")
def test_whisper_tiny(tmp_path):
    encoder = load_encoder({"kind": "whisper", "path": REAL, "every": 1})
    (features,) = encoder.encode([encoder.prepare(sound(tmp_path, 1.0))])
    assert features.shape == (5, 50, 384)
    assert np.isfinite(features).all()
    assert (encoder.config()["dtype"], encoder.name) == ("torch.float32", "whisper-tiny.en")
