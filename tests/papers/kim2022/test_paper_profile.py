"""The paper profile of Kim & Kim, every arm, on stand-ins: the published layouts, a small random BERT, one epoch.

Read from the profile as it is; only paths and sizes are replaced.
"""

import pickle
from pathlib import Path
from typing import Any

import h5py
import nbformat
import numpy as np
import pytest
import torch
import yaml
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from msakit.data.corpus import CorpusError, load_corpus
from msakit.data.importers import import_corpus
from msakit.encoders.pretrain.common import word_pieces
from msakit.papers import facts
from msakit.papers.kim2022.inputs import prepare
from msakit.papers.kim2022.recipe import recipe as kim2022
from msakit.papers.kim2022.words import Stored, equal_parts, in_parts, on_words, open_source, spoken
from msakit.runs.record import read_all

ROOT = Path(__file__).parents[2]
WORDS = ["so", "this", "movie", "was", "really", "not", "bad", "wonderful", "um", "i", "would", "recommend", "it"]
SIZES = {"train": 8, "dev": 4, "test": 5}
WIDTHS = {"mag-mosi": {"vision": 47, "audio": 74}, "mag-mosei": {"vision": 35, "audio": 74}}
# What the notebook does before it tabulates: corpora, sources, runs.
RUN_CELLS = ("cell-05", "cell-06", "cell-08")


def mag_pickle(path: Path, widths: dict[str, int]) -> Path:
    """Lists of ((words, visual, acoustic), label, segment); some words without a face, one segment of one word."""
    random, content = np.random.default_rng(len(path.name)), {}
    for split, count in SIZES.items():
        content[split] = []
        for k in range(count):
            words = list(random.choice(WORDS, 1 if k == 1 else random.integers(4, 9)))
            vision, audio = (random.normal(size=(len(words), widths[name])) for name in ("vision", "audio"))
            vision[0] = 0
            label = np.array([[round(random.uniform(-3, 3), 1)]])
            content[split].append(((words, vision, audio), label, f"{split}video{k // 2}[{k}]"))
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.fixture(scope="module")
def profile() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "workflow/profiles/paper.yaml").read_text())["notebooks"]["kim2022"]["parameters"]


