"""The generated corpora as folders: schema, equal bytes on every run, media that decode, disjoint speakers, pools."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from small_corpora import SMALL, make

from msakit.data import CORPORA, open_corpus
from msakit.data.corpus import load_corpus
from msakit.data.faces import find_faces
from msakit.data.media import read_audio, read_frames, read_image
from msakit.data.synthetic import mini_memes, mini_mosi, mini_pool_posts, mini_posts
from msakit.data.synthetic.mosi_model import TONE_GAIN, sample_segments

LABELLED = ("mini-mosi", "mini-posts", "mini-memes")
POOLS = ("mini-pool-mosi", "mini-pool-posts")


def test_every_corpus_is_tested() -> None:
    assert set(CORPORA) == {*LABELLED, *POOLS} == set(SMALL)


@pytest.mark.parametrize("name", LABELLED)
def test_labelled_corpora_load(small: dict[str, Path], name: str) -> None:
    corpus = load_corpus(small[name])
    assert corpus.name == name
    assert corpus.generated
    assert {s: len(d) for s, d in corpus.splits.items()} == {"train": 12, "valid": 4, "test": 8}
    oracle, table = corpus.oracle(), corpus.table()
    assert oracle is not None
    assert oracle["segment_id"].tolist() == table["segment_id"].tolist()
    if corpus.task.kind == "regression":
        assert table["label"].between(-3, 3).all()
        assert {"prediction", "prediction_text", "prediction_audio", "prediction_vision"} < set(oracle.columns)
        assert set(table["kind"]) <= {"plain", "ambiguous", "sarcastic"}
    else:
        p = oracle[[f"p_{c}" for c in corpus.task.classes]].to_numpy()
        assert p.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
        assert table["label"].isin(range(len(corpus.task.classes))).all()


@pytest.mark.parametrize("name", POOLS)
def test_pools_hold_no_labels(small: dict[str, Path], name: str) -> None:
    corpus = load_corpus(small[name])
    table = corpus.table()
    assert set(corpus.splits) == {"pool"}
    assert table["label"].isna().all()
    assert not {"kind", "text_label", "image_label", "text_polarity", "image_polarity"} & set(table.columns)
    assert corpus.oracle() is None
    documents = (small[name] / "texts.txt").read_text().strip().split("\n\n")
    assert [len(document.splitlines()) for document in documents] == [2] * 20


def test_captions_name_what_is_drawn(small: dict[str, Path]) -> None:
    table = load_corpus(small["mini-pool-posts"]).table()
    scenes, faces = table[table["object"] != "face"], table[table["object"] == "face"]
    assert (len(scenes), len(faces)) == (12, 6)
    assert all(thing in caption for thing, caption in zip(scenes["object"], scenes["caption"], strict=True))
    assert scenes["caption"].str.contains("light|picture").all()
    assert scenes["caption"].str.contains("face").all()
    assert faces["caption"].str.contains("brows").all()
    assert {read_image(p).size for p in scenes["image"]} == {(96, 96)}
    assert {read_image(p).size for p in faces["image"]} == {(128, 128)}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_two_runs_give_equal_bytes(small: dict[str, Path], tmp_path: Path, name: str) -> None:
    again = make(name, tmp_path / "again")
    files = sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(small[name]) for p in small[name].rglob("*") if p.is_file())
    assert [f for f in files if (again / f).read_bytes() != (small[name] / f).read_bytes()] == []
    other = make(name, tmp_path / "other", seed=1)
    assert (other / "segments.csv").read_bytes() != (again / "segments.csv").read_bytes()


def test_mosi_media_agree_with_the_words(small: dict[str, Path]) -> None:
    corpus = load_corpus(small["mini-mosi"])
    words = corpus.words()
    assert words is not None
    spoken = words.groupby("segment_id")["word"].agg(" ".join)
    found: list[bool] = []
    for row in corpus.table().itertuples():
        assert spoken[row.segment_id] == row.text
        timing = words[words["segment_id"] == row.segment_id]
        assert (timing["end"] > timing["start"]).all()
        assert (timing["start"].to_numpy()[1:] >= timing["end"].to_numpy()[:-1]).all()
        sound = read_audio(row.audio)
        assert 0 < len(sound) / 16000 - timing["end"].max() < 0.2
        assert 1.0 < len(sound) / 16000 < 5.5
        frames, _ = read_frames(row.video, fps=6)
        assert frames.shape[1:] == (128, 128, 3)
        assert len(frames) / 6 == pytest.approx(len(sound) / 16000, abs=0.3)
        assert len(read_frames(row.video, fps=3)[0]) == (len(frames) + 1) // 2
        found += find_faces(frames[::4], 64)[1].tolist()
    assert len(found) >= 60
    assert np.mean(found) >= 0.95


def test_sound_carries_the_tone(small: dict[str, Path]) -> None:
    segments = {s.segment_id: s for split, n in SMALL["mini-mosi"].items() for s in sample_segments(split, n, seed=0)}
    corpus = load_corpus(small["mini-mosi"])
    words = corpus.words()
    assert words is not None
    given, heard = [], []
    for row in corpus.table().itertuples():
        sound, segment = read_audio(row.audio), segments[row.segment_id]
        timing = words[words["segment_id"] == row.segment_id]
        for k, (start, end) in enumerate(zip(timing["start"], timing["end"], strict=True)):
            piece = sound[int(start * 16000) : int(end * 16000)]
            heard.append(20 * np.log10(np.sqrt(np.mean(piece**2))) - segment.speaker.voice.level)
            given.append(TONE_GAIN[2] * segment.tone[k, 2])
    assert np.corrcoef(given, heard)[0, 1] > 0.98
    assert np.polyfit(given, heard, 1)[0] == pytest.approx(1.0, abs=0.05)


def test_speakers_keep_to_one_split_and_to_one_corpus(small: dict[str, Path]) -> None:
    speakers: dict[str, set[str]] = {}
    looks: dict[str, object] = {}
    for split, corpus, code in (("train", "mm", 1), ("valid", "mm", 1), ("test", "mm", 1), ("pool", "pm", 4)):
        segments = sample_segments(split, 60, 0, corpus=corpus, corpus_code=code)
        speakers[split] = {s.video_id for s in segments}
        counts = np.unique([s.video_id for s in segments], return_counts=True)[1]
        assert len(counts) >= 5
        assert counts.max() <= 12
        for segment in segments:
            looks[segment.video_id] = segment.speaker
    assert len(set.union(*speakers.values())) == sum(map(len, speakers.values()))
    assert len(set(looks.values())) == len(looks)
    tables = [load_corpus(small[n]).table() for n in ("mini-mosi", "mini-pool-mosi")]
    assert not set(tables[0]["video_id"]) & set(tables[1]["video_id"])
    homes = tables[0].groupby("video_id")["split"].nunique()
    assert (homes == 1).all()


@pytest.mark.parametrize("name", POOLS)
def test_a_pool_states_how_many_test_texts_recur_in_it(small: dict[str, Path], name: str) -> None:
    """Of the labelled corpora's whole test splits, by the seed alone; nothing is rendered."""
    test = {
        "mini-mosi": [" ".join(segment.words) for segment in sample_segments("test", mini_mosi.SIZES["test"], 0)],
        "mini-posts": [post.text for post in mini_posts.sample_posts("test", mini_posts.SIZES["test"], 0)],
        "mini-memes": [meme.text for meme in mini_memes.sample_memes("test", mini_memes.SIZES["test"], 0)],
    }
    of = ("mini-mosi",) if name == "mini-pool-mosi" else ("mini-posts", "mini-memes")
    pool = {*load_corpus(small[name]).table()["text"], *(small[name] / "texts.txt").read_text().splitlines()}
    stated = json.loads((small[name] / "corpus.json").read_text())["description"]
    for corpus in of:
        count = sum(text in pool for text in test[corpus])
        assert f"{count} of {len(test[corpus])} test texts of {corpus} recur" in stated


