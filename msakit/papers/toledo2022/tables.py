"""Tables of Toledo & Marcacini 2022, from recorded runs alone: the arms, and what else their runs allow."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from msakit import papers
from msakit.evaluation import metrics, statistics
from msakit.evaluation.comparisons import compare
from msakit.reporting.contract import Paper
from msakit.reporting.scores import (
    TEST_NOTE,
    arms_in_order,
    arrays,
    by_corpus,
    definitions,
    labels,
    main_metric,
    scored,
    scores,
    tested,
    with_holm,
)
from msakit.reporting.tables import Table, arm_table, data_note
from msakit.runs.arm import MEAN, Arm, Protocol
from msakit.runs.store import Runs

log = logging.getLogger(__name__)

PAPER = "toledo2022"
NOTES = (
    "Runs of an arm are folds where the corpus is run in folds, seeds otherwise. The training parts of folds overlap, "
    "so intervals over folds are somewhat too narrow.",
    "Protocol corrected: stratified folds, early stopping on a validation part of the training folds, nothing dropped, "
    "attention over the two modality tokens, 0.5 on probabilities.",
    "VisualBERT sees grid cells of the image encoder in place of detected regions.",
    "No number of the paper could be found in public, so there is no reference row.",
)
COUNTED = {
    "trainable_parameters": "trainable parameters (M)",
    "total_parameters": "all parameters (M)",
    "flops_per_sample": "operations a sample (training)",
    "flops_per_prediction": "operations a prediction",
}
TIMED = {"seconds_per_epoch": "time an epoch (s)", "epoch_peak_memory_mb": "peak memory of an epoch (MiB)"}


def tables(runs: Runs) -> dict[str, Table]:
    """By name, for each corpus: the arms, and where the runs have it -protocols, -classes, -cost, -timing, -shares."""
    paper, found = papers.load(PAPER), {}
    for corpus, part in by_corpus(runs):
        title = f"Toledo & Marcacini 2022: joint fine-tuning on {corpus}"
        found[corpus] = arm_table(part, paper, title, elsewhere=elsewhere(part, paper), notes=NOTES)
        for name, function, title, notes in (
            ("protocols", protocol_table, "the published protocol and what each of its switches is worth", GAPS),
            ("classes", class_table, "each class", CLASSES),
            ("cost", partial(cost_table, columns=COUNTED), "what each arm costs, counted", COST),
            ("timing", partial(cost_table, columns=TIMED), "what each arm costs, timed", TIMING),
            ("shares", share_table, "little training data", SHARES),
        ):
            frame = function(part, paper)
            if len(frame):
                full = f"Toledo & Marcacini 2022 on {corpus}: {title}"
                found[f"{corpus}-{name}"] = Table(f"{corpus}-{name}", full, frame, (*notes, data_note(part)))
    return found


# --- which arms a table shows -------------------------------------------------------------------------------------


def low_resource(arm: Arm) -> bool:
    """Whether an arm keeps to the corpus's own split or takes a part of it: shown by the table and curves of shares."""
    return arm.protocol.folds == "none" or arm.protocol.share < 100


def otherwise(arm: Arm) -> bool:
    """Whether an arm follows another protocol than the sound one, in whole or in part."""
    return not low_resource(arm) and arm.protocol != Protocol()


def elsewhere(runs: Runs, paper: Paper) -> set[str]:
    """The arms that the table and the figure of arms leave to others."""
    known = {**paper.arms, **definitions(runs, paper)}
    return {name for name, arm in known.items() if low_resource(arm) or otherwise(arm)}


def main_arms(runs: Runs, paper: Paper) -> dict[str, str]:
    """Name -> title of the arms of the table of arms, in its order."""
    apart, called = elsewhere(runs, paper), labels(runs)
    return {arm: called[arm] for arm in arms_in_order(runs, paper) if arm not in apart}


def task_of(runs: Runs) -> str:
    """ "regression" or "classification", of runs on one corpus."""
    return str(runs.frame["task"].iloc[0])


# --- protocols ----------------------------------------------------------------------------------------------------

GAPS = (
    "as_published (leaks): shuffled folds, early stopping on the test fold, incomplete last batches dropped (from the "
    "test fold too), fusion over a sequence of length one, and with two classes 0.5 on the raw logit. A row of a "
    "single switch is the corrected protocol with that one difference; stopping on the test fold leaks.",
    "gap: this row less the same arm under the corrected protocol. A threshold on logits concerns two classes alone: "
    "elsewhere its row is the same runs under the same scores, which no test is made of.",
    TEST_NOTE.replace("difference, low", "gap, low"),
)