@pytest.fixture(scope="module")
def standins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mag-mosi and mag-mosei as imported, and bert-base-uncased, small and random."""
    folder = tmp_path_factory.mktemp("stand-ins")
    for name, widths in WIDTHS.items():
        import_corpus("mag", mag_pickle(folder / f"{name}.pkl", widths), folder / name, name=name)
    torch.manual_seed(0)
    tokenizer = word_pieces([" ".join(WORDS)] * 3, 120, 64)
    config = BertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=16, num_hidden_layers=3,
                        vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.5)  # fmt: skip
    for part in (BertModel(config), tokenizer):
        part.save_pretrained(folder / "bert-base-uncased")
    return folder


def test_the_profile_asks_for_the_published_setup(profile):
    given = kim2022.Settings(**profile["settings"])
    assert given == kim2022.Settings(epochs=40, batch_size=48, learning_rate=1e-5, weight_decay=0.01, warmup=0.1,
                                     max_tokens=50, beta=1.0, shift_dropout=0.5)  # fmt: skip
    assert len(set(profile["seeds"])) >= 10
    assert profile["text_encoder"] == "bert-base-uncased"
    assert [Path(name).name for name in profile["corpora"]] == list(WIDTHS)
    assert not set(profile["arms"]) - set(facts("kim2022")["arms"])


# The second corpus differs in one width only: what reads it is tried on these.
FEW = ["text-only", "mag", "cms-clr-smooth-ema"]


def test_every_arm_of_the_profile_runs_end_to_end(profile, standins, tmp_path):
    notebook = nbformat.read(ROOT / "notebooks/experiments/kim2022.ipynb", as_version=4)
    cells = {cell.id: cell.source for cell in notebook.cells}
    every = profile["arms"] or list(facts("kim2022")["arms"])
    wanted = {Path(profile["corpora"][0]).name: every, Path(profile["corpora"][1]).name: FEW}
    for corpus, arms in wanted.items():
        parameters = profile | {
            "corpora": [str(standins / corpus)],
            "text_encoder": str(standins / profile["text_encoder"]),
            "arms": arms,
            "seeds": profile["seeds"][:1],
            "settings": profile["settings"] | {"epochs": 1, "batch_size": 4, "projection": 4},
            "cache": str(tmp_path),
            "features": str(tmp_path),
            "results": str(tmp_path / "results"),
        }
        for name in RUN_CELLS:
            exec(cells[name], parameters)
    runs = read_all(tmp_path / "results" / "runs")
    for corpus, arms in wanted.items():
        assert sorted(runs.select(corpus=corpus).frame["arm"]) == sorted(["constant", *arms])
    for run in runs.select(arm=every):
        assert len(run.record.history) == 1
        table = runs.predictions(run)
        assert table["prediction"].notna().all()
        assert (table["split"] == "test").sum() == SIZES["test"]
        # Words of a real corpus are not published.
        assert "shifts" not in run.record.artifacts
    # Two steps at the published rate move little, but not nothing.
    apart = ["text-only", "mag", "mag-wide", "cms", "cms-clr", "cms-shuffled", "cms.soft", "cms.layer-2"]
    assert runs.select(corpus="mag-mosi", arm=apart).scores("mae")["value"].nunique() == len(apart)


def test_words_of_mag_pickles_keep_their_rows(standins):
    corpus = load_corpus(standins / "mag-mosi")
    with (standins / "mag-mosi.pkl").open("rb") as file:
        content = pickle.load(file)
    source = open_source(corpus, {"array": "vision", "level": "word"}, standins)
    words = spoken(corpus)
    found = on_words(corpus, "vision", source, words)
    rows = [example for split in SIZES for example in content[split]]
    for segment, ((listed, vision, _), _, _) in zip(corpus.table()["segment_id"], rows, strict=True):
        assert words[segment] == list(listed)
        np.testing.assert_allclose(found[segment], vision, rtol=1e-5)
        assert not found[segment][0].any()  # a word without a face stays where it is
    pieces = prepare(corpus, str(standins / "bert-base-uncased"), {"vision": source}, 50)["train"]
    longest = max(range(SIZES["train"]), key=lambda k: len(pieces.words[k]))
    on_tokens = pieces.on_pieces()["vision"][longest]
    assert not on_tokens[[0, -1]].any()
    assert len(on_tokens) == len(pieces.token_ids[longest]) >= len(pieces.words[longest]) + 2


def csd_file(path: Path, root: str, content: dict[str, tuple[Any, Any]]) -> None:
    with h5py.File(path, "w") as file:
        for video, (features, intervals) in content.items():
            group = file.create_group(f"{root}/data/{video}")
            group.create_dataset("features", data=features)
            group.create_dataset("intervals", data=np.asarray(intervals, np.float64))


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """.csd files: one segment of four seconds a video, three words and a pause; the value of a frame is its time."""
    folder = tmp_path_factory.mktemp("csd")
    videos = ("va", "vb", "vc")
    csd_file(folder / "labels.csd", "Opinion Segment Labels", {v: (np.array([[1.2]]), [[0.0, 4.0]]) for v in videos})
    words = np.array([[b"really"], [b"sp"], [b"not"], [b"bad"]])
    spans = [[0.0, 1.0], [1.0, 2.0], [2.0, 3.5], [3.5, 4.0]]
    csd_file(folder / "TimestampedWords.csd", "words", {v: (words, spans) for v in videos})
    starts = np.arange(400) / 100
    audio = (np.repeat(starts[:, None] + 0.005, 3, axis=1), np.stack([starts, starts + 0.01], axis=1))
    csd_file(folder / "COVAREP.csd", "covarep", dict.fromkeys(videos, audio))
    return folder


FOLDS = {"train": ["va"], "valid": ["vb"], "test": ["vc"]}
MIDDLES = [0.5, 2.75, 3.75]  # of the three words


def test_frames_of_computational_sequences_meet_words_by_their_times(sequences, tmp_path):
    import_corpus("csd", sequences, tmp_path / "steps", splits=FOLDS)
    corpus = load_corpus(tmp_path / "steps")
    words = spoken(corpus)
    assert list(words.values()) == [["really", "not", "bad"]] * 3
    source = open_source(corpus, {"array": "audio", "level": "frame", "seconds": 0.1}, tmp_path)
    for vectors in on_words(corpus, "audio", source, words).values():
        np.testing.assert_allclose(vectors, np.repeat(np.array(MIDDLES)[:, None], 3, axis=1), atol=1e-4)
    with pytest.raises(CorpusError, match="give `seconds`"):
        on_words(corpus, "audio", Stored("audio", "frame"), words)
    # Without times: four equal parts of the utterance.
    for parts in in_parts(corpus, Stored("audio", "frame"), 4).values():
        np.testing.assert_allclose(parts[:, 0], [0.5, 1.5, 2.5, 3.5], atol=1e-4)


def test_sequences_imported_by_word_train(sequences, standins, tmp_path):
    import_corpus("csd", sequences, tmp_path / "words", splits=FOLDS, align="words")
    corpus = load_corpus(tmp_path / "words")
    source = open_source(corpus, {"array": "audio", "level": "word"}, tmp_path)
    for vectors in on_words(corpus, "audio", source, spoken(corpus)).values():
        np.testing.assert_allclose(vectors[:, 0], MIDDLES, atol=1e-4)
    settings = kim2022.Settings(epochs=1, batch_size=2)
    encoder = str(standins / "bert-base-uncased")
    runs = kim2022.run(corpus, encoder, {"audio": source}, settings, ["cms"], [0], tmp_path / "runs")
    assert runs.select(arm="cms").runs[0].record.config["inputs"] == {
        "audio": {"array": "audio", "level": "word", "seconds": None}
    }


def test_a_vector_an_utterance_is_given_to_every_word(standins, tmp_path):
    rows = ["segment_id,video_id,clip_id,split,label,text"]
    rows += [f"{s}{k},{s},{k},{s},{k}.5,REALLY NOT BAD" for s in ("train", "valid", "test") for k in (0, 1)]
    (tmp_path / "segments.csv").write_text("\n".join(rows) + "\n")
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.savez(tmp_path / "features.npz", segment_id=[row.split(",")[0] for row in rows[1:]], audio=values)
    corpus = load_corpus(tmp_path)
    source = Stored("audio", "utterance")
    found = on_words(corpus, "audio", source, spoken(corpus))
    assert found["train1"].tolist() == [[2, 3]] * 3
    assert in_parts(corpus, source, 2)["train1"].tolist() == [[2, 3]] * 2
    for level, message in (("word", "level 'word' means"), ("page", "choose one of word, frame, utterance")):
        with pytest.raises(ValueError, match=message):
            on_words(corpus, "audio", Stored("audio", level), spoken(corpus))
    with pytest.raises(CorpusError, match=r"no array 'vision' \(it has audio\)"):
        on_words(corpus, "vision", Stored("vision", "utterance"), spoken(corpus))
    with pytest.raises(ValueError, match="is no array of words"):
        open_source(corpus, {"array": "audio", "leval": "word"}, tmp_path)


def test_equal_parts_by_hand():
    frames = np.arange(6, dtype=np.float32)[:, None]
    assert equal_parts(frames, 3).ravel().tolist() == [0.5, 2.5, 4.5]
    assert equal_parts(frames[:2], 4).ravel().tolist() == [0, 0, 1, 1]
    assert equal_parts(frames[:0], 2).ravel().tolist() == [0, 0]


def test_byte_pair_tokenizers_see_words_with_their_blank(standins, tmp_path):
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([" ".join(WORDS)] * 9, vocab_size=400, min_frequency=1,
                            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])  # fmt: skip
    bpe.save_model(str(tmp_path))
    tokenizer = RobertaTokenizerFast.from_pretrained(tmp_path, model_max_length=30)
    config = RobertaConfig(hidden_size=8, num_attention_heads=2, intermediate_size=16, num_hidden_layers=3,
                           vocab_size=len(tokenizer), max_position_embeddings=32, pad_token_id=1)  # fmt: skip
    for part in (RobertaModel(config), tokenizer):
        part.save_pretrained(tmp_path / "roberta")
    corpus = load_corpus(standins / "mag-mosi")
    source = Stored("audio", "word")
    ready = prepare(corpus, str(tmp_path / "roberta"), {"audio": source}, 50)["train"]
    decoded = tokenizer.decode(ready.token_ids[0], skip_special_tokens=True)
    assert decoded.split() == ready.words[0]
    assert ready.pad_id == 1
    batch = next(iter(ready.batches(8)))
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 1).all()
    settings = kim2022.Settings(epochs=1, batch_size=4)
    runs = kim2022.run(corpus, str(tmp_path / "roberta"), {"audio": source}, settings, ["mag"], [0], tmp_path / "runs")
    assert len(runs.select(arm="mag")) == 1