def test_many_memes_recur_in_the_whole_pool() -> None:
    documents = mini_pool_posts._documents(mini_pool_posts.SIZES["texts"] // 2, seed=0)
    pool = {line for document in documents for line in document}
    memes = [meme.text for meme in mini_memes.sample_memes("test", mini_memes.SIZES["test"], 0)]
    assert sum(text in pool for text in memes) == 178


def test_pools_share_no_media_with_the_corpora(small: dict[str, Path]) -> None:
    seen: dict[bytes, str] = {}
    for name, folder in small.items():
        for path in [*folder.rglob("*.png"), *folder.rglob("*.wav"), *folder.rglob("*.mp4")]:
            content = path.read_bytes()
            assert seen.setdefault(content, name) == name
    assert len(seen) == 2 * 24 + 2 * 24 + 2 * 6 + 12 + 6  # wav and mp4 of mini-mosi and its pool, pictures of the rest


def test_smaller_sizes_are_beginnings_of_larger_ones() -> None:
    few, more = (sample_segments("train", n, 0) for n in (5, 15))
    assert [s.words for s in few] == [s.words for s in more[:5]]


def test_open_corpus_generates_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def generate(folder: Path, seed: int = 0, sizes: dict[str, int] | None = None) -> None:
        calls.append(folder)
        from msakit.data.synthetic.mini_memes import generate as real

        real(folder, seed, SMALL["mini-memes"])

    monkeypatch.setattr("msakit.data.test_only_generate", generate, raising=False)
    monkeypatch.setitem(CORPORA, "mini-memes", "msakit.data:test_only_generate")
    first = open_corpus("mini-memes", tmp_path)
    second = open_corpus("mini-memes", tmp_path)
    assert first.fingerprint == second.fingerprint
    assert len(calls) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["mini-memes"]
    assert open_corpus(tmp_path / "mini-memes", tmp_path).fingerprint == first.fingerprint


def test_a_failed_generation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(folder: Path, seed: int = 0, sizes: dict[str, int] | None = None) -> None:
        (folder / "segments.csv").write_text("half of it")
        raise OSError("disk full")

    monkeypatch.setattr("msakit.data.test_only_generate", generate, raising=False)
    monkeypatch.setitem(CORPORA, "mini-posts", "msakit.data:test_only_generate")
    with pytest.raises(OSError, match="disk full"):
        open_corpus("mini-posts", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no corpus 'mini-mossi'.*mini-mosi, mini-posts.*Did you mean 'mini-mosi'"):
        open_corpus("mini-mossi", tmp_path)
    with pytest.raises(ValueError, match="give one or more of train, valid, test"):
        make("mini-memes", tmp_path / "m", sizes={"training": 5})
    with pytest.raises(ValueError, match="each 1 or more"):
        make("mini-mosi", tmp_path / "n", sizes={"train": 0})


def test_description_says_generated(small: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    for name, folder in small.items():
        content = json.loads((folder / "corpus.json").read_text())
        assert content["generated"] is True
        assert content["name"] == name
        assert "enerated" in content["description"]
        assert (folder / "README.md").read_text().startswith(f"# {name}\n\n{content['description']}")
    with caplog.at_level(logging.WARNING):
        for folder in small.values():
            load_corpus(folder)
    assert caplog.text == ""