def protocol_table(runs: Runs, paper: Paper) -> pd.DataFrame:
    """One row an arm and protocol: its scores, and the gap of the first metric from the corrected protocol's."""
    known = definitions(runs, paper)
    order = [name for name in arms_in_order(runs, paper) if not low_resource(known[name])]
    varied: dict[str, list[str]] = {}  # an arm under the sound protocol -> the others that are like it
    for name in filter(lambda name: otherwise(known[name]), order):
        base = str(known[name].like)
        sound = base in known and known[base].protocol == Protocol()
        varied.setdefault(base if sound else name, []).extend([name] if sound else [])
    rows = []
    for base in filter(varied.__contains__, order):
        rows.append(_protocol_row(runs, paper, base))
        rows += [_protocol_row(runs, paper, name, base) for name in varied[base]]
    return with_holm(pd.DataFrame(rows))


def protocol_gaps(runs: Runs, paper: Paper) -> pd.DataFrame:
    """protocol, mean, low, high: what each other protocol does to the arm that is drawn; empty without any."""
    frame, base = protocol_table(runs, paper), definitions(runs, paper).get(paper.facts["drawn"]["protocols"])
    gap = next((name for name in map(str, frame) if name.startswith("gap of ")), None)
    if gap is None or base is None:
        return pd.DataFrame()
    own = frame[(frame["arm"] == base.title) & frame[gap].notna()]
    return own.rename(columns={gap: "mean"}).reindex(columns=["protocol", "mean", "low", "high"])


def _protocol_row(runs: Runs, paper: Paper, name: str, base: str | None = None) -> dict[str, Any]:
    known = definitions(runs, paper)
    protocol, own = known[name].protocol, runs.select(arm=name)
    wanted = paper.metrics(task_of(own))[:3]
    called = paper.facts["protocols"].get(protocol.name, protocol.name) + (" (leaks)" if protocol.leaks else "")
    row: dict[str, Any] = {"arm": known[name if base is None else base].title, "protocol": called}
    means = scores(own, wanted).groupby("metric")["value"].mean()
    row |= {"folds" if own.frame["fold"].notna().all() else "seeds": len(own)} | {
        metrics.metric(metric).title: means[metric] for metric in wanted
    }
    if base is not None:
        row |= _gap(runs, name, base, wanted[0])
    return row


def _gap(runs: Runs, name: str, base: str, metric: str) -> dict[str, float]:
    """The arm less its base, tested unless they are the same runs under the same scores."""
    column = f"gap of {metrics.metric(metric).label}"
    try:
        first, second = (scored(runs, arm, metric) for arm in (name, base))
        if (first.arm, first.metric) == (second.arm, second.metric):
            return {}
        found = tested(compare([(1, first), (-1, second)]))
    except ValueError as error:
        # Seeds that drop other segments of one test split are no repetitions of each other.
        log.info("no test of %s against %s: %s", name, base, error)
        values = [scores(runs.select(arm=arm), metric)["value"].mean() for arm in (name, base)]
        found = {"difference": values[0] - values[1]}
    return {column if key == "difference" else key: value for key, value in found.items()}


# --- classes ------------------------------------------------------------------------------------------------------

CLASSES = (
    "Precision, recall and F1 of each class, mean over the runs; interval: 95 % t-interval of the mean F1 over runs.",
)


