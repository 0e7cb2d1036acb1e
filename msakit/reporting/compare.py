"""Two results folders side by side: which numbers moved, by how much, and whether by more than seeds explain.

For two machines, two versions, or ours and a colleague's. Each number is an arm's mean over its seeds of one metric on
test. The rule, with the tolerances of :data:`TOLERANCE`:

* **same**: the means differ by no more than what storing predictions with six digits leaves open;
* **within seed noise**: |difference| ≤ t·s·√(1/n₁ + 1/n₂). s is the larger of the two arms' own pooled standard
  deviation over seeds and that of all arms of the paper, corpus and metric, for three seeds are too few to know one
  arm's spread; t is the quantile at which, were nothing but seeds at work, all numbers together stay inside with a
  probability of 1 - alpha (Bonferroni);
* **beyond seed noise** otherwise. What no seed can change (an oracle, a constant) is beyond if it is not the same.

What cannot be compared counts as beyond too, with its reason: a corpus of another fingerprint, a run that cannot be
read (another schema, torn), an arm that only one side has. Other seeds are fine: means are compared.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from msakit.evaluation import metrics
from msakit.papers import PAPERS, facts
from msakit.runs.record import Runs, read_all


@dataclass(frozen=True)
class Tolerance:
    """How far numbers may move."""

    same: float = 1e-5  # of a mean
    alpha: float = 0.01  # chance that, of all numbers together, even one seems to move


TOLERANCE = Tolerance()
SAME, WITHIN, BEYOND = "same", "within seed noise", "beyond seed noise"
REFERENCES = ("constant", "oracle")


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
class Comparison:
    """Everything that was found."""

    before: Path
    after: Path
    numbers: tuple[Moved, ...]
    faults: tuple[str, ...]  # what could not be compared
    tolerance: Tolerance = field(default=TOLERANCE)

    @property
    def beyond(self) -> bool:
        """Whether any number moved beyond seed noise, or could not be compared."""
        return bool(self.faults) or any(number.verdict == BEYOND for number in self.numbers)

    def lines(self, everything: bool = False) -> list[str]:
        """The comparison for a terminal."""
        verdicts = [number.verdict for number in self.numbers]
        counts = {verdict: verdicts.count(verdict) for verdict in (SAME, WITHIN, BEYOND)}
        told = [f"{self.before} → {self.after}: {len(self.numbers)} numbers, "
                + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())]  # fmt: skip
        told += [f"not comparable: {fault}" for fault in self.faults]
        shown = [number for number in self.numbers if everything or number.verdict != SAME]
        shown.sort(key=lambda number: number.verdict != BEYOND)
        if shown:
            rows = [
                [f"{number.paper}/{number.corpus}/{number.arm}", metrics.metric(number.metric).label,
                 f"{number.before:.4f}", f"{number.after:.4f}", f"{number.after - number.before:+.4f}",
                 f"{number.noise:.4f}", f"{number.n[0]}, {number.n[1]}", number.verdict]
                for number in shown
            ]  # fmt: skip
            head = ["arm", "metric", "before", "after", "moved", "noise", "seeds", ""]
            told += ["", *tabulate(rows, headers=head, tablefmt="simple", disable_numparse=True).splitlines()]
        return told


def compare(before: Path, after: Path, tolerance: Tolerance = TOLERANCE) -> Comparison:
    """Compare two results folders of one profile. Raises RecordError where a folder holds no runs at all."""
    sides = [read_all(Path(folder) / "runs", on_error="report") for folder in (before, after)]
    faults = [f"{folder}: {problem}" for folder, side in zip((before, after), sides, strict=True)
              for problem in side.problems]  # fmt: skip
    parts = [_parts(side) for side in sides]
    for place, folder in enumerate((before, after)):
        only = [f"{paper} on {corpus}" for paper, corpus in parts[place] if (paper, corpus) not in parts[1 - place]]
        faults += [f"{name} is in {folder} only" for name in only]
    numbers: list[tuple[Moved, float, float]] = []
    for key in [key for key in parts[0] if key in parts[1]]:
        one, two = parts[0][key], parts[1][key]
        where = " on ".join(key)
        prints = [sorted(side.frame["fingerprint"].unique()) for side in (one, two)]
        if prints[0] != prints[1]:
            told = " and ".join(", ".join(item[:12] for item in side) for side in prints)
            faults.append(f"{where}: the corpora differ (fingerprints {told}); make both from the same data")
            continue
        frames = [_scores(side, key[0]) for side in (one, two)]
        faults += _lonely(where, frames, (before, after))
        numbers += _moved(key, frames)
    return Comparison(Path(before), Path(after), tuple(_judged(numbers, tolerance)), tuple(faults), tolerance)


def _parts(runs: Runs) -> dict[tuple[str, str], Runs]:
    found = runs.frame[["paper", "corpus"]].drop_duplicates().itertuples(index=False)
    names = [(str(row.paper), str(row.corpus)) for row in found]
    return {(paper, corpus): runs.select(paper=paper, corpus=corpus) for paper, corpus in names}


def _scores(runs: Runs, paper: str) -> pd.DataFrame:
    """arm, metric, n, mean, sum of squares about it."""
    names = facts(paper)["metrics"] if paper in PAPERS else _fitting(runs)
    grouped = runs.scores(names).groupby(["arm", "metric"], sort=False)["value"]
    frame = grouped.agg(n="size", mean="mean", spread="var").reset_index()
    undefined = grouped.apply(lambda values: values.isna().any()).to_numpy()
    frame["squares"] = frame["spread"].fillna(0.0) * (frame["n"] - 1)
    return frame.assign(mean=frame["mean"].where(~undefined))


def _fitting(runs: Runs) -> str:
    return "mini" if "prediction" in runs.predictions(next(iter(runs))) else "classification"


def _lonely(where: str, frames: list[pd.DataFrame], folders: tuple[Path, Path]) -> list[str]:
    arms = [set(frame["arm"]) for frame in frames]
    told = []
    for place, folder in enumerate(folders):
        only = sorted(arms[place] - arms[1 - place])
        told += [f"{where}: {', '.join(only)} in {folder} only"] if only else []
    return told


def _moved(key: tuple[str, str], frames: list[pd.DataFrame]) -> list[tuple[Moved, float, float]]:
    """Each number with s² and its degrees of freedom."""
    both = frames[0].merge(frames[1], on=["arm", "metric"], suffixes=("_1", "_2"))
    both["squares"] = both["squares_1"] + both["squares_2"]
    both["df"] = both["n_1"] + both["n_2"] - 2
    both["trained"] = ~both["arm"].str.startswith(REFERENCES)
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


def _judged(found: list[tuple[Moved, float, float]], tolerance: Tolerance) -> list[Moved]:
    from scipy import stats

    judged = []
    for number, variance, df in found:
        level = 1 - tolerance.alpha / 2 / max(1, len(found))
        noise = 0.0
        if variance > 0 and df > 0:
            noise = float(stats.t.ppf(level, df)) * float(np.sqrt(variance * (1 / number.n[0] + 1 / number.n[1])))
        noise = max(noise, tolerance.same)
        size = abs(number.after - number.before)
        if np.isnan(number.before) and np.isnan(number.after):
            verdict = SAME
        elif not size <= noise:  # nan on one side is beyond
            verdict = BEYOND
        else:
            verdict = SAME if size <= tolerance.same else WITHIN
        judged.append(replace(number, noise=noise, verdict=verdict))
    return judged
