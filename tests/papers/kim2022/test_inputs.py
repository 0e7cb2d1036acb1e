"""Words of each kind of corpus, audio and vision at them, and what reaches the models."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer, RobertaConfig, RobertaModel

from msakit.data.corpus import CorpusError, load_corpus
from msakit.data.importers import import_corpus
from msakit.encoders import load_encoder
from msakit.features import FeatureError, average_over_words, extract
from msakit.models.layers.word_pieces import word_positions
from msakit.papers import arms_of
from msakit.papers.kim2022.inputs import Inputs, derangement, resampled
from msakit.papers.kim2022.words import Array, _averaged, equal_parts, in_parts, on_words, words_of
from msakit.runs.arm import Input, read_arms
from msakit.runs.experiment import Experiment
from msakit.strict import parse

from .conftest import ENCODERS, SETTINGS, WORDS, mag_pickle, run

ARMS = arms_of("kim2022")


def case_of(corpus, encoders, arm, root, seed=0, settings=SETTINGS):
    """The first case of an arm, its inputs and its batches."""
    experiment = Experiment("kim2022", 1, corpus, settings, [seed], root / "runs")
    inputs = Inputs(corpus, list(experiment.table["segment_id"]), encoders, root / "features")
    (case,) = experiment.cases("arm", arm)
    return inputs, case, inputs.batches(case, experiment.label, settings, torch.Generator())


def test_special_tokens_get_zeros_and_pieces_the_vector_of_their_word(numbers, encoders, tmp_path):
    inputs, case, batches = case_of(numbers, encoders, ARMS["mag"], tmp_path)
    tokens = inputs.tokens(ARMS["mag"], SETTINGS)
    tokenizer = AutoTokenizer.from_pretrained(encoders["text"])
    sources = {name: parse(Array, spec, name) for name, spec in ENCODERS.items()}
    raw = {name: on_words(numbers, name, source, 0, words_of(numbers)) for name, source in sources.items()}
    split_words = 0
    for name, vectors in raw.items():
        training = np.concatenate([vectors[inputs.segments[row]] for row in case.rows["train"]])
        for split, rows in case.rows.items():
            for place, row in enumerate(rows):
                ids, on_tokens = tokens.ids[row], batches[split].per_token[name][place].numpy()
                assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
                assert len(ids) == len(on_tokens)
                assert not on_tokens[[0, -1]].any()
                pieces = [len(tokenizer.tokenize(word)) for word in inputs.words[row]]
                split_words += sum(count > 1 for count in pieces)
                scaled = (vectors[inputs.segments[row]] - training.mean(0)) / training.std(0)
                np.testing.assert_allclose(on_tokens[1:-1], np.repeat(scaled, pieces, axis=0), rtol=1e-4, atol=1e-4)
    assert split_words  # otherwise nothing was said about words of several pieces


def test_words_beyond_the_limit_are_truncated_and_counted(numbers, encoders, tmp_path, caplog):
    short = SETTINGS.model_copy(update={"max_tokens": 8})
    (tmp_path / "short").mkdir()
    inputs, case, cut = case_of(numbers, encoders, ARMS["mag"], tmp_path / "short", settings=short)
    whole_inputs, _, whole = case_of(numbers, encoders, ARMS["mag"], tmp_path)
    assert "have more than 8 tokens" in caplog.text
    tokens, full = inputs.tokens(ARMS["mag"], short), whole_inputs.tokens(ARMS["mag"], SETTINGS)
    assert max(map(len, tokens.ids)) == 8
    assert tokens.truncated == sum(len(ids) > 8 for ids in full.ids) > 0
    assert full.truncated == 0
    for place in range(len(case.rows["test"])):
        one, other = (each["test"].per_token["audio"][place] for each in (cut, whole))
        torch.testing.assert_close(one[1:-1], other[1 : len(one) - 1])
        assert not one[-1].any()


def test_the_control_gives_each_segment_the_sound_of_another(numbers, encoders, tmp_path):
    order = derangement(7, np.random.default_rng(3))
    assert sorted(order) == list(range(7))
    assert (order != np.arange(7)).all()
    assert list(derangement(7, np.random.default_rng(3))) == list(order)
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert resampled(vectors, 3).tolist() == vectors.tolist()
    assert resampled(vectors, 6).tolist() == vectors[[0, 0, 1, 1, 2, 2]].tolist()
    assert resampled(vectors, 2).tolist() == vectors[[0, 2]].tolist()
    assert resampled(vectors[:0], 2).tolist() == [[0, 0], [0, 0]]
    (tmp_path / "own").mkdir()
    _, case, own = case_of(numbers, encoders, ARMS["mag"], tmp_path / "own", seed=3)
    _, _, shuffled = case_of(numbers, encoders, ARMS["mag-shuffled"], tmp_path, seed=3)
    order = derangement(len(case.rows["test"]), np.random.default_rng(3))
    for place, other in enumerate(order):
        mine, theirs = own["test"].per_token["audio"][other], shuffled["test"].per_token["audio"][place]
        assert not theirs[[0, -1]].any()
        assert all((mine == row).all(1).any() for row in theirs[1:-1])


def test_one_modality_can_be_shuffled_alone(numbers, encoders, tmp_path):
    arms = read_arms({"own": {"like": "mag", "title": "Own", "inputs": {"vision": {"shuffled": True}}}}, ARMS)
    (tmp_path / "own").mkdir()
    _, _, half = case_of(numbers, encoders, arms["own"], tmp_path / "own")
    _, _, whole = case_of(numbers, encoders, ARMS["mag"], tmp_path)
    for name, same in (("audio", True), ("vision", False)):
        pairs = zip(half["test"].per_token[name], whole["test"].per_token[name], strict=True)
        assert all(torch.equal(one, other) for one, other in pairs) == same


def test_soft_alignment_has_equal_parts_and_the_positions_of_words(numbers, encoders, tmp_path):
    inputs, case, batches = case_of(numbers, encoders, ARMS["mag.soft"], tmp_path)
    (batch,) = batches["test"]
    assert batch["audio"].shape == (12, 5, 5)
    assert batch["vision"].shape == (12, 5, 4)
    tokens = inputs.tokens(ARMS["mag.soft"], SETTINGS)
    row = case.rows["test"][batch["index"][-1]]
    expected = word_positions(tokens.word_ids[row], len(inputs.words[row]))
    np.testing.assert_array_equal(batch["word_positions"][-1, : len(expected)], expected)


def test_a_text_without_words_is_refused(numbers, encoders, tmp_path):
    folder = shutil.copytree(numbers.folder, tmp_path / "gaps")
    words = pd.read_csv(folder / "words.csv", dtype={"segment_id": str}, keep_default_na=False)
    left_out = numbers.splits["train"]["segment_id"][3]
    words[words["segment_id"] != left_out].to_csv(folder / "words.csv", index=False)
    with pytest.raises(CorpusError, match=rf"words\.csv leaves out 1 segments that have a text, .* '{left_out}'"):
        run(load_corpus(folder), encoders, ["text-only"], SETTINGS, [0], tmp_path / "runs")


def test_a_word_without_record_stays_zero_and_counts_for_nothing(numbers, encoders, tmp_path):
    folder = shutil.copytree(numbers.folder, tmp_path / "gaps")
    arrays = dict(np.load(folder / "features.npz"))
    arrays["audio"][:, 1] = 0
    np.savez(folder / "features.npz", **arrays)
    inputs, case, batches = case_of(load_corpus(folder), encoders, ARMS["mag"], tmp_path)
    tokens = inputs.tokens(ARMS["mag"], SETTINGS)
    recorded = []
    for row, values in zip(case.rows["train"], batches["train"].per_token["audio"], strict=True):
        words = np.array([-1 if word is None else word for word in tokens.word_ids[row]])
        assert not values[words == 1].any()
        recorded += [values[words == word][0].numpy() for word in range(words.max() + 1) if word != 1]
    np.testing.assert_allclose(np.mean(recorded, axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(recorded, axis=0), 1, atol=1e-4)


def test_words_that_begin_before_the_segment_take_its_first_frames():
    frames = np.arange(1, 21, dtype=np.float32)[:, None]
    part = pd.DataFrame({"start": [-0.3, -0.2, 0.0], "end": [-0.1, 0.1, 0.1]})
    assert _averaged(frames, part, 0.1).ravel().tolist() == [1, 1, 1]


def test_equal_parts_by_hand():
    frames = np.arange(6, dtype=np.float32)[:, None]
    assert equal_parts(frames, 3).ravel().tolist() == [0.5, 2.5, 4.5]
    assert equal_parts(frames[:2], 4).ravel().tolist() == [0, 0, 1, 1]
    assert equal_parts(frames[:0], 2).ravel().tolist() == [0, 0]


def test_a_feature_store_serves_the_layer_that_the_arm_names(tiny_corpora, bert, tmp_path):
    corpus = tiny_corpora["mini-mosi"]
    given = {"text": bert, "audio": "acoustic-set", "vision": None}
    inputs, case, batches = case_of(corpus, given, ARMS["mag"], tmp_path)
    store = extract(corpus, load_encoder("acoustic-set"), tmp_path / "features")
    feature = inputs.features(ARMS["mag"])["audio"]
    assert (feature.features, feature.layer) == (store.folder.name, 0)
    averages = average_over_words(store, corpus.words())
    training = np.concatenate([averages[inputs.segments[row]] for row in case.rows["train"]])
    word = (averages[inputs.segments[0]][0] - training.mean(0)) / np.where(training.std(0) > 0, training.std(0), 1)
    np.testing.assert_allclose(batches["train"].per_token["audio"][0][1], word, rtol=1e-3, atol=1e-3)
    other = read_arms({"own": {"like": "mag", "title": "Own", "inputs": {"audio": {"layer": 1}}}}, ARMS)["own"]
    with pytest.raises(ValueError, match="has layers 0 to 0, not 1"):
        inputs.features(other)
    with pytest.raises(FeatureError, match="frames are tokens"):
        on_words(corpus, "audio", extract(corpus, load_encoder(f"text:{bert}"), tmp_path), 0, words_of(corpus))


def test_words_of_mag_pickles_keep_their_rows(tmp_path):
    source = mag_pickle(tmp_path / "mosi.pkl", {"vision": 7, "audio": 5}, {"train": 8, "dev": 4, "test": 5})
    import_corpus("mag", source, tmp_path / "mag-mosi", name="mag-mosi")
    corpus, content = load_corpus(tmp_path / "mag-mosi"), pickle.loads(source.read_bytes())
    words = words_of(corpus)
    found = on_words(corpus, "vision", Array(array="vision", level="word"), 0, words)
    rows = [example for split in content.values() for example in split]
    for segment, ((listed, vision, _), _, _) in zip(corpus.table()["segment_id"], rows, strict=True):
        assert words[segment] == list(listed)
        np.testing.assert_allclose(found[segment], vision, rtol=1e-5)
        assert not found[segment][0].any()  # a word without a face stays where it is


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
    words = words_of(corpus)
    assert list(words.values()) == [["really", "not", "bad"]] * 3
    for vectors in on_words(corpus, "audio", Array(array="audio", level="frame", seconds=0.1), 0, words).values():
        np.testing.assert_allclose(vectors, np.repeat(np.array(MIDDLES)[:, None], 3, axis=1), atol=1e-4)
    frames = Array(array="audio", level="frame")
    with pytest.raises(CorpusError, match="give `seconds`"):
        on_words(corpus, "audio", frames, 0, words)
    # Without times: four equal parts of the utterance.
    for parts in in_parts(corpus, frames, 0, 4).values():
        np.testing.assert_allclose(parts[:, 0], [0.5, 1.5, 2.5, 3.5], atol=1e-4)


def test_sequences_imported_by_word_train(sequences, bert, tmp_path):
    import_corpus("csd", sequences, tmp_path / "words", splits=FOLDS, align="words")
    corpus = load_corpus(tmp_path / "words")
    source = {"array": "audio", "level": "word"}
    for vectors in on_words(corpus, "audio", Array(**source), 0, words_of(corpus)).values():
        np.testing.assert_allclose(vectors[:, 0], MIDDLES, atol=1e-4)
    settings = SETTINGS.model_copy(update={"epochs": 1, "batch_size": 2})
    given = {"text": {"kind": "text", "path": bert}, "audio": source, "vision": None}
    (each,) = run(corpus, given, ["cms"], settings, [0], tmp_path / "runs").select(arm="cms")
    assert each.record.features["audio"].features == "array audio, level word"


def test_a_vector_an_utterance_is_given_to_every_word(tmp_path):
    rows = ["segment_id,video_id,clip_id,split,label,text"]
    rows += [f"{s}{k},{s},{k},{s},{k}.5,REALLY NOT BAD" for s in ("train", "valid", "test") for k in (0, 1)]
    (tmp_path / "segments.csv").write_text("\n".join(rows) + "\n")
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.savez(tmp_path / "features.npz", segment_id=[row.split(",")[0] for row in rows[1:]], audio=values)
    corpus = load_corpus(tmp_path)
    words, source = words_of(corpus), Array(array="audio", level="utterance")
    assert on_words(corpus, "audio", source, 0, words)["train1"].tolist() == [[2, 3]] * 3
    assert in_parts(corpus, source, 0, 2)["train1"].tolist() == [[2, 3]] * 2
    with pytest.raises(CorpusError, match="level 'word' means"):
        on_words(corpus, "audio", Array(array="audio", level="word"), 0, words)
    with pytest.raises(CorpusError, match=r"no array 'vision' \(it has audio\)"):
        on_words(corpus, "vision", Array(array="vision", level="utterance"), 0, words)
    for wrong, message in (
        ({"array": "audio", "level": "page"}, "'word', 'frame' or 'utterance'"),
        ({"array": "audio", "leval": "word"}, "no field 'leval'.*level"),
        ({"array": "audio", "level": "frame", "seconds": 0}, "seconds.*greater than 0"),
    ):
        inputs = Inputs(corpus, list(corpus.table()["segment_id"]), {"audio": wrong}, tmp_path)
        with pytest.raises(ValueError, match=f"encoder 'audio': .*{message}"):
            inputs._source(Input(encoder="audio"))


def test_byte_pair_tokenizers_get_words_with_their_blank(numbers, tmp_path):
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
    given = {"text": str(tmp_path / "roberta"), **ENCODERS}
    inputs, _, batches = case_of(numbers, given, ARMS["mag"], tmp_path)
    tokens = inputs.tokens(ARMS["mag"], SETTINGS)
    decoded = tokenizer.decode(tokens.ids[0], skip_special_tokens=True)
    assert decoded.split() == inputs.words[0]
    assert tokens.pad_id == 1
    batch = next(iter(batches["test"]))
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 1).all()
    assert len(run(numbers, given, ["mag"], SETTINGS, [0], tmp_path / "runs").select(arm="mag")) == 1