def class_table(runs: Runs, paper: Paper) -> pd.DataFrame:
    """One row an arm and class, under the corrected protocol; none for numbers."""
    from sklearn.metrics import precision_recall_fscore_support

    rows: list[tuple[Any, ...]] = []
    for arm, title in main_arms(runs, paper).items():
        own = list(runs.select(arm=arm))
        names = own[0].record.corpus.task.classes
        per_run = []
        for run in own if names else ():
            values, label = arrays(run)
            options: dict[str, Any] = {"labels": range(len(names)), "zero_division": 0}
            per_run.append(precision_recall_fscore_support(label, values.argmax(axis=1), **options)[:3])
        for index, name in enumerate(names):
            each = np.array(per_run)[:, :, index]
            f1 = statistics.over_seeds(each[:, 2])
            rows.append((title, name, len(each), *each.mean(0), f1.sd, f1.low, f1.high))
    columns = ["arm", "class", "runs", "precision ↑", "recall ↑", "F1 ↑", "s.d. of F1", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


# --- costs --------------------------------------------------------------------------------------------------------

COST = (
    "Operations by torch's FLOP counter: of a training sample forward and backward, of a prediction forward alone, "
    "from text and image on. Frozen encoders train on stored vectors. Late fusion costs what its two parts cost.",
    "epochs: until early stopping, mean over runs; score: mean over runs.",
)
TIMING = (
    "Each arm in its first run, all on one machine: an epoch without validation, and the tensors that it holds at its "
    "peak (weights, gradients, the optimizer's state, activations). Late fusion takes the time of both parts, and the "
    "memory of the larger one.",
)


def costs(runs: Runs, paper: Paper) -> pd.DataFrame:
    """arm, title, COUNTED and TIMED, epochs (mean over runs), mean, low, high (of the score) of every measured arm."""
    metric = paper.facts["drawn_metric"][task_of(runs)]
    known = definitions(runs, paper)
    rows = []
    for arm, title in main_arms(runs, paper).items():
        averaged = known[arm].model == MEAN
        parts = [_measured(runs, part) for part in (known[arm].args["of"] if averaged else [arm])]
        if not all("flops_per_sample" in part for part in parts):
            continue  # seeds or folds of another job may have measured it
        row: dict[str, Any] = {"arm": arm, "title": title}
        row["epochs"] = np.nan if averaged else float(runs.select(arm=arm).frame["epochs"].mean())
        for name in (*COUNTED, *TIMED):
            values = [float(part.get(name, np.nan)) for part in parts]
            row[name] = max(values) if name == "epoch_peak_memory_mb" else sum(values)
        score = statistics.over_seeds(scored(runs, arm, metric).values)
        rows.append(row | {"mean": score.mean, "low": score.low, "high": score.high})
    return pd.DataFrame(rows)


def _measured(runs: Runs, arm: str) -> dict[str, Any]:
    """What the first run of an arm has measured of its costs."""
    for run in runs.select(arm=arm):
        if "flops_per_sample" in run.record.measurements:
            return run.record.measurements | (run.runtime.timings if run.runtime else {})
    return {}


def cost_base(frame: pd.DataFrame, paper: Paper) -> pd.Series:
    """The row of `costs` that others are given as ratios to: that of the facts, or else the first."""
    named = frame[frame["arm"] == paper.facts["cost_base"]]
    row: pd.Series = (named if len(named) else frame).iloc[0]
    return row


def cost_table(runs: Runs, paper: Paper, columns: Mapping[str, str]) -> pd.DataFrame:
    """Parameters and what is timed as they are, operations and what is timed as ratios to the base."""
    frame = costs(runs, paper)
    if frame.empty or frame[list(columns)].isna().all(axis=None):
        return pd.DataFrame()
    base = cost_base(frame, paper)
    shown = pd.DataFrame({"arm": frame["title"]})
    for name, label in columns.items():
        values = frame[name].astype(float)
        if name.endswith("parameters"):
            shown[label] = values / 1e6
            continue
        if name in TIMED:
            shown[label] = values
        shown[f"{label.partition(' (')[0]} (× {base['title']})"] = values / float(base[name])
    if columns is COUNTED:
        metric = paper.facts["drawn_metric"][task_of(runs)]
        shown = shown.assign(**{"epochs": frame["epochs"], metrics.metric(metric).title: frame["mean"]})
    return shown


# --- shares of the training data ----------------------------------------------------------------------------------

SHARES = (
    "Nested, stratified subsets of the training split of the corpus; its validation and test splits are whole. Mean "
    "and sample s.d. (ddof 1) over seeds, 95 % t-interval of the mean, cut where the metric ends.",
)


def share_scores(runs: Runs, paper: Paper) -> pd.DataFrame:
    """arm (the one that is varied), title, share (per cent), seed, value (first metric on test), by arm and share."""
    every = {**paper.arms, **definitions(runs, paper)}
    places = {name: place for place, name in enumerate(every)}
    rows: dict[tuple[int, int], pd.DataFrame] = {}
    for name in (name for name in arms_in_order(runs, paper) if low_resource(every[name])):
        share, base = every[name].protocol.share, str(every[name].like)
        if base not in every or (places[base], share) in rows:  # a reader's own arm is a line of its own
            base = name
        found = scores(runs.select(arm=name), main_metric(runs, paper))
        found = found.assign(arm=base, title=every[base].title, share=share)
        rows[places[base], share] = found[["arm", "title", "share", "seed", "value"]]
    return pd.concat([rows[key] for key in sorted(rows)], ignore_index=True) if rows else pd.DataFrame()


def share_means(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """arm, title, share, n, mean, sd, low, high of `share_scores`; intervals of rates are cut at 0 and 1."""
    least, most = (0.0, 1.0) if metrics.metric(metric).kind == "classification" else (-np.inf, np.inf)
    rows = []
    for key, part in frame.groupby(["arm", "title", "share"], sort=False):
        got = statistics.over_seeds(part["value"].to_numpy(float))
        rows.append((*key, got.n, got.mean, got.sd, max(got.low, least), min(got.high, most)))
    return pd.DataFrame(rows, columns=["arm", "title", "share", "n", "mean", "sd", "low", "high"])


def share_table(runs: Runs, paper: Paper) -> pd.DataFrame:
    """One row an arm and share."""
    frame = share_scores(runs, paper)
    if frame.empty:
        return frame
    metric = main_metric(runs, paper)
    names = {"title": "arm", "share": "share of training data (%)", "n": "seeds", "sd": "s.d."}
    rows = share_means(frame, metric).drop(columns="arm")
    return rows.rename(columns=names | {"mean": metrics.metric(metric).title})
