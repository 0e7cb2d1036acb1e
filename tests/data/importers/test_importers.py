"""Each format, written by an independent writer, becomes a folder that load_corpus accepts, with the values it had."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import format_writers as write
import numpy as np
import pandas as pd
import pytest
import soundfile

from msakit.data.catalogue import CATALOGUE
from msakit.data.corpus import Corpus, CorpusError, load_corpus
from msakit.data.importers import IMPORTERS, import_corpus
from msakit.data.importers.mvsa import RULES, combined

POSTS = {
    "1": "positive,positive", "2": "neutral,negative", "3": "positive,negative", "4": "positive,neutral",
    "5": "neutral,neutral", "6": "negative,negative", "7": "neutral,neutral", "8": "negative,negative",
}  # fmt: skip


def bring(name: str, source: Path, tmp_path: Path, /, **options: Any) -> tuple[Corpus, dict[str, Any]]:
    out = tmp_path / "out" / name
    manifest = import_corpus(name, source, out, **options)
    assert json.loads((out / "manifest.json").read_text()) == manifest
    assert [p.name for p in out.parent.iterdir()] == [name]  # no half folder is left behind
    return load_corpus(out), manifest


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_mmsa_cuts_padding_by_the_lengths(aligned: bool, protocol: int, tmp_path: Path):
    content = write.mmsa(aligned)
    content["train"]["audio"][0, 0, :2] = [-np.inf, np.nan]
    corpus, manifest = bring("mmsa", write.dump(tmp_path / "mosi.pkl", content, protocol), tmp_path)
    table = corpus.table()
    assert list(table["segment_id"][:3]) == ["train0_1", "train0_2", "train1_3"]
    assert list(table["video_id"][:3]) == ["train0", "train0", "train1"]
    assert table["text"][1] == "train text 1, so"
    np.testing.assert_allclose(table["label"][:4], [-1, -1 / 3, 1 / 3, 1], atol=1e-6)
    features = corpus.features()
    assert features is not None
    if aligned:
        assert features["audio"].shape == (9, 7, 5)
    else:
        assert features["audio"].shape == (9, 6, 5)  # the longest segment that is used has 6 frames
        assert features["vision"].shape == (9, 4, 3)
        np.testing.assert_array_equal((features["audio"][:4] != 0).any(axis=2).sum(axis=1), [3, 4, 5, 6])
        np.testing.assert_array_equal((features["vision"][:4] != 0).any(axis=2).sum(axis=1), [2, 3, 4, 2])
    np.testing.assert_array_equal((features["text"] != 0).any(axis=2).sum(axis=1), [5] * 9)
    assert features["audio"].dtype == np.float32
    assert manifest["replaced_by_zero"] == {"text": 0, "audio": 2, "vision": 0}
    assert manifest["source"]["file"] == "mosi.pkl"
    assert manifest["kept_segments"]["valid"] == list(table.loc[table["split"] == "valid", "segment_id"])
    assert manifest["kept"] == {"train": 4, "valid": 2, "test": 3, "total": 9}


def test_mmsa_knows_ch_sims_by_its_labels_a_modality(tmp_path: Path):
    corpus, _ = bring("mmsa", write.dump(tmp_path / "x.pkl", write.mmsa(sims=True)), tmp_path)
    assert (corpus.name, corpus.task.low, corpus.task.high) == ("ch-sims", -1, 1)
    assert set(corpus.table()["label_A"]) == {"0.2"}


def test_known_sizes_are_checked_and_reported_with_both_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    sizes = CATALOGUE["cmu-mosi"].segments
    content = write.mmsa(sizes={**sizes, "train": sizes["train"] - 1})
    content["test"]["raw_text"][0] = ""
    content["test"]["regression_labels"][1] = np.nan
    corpus, manifest = bring("mmsa", write.dump(tmp_path / "unaligned_50.pkl", content), tmp_path)
    assert corpus.name == "cmu-mosi"
    assert "cmu-mosi train: 1283 segments kept, 1284 expected" in manifest["warnings"]
    assert "cmu-mosi test: 684 segments kept, 686 expected" in manifest["warnings"]
    assert not any("valid: 229 segments" in warning for warning in manifest["warnings"])
    assert "1283 segments kept" in caplog.text
    assert manifest["dropped"]["reasons"] == {"the text is empty": 1, "label 'nan' is not a number": 1}
    assert manifest["dropped"]["segments"][0] == {
        "segment_id": "test0_1", "split": "test", "reason": "the text is empty",
    }  # fmt: skip
    assert manifest["found"] == manifest["kept"]["total"] + 2


def test_the_sizes_of_mmsa_files_give_no_warning(tmp_path: Path):
    name = "cmu-mosi"
    content = write.mmsa(sizes=CATALOGUE[name].segments)
    manifest = bring("mmsa", write.dump(tmp_path / "x.pkl", content), tmp_path)[1]
    assert manifest["expected"] == {"corpus": name, "segments": CATALOGUE[name].segments}
    # The writer makes a video of two segments, so videos are another number than the published one.
    assert not [warning for warning in manifest["warnings"] if "segments" in warning]


def test_the_known_sizes_are_those_of_the_published_files():
    known = {name: tuple(item.segments.values()) for name, item in CATALOGUE.items() if "mos" in name}
    assert {name: sizes for name, sizes in known.items() if sizes} == {
        "cmu-mosi": (1284, 229, 686), "cmu-mosei": (16326, 1871, 4659),
        "mag-mosi": (1281, 229, 685), "mag-mosei": (16265, 1869, 4643),
    }  # fmt: skip


def test_the_sizes_of_mag_files_are_not_those_of_mmsa(tmp_path: Path):
    name, sizes = "mag-mosi", {"train": 1281, "dev": 229, "test": 685}
    content = {
        split: [((["a"], np.ones((1, 2)), np.ones((1, 2))), np.array([[1.0]]), f"{split}{k}[0]") for k in range(size)]
        for split, size in sizes.items()
    }
    corpus, manifest = bring("mag", write.dump(tmp_path / "x.pkl", content), tmp_path)
    assert corpus.name == manifest["expected"]["corpus"] == name
    assert manifest["warnings"] == []
    content["train"].pop()
    write.dump(tmp_path / "y.pkl", content)
    manifest = import_corpus("mag", tmp_path / "y.pkl", tmp_path / "less")
    expected = CATALOGUE[name].segments["train"]
    assert manifest["warnings"] == [f"{name} train: {expected - 1} segments kept, {expected} expected"]


def test_segments_named_twice_are_left_out_with_a_reason(tmp_path: Path):
    content = write.mmsa()
    content["test"]["id"][0] = content["train"]["id"][0]
    corpus, manifest = bring("mmsa", write.dump(tmp_path / "x.pkl", content), tmp_path)
    assert manifest["dropped"]["reasons"] == {"the segment_id is used by an earlier row": 1}
    features = corpus.features()
    assert features is not None
    assert len(features["audio"]) == len(corpus.table()) == 8


def test_mult(tmp_path: Path):
    transcripts = tmp_path / "t.csv"
    transcripts.write_text("segment_id,text\ntrain[0],hello there\n")
    source = write.dump(tmp_path / "mosei_senti_data.pkl", write.mult(), 2)
    corpus, manifest = bring("mult", source, tmp_path, transcripts=transcripts)
    table = corpus.table()
    assert list(table["text"][:2]) == ["hello there", "[no transcript]"]
    assert list(table.loc[1, ["segment_id", "video_id", "clip_id", "start", "end"]]) == [
        "train[1]", "train", "1", "1.0", "1.5",
    ]  # fmt: skip
    assert list(table["label"][:4]) == [-3, -1, 1, 3]
    assert {k: v.shape for k, v in (corpus.features() or {}).items()} == {
        "text": (9, 5, 4), "audio": (9, 6, 3), "vision": (9, 8, 2),
    }  # fmt: skip
    assert "8 segments have no transcript" in manifest["notes"][0]


def test_mult_names_mosi_clips_like_the_other_preparations(tmp_path: Path):
    corpus, _ = bring("mult", write.dump(tmp_path / "x.pkl", write.mult()), tmp_path, name="cmu-mosi")
    assert corpus.table()["segment_id"][1] == "train_2"


def test_mult_without_ids_numbers_the_segments(tmp_path: Path):
    corpus, manifest = bring("mult", write.dump(tmp_path / "x.pkl", write.mult(with_ids=False)), tmp_path)
    assert corpus.table()["segment_id"][0] == "train-00000"
    assert "names no segments" in manifest["notes"][0]


def test_mag_keeps_one_vector_a_word(tmp_path: Path):
    content = write.mag()
    words, vision, audio = content["train"][3][0]
    content["train"][3] = ((words, vision[:0], audio), *content["train"][3][1:])
    corpus, manifest = bring("mag", write.dump(tmp_path / "mosi.pkl", content, 3), tmp_path, name="mag-mosi")
    table = corpus.table()
    assert list(table["segment_id"][:3]) == ["trainx_1", "trainx_2", "trainx_3"]
    assert table["source_id"][0] == "trainx[0]"
    assert json.loads(table["words"][2]) == ["null", 'good, "so"', "é"]
    assert list(table["n_words"][:3]) == ["1", "2", "3"]
    assert list(table["label"][:3]) == [-1, 0, 1]
    features = corpus.features()
    assert features is not None
    assert (features["vision"].shape, features["audio"].shape) == ((8, 3, 47), (8, 3, 74))
    np.testing.assert_array_equal(features["vision"][1, :2], np.arange(94).reshape(2, 47))
    assert (features["vision"][1, 2] == 0).all()
    assert manifest["dropped"]["segments"][0]["reason"] == "1 words but 0 rows of vision and 1 of audio"
    assert "mag-mosi train: 3 segments kept, 1281 expected" in manifest["warnings"]
    assert corpus.words() is None


def test_mag_without_mosi_keeps_the_ids(tmp_path: Path):
    corpus, _ = bring("mag", write.dump(tmp_path / "x.pkl", write.mag()), tmp_path, name="mag-mosei")
    assert corpus.table()["segment_id"][0] == "trainx[0]"


FOLD_FILE = "standard_train_fold=['va']\nstandard_valid_fold = ['vb']\nstandard_test_fold=['vc']\nimport nonsense\n"


def test_csd(tmp_path: Path):
    folds = tmp_path / "folds.py"
    folds.write_text(FOLD_FILE)
    corpus, manifest = bring("csd", write.csd_folder(tmp_path / "csd"), tmp_path, splits=folds)
    table = corpus.table()
    assert corpus.name == "cmu-mosi"
    assert list(table["segment_id"]) == ["va_1", "va_2", "vb_1", "vb_2", "vc_1", "vc_2"]
    assert list(table["label"][:2]) == [1.2, -0.4]
    assert list(table["text"][:2]) == ["so", "café bad"]
    assert list(table["start"][:2]) == ["0.0", "2.0"]
    words = corpus.words()
    assert words is not None
    ours = words[words["segment_id"] == "va_2"]
    assert list(zip(ours["word"], ours["start"], ours["end"], strict=True)) == [("café", 0, 1), ("bad", 1, 2)]
    audio = (corpus.features() or {})["audio"]
    assert audio.shape == (6, 20, 3)  # two seconds in steps of 0.1
    np.testing.assert_allclose(audio[1, :, 1], np.arange(20, 40))
    assert manifest["replaced_by_zero"]["audio"] == 3  # one a video, the one in no fold is not read
    assert manifest["dropped"]["reasons"] == {"in no split": 2}
    assert "cmu-mosi train: 1 videos kept, 52 expected" in manifest["warnings"]


def test_csd_by_word_has_one_vector_a_word(tmp_path: Path):
    folder = write.csd_folder(tmp_path / "csd")
    words = np.array([[b"so"], [b"sp"], [b"caf\xc3\xa9"], [b"bad"]])
    silent = np.array([[b"so"], [b"sp"], [b"sp"], [b"sp"]])
    spans = [[k, k + 1] for k in range(4)]
    videos = {v: (silent if v == "vc" else words, spans) for v in ("va", "vb", "vc", "elsewhere")}
    write.csd(folder / "X_TimestampedWords.csd", "words", videos)
    faces = np.arange(7, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    times = [[0, 0.5], [0.5, 1], [2, 2.4], [2.4, 2.9], [2.95, 3.01], [3.5, 9], [9, 10]]
    write.csd(folder / "X_FACET.csd", "facet", {v: (faces, times) for v in ("va", "vb", "vc")})
    corpus, manifest = bring("csd", folder, tmp_path, splits=write.FOLDS, align="words")
    table = corpus.table()
    assert list(table["segment_id"]) == ["va_1", "va_2", "vb_1", "vb_2", "vc_1"]
    assert [json.loads(held) for held in table["words"][:2]] == [["so"], ["café", "bad"]]
    assert list(table["n_words"][:2]) == ["1", "2"]
    features = corpus.features()
    assert features is not None
    assert {name: array.shape for name, array in features.items()} == {"audio": (5, 2, 3), "vision": (5, 2, 2)}
    # Audio counts up by one each tenth of a second: the word from 2 to 3 s is the mean of 20 to 29.
    np.testing.assert_allclose(features["audio"][1, :, 1], [24.5, 34.5])
    np.testing.assert_allclose(features["vision"][0, :, 0], [0.5, 0])
    # Frames 2 to 4 have their middles in the word from 2 to 3 s, none in that from 3 to 4 s.
    np.testing.assert_allclose(features["vision"][1, :, 0], [3, 0])
    assert manifest["dropped"]["reasons"] == {"in no split": 2, "no word": 1}
    assert any("vision: 2 words have no frame" in note for note in manifest["notes"])
    found = corpus.words()
    assert found is not None
    assert list(found.loc[found["segment_id"] == "va_2", "word"]) == ["café", "bad"]


def test_csd_of_mosei_takes_column_0_and_names_what_is_blank(tmp_path: Path):
    folder = tmp_path / "csd"
    folder.mkdir()
    spans = [[0.0, 1.0], [50.0, 51.0]]
    labels = np.array([[0.5, 1, 0, 0, 0, 0, 2], [-1, 0, 0, 0, 0, 0, 0]], np.float32)
    write.csd(folder / "a.csd", "All Labels", {v: (labels, spans) for v in ("va", "vb", "vc")})
    write.csd(folder / "b.csd", "x", {v: (np.ones((3, 2), np.float32), [[0, 0.4], [0.4, 0.8], [0.8, 1]])
                                      for v in ("va", "vb")})  # fmt: skip
    texts = tmp_path / "t.csv"
    texts.write_text("segment_id,text\n" + "".join(f"{v}[{k}],hi\n" for v in ("va", "vb", "vc") for k in (0, 1)))
    corpus, manifest = bring("csd", folder, tmp_path, splits=write.FOLDS, features={"vision": "b.csd"},
                             transcripts=texts, step=None, max_frames=2)  # fmt: skip
    table = corpus.table()
    assert list(table["segment_id"][:2]) == ["va[0]", "va[1]"]
    assert list(table.loc[0, ["label_1", "label_6"]]) == ["1.0", "2.0"]
    assert list(table["label"][:2]) == [0.5, -1]
    vision = (corpus.features() or {})["vision"]
    assert vision.shape == (6, 2, 2)
    assert manifest["counts"]["vision_blank"] == ["va[1]", "vb[1]", "vc[0]", "vc[1]"]
    assert any("2 segments were cut to max_frames=2" in w for w in manifest["warnings"])


@pytest.mark.parametrize("form", ["json", "csv", "folder"])
def test_splits_come_in_several_forms(form: str, tmp_path: Path):
    path = tmp_path / f"splits.{form}"
    if form == "json":
        path.write_text(json.dumps({"train": ["va"], "dev": ["vb"], "test": ["vc"]}))
    elif form == "csv":
        path.write_text("video_id,split\nva,train\nvb,valid\nvc,test\n")
    else:
        path.mkdir()
        for name, video in (("train", "va"), ("val", "vb"), ("test", "vc")):
            (path / f"{name}.txt").write_text(video + "\n")
    corpus, _ = bring("csd", write.csd_folder(tmp_path / "csd"), tmp_path, splits=path)
    assert {s: len(rows) for s, rows in corpus.splits.items()} == {"train": 2, "valid": 2, "test": 2}


def test_ando_names_clips_without_features(tmp_path: Path):
    source = write.ando(tmp_path / "mosi")
    (source / "feat/audio/pretrained/trainv_2.npy").unlink()
    corpus, manifest = bring("ando", source, tmp_path, layers={"vision": 1})
    features = corpus.features()
    assert features is not None
    assert {k: v.shape for k, v in features.items()} == {"vision": (8, 4, 5), "audio": (8, 2, 5), "text": (8, 3, 5)}
    assert (features["vision"] == 2).all()
    assert (features["audio"] == 3).all()
    assert manifest["dropped"]["segments"] == [
        {"segment_id": "trainv_2", "split": "train", "reason": "no features for audio"}
    ]
    assert list(corpus.table()["label"][:2]) == [-0.5, 0.5]


def test_mosi_raw_with_csd_labels(tmp_path: Path):
    source = write.mosi_raw(tmp_path / "Raw")
    (source / "Video/Segmented/vb_1.mp4").unlink()
    (source / "Transcript/Segmented/vd.annotprocessed").write_text("1_DELIM_NO LABEL\n")
    labels = write.csd_folder(tmp_path / "csd") / "labels_v2.csd"
    corpus, manifest = bring("mosi-raw", source, tmp_path, labels=labels, splits=write.FOLDS)
    table = corpus.table()
    assert list(table["segment_id"]) == ["va_1", "va_2", "vb_2", "vc_1", "vc_2"]
    assert table["text"][0] == "WORDS OF va 1"
    assert table["audio"][0] == str(source / "Audio/WAV_16000/Segmented/va_1.wav")
    assert {d["segment_id"]: d["reason"] for d in manifest["dropped"]["segments"]} == {
        "vd_1": "a transcript without a label", "elsewhere_1": "a label without a transcript",
        "elsewhere_2": "a label without a transcript", "vb_1": "no video file",
    }  # fmt: skip
    assert manifest["found"] == 9


def test_media_are_referred_to(tmp_path: Path):
    here, there = tmp_path / "here", tmp_path / "there"
    source = write.mosi_raw(here / "with space" / "Raw")
    labels = tmp_path / "labels.csv"
    labels.write_text("video_id,clip_id,label,split\nva,1,1.0,train\nvb,1,0.5,valid\nvc,2,-3,test\n")
    corpus, _ = bring("mosi-raw", source, here, labels=labels)
    cell = pd.read_csv(corpus.folder / "segments.csv", dtype=str)["audio"][0]
    assert cell.startswith("../../")
    assert (corpus.folder / cell).is_file()
    # Both folders may move together.
    fingerprint = corpus.fingerprint
    here.rename(there)
    assert load_corpus(there / "out" / "mosi-raw").fingerprint == fingerprint


def test_mosei_raw_matches_label_intervals_and_cuts_audio(tmp_path: Path):
    source = write.mosei_raw(tmp_path / "Raw")
    folder = write.csd_folder(tmp_path / "csd")
    corpus, manifest = bring("mosei-raw", source, tmp_path, labels=folder / "labels_v2.csd", splits=write.FOLDS,
                             cut_audio=True)  # fmt: skip
    table = corpus.table()
    assert list(table["segment_id"]) == ["va_0", "va_1", "vb_0", "vb_1", "vc_0", "vc_1"]
    assert list(table["label"][:2]) == [1.2, -0.4]
    assert table["text"][1] == "words ___ of 1"
    samples, rate = soundfile.read(table["audio"][1], dtype="int16")
    assert (rate, len(samples)) == (8000, round(1.9 * 8000))
    assert samples[0] == round(2.1 * 8000) % 100
    assert manifest["dropped"]["reasons"] == {"a label without a transcript": 2}


def test_mosei_raw_with_a_table_of_labels(tmp_path: Path):
    labels = tmp_path / "labels.csv"
    labels.write_text("segment_id,label,split\nva_0,1,train\nvb_1,2,valid\nvc_0,-1,test\nvz_0,0,test\n")
    corpus, manifest = bring("mosei-raw", write.mosei_raw(tmp_path / "Raw"), tmp_path, labels=labels)
    assert "audio" not in corpus.table()
    assert list(corpus.table()["start"]) == ["0.1", "2.1", "0.1"]
    assert manifest["dropped"]["reasons"] == {"a transcript without a label": 3, "a label without a transcript": 1}


@pytest.mark.parametrize("target", ["sentiment", "emotion"])
def test_meld(target: str, tmp_path: Path):
    source = write.meld(tmp_path / "MELD")
    (source / "test/output_repeated_splits_test/dia0_utt1.mp4").unlink()
    corpus, manifest = bring("meld", source, tmp_path, target=target)
    table = corpus.table()
    assert list(table["segment_id"]) == [
        *(f"train_dia0_utt{i}" for i in range(3)), *(f"dev_dia0_utt{i}" for i in range(3)),
        "test_dia0_utt0", "test_dia0_utt2",
    ]  # fmt: skip
    names = [corpus.task.classes[label] for label in table["label"][:3]]
    assert names == (["positive", "negative", "neutral"] if target == "sentiment" else ["joy", "anger", "neutral"])
    assert table["text"][0] == "Oh’no, 0"  # written as a control character
    assert table["text"][3] == "Oh’no, 0"  # the table of dev is in Windows-1252
    assert "dev_splits_complete" in table["video"][3]
    assert manifest["counts"]["files_not_utf8"] == {"cp1252": 1}
    assert manifest["counts"]["texts_with_mended_characters"] == 6
    assert "meld test: 2 segments kept, 2610 expected" in manifest["warnings"]


@pytest.mark.parametrize("clips", ["test/output_repeated_splits_test", "test", "."])
def test_meld_finds_the_clips_in_the_folder_that_is_given(clips: str, tmp_path: Path):
    source = write.meld(tmp_path / "MELD")
    corpus, manifest = bring("meld", source, tmp_path, clips=source / clips)
    table = corpus.table()
    assert list(table.loc[table["split"] == "test", "video"]) == [
        str(source / f"test/output_repeated_splits_test/dia0_utt{i}.mp4") for i in range(3)
    ]
    assert manifest["dropped"]["total"] == (0 if clips == "." else 6)


# video_id of every segment, in a corpus that each importer's writer makes.
VIDEOS: dict[str, tuple[Any, dict[str, Any], dict[str, str]]] = {
    "mmsa": (lambda p: write.dump(p / "x.pkl", write.mmsa()), {}, {"train0_1": "train0", "train1_3": "train1"}),
    "mult": (lambda p: write.dump(p / "x.pkl", write.mult()), {}, {"train[0]": "train", "valid[1]": "valid"}),
    "mag": (lambda p: write.dump(p / "x.pkl", write.mag()), {"name": "mag-mosei"}, {"trainx[0]": "trainx"}),
    "csd": (
        lambda p: write.csd_folder(p / "c"), {"splits": write.FOLDS, "name": "cmu-mosei"},
        {"va[0]": "va", "va[1]": "va", "vc[1]": "vc"},
    ),
    "ando": (lambda p: write.ando(p / "a"), {}, {"trainv_1": "trainv", "testv_3": "testv"}),
    "mosi-raw": (
        lambda p: write.mosi_raw(p / "r"), {"labels": "l.csv"}, {"va_1": "va", "vb_1": "vb"},
    ),
    "mosei-raw": (lambda p: write.mosei_raw(p / "r"), {"labels": "l.csv"}, {"va_1": "va", "vb_1": "vb"}),
    "meld": (lambda p: write.meld(p / "m"), {}, {"train_dia0_utt0": "train_dia0", "test_dia0_utt2": "test_dia0"}),
    "ch-sims": (lambda p: write.ch_sims(p / "s"), {}, {"video_0001_0001": "video_0001"}),
    "mvsa-single": (lambda p: write.mvsa(p / "m", POSTS), {"rule": "agree-only"}, {"1": "1", "5": "5"}),
    "mvsa-multiple": (
        lambda p: write.mvsa(p / "m", {str(k): "\t".join(["positive,positive"] * 3) for k in range(12)}),
        {"rule": "agree-only"}, {"1": "1", "11": "11"},
    ),
    "hateful-memes": (lambda p: write.memes(p / "h"), {}, {"1": "1", "21": "21"}),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPORTERS)
def test_every_importer_names_the_video_of_each_segment(name: str, tmp_path: Path):
    make, options, expected = VIDEOS[name]
    source, options = make(tmp_path), dict(options)
    if "labels" in options:
        options["labels"] = tmp_path / options["labels"]
        options["labels"].write_text("segment_id,label,split\nva_1,1,train\nvb_1,2,valid\nvc_1,-1,test\n")
    corpus, _ = bring(name, source, tmp_path, **options)
    videos = corpus.table().set_index("segment_id")["video_id"]
    assert {segment: videos[segment] for segment in expected} == expected
    assert (videos != "").all()


def test_ch_sims_keeps_ids_as_texts(tmp_path: Path):
    corpus, _ = bring("ch-sims", write.ch_sims(tmp_path / "sims"), tmp_path)
    table = corpus.table()
    assert list(table.loc[0, ["segment_id", "video_id", "clip_id", "label_T"]]) == [
        "video_0001_0001", "video_0001", "0001", "-0.6",
    ]  # fmt: skip
    assert table["text"][0] == "我不想嫁给李茶"
    assert (corpus.task.low, corpus.task.high) == (-1, 1)
    assert list(table["split"]) == ["train", "train", "valid", "test"]
    assert table["video"][0].endswith("Raw/video_0001/0001.mp4")


PAIRS = [("positive", "positive"), ("neutral", "negative"), ("positive", "negative"), ("positive", "neutral")]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("agree-only", ["positive", "", "", ""]),
        ("neutral-yields", ["positive", "negative", "", "positive"]),
        ("text-majority-balanced", ["positive", "neutral", "positive", "positive"]),
    ],
)
def test_label_rules_of_one_annotator(rule: str, expected: list[str]):
    assert [combined([pair], rule)[0] for pair in PAIRS] == expected


def test_label_rules_of_three_annotators():
    def rule(text: str, image: str) -> tuple[str, str]:
        whole = {"p": "positive", "n": "negative", "0": "neutral"}
        return combined(
            [(whole[a], whole[b]) for a, b in zip(text, image, strict=True)], "majority-then-neutral-yields"
        )

    assert rule("pp0", "ppn") == ("positive", "")
    assert rule("pp0", "00n") == ("positive", "")
    assert rule("000", "0nn") == ("negative", "")
    assert rule("pp0", "nnp")[0] == ""
    assert rule("p0n", "ppp") == ("", "the annotators disagree on the text")
    assert rule("ppp", "p0n") == ("", "the annotators disagree on the image")


def test_mvsa_single(tmp_path: Path):
    source = write.mvsa(tmp_path / "MVSA_Single", POSTS)
    (source / "data/5.txt").write_bytes("caf\xe9 \x9d so".encode("latin-1"))
    (source / "data/6.txt").write_bytes(b" \n")
    (source / "data/7.jpg").write_bytes((source / "data/1.jpg").read_bytes())
    (source / "data/8.jpg").write_bytes((source / "data/8.jpg").read_bytes()[:-150])
    splits = {"train": ["1", "2"], "valid": ["4", "7"], "test": ["5"]}
    corpus, manifest = bring("mvsa-single", source, tmp_path, rule="neutral-yields", splits=splits)
    table = corpus.table()
    labels = {s: corpus.task.classes[k] for s, k in zip(table["segment_id"], table["label"], strict=True)}
    assert labels == {"1": "positive", "2": "negative", "4": "positive", "5": "neutral", "7": "neutral"}
    assert table.set_index("segment_id")["text"]["5"] == "café \x9d so"
    assert manifest["counts"]["files_not_utf8"] == {"latin-1": 1}
    assert {d["segment_id"]: d["reason"] for d in manifest["dropped"]["segments"]} == {
        "3": "text and image label are opposite", "6": "the text is empty", "8": "the image is corrupt",
    }  # fmt: skip
    assert manifest["counts"]["posts_with_the_same_image"] == [["1", "7"]]
    assert table.set_index("segment_id")["video_id"]["7"] == "1"
    assert manifest["found"] == 8


def test_mvsa_draws_splits_that_keep_equal_images_together(tmp_path: Path):
    posts = {str(k): ["positive,positive", "neutral,neutral"][k % 2] for k in range(1, 61)}
    source = write.mvsa(tmp_path / "MVSA_Single", posts)
    for k in range(31, 61):
        shutil.copy(source / f"data/{k - 30}.jpg", source / f"data/{k}.jpg")
    corpus, manifest = bring("mvsa-single", source, tmp_path, rule="agree-only", seed=3)
    table = corpus.table()
    assert (table.groupby("video_id")["split"].nunique() == 1).all()
    assert {s: len(rows) for s, rows in corpus.splits.items()} == {"train": 48, "valid": 8, "test": 4}
    assert "with seed 3" in manifest["notes"][0]


def test_mvsa_multiple_balanced(tmp_path: Path):
    votes = {"p": "positive,neutral", "n": "negative,neutral", "0": "neutral,positive"}
    texts = ["ppn"] * 12 + ["nnn"] * 9 + ["00p"] * 10 + ["p0n"]
    posts = {str(k): "\t".join(votes[v] for v in vote) for k, vote in enumerate(texts)}
    source = write.mvsa(tmp_path / "MVSA", posts)
    corpus, manifest = bring("mvsa-multiple", source, tmp_path, rule="text-majority-balanced", per_class=10)
    assert dict(corpus.table()["label"].value_counts()) == {0: 9, 1: 9, 2: 9}
    assert "9 posts a class kept, 10 expected" in manifest["warnings"][0]
    assert manifest["dropped"]["reasons"] == {
        "not drawn when balancing the classes": 4, "the annotators disagree on the text": 1,
    }  # fmt: skip
    first = set(corpus.table()["segment_id"])
    import_corpus("mvsa-multiple", source, tmp_path / "b", rule="text-majority-balanced", per_class=10)
    assert set(load_corpus(tmp_path / "b").table()["segment_id"]) == first


VOTES = [("positive", "neutral"), ("positive", "negative"), ("neutral", "negative")]
LABELS_OF_VOTES = {
    "agree-only": "", "majority-then-neutral-yields": "", "text-majority-balanced": "positive",
    "votes-majority-balanced": "", "majority-then-neutral-yields-balanced": "",
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES[3])
def test_every_rule_of_mvsa_multiple_counts_votes_in_its_own_way(rule: str):
    # The text is positive, the image negative, and no label is the most common of all six.
    assert combined(VOTES, rule)[0] == LABELS_OF_VOTES[rule]
    # Text positive, image neutral; all six: positive 3, neutral 2, negative 1.
    polar = [("positive", "neutral"), ("positive", "neutral"), ("negative", "positive")]
    expected = "" if rule == "agree-only" else "positive"
    assert combined(polar, rule)[0] == expected
    unanimous = [("negative", "negative")] * 3
    assert combined(unanimous, rule) == ("negative", "")


def test_the_rules_of_single_and_multiple_are_named():
    assert set(RULES[1]) == {"agree-only", "neutral-yields", "text-majority-balanced", "votes-majority-balanced"}
    assert set(RULES[3]) == set(LABELS_OF_VOTES)


@pytest.fixture(scope="module")
def large_mvsa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More posts than are kept; the images are no pictures, since to draw 3,736 of them would take long."""
    folder = tmp_path_factory.mktemp("large") / "MVSA"
    sizes = {"positive": 1300, "neutral": 1225, "negative": 1211}
    posts = {f"{name[:3]}{k}": f"\t{name},{name}" * 3 for name, size in sizes.items() for k in range(size)}
    lines = ["ID\ttext,image", *(f"{post}{cells}" for post, cells in posts.items())]
    write.blob(folder / "labelResultAll.txt", "\n".join(lines).encode())
    for post in posts:
        write.blob(folder / "data" / f"{post}.jpg", post.encode())
        write.blob(folder / "data" / f"{post}.txt", b"words")
    return folder


