"""Scores of recorded runs, and the one test of differences that tables, figures and claims share.

Every comparison of two arms is :func:`msakit.evaluation.comparisons.compare`: over seeds and test videos together, or
fold by fold where runs are folds. A `subset` restricts it to some of the scored segments; it takes a table of
predictions and gives True or False a row, such as ``lambda table: table["kind"] == "ambiguous"``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from msakit.evaluation import comparisons, metrics, statistics
from msakit.evaluation.comparisons import Comparison, Predicted, Scored
from msakit.reporting.contract import Paper
from msakit.runs.arm import Arm
from msakit.runs.record import Record, RecordError, values_of
from msakit.runs.store import Run, Runs

Subset = Callable[[pd.DataFrame], Any]

# The note of a table whose rows are `tested`.
TEST_NOTE = (
    "difference, low, high, p: 95 % interval and two-sided p of the t-test over seeds and test videos together (over "
    "folds where runs are folds, paired where both arms have the same folds); p (Holm): corrected for all tests of "
    "this table."
)


def arrays(run: Run, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """Predictions `[segments]`, or probabilities `[segments, classes]`, and labels of one split.

    Raises:
        RecordError: the run has no prediction for that split.
    """
    return _arrays(run, run.test if split == "test" else run.split(split))


def _arrays(run: Run, part: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    if part.empty:
        splits = ", ".join(sorted(run.predictions["split"].unique()))
        raise RecordError(f"{run.where}: no prediction to score in this split or subset (splits: {splits})")
    if "prediction" in part:
        return part["prediction"].to_numpy(float), part["label"].to_numpy(float)
    return part[values_of(part)].to_numpy(float), part["label"].to_numpy()


def scores(runs: Runs, wanted: str | Sequence[str], split: str = "test") -> pd.DataFrame:
    """One row a run and metric: paper, corpus, arm, seed, fold, metric, value, n (segments that the metric used).

    wanted: metric names, or a profile's name of :mod:`msakit.evaluation.metrics`. Under a protocol that decides two
    classes by the logit the metric is the one on logits; the column keeps the name that was asked for.

    Raises:
        RecordError: a run without that split. ValueError: a metric that does not fit the predictions.
    """
    names = metrics.names(wanted)
    rows = []
    for run in runs:
        record, (prediction, label) = run.record, arrays(run, split)
        fold = None if record.fold is None else record.fold.index
        for name in names:
            value, n = metrics.score([_applied(name, record)], prediction, label)[_applied(name, record)]
            rows.append((record.paper, record.corpus.name, record.arm, record.seed, fold, name, value, n))
    columns = ["paper", "corpus", "arm", "seed", "fold", "metric", "value", "n"]
    return pd.DataFrame(rows, columns=columns).astype({"fold": "Int64"})


def _applied(metric: str, record: Record) -> str:
    by_logit = record.definition.protocol.threshold == "logits" and len(record.corpus.task.classes) == 2
    return metrics.ON_LOGITS.get(metric, metric) if by_logit else metric


def scored(runs: Runs, arm: str, metric: str, subset: Subset | None = None) -> Scored:
    """Score one arm of one corpus on test for :func:`msakit.evaluation.comparisons.compare`.

    Its `arm` is the arm that was trained: the recorded `same_as` where the runs were taken over from another arm.

    Raises:
        ValueError: no runs of it, runs of several corpora, or seeds that were tested on different segments.
    """
    chosen = list(runs.select(arm=arm))
    if not chosen:
        raise ValueError(f"{runs.where}: no run of arm {arm!r} to score; run it, or leave it out")
    corpora = sorted({f"{run.record.paper} on {run.record.corpus.name}" for run in chosen})
    if len(corpora) > 1:
        raise ValueError(f"{runs.where}: arm {arm!r} has runs of {', '.join(corpora)}; select one first")
    first = chosen[0].record
    if subset is not None and first.fold is not None:
        # A fold may have no such segment.
        chosen = [run for run in chosen if np.any(subset(run.test))] or chosen
    division = "" if first.fold is None else f"{first.fold.kind}-{first.fold.count}"
    trained_as = {run.record.same_as or arm for run in chosen}
    name = trained_as.pop() if len(trained_as) == 1 else arm
    tested = [_tested(run, subset) for run in chosen]
    return comparisons.score_runs(name, _applied(metric, first), tested, division, trained=not first.reference)


def _tested(run: Run, subset: Subset | None) -> Predicted:
    part = run.test if subset is None else run.test[np.asarray(subset(run.test), dtype=bool)]
    sizes = run.record.measurements.get("segments", {})
    return Predicted(
        *_arrays(run, part),
        part["segment_id"].to_numpy(str),
        part["video_id"].to_numpy(str),
        None if run.record.fold is None else run.record.fold.index,
        (int(sizes["train"]), int(sizes["test"])) if sizes.get("train") else None,
    )


def compare(runs: Runs, first: str, second: str, metric: str, subset: Subset | None = None) -> Comparison:
    """First arm less second on the test split. Raises ValueError where they cannot be compared."""
    sides = [scored(runs, arm, metric, subset=subset) for arm in (first, second)]
    return comparisons.compare([(1, sides[0]), (-1, sides[1])])


def tested(found: Comparison) -> dict[str, float]:
    """The columns that a table shows of a comparison: difference, low, high, p."""
    return {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p}


def with_holm(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the column "p (Holm)" behind its column "p", corrected over all its rows that have a p."""
    if "p" not in frame:
        return frame
    frame = frame.copy()
    frame.insert(list(frame.columns).index("p") + 1, "p (Holm)", statistics.holm(frame["p"].to_numpy(float)))
    return frame


