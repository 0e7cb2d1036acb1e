"""Scores and comparisons of recorded runs: the one test that every table uses."""

import numpy as np
import pandas as pd
import pytest
from small_runs import classes, paper, regression, write

from msakit.reporting import scores
from msakit.runs.record import RecordError
from msakit.runs.store import read_runs

LABEL = np.linspace(-2, 2, 24)
VIDEOS = [f"v{index // 4}" for index in range(24)]
KINDS = ["plain", "ambiguous"] * 12


def noisy(seed, error):
    generator = np.random.default_rng(seed)
    return regression(LABEL, LABEL + error * generator.normal(size=24), video_id=VIDEOS, kind=KINDS)


def ambiguous(table):
    return table["kind"] == "ambiguous"


@pytest.fixture
def runs(tmp_path):
    for seed in range(4):
        write(tmp_path, "near", seed, noisy(seed, 0.2))
        write(tmp_path, "far", seed, noisy(10 + seed, 1.0))
        write(tmp_path, "same", seed, noisy(seed, 0.2), same_as="near")
    write(tmp_path, "oracle", 0, regression(LABEL, LABEL, video_id=VIDEOS, kind=KINDS), title="Oracle", reference=True)
    return read_runs(tmp_path)


def test_scores_are_a_row_a_run_and_metric(runs):
    frame = scores.scores(runs, ["mae", "acc2_non0"])
    assert list(frame.columns) == ["paper", "corpus", "arm", "seed", "fold", "metric", "value", "n"]
    assert len(frame) == 13 * 2
    assert frame["fold"].isna().all()
    one = frame[(frame["arm"] == "far") & (frame["seed"] == 2) & (frame["metric"] == "mae")].iloc[0]
    table = noisy(12, 1.0)
    assert one["value"] == pytest.approx((table["prediction"] - table["label"]).abs().mean(), rel=1e-5)
    assert one["n"] == 24
    with pytest.raises(RecordError, match=r"no prediction to score in this split or subset \(splits: test\)"):
        scores.scores(runs, "mae", split="valid")
    with pytest.raises(ValueError, match="accuracy scores classification predictions"):
        scores.scores(runs, "accuracy")


def test_a_comparison_counts_seeds_and_videos_in_a_subset_too(runs):
    whole = scores.compare(runs, "near", "far", "mae")
    assert (whole.unit, whole.n_runs, whole.n_segments, whole.n_videos) == ("seeds and videos", (4, 4), 24, 6)
    part = scores.compare(runs, "near", "far", "mae", subset=ambiguous)
    assert (part.n_segments, part.n_videos) == (12, 6)
    by_hand = [
        np.mean([run.test[ambiguous(run.test)].eval("abs(prediction - label)").mean() for run in runs.select(arm=arm)])
        for arm in ("near", "far")
    ]
    assert part.difference == pytest.approx(by_hand[0] - by_hand[1])
    assert min(part.se_seeds, part.se_videos) > 0
    assert set(scores.tested(part)) == {"difference", "low", "high", "p"}


def test_an_arm_of_equal_training_is_the_arm_that_was_trained(runs):
    assert scores.scored(runs, "same", "mae").arm == "near"
    assert not scores.scored(runs, "oracle", "mae").trained
    with pytest.raises(ValueError, match="no run of arm 'gone' to score"):
        scores.scored(runs, "gone", "mae")


def test_estimates_by_subset(runs):
    found = scores.estimates(runs, ["near", "far"], "mae", {
        "all": None, "ambiguous": ambiguous, "sarcastic": lambda table: table["kind"] == "sarcastic",
    })  # fmt: skip
    assert found[["group", "arm", "n_runs", "n_segments", "n_videos"]].to_numpy().tolist() == [
        ["all", "near", 4, 24, 6], ["all", "far", 4, 24, 6],
        ["ambiguous", "near", 4, 12, 6], ["ambiguous", "far", 4, 12, 6],
    ]  # fmt: skip
    assert ((found["low"] < found["mean"]) & (found["mean"] < found["high"])).all()