@pytest.mark.parametrize("rule", [rule for rule in RULES[3] if rule.endswith("-balanced")])
def test_balancing_keeps_1211_a_class(rule: str, large_mvsa: Path, monkeypatch: pytest.MonkeyPatch):
    from msakit.data.importers import mvsa

    monkeypatch.setattr(mvsa, "_corrupt", lambda path: None)
    draft = mvsa.read_multiple(large_mvsa, rule=rule)
    assert dict(draft.rows["label"].value_counts()) == {"positive": 1211, "neutral": 1211, "negative": 1211}
    assert draft.name == f"mvsa-multiple-{rule}"


def test_mvsa_keeps_the_label_of_each_modality_and_reads_any_encoding(tmp_path: Path):
    source = write.mvsa(tmp_path / "MVSA_Single", {str(k): "positive,neutral" for k in range(1, 7)})
    texts = {"1": "naïve ☕".encode(), "2": "na\xefve \x93so\x94".encode("latin-1"), "3": "naïve".encode("utf-16"),
             "4": b"\xef\xbb\xbfna\xc3\xafve", "5": b"na\xefve \x81"}  # fmt: skip
    for post, text in texts.items():
        write.blob(source / "data" / f"{post}.txt", text)
    corpus, manifest = bring("mvsa-single", source, tmp_path, rule="neutral-yields", splits={"train": list("123456")})
    table = corpus.table().set_index("segment_id")
    assert list(table["text"])[:5] == ["naïve ☕", "naïve “so”", "naïve", "naïve", "naïve \x81"]
    assert manifest["counts"]["files_not_utf8"] == {"cp1252": 1, "utf-16": 1, "latin-1": 1}
    assert set(table["text_label"]) == {"positive"}
    assert set(table["image_label"]) == {"neutral"}


