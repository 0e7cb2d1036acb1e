"""Every way in which a folder can be wrong has a message that names the place and the mend; good folders load whole."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from msakit.data.corpus import CorpusError, Task, load_corpus

Write = Callable[..., Path]


def test_good_folder(write: Write) -> None:
    corpus = load_corpus(write())
    assert corpus.name == "hand-made"
    assert not corpus.generated
    assert corpus.task == Task(kind="regression", low=-3.0, high=3.0)
    assert {s: len(d) for s, d in corpus.splits.items()} == {"train": 2, "valid": 2, "test": 2}
    assert corpus.splits["train"][0]["label"] == 1.5
    assert corpus.words() is None
    assert corpus.oracle() is None
    assert corpus.features() is None


def test_texts_and_ids_that_look_like_something_else_survive(write: Write) -> None:
    folder = write({0: {"text": "null", "segment_id": "007"}, 1: {"text": "NA"}})
    table = load_corpus(folder).table()
    assert table["text"].tolist()[:2] == ["null", "NA"]
    assert table["segment_id"][0] == "007"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"label": "7"}, ["row 4", "segment v2_1", "7 is outside [-3, 3]", "corpus.json"]),
        ({"label": "nan"}, ["row 4", "segment v2_1", "'nan' is not a number", "split pool"]),
        ({"label": ""}, ["row 4", "'' is not a number"]),
        ({"label": "inf"}, ["row 4", "outside [-3, 3]"]),
        ({"video_id": ""}, ["row 4", "the video_id is empty", "repeat the segment_id"]),
        ({"text": "  "}, ["row 4", "segment v2_1", "the text is empty", "fill in"]),
        ({"split": "dev"}, ["row 4", "unknown split 'dev'", "train, valid, test, pool"]),
        ({"split": "pool"}, ["row 4", "'1.5' in the unlabelled split pool", "empty the label"]),
        ({"audio": "a/b.wav"}, ["row 4", "audio file 'a/b.wav' is missing", "put the file at", "hand-made/a/b.wav"]),
        ({"video": "b.mp4"}, ["row 4", "video file 'b.mp4' is missing"]),
        ({"image": "b.png"}, ["row 4", "image file 'b.png' is missing"]),
    ],
)
def test_bad_rows_are_refused(write: Write, change: dict[str, str], parts: list[str]) -> None:
    with pytest.raises(CorpusError) as caught:
        load_corpus(write({2: change}))
    for part in ["segments.csv", "0 more rows are bad", *parts]:
        assert part in str(caught.value)


def test_the_other_bad_rows_are_counted(write: Write) -> None:
    with pytest.raises(CorpusError, match=r"row 3 .* 2 more rows are bad"):
        load_corpus(write({1: {"label": "9"}, 3: {"label": "-9"}, 4: {"text": ""}}))


def test_blank_lines_do_not_shift_the_row_numbers(write: Write) -> None:
    folder = write(extra="\nv9_1,v9,1,test,8,so bad\n")
    with pytest.raises(CorpusError, match="row 9 "):  # header, six rows, a blank line, the bad one
        load_corpus(folder)


def test_a_broken_structure_is_refused(write: Write, tmp_path: Path) -> None:
    def fails(folder: Path, *parts: str) -> None:
        with pytest.raises(CorpusError) as caught:
            load_corpus(folder)
        for part in parts:
            assert part in str(caught.value)

    fails(tmp_path / "nowhere", "no corpus folder", "nowhere")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "empty has no segments.csv", "segment_id, video_id")
    fails(write(drop=("label",)), "lacks the column label", "segment_id, video_id", "add or rename")
    fails(write(drop=("label", "text")), "lacks the columns label, text")
    fails(write({3: {"segment_id": "v1_2"}}), "row 5", "'v1_2' is already used in row 3")
    fails(write({3: {"segment_id": ""}}), "row 5", "empty segment_id")
    fails(write(extra="v9,v9,1,test,1,too,many,cells\n"), "not a readable csv", "double quotes")
    folder = write()
    (folder / "segments.csv").write_bytes("segment_id,text\n1,caf\xe9".encode("latin-1"))
    fails(folder, "not UTF-8")
    (folder / "segments.csv").write_text("")
    fails(folder, "is empty")
    (folder / "segments.csv").write_text("segment_id,video_id,clip_id,split,label,text\n")
    fails(folder, "a header but no rows")
    folder = write()
    for content in ("{", '{"task": {"kind": "ranking"}}', '{"task": {"kinds": 1}}', "[]",
                    '{"task": {"kind": "classification", "classes": ["a"]}}', '{"generated": "false"}',
                    '{"task": {"low": "-3"}}'):  # fmt: skip
        (folder / "corpus.json").write_text(content)
        fails(folder, "corpus.json is not usable")


def test_a_misspelt_field_of_the_task_names_the_nearest_and_the_owner_may_add_others(write: Write) -> None:
    folder = write()
    (folder / "corpus.json").write_text('{"task": {"lows": -3}, "homepage": "x"}')
    with pytest.raises(CorpusError, match=r"no field 'task.lows': .* Did you mean 'low'\?"):
        load_corpus(folder)
    (folder / "corpus.json").write_text('{"task": {"low": -3}, "homepage": "x"}')
    assert load_corpus(folder).task == Task()


def test_classes(write: Write) -> None:
    folder = write({n: {"label": "bad" if n % 2 else "good"} for n in range(6)})
    (folder / "corpus.json").write_text(json.dumps({"task": {"kind": "classification", "classes": ["bad", "good"]}}))
    corpus = load_corpus(folder)
    assert corpus.splits["test"]["label"][:] == [1, 0]
    assert corpus.table()["label"].dtype == np.int64
    write({0: {"label": "Good"}, **{n: {"label": "bad"} for n in range(1, 6)}})
    with pytest.raises(CorpusError, match=r"row 2 .*'Good' is not a class: use one of bad, good"):
        load_corpus(folder)


def test_stated_range(write: Write) -> None:
    folder = write({0: {"label": "7"}})
    (folder / "corpus.json").write_text(json.dumps({"name": "n", "task": {"kind": "regression", "low": 0, "high": 10}}))
    corpus = load_corpus(folder)
    assert corpus.name == "n"
    assert corpus.table()["label"][0] == 7.0


def test_video_in_two_splits_warns(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_corpus(write())
        assert caplog.text == ""
        load_corpus(write({2: {"video_id": "v1"}}))
    assert re.search(r"1 video_id\(s\) occur in more than one split, first 'v1' in train and valid", caplog.text)


def test_features_follow_the_table(write: Write) -> None:
    folder = write()
    ids = ["v3_2", "v3_1", "elsewhere", "v2_2", "v2_1", "v1_2", "v1_1"]
    np.savez(folder / "features.npz", segment_id=ids, audio=np.arange(14.0).reshape(7, 2))
    features = load_corpus(folder).features()
    assert features is not None
    assert features["audio"][:, 0].tolist() == [12, 10, 8, 6, 2, 0]  # reversed, without the segment that is not there
    np.savez(folder / "features.npz", segment_id=ids[:5], audio=np.zeros((6, 2)))
    with pytest.raises(CorpusError, match="'audio' has 6 rows but 'segment_id' has 5"):
        load_corpus(folder).features()
    np.savez(folder / "features.npz", segment_id=ids[:6], audio=np.zeros((6, 2)))
    with pytest.raises(CorpusError, match=r"lacks 1 segments .*'v1_1'"):
        load_corpus(folder).features()
    np.savez(folder / "features.npz", audio=np.zeros((4, 2)))
    with pytest.raises(CorpusError, match="no array 'segment_id'"):
        load_corpus(folder).features()


def test_words_are_checked(write: Write) -> None:
    folder = write()
    head = "segment_id,word_index,word,start,end\n"
    (folder / "words.csv").write_text(head + "v1_1,0,null,0.1,0.4\nv1_1,1,good,0.4,0.9\nelsewhere,0,x,0,1\n")
    words = load_corpus(folder).words()
    assert words is not None
    assert words["word"].tolist() == ["null", "good"]
    assert words["end"].tolist() == [0.4, 0.9]
    (folder / "words.csv").write_text(head + "v1_1,0,good,early,0.4\n")
    with pytest.raises(CorpusError, match=r"words.csv: start of segment 'v1_1' is 'early': write a number"):
        load_corpus(folder).words()
    (folder / "words.csv").write_text(head + "v1_1,0,good,0.5,0.4\n")
    with pytest.raises(CorpusError, match=r"words.csv: word 0 of segment 'v1_1' ends at 0.4 s, before it begins"):
        load_corpus(folder).words()
    (folder / "words.csv").write_text("segment_id,word\nv1_1,good\n")
    with pytest.raises(CorpusError, match="lacks the columns word_index, start, end"):
        load_corpus(folder).words()


def test_fingerprint_follows_content_not_place(write: Write, tmp_path: Path) -> None:
    folder = write({0: {"audio": "a.wav"}})
    (folder / "a.wav").write_bytes(b"one")
    first = load_corpus(folder).fingerprint
    moved = folder.rename(tmp_path / "moved")
    assert load_corpus(moved).fingerprint == first
    (moved / "a.wav").write_bytes(b"two")
    assert load_corpus(moved).fingerprint != first
    (moved / "a.wav").write_bytes(b"one")
    (moved / "segments.csv").write_text((moved / "segments.csv").read_text().replace("so good", "so fine"))
    assert load_corpus(moved).fingerprint != first
