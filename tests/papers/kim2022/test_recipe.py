"""Kim & Kim end to end: arms, words on word pieces, how the epoch is chosen, what a second call does."""

import dataclasses
import logging
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_papers import KIM, KIM_ARMS, SEEDS, kim2022, predictions, snapshot
from transformers import AutoTokenizer

from msakit.data.corpus import CorpusError, load_corpus
from msakit.features import average_over_words
from msakit.papers import facts
from msakit.papers.kim2022.details import BestTestEpoch, alignment, embedding_table, uniformity
from msakit.papers.kim2022.inputs import prepare, strangers, stretched
from msakit.papers.kim2022.words import _averaged, standardised

REFERENCES = {"constant", "oracle", "oracle-text", "oracle-audio", "oracle-vision"}


@pytest.fixture(scope="module")
def prepared(kim):
    corpus, text_encoder, stores = kim.call.args
    return prepare(corpus, text_encoder, stores, KIM.max_tokens, parts=5)


def test_both_arms_are_recorded_with_every_seed(kim):
    frame = kim.runs.frame
    trained = frame[~frame["arm"].str.startswith(("oracle", "constant"))]
    assert set(zip(trained["arm"], trained["seed"], strict=True)) == {(arm, seed) for arm in KIM_ARMS for seed in SEEDS}
    assert {"constant", "oracle"} <= set(frame["arm"])
    config = kim.runs.select(arm="cms-clr-smooth-ema").runs[0].record.config
    parts = {"shift": "cms", "contexts": "both", "contrastive": 0.1, "smoothing": 0.1, "average": "ema"}
    assert config | parts == config
    assert (config["temperature"], config["pairs"]) == (0.07, ["text-audio", "text-vision"])


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
                corpus.splits[split]["segment_id"], ready.token_ids, ready.on_pieces()[name], strict=True
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
        short = prepare(corpus, text_encoder, stores, 8)
    long = sum(len(ids) > 8 for ready in prepared.values() for ids in ready.token_ids)
    assert long > 0
    assert "have more than 8 word pieces" in caplog.text
    assert sum(ready.cut for ready in short.values()) == long
    assert sum(ready.cut for ready in prepared.values()) == 0
    for split, ready in short.items():
        assert max(len(ids) for ids in ready.token_ids) == 8
        for cut, whole in zip(ready.on_pieces()["audio"], prepared[split].on_pieces()["audio"], strict=True):
            np.testing.assert_array_equal(cut[1:-1], whole[1 : len(cut) - 1])
            assert not cut[-1].any()