def estimates(runs: Runs, arms: Sequence[str], metric: str, subsets: Mapping[str, Subset | None]) -> pd.DataFrame:
    """The mean of each arm on each subset of the test segments, with the interval that counts seeds and videos.

    One row a subset and arm, in the order given: group (the subset's name), arm, mean, low, high, n_runs (seeds or
    folds), n_segments, n_videos. Subsets without a segment are left out.
    """
    rows = []
    for group, subset in subsets.items():
        for arm in arms:
            try:
                side = scored(runs, arm, metric, subset=subset)
            except RecordError:
                continue
            got = comparisons.compare([(1, side)])
            rows.append((group, arm, got.difference, got.low, got.high, len(side.values), got.n_segments, got.n_videos))
    columns = ["group", "arm", "mean", "low", "high", "n_runs", "n_segments", "n_videos"]
    return pd.DataFrame(rows, columns=columns)


def by_corpus(runs: Runs) -> Iterator[tuple[str, Runs]]:
    """The runs corpus by corpus, in alphabetical order."""
    for corpus in sorted(runs.frame["corpus"].unique()):
        yield corpus, runs.select(corpus=corpus)


def arms_in_order(runs: Runs, paper: Paper) -> tuple[str, ...]:
    """The recorded arms that were trained: those of the paper's facts in their order, then all others."""
    found = runs.select(reference=False).arms
    return tuple(arm for arm in dict.fromkeys([*paper.arms, *found]) if arm in found)


def definitions(runs: Runs, paper: Paper) -> dict[str, Arm]:
    """The definitions of `arms_in_order`, by name."""
    found = {run.record.arm: run.record.definition for run in runs}
    return {arm: found[arm] for arm in arms_in_order(runs, paper)}


def main_metric(runs: Runs, paper: Paper) -> str:
    """The first metric of the paper for the task of these runs, which are on one corpus."""
    return paper.metrics(str(runs.frame["task"].iloc[0]))[0]


def labels(runs: Runs, arms: Sequence[str] | None = None) -> dict[str, str]:
    """Arm, references among them, to what tables call it (`label`); of those arms in their order, or of all."""
    definitions = {run.record.arm: run.record.definition for run in runs}
    return {arm: label(definitions[arm]) for arm in (definitions if arms is None else arms)}


def label(arm: Arm) -> str:
    """The arm's title, behind its group if it has one: "Shift of words: MAG"."""
    return f"{arm.group}: {arm.title}" if arm.group else arm.title


def reference_value(runs: Runs, name: str, metric: str) -> float | None:
    """Mean test score of a reference ("constant", "oracle", "oracle-text", ...), or None where it was not recorded."""
    chosen = runs.select(reference=True, arm=name)
    return float(scores(chosen, metric)["value"].mean()) if len(chosen) else None


def kind_of_data(runs: Runs) -> str:
    """What figures say in their titles: "generated data" or "real data"."""
    return "generated data" if runs.frame["generated"].any() else "real data"
