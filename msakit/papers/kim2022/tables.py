"""Tables of Kim & Kim 2022 (reconstructed), from recorded runs alone; which arms they show is in ``paper.yaml``."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from msakit import papers
from msakit.evaluation import metrics, statistics
from msakit.reporting.contract import Paper
from msakit.reporting.scores import (
    TEST_NOTE,
    arms_in_order,
    by_corpus,
    compare,
    estimates,
    labels,
    main_metric,
    scores,
    tested,
    with_holm,
)
from msakit.reporting.tables import Table, arm_table, data_note
from msakit.runs.store import Runs

PAPER = "kim2022"
NOTES = (
    "RECONSTRUCTED: the equations of CMSBERT-CLR are not public; these arms follow its abstract on top of MAG-BERT.",
    "Epoch by the validation loss of the task alone, without the contrastive loss.",
)
REGRESSION_NOTE = "MAE and Corr over all segments."
SWEPT_NOTE = "Points of the sweeps that are not arms of their own stand in the table of sweeps."
# MAG-BERT's scorer leaves out segments whose label is zero, from MAE and Corr too, and its script prints the best epoch
# on test (papers' facts: its repository).
AS_PUBLISHED = {"mae": "mae_non0", "corr": "corr_non0", "acc2_non0_ge": "acc2_non0_ge", "f1w_non0_ge": "f1w_non0_ge"}
LEAKS = "prediction_best_test_epoch"
KINDS = ("plain", "ambiguous", "sarcastic")  # of the generator, in the order shown; others come after


def tables(runs: Runs) -> dict[str, Table]:
    """By name, for each corpus: the arms, and where the runs have it -scoring (both ways), -kinds, -sweep, -space."""
    made = {}
    paper = papers.load(PAPER)
    for corpus, part in by_corpus(runs):
        points = sweep_points(part, paper)
        numbers = part.frame["task"].iloc[0] == "regression"
        notes = [*NOTES, *([REGRESSION_NOTE] if numbers else []), *([SWEPT_NOTE] if points else [])]
        title = f"Kim & Kim 2022 (reconstructed): context-driven modality shifting on {corpus}"
        made[corpus] = arm_table(part, paper, title, elsewhere=points, notes=notes)
        for name, frame, title, said in (
            ("scoring", scoring(part, paper), "as published against corrected", SCORING_NOTES),
            ("kinds", kind_table(part, paper), "kinds of segments apart, with tests", KIND_NOTES),
            (
                "sweep",
                sweep_table(part, paper),
                "weight, temperature and smoothing of the contrastive loss",
                SWEEP_NOTES,
            ),
            ("space", space_table(part, paper), "alignment and uniformity of the modalities", SPACE_NOTES),
        ):
            if len(frame):
                full = f"Kim & Kim 2022 (reconstructed) on {corpus}: {title}"
                made[f"{corpus}-{name}"] = Table(f"{corpus}-{name}", full, frame, (*said, data_note(part), NOTES[0]))
    return made


def unit(runs: Runs) -> str:
    """What the runs of an arm are."""
    return "folds" if runs.frame["fold"].notna().any() else "seeds"


SCORING_NOTES = (
    "corrected: the epoch with the lowest validation loss; all segments count in MAE and Corr.",
    "as published (leaks): the epoch with the highest test accuracy, which MAG-BERT's script prints, and its scorer, "
    "which leaves segments labelled zero out of MAE and Corr too. It has no rule for classes.",
    "gap: as published minus corrected, mean over runs; ± sample s.d. over runs (ddof 1) of the paired gaps. Points of "
    "the sweeps are left out.",
)


def scoring(runs: Runs, paper: Paper) -> pd.DataFrame:
    """Every arm scored both ways: title, seeds, then corrected, as published and the gap of each metric."""
    rows = []
    titles, points = labels(runs), sweep_points(runs, paper)
    for arm in (arm for arm in arms_in_order(runs, paper) if arm not in points):
        found = [run.test for run in runs.select(arm=arm) if LEAKS in run.test]
        if not found:
            continue
        row: dict[str, object] = {"arm": titles[arm], unit(runs): len(found)}
        for name, published in AS_PUBLISHED.items():
            both = np.array([[_score(name, t, "prediction"), _score(published, t, LEAKS)] for t in found])
            gap = statistics.over_seeds(both[:, 1] - both[:, 0])
            shown = metrics.metric(name).title
            row[f"{shown} corrected"], row[f"{shown} as published (leaks)"] = both.mean(0)
            row[f"{shown} gap"], row[f"{shown} gap s.d."] = gap.mean, gap.sd
        rows.append(row)
    return pd.DataFrame(rows)


def _score(metric: str, test: pd.DataFrame, column: str) -> float:
    return metrics.score([metric], test[column].to_numpy(float), test["label"].to_numpy(float))[metric].value


KIND_NOTES = (
    "Mean over runs on the test segments of each kind. " + TEST_NOTE,
    "plain: word and voice agree; ambiguous: a word that only voice and face settle; sarcastic: the words say the "
    "opposite. The kinds are the generator's own.",
)


def ladder(runs: Runs, paper: Paper) -> dict[str, str | None]:
    """The arms that are compared on each kind of segment, to the arm that each is compared with.

    Those of the facts' ladder, each with the one before it; then arms that the facts do not know and that are like one
    of these (compared with it) or like none.
    """
    found = runs.select(reference=False).arms
    known = [arm for arm in paper.facts["ladder"] if arm in found]
    pairs: dict[str, str | None] = dict(zip(known, [None, *known], strict=False))
    for run in runs.select(arm=[arm for arm in found if arm not in paper.arms]):
        like = run.record.definition.like
        if like is None or like in known:
            pairs[run.record.arm] = like
    return pairs


def kind_subsets(runs: Runs) -> dict[str, Callable[[pd.DataFrame], Any]]:
    """Kind of segment to what selects its rows; empty where a run does not have kinds."""
    if not all("kind" in run.test for run in runs):
        return {}
    found = {kind for run in runs for kind in run.test["kind"].unique()}
    order = [*(kind for kind in KINDS if kind in found), *sorted(found - set(KINDS))]
    return {kind: _of_kind(kind) for kind in order}


def _of_kind(kind: str) -> Callable[[pd.DataFrame], Any]:
    return lambda table: table["kind"] == kind


def kind_scores(runs: Runs, paper: Paper) -> pd.DataFrame:
    """`estimates` of the arms of the ladder on each kind of segment."""
    arms = list(ladder(runs, paper))
    return estimates(runs, arms, main_metric(runs, paper), kind_subsets(runs.select(arm=arms)))


def kind_table(runs: Runs, paper: Paper) -> pd.DataFrame:
    """Each arm of the ladder on each kind of segment, and its tested difference from the arm it is compared with."""
    pairs, titles, metric = ladder(runs, paper), labels(runs), main_metric(runs, paper)
    if len(pairs) < 2:
        return pd.DataFrame()
    subsets = kind_subsets(runs.select(arm=list(pairs)))
    rows = []
    for found in kind_scores(runs, paper).to_dict("records"):
        kind, arm, against = found["group"], found["arm"], pairs[found["arm"]]
        row = {"kind": kind, "segments": found["n_segments"], "arm": titles[arm], unit(runs): found["n_runs"]}
        row[metric] = found["mean"]
        if against is not None:
            row |= {"against": titles[against], **tested(compare(runs, arm, against, metric, subsets[kind]))}
        rows.append(row)
    frame = pd.DataFrame(rows)
    return with_holm(frame).fillna({"against": ""}) if "against" in frame else pd.DataFrame()


SWEEP_NOTES = (
    "Test score, mean and sample s.d. (ddof 1) over runs, 95 % t-interval of the mean. Each row varies one setting of "
    "the arm and keeps the others; `own` marks the arm's own value; at zero stands the arm without that part.",
    "The settings were not chosen by this table: the arm's own values were fixed before.",
)


def sweep_points(runs: Runs, paper: Paper) -> dict[str, str]:
    """Arm to the sweep that it is a point of: the arms of that group that are like the arm that it varies."""
    definitions = {run.record.arm: run.record.definition for run in runs.select(reference=False)}
    varied = {name: sweep["arm"] for name, sweep in paper.facts["sweeps"].items()}
    return {arm: d.group for arm, d in definitions.items() if d.group in varied and d.like == varied[d.group]}


def sweep_scores(runs: Runs, paper: Paper) -> pd.DataFrame:
    """sweep, at, own, seed, fold, value: the test score of every run of a sweep, of the varied arm and of zero."""
    points, metric = sweep_points(runs, paper), main_metric(runs, paper)
    definitions = {run.record.arm: run.record.definition.model_dump() for run in runs}
    parts = []
    for name, sweep in paper.facts["sweeps"].items():
        arms = [arm for arm, group in points.items() if group == name]
        if not arms:
            continue
        at = {arm: _value(definitions[arm], sweep["setting"]) for arm in (*arms, sweep["arm"]) if arm in definitions}
        if sweep.get("zero") in definitions:
            at[sweep["zero"]] = 0.0
        found = scores(runs.select(arm=list(at)), metric)
        own = found["arm"] == sweep["arm"]
        parts.append(found.assign(sweep=name, at=found["arm"].map(at), own=own).sort_values("at", kind="stable"))
    columns = ["sweep", "at", "own", "seed", "fold", "value"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame()


def _value(definition: Mapping[str, Any], setting: str) -> float:
    """What an arm has for a setting, such as loss.contrastive.weight."""
    found: Any = definition
    for name in setting.split("."):
        found = found[name]
    return float(found)


def sweep_table(runs: Runs, paper: Paper) -> pd.DataFrame:
    """One row a point of the sweeps."""
    found = sweep_scores(runs, paper)
    if found.empty:
        return found
    rows = []
    for (sweep, at, own), part in found.groupby(["sweep", "at", "own"], sort=False):
        got = statistics.over_seeds(part["value"].to_numpy(float))
        label = paper.facts["sweeps"][sweep]["label"]
        rows.append((label, at, "own" if own else "", got.n, got.mean, got.sd, got.low, got.high))
    columns = ["setting", "value", "own", unit(runs), main_metric(runs, paper), "s.d.", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


SPACE_NOTES = (
    "Alignment: mean squared distance of the two modalities' vectors of the same segment. Uniformity: log of the mean "
    "of exp(-2 squared distance) over pairs of segments. Both on the unit sphere, lower is better (Wang & Isola, ICML "
    "2020); test split, mean and sample s.d. (ddof 1) over runs.",
    "An alignment of 2 is that of independent directions: a pair that stays there was not aligned, whatever the loss. "
    "Points of the sweeps are left out.",
)


def space(runs: Runs, arms: Collection[str]) -> pd.DataFrame:
    """arm, quantity, of, stage, seed (and fold), value of every run of these arms that measured its joint space."""
    rows = [
        (run.record.arm, quantity, of, stage, run.record.stem, value)
        for quantity in ("alignment", "uniformity")
        for arm in arms
        for run in runs.select(arm=arm)
        for stage, values in run.record.measurements.get(quantity, {}).items()
        for of, value in sorted(values.items())  # records of either form in one order
    ]
    return pd.DataFrame(rows, columns=["arm", "quantity", "of", "stage", "seed", "value"])


def space_table(runs: Runs, paper: Paper) -> pd.DataFrame:
    """One row an arm and quantity: before, after."""
    points, titles = sweep_points(runs, paper), labels(runs)
    frame = space(runs, [arm for arm in arms_in_order(runs, paper) if arm not in points])
    rows = []
    for (arm, quantity, of), part in frame.groupby(["arm", "quantity", "of"], sort=False):
        row: dict[str, object] = {"arm": titles[str(arm)], "quantity": quantity, "of": of}
        for stage in ("before", "after"):
            got = statistics.over_seeds(part.loc[part["stage"] == stage, "value"].to_numpy(float))
            row |= {unit(runs): got.n, stage: got.mean, f"{stage} s.d.": got.sd}
        rows.append(row)
    return pd.DataFrame(rows)