def test_a_corpus_without_word_timings_is_refused(kim, tmp_path):
    corpus, text_encoder, stores = kim.call.args
    folder = shutil.copytree(corpus.folder, tmp_path / "wordless")
    (folder / "words.csv").unlink()
    with pytest.raises(CorpusError, match=r"wordless has no words\.csv: laying audio on words needs"):
        kim2022.run(load_corpus(folder), text_encoder, stores, KIM, KIM_ARMS, SEEDS, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_text_without_words_is_refused(kim, tmp_path):
    corpus, text_encoder, stores = kim.call.args
    folder = shutil.copytree(corpus.folder, tmp_path / "gaps")
    words = pd.read_csv(folder / "words.csv", dtype={"segment_id": str}, keep_default_na=False)
    left_out = corpus.splits["train"]["segment_id"][3]
    words[words["segment_id"] != left_out].to_csv(folder / "words.csv", index=False)
    with pytest.raises(CorpusError, match=rf"words\.csv leaves out 1 segments that have a text, .* '{left_out}'"):
        kim2022.run(load_corpus(folder), text_encoder, stores, KIM, ["text-only"], [0], tmp_path / "runs")


def test_where_nothing_was_recorded_stays_zero_and_counts_for_nothing():
    random = np.random.default_rng(0)
    heard = random.normal(3.0, 2.0, (20, 4)).astype(np.float32)
    full = standardised({"a": heard}, {"a"})["a"]
    gaps = standardised({"a": np.concatenate([heard, np.zeros((5, 4), np.float32)])}, {"a"})["a"]
    np.testing.assert_array_equal(gaps[:20], full)
    np.testing.assert_array_equal(gaps[20:], 0)
    assert not standardised({"a": np.zeros((3, 4), np.float32)}, {"a"})["a"].any()


def test_words_that_begin_before_the_segment_take_its_first_frames():
    frames = np.arange(1, 21, dtype=np.float32)[:, None]
    part = pd.DataFrame({"start": [-0.3, -0.2, 0.0], "end": [-0.1, 0.1, 0.1]})
    assert _averaged(frames, part, 0.1).ravel().tolist() == [1, 1, 1]


def test_what_cannot_be_trained_is_refused_beforehand(kim, tiny_corpora, tmp_path):
    _, text_encoder, stores = kim.call.args
    with pytest.raises(ValueError, match="has classes, but the method predicts a sentiment"):
        kim2022.run(tiny_corpora["mini-posts"], text_encoder, stores, KIM, ["text-only"], [0], tmp_path / "runs")
    corpus, audio = kim.call.args[0], {"audio": stores["audio"]}
    with pytest.raises(ValueError, match="arm 'cms-clr' contrasts vision, which is not given"):
        kim2022.run(corpus, text_encoder, audio, KIM, ["mag", "cms-clr"], [0], tmp_path / "runs")
    with pytest.raises(ValueError, match="no modality 'sound' beside the text: choose from"):
        kim2022.run(corpus, text_encoder, {"sound": stores["audio"]}, KIM, ["mag"], [0], tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_without_a_label_beside_zero_the_first_epoch_is_kept(prepared):
    ready = prepared["test"]
    kept = BestTestEpoch(ready.batches(64), np.zeros(len(ready.label)))

    class Guess(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, batch):
            return {"prediction": self.weight.expand(len(batch["label"]))}

    model = Guess()
    for epoch in (1, 2):
        kept(model, epoch)
    assert kept.epoch == 1
    assert len(kept.prediction) == len(ready.label)


def test_an_unknown_arm_is_refused_with_the_choices(kim, tmp_path):
    with pytest.raises(ValueError, match="no arm 'msc': choose from text-only, mag, mag-wide, cms-verbal, "):
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
    assert trained == {"mag/seed-0.json", "mag/seed-0.csv", "mag/seed-0.shifts.csv"}
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


def test_every_arm_of_the_paper_can_be_built_and_differs_from_the_others():
    arms = kim2022.arms_of_paper()
    assert list(arms) == list(facts("kim2022")["arms"])
    assert len(set(arms.values())) == len(arms) >= 31
    assert arms["cms-clr-all"].contrast == ("text", "audio", "vision")
    assert arms["cms-clr-ta"].contrast == ("text", "audio")
    assert arms["cms"].contrast == ()
    for wrong in ({"average": "true"}, {"alignment": "hard"}, {"pairs": ("text-smell",)}, {"average": "momentum"}):
        with pytest.raises(ValueError, match=next(iter(wrong)) if "momentum" not in wrong.values() else "momentum"):
            kim2022.Arm("cms", **wrong)


def test_no_weight_decay_on_biases_and_norms(kim, prepared):
    model = kim2022.build(prepared["train"], kim.call.args[1], KIM, kim2022.arms_of_paper()["cms-clr-all"])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in kim2022.decayed_groups(model, 0.01))
    assert decayed | spared == set(names.values())
    assert not decayed & spared
    assert {name for name in spared if not name.endswith("bias")} == {
        name for name in names.values() if "norm" in name.lower() and name.endswith("weight")
    }
    assert "encoder.embeddings.LayerNorm.weight" in spared
    assert not any(name.endswith("bias") or "norm" in name.lower() for name in decayed)


def test_the_best_test_epoch_is_kept_beside_and_chooses_nothing(kim):
    for run in kim.runs.select(arm=list(KIM_ARMS)):
        record, table = run.record, predictions(kim.root, "kim2022", "mini-mosi", run.record.arm, run.record.seed)
        leaked = record.measurements["as_published"]
        said = table[table["label"] != 0]
        accuracy = ((said["prediction_best_test_epoch"] >= 0) == (said["label"] > 0)).mean()
        assert leaked["value"] == pytest.approx(accuracy)
        seen = [row["leaked_test_acc2"] for row in record.history]
        assert leaked["value"] == max(seen)
        assert leaked["epoch"] == seen.index(max(seen)) + 1
        if leaked["epoch"] == record.selection["epoch"] and record.config["average"] == "none":
            np.testing.assert_allclose(table["prediction_best_test_epoch"], table["prediction"], atol=1e-5)
        valid = predictions(kim.root, "kim2022", "mini-mosi", record.arm, record.seed, "valid")
        assert valid["prediction_best_test_epoch"].isna().all()


def test_a_checkpoint_keeps_the_best_test_epoch(prepared):
    ready = prepared["test"]
    first, second = (BestTestEpoch(ready.batches(64), ready.label) for _ in range(2))
    first.epoch, first.accuracy, first.prediction = 3, 0.5, np.array([0.25, -1.0])
    second.load_state_dict(first.state_dict())
    assert second.measurement() == first.measurement()
    assert second.prediction.tolist() == [0.25, -1.0]


def test_records_say_what_kind_each_segment_is(kim):
    table = predictions(kim.root, "kim2022", "mini-mosi", "mag", 0)
    kinds = pd.read_csv(kim.call.args[0].folder / "segments.csv").set_index("segment_id")["kind"]
    assert list(table["kind"]) == list(kinds.loc[table["segment_id"]])


def test_shifts_and_embeddings_of_the_first_seed(kim):
    corpus = kim.call.args[0]
    words = corpus.words()
    words = words[words["segment_id"].isin(set(corpus.splits["test"]["segment_id"]))]
    for arm in KIM_ARMS:
        first, second = (kim.runs.select(arm=arm, seed=seed).runs[0] for seed in SEEDS)
        assert second.record.artifacts == {}
        shifts = kim.runs.artifact(first, "shifts")
        assert list(shifts["word"]) == list(words["word"])
        assert list(shifts["word_index"]) == list(words["word_index"])
        assert shifts["shift"].between(0, KIM.beta + 1e-3).all()
        assert shifts["shift"].gt(0).mean() > 0.9
    found = kim.runs.artifact(kim.runs.select(arm="cms-clr-smooth-ema", seed=0).runs[0], "embeddings")
    assert found.groupby("modality", sort=False).size().to_dict() == dict.fromkeys(("text", "audio", "vision"), 12)
    np.testing.assert_allclose((found.filter(regex=r"^e\d") ** 2).sum(axis=1), 1, atol=1e-2)


def test_geometry_is_measured_before_and_after_for_every_seed(kim):
    for run in kim.runs.select(arm="cms-clr-smooth-ema"):
        measured = run.record.measurements
        for stage in ("before", "after"):
            assert set(measured["alignment"][stage]) == {"text-audio", "text-vision", "audio-vision"}
            assert set(measured["uniformity"][stage]) == {"text", "audio", "vision"}
        assert measured["alignment"]["before"] != measured["alignment"]["after"]
    assert "alignment" not in kim.runs.select(arm="mag").runs[0].record.measurements


def test_alignment_and_uniformity_by_hand():
    eye = np.eye(2)
    assert alignment(eye, eye) == 0
    assert alignment(eye, eye[::-1]) == 2
    assert alignment(eye, -eye) == 4
    assert uniformity(eye) == pytest.approx(-2 * 2)  # one pair at squared distance 2
    assert uniformity(np.array([[1.0, 0], [1.0, 0], [-1.0, 0]])) == pytest.approx(np.log((1 + 2 * np.exp(-8)) / 3))


def test_large_embedding_tables_are_thinned_evenly(kim):
    vectors = {name: np.ones((12, 4000)) for name in ("text", "audio")}
    table = embedding_table(kim.call.args[0], vectors)
    segments = list(kim.call.args[0].splits["test"]["segment_id"])
    assert list(table["segment_id"]) == [segments[k] for k in (0, 3, 6, 9)] * 2


def test_the_control_gives_each_segment_the_sound_of_another(prepared):
    order = strangers(7, np.random.default_rng(3))
    assert sorted(order) == list(range(7))
    assert (order != np.arange(7)).all()
    assert list(strangers(7, np.random.default_rng(3))) == list(order)
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert stretched(vectors, 6).tolist() == vectors[[0, 0, 1, 1, 2, 2]].tolist()
    assert stretched(vectors, 2).tolist() == vectors[[0, 2]].tolist()
    assert stretched(vectors[:0], 2).tolist() == [[0, 0], [0, 0]]
    ready = prepared["test"]
    order = strangers(len(ready.label), np.random.default_rng(0))
    own, others = ready.on_pieces(), ready.on_pieces(order)
    for segment, (mine, theirs) in enumerate(zip(own["audio"], others["audio"], strict=True)):
        assert mine.shape == theirs.shape
        assert not theirs[[0, -1]].any()
        source = ready.on_words["audio"][order[segment]]
        assert all((source == row).all(1).any() for row in theirs[1:-1])
        assert not np.array_equal(mine, theirs)


@pytest.mark.parametrize("soft", [False, True])
def test_batches_hold_words_or_frames(prepared, soft):
    ready = prepared["test"]
    (batch,) = ready.batches(64, soft=soft)
    width = max(map(len, ready.token_ids))
    expected = (12, 5) if soft else (12, width)
    assert batch["audio"].shape[:2] == batch["vision"].shape[:2] == expected
    assert ("place" in batch) == soft
    torch.testing.assert_close(batch["label"], torch.as_tensor(ready.label)[batch["index"]].float())


def test_arms_that_shift_need_something_to_shift_by(kim, tmp_path):
    corpus, text_encoder, _ = kim.call.args
    with pytest.raises(ValueError, match="arm 'mag' shifts words by audio or vision"):
        kim2022.run(corpus, text_encoder, {}, KIM, ["text-only", "mag"], [0], tmp_path / "runs")
    runs = kim2022.run(corpus, text_encoder, {}, KIM, ["text-only"], [0], tmp_path / "runs")
    assert len(runs.select(arm="text-only")) == 1
