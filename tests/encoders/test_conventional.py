"""Documented dimensions, known sounds and pictures, and what came with a corpus."""

import json
import sys

import numpy as np
import pytest

from msakit.data.media import write_audio
from msakit.encoders import load_encoder
from msakit.encoders.base import EncoderError, SegmentError
from msakit.encoders.conventional import AcousticSet, BagOfEmbeddings, Precomputed, VisualSet, words_of
from msakit.encoders.vision import Pictures


def test_words():
    assert words_of("It's GREAT, isn't it?") == ["it's", "great", ",", "isn't", "it", "?"]


def test_bag_gives_a_vector_a_word_and_zeros_for_unknown():
    bag = BagOfEmbeddings(["good", "film"], np.array([[1.0, 2, 3], [4, 5, 6]]))
    (features,) = bag.encode([bag.prepare({"text": "Good, film"})])
    np.testing.assert_array_equal(features, [[[1, 2, 3], [0, 0, 0], [4, 5, 6]]])
    with pytest.raises(SegmentError):
        bag.prepare({"text": " "})
    with pytest.raises(ValueError, match="1 words but 2 vectors"):
        BagOfEmbeddings(["good"], np.ones((2, 3)))


def test_trained_vectors_know_their_neighbours(trained):
    bag = BagOfEmbeddings.from_pretrained(trained["word-vectors"])
    assert bag.n_layers == 1
    assert len(bag.vectors) == len(bag.index) + 1
    assert {"film", "great"} <= set(bag.index)


def test_acoustic_set_hears_pitch_and_energy(tmp_path):
    time = np.arange(16000) / 16000
    for name, pitch, loud in [("low", 110, 0.05), ("high", 220, 0.5)]:
        sound = sum(np.sin(2 * np.pi * k * pitch * time) / k for k in range(1, 6)) * loud / 3
        write_audio(tmp_path / f"{name}.wav", sound.astype(np.float32), 16000)
    encoder = AcousticSet()
    items = [encoder.prepare({"audio": str(tmp_path / f"{name}.wav")}) for name in ("low", "high")]
    low, high = (features[0, 2:8].astype(float).mean(axis=0) for features in encoder.encode(items))
    assert encoder.encode(items)[0].shape == (1, 11, 25)
    names = encoder.config()["columns"]
    assert len(names) == encoder.dim
    pitch, energy = names.index("pitch"), names.index("energy")
    assert low[pitch] == pytest.approx(np.log2(1.1), abs=0.02)
    assert high[pitch] == pytest.approx(np.log2(2.2), abs=0.02)
    assert high[energy] - low[energy] == pytest.approx(20, abs=1)


def test_visual_set_sees_orientation_and_leaves_missing_faces_zero():
    stripes = np.tile(np.repeat([0.0, 255.0], 4), 6)
    upright = np.broadcast_to(stripes, (48, 48))
    pixels = np.stack([upright, upright.T])[:, None].astype(np.float32)
    encoder = VisualSet()
    (features,) = encoder.encode([Pictures(pixels, np.array([True, False, True]))])
    assert features.shape == (1, 3, encoder.dim) == (1, 3, 324)
    assert not features[0, 1].any()
    bins = features[0].astype(float).reshape(3, -1, 9).sum(axis=1)
    assert bins[0].argmax() != bins[2].argmax()


def test_precomputed_cuts_padding_and_heals_infinities(tmp_path):
    audio = np.zeros((2, 5, 3), dtype=np.float32)
    audio[0, 2:4] = 1
    audio[0, 3, 0] = -np.inf
    np.savez(tmp_path / "features.npz", segment_id=np.array(["a", "b"]), audio=audio, glove=np.ones((2, 4)))
    encoder = Precomputed.from_pretrained(tmp_path, array="audio")
    items = [encoder.prepare({"segment_id": segment}) for segment in "ab"]
    first, second = encoder.encode(items)
    np.testing.assert_array_equal(first, [[[1, 1, 1], [0, 1, 1]]])
    np.testing.assert_array_equal(second, np.zeros((1, 1, 3)))
    assert encoder.config()["not_finite"] == 1
    with pytest.raises(SegmentError, match="no row"):
        encoder.prepare({"segment_id": "c"})
    with pytest.raises(ValueError, match="modality"):
        Precomputed.from_pretrained(tmp_path, array="glove")
    flat = Precomputed.from_pretrained(tmp_path, array="glove", modality="text")
    assert flat.encode([flat.prepare({"segment_id": "a"})])[0].shape == (1, 1, 4)
    with pytest.raises(ValueError, match="facet"):
        Precomputed.from_pretrained(tmp_path, array="facet")


def test_opensmile_is_an_extra_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(EncoderError, match=r"pip install 'msakit\[opensmile\]'"):
        load_encoder("opensmile")


def test_opensmile_hears_pitch(tmp_path):
    pytest.importorskip("opensmile")
    time = np.arange(16000) / 16000
    for name, pitch in [("low", 110), ("high", 220)]:
        sound = sum(np.sin(2 * np.pi * k * pitch * time) / k for k in range(1, 6)) * 0.1
        write_audio(tmp_path / f"{name}.wav", sound.astype(np.float32), 16000)
    encoder = load_encoder("opensmile")
    assert (encoder.dim, encoder.modality, encoder.n_layers, encoder.frame_rate) == (25, "audio", 1, 10.0)
    assert json.loads(json.dumps(encoder.config())) == encoder.config()
    items = [encoder.prepare({"audio": str(tmp_path / f"{name}.wav")}) for name in ("low", "high")]
    low, high = encoder.encode(items)
    assert low.shape[0] == 1
    assert 9 <= low.shape[1] <= 11
    np.testing.assert_array_equal(low, encoder.encode(items[:1])[0])
    # In semitones above 27.5 Hz.
    column = next(k for k, name in enumerate(encoder.columns) if name.startswith("F0semitone"))
    assert low[0, 2:8, column].astype(float).mean() == pytest.approx(24, abs=0.5)
    assert high[0, 2:8, column].astype(float).mean() == pytest.approx(36, abs=0.5)
    assert load_encoder({"kind": "opensmile", "feature_set": "ComParE_2016"}).dim == 65
    with pytest.raises(EncoderError, match=r"no feature set 'egemaps': choose one of .*eGeMAPSv02"):
        load_encoder({"kind": "opensmile", "feature_set": "egemaps"})
    with pytest.raises(SegmentError, match="no audio"):
        encoder.prepare({})
