"""Two results folders side by side: which numbers moved, by how much, and whether by more than seeds explain.

For two machines, two versions, or ours and a colleague's. Each number is an arm's mean over its seeds of one metric on
test. The rule:

* **same**: the means differ by no more than what storing predictions with six digits leaves open;
* **within seed noise**: |difference| ≤ t·s·√(1/n₁ + 1/n₂). s is the larger of the two arms' own pooled standard
  deviation over seeds and that of all arms of the paper, corpus and metric, for three seeds are too few to know one
  arm's spread; t is the quantile at which, were nothing but seeds at work, all numbers together stay inside with a
  probability of 1 - alpha (Bonferroni);
* **beyond seed noise** otherwise. What no seed can change (an oracle, a constant) is beyond if it is not the same.

What cannot be compared counts as beyond too, with its reason: a corpus of another fingerprint, a run that cannot be
read (another schema, torn), an arm that only one side has. Other seeds are fine: means are compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from msakit.evaluation import metrics
from msakit.reporting.contract import Paper
from msakit.reporting.scores import scores
from msakit.runs.store import Runs, read_runs

TOLERANCE = 1e-5  # of a mean
ALPHA = 0.01  # chance that, of all numbers together, even one seems to move
SAME, WITHIN, BEYOND = "same", "within seed noise", "beyond seed noise"
FITTING = {"regression": "mini", "classification": "classification"}  # profile of metrics, by task


@dataclass(frozen=True)
class Moved:
    """One number on both sides."""

    paper: str
    corpus: str
    arm: str
    metric: str
    before: float
    after: float
    n: tuple[int, int]
    noise: float  # the largest difference that counts as noise
    verdict: str


@dataclass(frozen=True)
class Changes:
    """What moved between two results folders."""

    before: Path
    after: Path
    numbers: tuple[Moved, ...]
    faults: tuple[str, ...]  # what could not be compared

    @property
    def beyond(self) -> bool:
        """Whether any number moved beyond seed noise, or could not be compared."""
        return bool(self.faults) or any(number.verdict == BEYOND for number in self.numbers)

    def lines(self, everything: bool = False) -> list[str]:
        """The comparison for a terminal."""
        verdicts = [number.verdict for number in self.numbers]
        counts = {verdict: verdicts.count(verdict) for verdict in (SAME, WITHIN, BEYOND)}
        shown = [f"{self.before} → {self.after}: {len(self.numbers)} numbers, "
                 + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())]  # fmt: skip
        shown += [f"not comparable: {fault}" for fault in self.faults]
        numbers = [number for number in self.numbers if everything or number.verdict != SAME]
        numbers.sort(key=lambda number: number.verdict != BEYOND)
        if numbers:
            rows = [
                [f"{number.paper}/{number.corpus}/{number.arm}", metrics.metric(number.metric).label,
                 f"{number.before:.4f}", f"{number.after:.4f}", f"{number.after - number.before:+.4f}",
                 f"{number.noise:.4f}", f"{number.n[0]}, {number.n[1]}", number.verdict]
                for number in numbers
            ]  # fmt: skip
            head = ["arm", "metric", "before", "after", "moved", "noise", "runs", ""]
            shown += ["", *tabulate(rows, headers=head, tablefmt="simple", disable_numparse=True).splitlines()]
        return shown


def compare(before: Path, after: Path, papers: Mapping[str, Paper]) -> Changes:
    """Compare two results folders of one profile, each in either form of its runs.

    Raises RecordError where a folder holds no runs at all.
    """
    sides = [read_runs(Path(folder) / "runs", on_error="report") for folder in (before, after)]
    faults = [f"{folder}: {problem}" for folder, side in zip((before, after), sides, strict=True)
              for problem in side.problems]  # fmt: skip
    parts = [_parts(side) for side in sides]
    for index, folder in enumerate((before, after)):
        only = [f"{paper} on {corpus}" for paper, corpus in parts[index] if (paper, corpus) not in parts[1 - index]]
        faults += [f"{name} is in {folder} only" for name in only]
    numbers: list[tuple[Moved, float, float]] = []
    for key in [key for key in parts[0] if key in parts[1]]:
        one, two = parts[0][key], parts[1][key]
        where = " on ".join(key)
        prints = [sorted(side.frame["fingerprint"].unique()) for side in (one, two)]
        if prints[0] != prints[1]:
            shown = " and ".join(", ".join(item[:12] for item in side) for side in prints)
            faults.append(f"{where}: the corpora differ (fingerprints {shown}); make both from the same data")
            continue
        frames = [_scores(side, papers) for side in (one, two)]
        faults += _in_one_only(where, frames, (before, after))
        numbers += _moved(key, frames)
    return Changes(Path(before), Path(after), tuple(_with_verdicts(numbers)), tuple(faults))


def _parts(runs: Runs) -> dict[tuple[str, str], Runs]:
    found = runs.frame[["paper", "corpus"]].drop_duplicates().itertuples(index=False)
    names = [(str(row.paper), str(row.corpus)) for row in found]
    return {(paper, corpus): runs.select(paper=paper, corpus=corpus) for paper, corpus in names}


def _scores(runs: Runs, papers: Mapping[str, Paper]) -> pd.DataFrame:
    """arm, metric, trained, n, mean, sum of squares about it. runs: of one paper and corpus."""
    paper, task = (str(runs.frame[name].iloc[0]) for name in ("paper", "task"))
    names = papers[paper].metrics(task) if paper in papers else metrics.names(FITTING[task])
    grouped = scores(runs, names).groupby(["arm", "metric"], sort=False)["value"]
    frame = grouped.agg(n="size", mean="mean", spread="var").reset_index()
    undefined = grouped.apply(lambda values: values.isna().any()).to_numpy()
    frame["squares"] = frame["spread"].fillna(0.0) * (frame["n"] - 1)
    trained = frame["arm"].isin(runs.select(reference=False).arms)
    return frame.assign(mean=frame["mean"].where(~undefined), trained=trained)


def _in_one_only(where: str, frames: list[pd.DataFrame], folders: tuple[Path, Path]) -> list[str]:
    arms = [set(frame["arm"]) for frame in frames]
    faults = []
    for index, folder in enumerate(folders):
        only = sorted(arms[index] - arms[1 - index])
        faults += [f"{where}: {', '.join(only)} in {folder} only"] if only else []
    return faults


def _moved(key: tuple[str, str], frames: list[pd.DataFrame]) -> list[tuple[Moved, float, float]]:
    """Each number with s² and its degrees of freedom."""
    both = frames[0].merge(frames[1].drop(columns="trained"), on=["arm", "metric"], suffixes=("_1", "_2"))
    both["squares"] = both["squares_1"] + both["squares_2"]
    both["df"] = both["n_1"] + both["n_2"] - 2
    sums = both[both["trained"]].groupby("metric")[["squares", "df"]].sum()
    found = []
    for row in both.to_dict("records"):
        number = Moved(
            *key, row["arm"], row["metric"], row["mean_1"], row["mean_2"], (row["n_1"], row["n_2"]), 0.0, SAME
        )
        shared = sums.loc[row["metric"]] if row["metric"] in sums.index else {"squares": 0.0, "df": 0}
        kinds = [(row["squares"], row["df"]), (shared["squares"], shared["df"])] if row["trained"] else []
        variance = max((float(squares / df) for squares, df in kinds if df), default=0.0)
        found.append((number, variance, float(shared["df"])))
    return found


def _with_verdicts(found: list[tuple[Moved, float, float]]) -> list[Moved]:
    from scipy import stats

    numbers = []
    for number, variance, df in found:
        level = 1 - ALPHA / 2 / max(1, len(found))
        noise = 0.0
        if variance > 0 and df > 0:
            noise = float(stats.t.ppf(level, df)) * float(np.sqrt(variance * (1 / number.n[0] + 1 / number.n[1])))
        noise = max(noise, TOLERANCE)
        size = abs(number.after - number.before)
        if np.isnan(number.before) and np.isnan(number.after):
            verdict = SAME
        elif not size <= noise:  # nan on one side is beyond
            verdict = BEYOND
        else:
            verdict = SAME if size <= TOLERANCE else WITHIN
        numbers.append(replace(number, noise=noise, verdict=verdict))
    return numbers
