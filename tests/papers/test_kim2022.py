"""Kim & Kim end to end: arms, words on word pieces, how the epoch is chosen, what a second call does."""

import dataclasses
import logging
import shutil

import numpy as np
import pytest
from tiny_papers import KIM, KIM_ARMS, SEEDS, kim2022, predictions, snapshot
from transformers import AutoTokenizer

from msakit.data.corpus import CorpusError, load_corpus
from msakit.features import average_over_words

REFERENCES = {"constant", "oracle", "oracle-text", "oracle-audio", "oracle-vision"}


@pytest.fixture(scope="module")
def prepared(kim):
    corpus, text_encoder, stores = kim.call.args
    return kim2022.prepare(corpus, text_encoder, stores, KIM.max_tokens)


def test_both_arms_are_recorded_with_every_seed(kim):
    frame = kim.runs.frame
    trained = frame[~frame["arm"].str.startswith(("oracle", "constant"))]
    assert set(zip(trained["arm"], trained["seed"], strict=True)) == {(arm, seed) for arm in KIM_ARMS for seed in SEEDS}
    assert {"constant", "oracle"} <= set(frame["arm"])
    config = kim.runs.select(arm="cms-clr-smooth-ema").runs[0].record.config
    assert (config["shift"], config["contrastive"], config["smoothing"], config["average"]) == ("cms", 0.1, 0.1, True)


def test_the_epoch_is_chosen_by_the_regression_alone(kim):
    for run in kim.runs.select(arm=list(KIM_ARMS)):
        record = run.record
        table = predictions(kim.root, "kim2022", "mini-mosi", record.arm, record.seed, "valid")
        assert record.selection["metric"] == "mse"
        mse = ((table["prediction"] - table["label"]) ** 2).mean()
        assert record.selection["value"] == pytest.approx(mse, abs=1e-3)
        assert record.selection["value"] == min(row["valid_loss"] for row in record.history)


def test_special_tokens_get_zeros_and_pieces_the_vector_of_their_word(kim, prepared):
    corpus, text_encoder, stores = kim.call.args
    words = corpus.words()
    tokenizer = AutoTokenizer.from_pretrained(text_encoder)
    known = words["segment_id"].isin(set(corpus.splits["train"]["segment_id"]))
    split_words = 0
    for name in ("audio", "vision"):
        averages = average_over_words(stores[name], words)
        frames = np.concatenate([averages[segment] for segment in words[known]["segment_id"].unique()])
        deviation = np.where(frames.std(0) > 0, frames.std(0), 1)
        for split, ready in prepared.items():
            for segment, ids, vectors in zip(
                corpus.splits[split]["segment_id"], ready.token_ids, ready.nonverbal[name], strict=True
            ):
                assert len(ids) == len(vectors)
                assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
                assert not vectors[[0, -1]].any()
                spoken = list(words[words["segment_id"] == segment]["word"])
                pieces = [len(tokenizer.tokenize(word)) for word in spoken]
                split_words += sum(count > 1 for count in pieces)
                expected = np.repeat((averages[segment] - frames.mean(0)) / deviation, pieces, axis=0)
                np.testing.assert_allclose(vectors[1:-1], expected, rtol=1e-4, atol=1e-4)
    assert split_words  # otherwise nothing was said about words of several pieces


def test_words_beyond_the_limit_are_cut_and_reported(kim, prepared, caplog):
    corpus, text_encoder, stores = kim.call.args
    with caplog.at_level(logging.WARNING):
        short = kim2022.prepare(corpus, text_encoder, stores, 8)
    long = sum(len(ids) > 8 for ready in prepared.values() for ids in ready.token_ids)
    assert long > 0
    assert "have more than 8 word pieces" in caplog.text
    for split, ready in short.items():
        assert max(len(ids) for ids in ready.token_ids) == 8
        for cut, whole in zip(ready.nonverbal["audio"], prepared[split].nonverbal["audio"], strict=True):
            np.testing.assert_array_equal(cut[1:-1], whole[1 : len(cut) - 1])
            assert not cut[-1].any()


def test_a_corpus_without_word_timings_is_refused(kim, tmp_path):
    corpus, text_encoder, stores = kim.call.args
    folder = shutil.copytree(corpus.folder, tmp_path / "wordless")
    (folder / "words.csv").unlink()
    with pytest.raises(CorpusError, match=r"wordless has no words\.csv: .*needs the times of the words"):
        kim2022.run(load_corpus(folder), text_encoder, stores, KIM, KIM_ARMS, SEEDS, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_an_unknown_arm_is_refused_with_the_choices(kim, tmp_path):
    choices = "text-only, mag, cms, cms-clr, cms-clr-smooth, cms-clr-smooth-ema"
    with pytest.raises(ValueError, match=f"no arm 'msc': choose from {choices}"):
        kim.call(KIM, ["mag", "msc"], SEEDS, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_second_call_trains_nothing(kim, monkeypatch):
    def train(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(kim2022, "train", train)
    before = snapshot(kim.root / "kim2022")
    again = kim.call(KIM, KIM_ARMS, SEEDS, kim.root)
    assert snapshot(kim.root / "kim2022") == before
    assert [run.path for run in again] == [run.path for run in kim.runs]


def test_changed_settings_train_again(kim, tmp_path):
    root = shutil.copytree(kim.root, tmp_path / "runs")
    kim.call(dataclasses.replace(KIM, beta=0.25), ["mag"], SEEDS[:1], root)
    trained = {name for name in snapshot(root / "kim2022/mini-mosi") if name.split("/")[0] not in REFERENCES}
    assert trained == {"mag/seed-0.json", "mag/seed-0.csv"}
    assert len(snapshot(root.parent / "superseded/kim2022/mini-mosi")) == len(snapshot(kim.root / "kim2022/mini-mosi"))


def test_same_seed_same_predictions_other_seed_others(kim, tmp_path):
    runs = kim.call(KIM, KIM_ARMS, SEEDS[1:], tmp_path / "runs")
    for arm in KIM_ARMS:
        (again,) = runs.select(arm=arm)
        first, second = (kim.root / f"kim2022/mini-mosi/{arm}/seed-{seed}.csv" for seed in SEEDS)
        assert again.path.with_suffix(".csv").read_bytes() == second.read_bytes() != first.read_bytes()


def test_averaging_weights_changes_what_is_predicted(kim, tmp_path):
    runs = kim.call(dataclasses.replace(KIM, average_decay=0.0), ["cms-clr-smooth-ema"], SEEDS[:1], tmp_path / "a")
    plain = kim.call(KIM, ["cms-clr-smooth"], SEEDS[:1], tmp_path / "b")
    tables = [
        predictions(tmp_path / root, "kim2022", "mini-mosi", arm, 0)["prediction"]
        for root, arm in (("a", "cms-clr-smooth-ema"), ("b", "cms-clr-smooth"))
    ]
    # An average that forgets everything is the last step's weights: the arm without averaging.
    np.testing.assert_allclose(*tables, atol=1e-5)
    averaged = predictions(kim.root, "kim2022", "mini-mosi", "cms-clr-smooth-ema", 0)["prediction"]
    assert not np.allclose(averaged, tables[0], atol=1e-3)
    assert len(runs) == len(plain)


def test_a_call_gives_back_no_runs_but_its_own(kim, tmp_path):
    root = shutil.copytree(kim.root, tmp_path / "runs")
    runs = kim.call(dataclasses.replace(KIM, beta=0.25), ["mag"], SEEDS[:1], root)
    assert [run.record.config["beta"] for run in runs.select(arm="mag")] == [0.25]