@pytest.mark.parametrize("name", ["mvsa-single", "hateful-memes"])
def test_drawn_splits_are_saved_and_serve_another_import(name: str, tmp_path: Path):
    if name == "mvsa-single":
        posts = {str(k): ["positive,positive", "neutral,neutral"][k % 2] for k in range(40)}
        source, options = write.mvsa(tmp_path / "source", posts), {"rule": "agree-only"}
    else:
        source, options = write.memes(tmp_path / "source"), {"merged": True}
    first, _ = bring(name, source, tmp_path, seed=0, **options)
    split_of = first.table().set_index("segment_id")["split"]
    other = import_corpus(name, source, tmp_path / "other", seed=1, **options)
    assert other["kept"]["total"] == len(split_of)
    assert dict(load_corpus(tmp_path / "other").table().set_index("segment_id")["split"]) != dict(split_of)
    import_corpus(name, source, tmp_path / "same", seed=1, splits=first.folder / "segments.csv", **options)
    assert dict(load_corpus(tmp_path / "same").table().set_index("segment_id")["split"]) == dict(split_of)


def as_on_the_hub(source: Path, folder: Path, inline: bool) -> Path:
    """The published memes as parquet files that `datasets` loads."""
    from datasets import Dataset, Image

    for published, part in (("train", "train"), ("dev_seen", "validation"), ("test_seen", "test")):
        lines = [json.loads(line) for line in (source / f"{published}.jsonl").read_text().splitlines()]
        rows = {key: [line.get(key, -1) for line in lines] for key in ("id", "text", "label")}
        if inline:
            data = Dataset.from_dict(rows | {"image": [str(source / line["img"]) for line in lines]})
            data = data.cast_column("image", Image())
        else:
            data = Dataset.from_dict(rows | {"img": [line["img"] for line in lines]})
        (folder / "data").mkdir(parents=True, exist_ok=True)
        data.to_parquet(folder / "data" / f"{part}-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize("inline", [True, False])
def test_hateful_memes_through_datasets(inline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    published = write.memes(tmp_path / "published")
    hub = as_on_the_hub(published, tmp_path / "hub", inline)
    source = tmp_path / "source"
    source.mkdir()
    if not inline:
        shutil.copytree(published / "img", source / "img")
        write.image(source / "img/00001.png", 99)
    files = {"train": "train", "valid": "dev_seen"}
    corpus, manifest = bring("hateful-memes", source, tmp_path, hub=str(hub), files=files)
    assert {s: len(rows) for s, rows in corpus.splits.items()} == {"train": 20, "valid": 6}
    import_corpus("hateful-memes", published, tmp_path / "plain", files=files)
    plain = load_corpus(tmp_path / "plain").table()
    pd.testing.assert_frame_equal(corpus.table().drop(columns="image"), plain.drop(columns="image"))
    if inline:
        assert all(
            Path(a).read_bytes() == Path(b).read_bytes()
            for a, b in zip(corpus.table()["image"], plain["image"], strict=True)
        )
    assert any("fetched from" in note for note in manifest["notes"])
    assert all("label" not in json.loads(line) for line in (source / "test_seen.jsonl").read_text().splitlines())
    again = import_corpus("hateful-memes", source, tmp_path / "again", hub=str(hub), files=files)
    assert sum("was there already" in note for note in again["notes"]) == 3


def test_a_dataset_of_another_form_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "source").mkdir()
    datasets.Dataset.from_dict({"id": [1], "caption": ["x"]}).to_parquet(tmp_path / "hub/train.parquet")
    with pytest.raises(CorpusError, match="has the columns id, caption: id, text and image are needed"):
        import_corpus("hateful-memes", tmp_path / "source", tmp_path / "out", hub=str(tmp_path / "hub"))
    with pytest.raises(CorpusError, match="no-such-folder cannot be loaded"):
        import_corpus("hateful-memes", tmp_path / "source", tmp_path / "out", hub=str(tmp_path / "no-such-folder"))
    with pytest.raises(CorpusError, match="splits goes with merged"):
        import_corpus("hateful-memes", tmp_path / "source", tmp_path / "out", splits={"train": ["1"]})


def test_hateful_memes(tmp_path: Path):
    source = write.memes(tmp_path / "memes")
    corpus, manifest = bring("hateful-memes", source, tmp_path)
    assert {s: len(rows) for s, rows in corpus.splits.items()} == {"train": 20, "valid": 6, "test": 4}
    assert manifest["dropped"]["reasons"] == {"the meme is in an earlier file": 2}
    assert corpus.task.classes == ["harmless", "hateful"]
    assert list(corpus.table()["label"][:2]) == [1, 0]
    assert Path(corpus.table()["image"][0]) == source / "img/00001.png"


def test_memes_with_one_image_are_one_group(tmp_path: Path):
    source = write.memes(tmp_path / "memes")
    shutil.copy(source / "img/00003.png", source / "img/00021.png")
    table = bring("hateful-memes", source, tmp_path)[0].table().set_index("segment_id")
    assert (table.loc["21", "video_id"], table.loc["3", "video_id"], table.loc["22", "video_id"]) == ("3", "3", "22")
    merged = import_corpus("hateful-memes", source, tmp_path / "merged", merged=True)["kept_segments"]
    assert any({"3", "21"} <= set(ids) for ids in merged.values())


def test_hateful_memes_merged(tmp_path: Path):
    corpus, _ = bring("hateful-memes", write.memes(tmp_path / "memes"), tmp_path, merged=True)
    assert {s: len(rows) for s, rows in corpus.splits.items()} == {"train": 20, "valid": 4, "test": 2}


def test_unlabelled_memes_are_left_out_with_a_reason(tmp_path: Path):
    source = write.memes(tmp_path / "memes")
    files = {"train": "train", "valid": "dev_seen", "test": "test_seen"}
    with pytest.raises(KeyError):
        bring("hateful-memes", source, tmp_path, files=files)[0].splits["test"]
    manifest = json.loads((tmp_path / "out/hateful-memes/manifest.json").read_text())
    assert manifest["dropped"]["reasons"] == {"label '' is not a class": 4}


# --- bad inputs ------------------------------------------------------------------------------------------------------


def _spoilt_mmsa(tmp_path: Path, spoil: Any) -> Path:
    content = write.mmsa()
    spoil(content)
    return write.dump(tmp_path / "bad.pkl", content)


BAD = {
    "no such file": ("mmsa", lambda p: p / "none.pkl", {}, r"nothing at .*none\.pkl: check the path"),
    "a folder for a pickle": ("mmsa", lambda p: p, {}, "cannot read .*give the path of the pickle"),
    "hostile": (
        "mag", lambda p: write.blob(p / "bad.pkl", pickle.dumps(print)), {},
        r"bad\.pkl: the pickle asks for builtins\.print",
    ),
    "an archive": ("mult", lambda p: write.blob(p / "bad.pkl", b"PK\x03\x04"), {}, r"bad\.pkl is a zip archive"),
    "cut off": ("mult", lambda p: write.blob(p / "bad.pkl", b"\x80\x04]"), {}, r"bad\.pkl is not a readable pickle"),
    "another dictionary": ("mmsa", lambda p: write.dump(p / "bad.pkl", {"x": 1}), {}, "no train, valid, test .*keys x"),
    "mult given to mmsa": ("mmsa", lambda p: write.dump(p / "bad.pkl", write.mult()), {}, "try the importer 'mult'"),
    "mmsa given to mult": ("mult", lambda p: write.dump(p / "bad.pkl", write.mmsa()), {}, "lacks labels"),
    "mag given to mmsa": ("mmsa", lambda p: write.dump(p / "bad.pkl", write.mag()), {}, "has no valid"),
    "rows that do not fit": (
        "mmsa", lambda p: _spoilt_mmsa(p, lambda c: c["train"].update(audio=c["train"]["audio"][:2])), {},
        r"bad\.pkl \['train'\]: audio has 2 rows but id has 4",
    ),
    "lengths that do not fit": (
        "mmsa", lambda p: _spoilt_mmsa(p, lambda c: c["valid"].update(audio_lengths=[1])), {},
        "1 entries for 2 segments",
    ),
    "widths that differ": (
        "mmsa", lambda p: _spoilt_mmsa(p, lambda c: c["test"].update(vision=np.ones((3, 13, 9)))), {},
        r"vision: the splits differ in width",
    ),
    "texts for numbers": (
        "mmsa", lambda p: _spoilt_mmsa(p, lambda c: c["test"].update(vision=np.array(["a"] * 3))), {}, "not numbers",
    ),
    "no usable label": (
        "mmsa", lambda p: _spoilt_mmsa(p, lambda c: [s.update(regression_labels=s["regression_labels"] + 9)
                                                    for s in c.values()]), {}, r"no segment .* label 8\.0 is outside",
    ),
    "a mag example": (
        "mag", lambda p: write.dump(p / "b.pkl", {"train": [1], "dev": [], "test": []}), {}, r"\['train'\]\[0\] is not",
    ),
    "csd that is none": (
        "csd", lambda p: write.blob(p / "c/x.csd").parent, {"splits": write.FOLDS}, r"x\.csd is not a readable \.csd",
    ),
    "csd without labels": (
        "csd", lambda p: write.csd(write.blob(p / "c/y").parent / "x.csd", "root", {}).parent, {"splits": write.FOLDS},
        "x.csd has no /<root>/data|with the root",
    ),
    "csd of other folds": (
        "csd", lambda p: write.csd_folder(p / "c"), {"splits": {"train": ["zz"]}}, "no video of .* in the splits",
    ),
    "folds that overlap": (
        "csd", lambda p: write.csd_folder(p / "c"), {"splits": {"train": ["va"], "test": ["va"]}},
        "'va' is in train and",
    ),
    "two audio files": (
        "csd", lambda p: shutil.copy(write.csd_folder(p / "c") / "X_COVAREP.csd", p / "c/X_OpenSmile.csd").parent,
        {"splits": write.FOLDS}, "two files for audio",
    ),
    "words of no file": (
        "csd", lambda p: write.csd_without_words(p / "c"), {"splits": write.FOLDS, "align": "words"},
        "no file of timestamped words, which align='words' needs",
    ),
    "an unknown alignment": (
        "csd", lambda p: write.csd_folder(p / "c"), {"splits": write.FOLDS, "align": "word"},
        "choose 'steps' or 'words'",
    ),
    "ando without the kind": ("ando", lambda p: write.ando(p / "a"), {"kind": "x"}, r"\['pretrained'\]\): pass kind"),
    "ando layer": ("ando", lambda p: write.ando(p / "a"), {"layers": 7}, r"layers 0 to 2, not 7"),
    "raw without labels": ("mosi-raw", lambda p: write.mosi_raw(p / "r"), {"labels": "none.csd"}, "no label file at"),
    "raw of another corpus": (
        "mosei-raw", lambda p: write.mosi_raw(p / "r"), {"labels": "x.csv"}, "holds no Transcript/Segmented/Combined",
    ),
    "meld without a table": (
        "meld", lambda p: write.blob(p / "m/train_sent_emo.csv", b"Utterance\n").parent, {}, "the columns Speaker",
    ),
    "sims without mode": (
        "ch-sims", lambda p: write.blob(p / "s/label.csv", b"video_id,clip_id,text,label\n").parent, {}, "column mode",
    ),
    "unknown rule": (
        "mvsa-single", lambda p: write.mvsa(p / "m", POSTS), {"rule": "majority-then-neutral-yields"},
        "for mvsa-single choose one of agree-only, neutral-yields",
    ),
    "Multiple as Single": (
        "mvsa-multiple", lambda p: write.mvsa(p / "m", POSTS), {"rule": "agree-only"}, r"labelResultAll\.txt line 2 is",
    ),
    "a line that is no meme": (
        "hateful-memes", lambda p: write.blob(p / "h/train.jsonl", b'{"id": 1}\n').parent, {},
        r"train\.jsonl line 1 is not",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_sources_give_one_clear_message_and_no_folder(case: str, tmp_path: Path):
    importer, make, options, message = BAD[case]
    source = make(tmp_path)
    out = tmp_path / "made" / "corpus"
    with pytest.raises(CorpusError, match=message):
        import_corpus(importer, source, out, **options)
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_unknown_names_and_options_list_the_choices(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"no importer 'mosiraw': choose one of mmsa, mult, .* Did you mean 'mosi-raw'\?"
    ):
        import_corpus("mosiraw", tmp_path, tmp_path / "o")
    with pytest.raises(ValueError, match=r"no option 'rules': it has rule, .* Did you mean 'rule'\?"):
        import_corpus("mvsa-single", tmp_path, tmp_path / "o", rules="agree-only")


def test_needed_options_are_asked_for(tmp_path: Path):
    with pytest.raises(ValueError, match=r"importer 'csd' needs splits: see the text of msakit\.data\.importers\.csd"):
        import_corpus("csd", tmp_path, tmp_path / "o")


def test_tables_do_not_lead_out_of_their_folder(tmp_path: Path):
    secret = write.image(tmp_path / "secret.png", 1)
    line = {"id": 1, "img": "../secret.png", "text": "x", "label": 1}
    source = write.blob(tmp_path / "memes/train.jsonl", json.dumps(line).encode()).parent
    for image in ("../secret.png", str(secret)):
        (source / "train.jsonl").write_text(json.dumps(line | {"img": image}))
        with pytest.raises(CorpusError, match=r"secret\.png', which is outside that folder"):
            import_corpus("hateful-memes", source, tmp_path / "o", files={"train": "train"})


def test_texts_that_no_file_could_hold_are_mended(tmp_path: Path):
    content = write.mmsa()
    content["train"]["raw_text"] = ["a\ud800b", "a\0b\r\nc", "=x", '"']
    corpus, _ = bring("mmsa", write.dump(tmp_path / "x.pkl", content), tmp_path)
    assert list(corpus.table()["text"][:4]) == ["a?b", "a b c", "=x", '"']


def test_the_list_of_importers_loads_nothing_heavy():
    code = "import sys, msakit.data.importers; print(*{'numpy', 'pandas', 'h5py', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_no_folder_is_overwritten(tmp_path: Path):
    source = write.dump(tmp_path / "x.pkl", write.mult())
    for out in (tmp_path, tmp_path / "x.pkl"):
        with pytest.raises(CorpusError, match="exists already: choose another folder, or remove it"):
            import_corpus("mult", source, out)


def test_every_format_is_tested_here():
    text = Path(__file__).read_text()
    assert len(IMPORTERS) == 12
    assert all(f'bring("{name}"' in text for name in IMPORTERS)