def test_holm_over_the_rows_of_a_table():
    frame = pd.DataFrame({"arm": list("abc"), "p": [0.01, np.nan, 0.04], "note": ""})
    found = scores.with_holm(frame)
    assert list(found.columns) == ["arm", "p", "p (Holm)", "note"]
    assert found["p (Holm)"].to_numpy() == pytest.approx([0.02, np.nan, 0.04], nan_ok=True)
    assert list(scores.with_holm(frame[["arm"]]).columns) == ["arm"]


def in_folds(root, name, kind="stratified", dropped=0, base=0.0, train=8):
    for fold in range(4):
        ids = [f"{fold}-{index}" for index in range(4 - dropped)]
        error = base + 0.1 * fold + 0.05 * (fold % 2) * base
        predictions = regression(
            np.zeros(4 - dropped), np.full(4 - dropped, error), ids=ids, kind=["a", "a", "b", "b"][dropped:]
        )
        sizes = {"segments": {"train": train, "valid": 4, "test": 4}}
        write(root, name, 0, predictions, fold=(fold, 4), measurements=sizes, protocol={"folds": kind})


def test_rows_that_share_folds_are_paired_and_others_are_not(tmp_path):
    """The table of protocols once compared arms of equal folds as if they were independent samples."""
    in_folds(tmp_path, "sound")
    in_folds(tmp_path, "dropped", dropped=1, base=0.5)
    in_folds(tmp_path, "shuffled", kind="shuffled", base=0.5)
    runs = read_runs(tmp_path)
    paired = scores.compare(runs, "dropped", "sound", "mae")
    assert (paired.unit, paired.n_runs, paired.df) == ("folds", (4, 4), 3)
    d = np.array([0.5, 0.525, 0.5, 0.525])
    assert paired.se == pytest.approx(np.sqrt((1 / 4 + 4 / 8) * d.var(ddof=1)), rel=1e-4)
    unpaired = scores.compare(runs, "shuffled", "sound", "mae")
    assert unpaired.unit == "folds, unpaired"
    assert unpaired.se > 5 * paired.se
    # Only the folds that have such a segment.
    few = scores.scored(runs, "sound", "mae", subset=lambda table: table["segment_id"].isin(["0-1", "2-1"]))
    assert few.folds.tolist() == [0, 2]


def test_two_classes_decided_by_the_logit_are_scored_by_it(tmp_path):
    p1 = np.array([0.55, 0.62, 0.63, 0.2])  # 0.5 on the logit is 0.6225
    for name, threshold in (("sound", "probabilities"), ("logits", "logits")):
        write(tmp_path, name, 0, classes([1, 1, 1, 0], np.stack([1 - p1, p1], axis=1), ["no", "yes"]),
              protocol={"threshold": threshold})  # fmt: skip
    found = scores.scores(read_runs(tmp_path), ["accuracy", "auroc"]).set_index(["arm", "metric"])["value"]
    assert found["sound", "accuracy"] == 1.0
    assert found["logits", "accuracy"] == 0.5
    assert found["logits", "auroc"] == found["sound", "auroc"] == 1.0


def test_order_and_labels_come_from_the_facts_and_the_records(runs, tmp_path):
    write(tmp_path, "apart", 0, noisy(0, 0.5), title="Apart", group="Group")
    runs = read_runs(tmp_path)
    known = paper(arms={name: {"title": name, "model": "m"} for name in ("near", "gone", "far")})
    assert scores.arms_in_order(runs, known) == ("near", "far", "apart", "same")
    assert scores.labels(runs)["apart"] == "Group: Apart"
    assert scores.reference_value(runs, "oracle", "mae") == 0.0
    assert scores.reference_value(runs, "constant", "mae") is None
    assert [corpus for corpus, _ in scores.by_corpus(runs)] == ["mini-mosi"]
    assert scores.kind_of_data(runs) == "generated data"


def test_runs_of_two_corpora_are_not_scored_together(tmp_path):
    for corpus in ("one", "two"):
        write(tmp_path, "a", 0, noisy(0, 0.5), corpus=corpus)
    with pytest.raises(ValueError, match="arm 'a' has runs of kim2022 on one, kim2022 on two; select one first"):
        scores.scored(read_runs(tmp_path), "a", "mae")
