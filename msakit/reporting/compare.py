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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
class Changes:
    """What moved between two results folders.

    numbers: name (paper/corpus/arm), arm, metric, before, after, n_before, n_after (runs), noise (the largest
    difference that counts as noise), verdict; faults: what could not be compared.
    """

    folders: tuple[Path, Path]
    numbers: pd.DataFrame
    faults: tuple[str, ...]

    @property
    def beyond(self) -> bool:
        """Whether any number moved beyond seed noise, or could not be compared."""
        return bool(self.faults) or bool((self.numbers["verdict"] == BEYOND).any())

    def lines(self, everything: bool = False) -> list[str]:
        """The comparison for a terminal."""
        counts = self.numbers["verdict"].value_counts().reindex([SAME, WITHIN, BEYOND], fill_value=0)
        shown = [f"{self.folders[0]} → {self.folders[1]}: {len(self.numbers)} numbers, "
                 + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())]  # fmt: skip
        shown += [f"not comparable: {fault}" for fault in self.faults]
        numbers = self.numbers if everything else self.numbers[self.numbers["verdict"] != SAME]
        rows = [
            [row["name"], metrics.metric(row["metric"]).label, f"{row['before']:.4f}", f"{row['after']:.4f}",
             f"{row['after'] - row['before']:+.4f}", f"{row['noise']:.4f}", f"{row['n_before']}, {row['n_after']}",
             row["verdict"]]
            for row in numbers.sort_values("verdict", key=lambda verdict: verdict != BEYOND, kind="stable")
            .to_dict("records")
        ]  # fmt: skip
        if rows:
            head = ["arm", "metric", "before", "after", "moved", "noise", "runs", ""]
            shown += ["", *tabulate(rows, headers=head, tablefmt="simple", disable_numparse=True).splitlines()]
        return shown


def compare(before: Path, after: Path, papers: Mapping[str, Paper]) -> Changes:
    """Compare two results folders of one profile, each in either form of its runs.

    Raises RecordError where a folder holds no runs at all.
    """
    folders = (Path(before), Path(after))
    sides = [read_runs(folder / "runs", on_error="report") for folder in folders]
    faults = [f"{folder}: {problem}" for folder, side in zip(folders, sides, strict=True) for problem in side.problems]
    parts = [_parts(side) for side in sides]
    faults += _in_one_only([map(" on ".join, part) for part in parts], folders)
    found = []
    for key in [key for key in parts[0] if key in parts[1]]:
        where, both = " on ".join(key), [each[key] for each in parts]
        prints = [sorted(part.frame["fingerprint"].unique()) for part in both]
        if prints[0] != prints[1]:
            shown = " and ".join(", ".join(item[:12] for item in side) for side in prints)
            faults.append(f"{where}: the corpora differ (fingerprints {shown}); make both from the same data")
            continue
        frames = [_scores(part, papers) for part in both]
        faults += [f"{where}: {fault}" for fault in _in_one_only([frame["arm"] for frame in frames], folders)]
        numbers = _side_by_side(*frames)
        found.append(numbers.assign(name="/".join(key) + "/" + numbers["arm"]))
    numbers = _with_verdicts(pd.concat(found, ignore_index=True)) if found else pd.DataFrame(columns=["verdict"])
    return Changes(folders, numbers, tuple(faults))


def _parts(runs: Runs) -> dict[tuple[str, str], Runs]:
    names = dict.fromkeys(zip(runs.frame["paper"], runs.frame["corpus"], strict=True))
    return {(paper, corpus): runs.select(paper=paper, corpus=corpus) for paper, corpus in names}


def _in_one_only(sides: Sequence[Iterable[str]], folders: Sequence[Path]) -> list[str]:
    before, after = map(set, sides)
    only = zip((before - after, after - before), folders, strict=True)
    return [f"{', '.join(sorted(names))} in {folder} only" for names, folder in only if names]


def _scores(runs: Runs, papers: Mapping[str, Paper]) -> pd.DataFrame:
    """arm, metric, trained, n, mean, sum of squares about it. runs: of one paper and corpus."""
    paper, task = (str(runs.frame[name].iloc[0]) for name in ("paper", "task"))
    names = papers[paper].metrics(task) if paper in papers else metrics.names(FITTING[task])
    grouped = scores(runs, names).groupby(["arm", "metric"], sort=False)["value"]
    frame = grouped.agg(n="size", defined="count", mean="mean", spread="var").reset_index()
    return frame.assign(
        mean=frame["mean"].where(frame["defined"] == frame["n"]),
        squares=frame["spread"].fillna(0.0) * (frame["n"] - 1),
        trained=frame["arm"].isin(runs.select(reference=False).arms),
    )


def _side_by_side(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Each number of both sides with its variance over seeds and the degrees of freedom of the quantile."""
    both = before.merge(after.drop(columns="trained"), on=["arm", "metric"], suffixes=("_before", "_after"))
    both["squares"], both["df"] = both["squares_before"] + both["squares_after"], both["n_before"] + both["n_after"] - 2
    sums = both[both["trained"]].groupby("metric")[["squares", "df"]].sum()
    pooled = sums.reindex(both["metric"], fill_value=0).reset_index(drop=True)
    # Where there are no degrees of freedom, 0 / 0 is undefined, and passed over.
    variance = pd.concat([each["squares"] / each["df"] for each in (both, pooled)], axis=1).max(axis=1)
    return both.assign(variance=variance.where(both["trained"]).fillna(0.0), df=pooled["df"])


def _with_verdicts(numbers: pd.DataFrame) -> pd.DataFrame:
    from scipy import stats

    numbers = numbers.rename(columns={"mean_before": "before", "mean_after": "after"})
    quantile = stats.t.ppf(1 - ALPHA / 2 / len(numbers), numbers["df"].astype(float))
    half = quantile * np.sqrt(numbers["variance"] * (1 / numbers["n_before"] + 1 / numbers["n_after"]))
    numbers["noise"] = np.fmax(half, TOLERANCE)
    size = (numbers["after"] - numbers["before"]).abs()
    same = (size <= TOLERANCE) | (numbers["before"].isna() & numbers["after"].isna())
    # A number that is undefined on one side is beyond.
    return numbers.assign(verdict=np.select([same, size <= numbers["noise"]], [SAME, WITHIN], BEYOND))
