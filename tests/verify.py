"""Check a committed table of arms without msakit: ``python tests/verify.py results/PROFILE/tables/PAPER/CORPUS.csv``.

Mean, sample s.d. and number of runs of each arm and metric are computed from the packed test predictions with numpy and
scikit-learn, and the t-interval of the mean with scipy.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

TOLERANCE = 2e-5  # tables have five decimals, predictions six significant digits
NUMBERS = {  # of the label, of a prediction
    "mae": lambda label, given: np.abs(given - label).mean(),
    "corr": lambda label, given: np.corrcoef(given, label)[0, 1] if np.ptp(given) else np.nan,
    "acc2_non0": lambda label, given: np.mean((given > 0)[label != 0] == (label > 0)[label != 0]),
    "acc2_has0": lambda label, given: np.mean((given >= 0) == (label >= 0)),
    "acc7_round": lambda label, given: np.mean(np.round(given.clip(-3, 3)) == np.round(label.clip(-3, 3))),
}
CLASSES = {  # of the class, of its probabilities
    "accuracy": lambda label, p: accuracy_score(label, p.argmax(axis=1)),
    "f1_macro": lambda label, p: f1_score(
        label, p.argmax(axis=1), average="macro", labels=range(p.shape[1]), zero_division=0
    ),
    "auroc": lambda label, p: (
        roc_auc_score(label, p[:, 1])
        if p.shape[1] == 2
        else roc_auc_score(label, p, multi_class="ovr", average="macro")
    ),
}


@dataclass(frozen=True)
class Difference:
    """A number of a table that its predictions do not give."""

    arm: str
    metric: str
    column: str
    table: float
    recomputed: float


def score(run: pd.DataFrame, metric: str) -> float:
    """A metric of one run's test predictions."""
    classes = run[[name for name in run if name.startswith("p_")]].dropna(axis=1).to_numpy(float)
    if classes.size:
        return CLASSES[metric](run["label"].to_numpy(int), classes / classes.sum(axis=1, keepdims=True))
    return NUMBERS[metric](run["label"].to_numpy(), run["prediction"].to_numpy(float))


def verify(table: Path) -> tuple[int, list[Difference]]:
    """How many numbers of a table of arms were recomputed, and those that differ."""
    runs = table.parents[2] / "runs" / table.parent.name / "predictions.parquet"
    predictions = pd.read_parquet(runs, filters=[("split", "==", "test"), ("corpus", "==", table.stem)])
    by_arm = dict(list(predictions.groupby("arm")))
    count, differences = 0, []
    rows = pd.read_csv(table)
    for row in rows[rows["arm"].isin(by_arm)].to_dict("records"):
        runs_of_arm = [run for _, run in by_arm[row["arm"]].groupby(["seed", "fold"], dropna=False)]
        values = np.array([score(run, row["metric"]) for run in runs_of_arm])
        n, mean = len(values), values.mean()
        sd = values.std(ddof=1) if n > 1 else np.nan
        half = stats.t.ppf(0.975, n - 1) * sd / np.sqrt(n) if n > 1 else np.nan
        found = {"n": n, "mean": mean, "sd": sd, "low": mean - half, "high": mean + half}
        for column in found.keys() & row.keys():
            count += 1
            if not np.isclose(row[column], found[column], rtol=0, atol=TOLERANCE, equal_nan=True):
                differences.append(Difference(row["arm"], row["metric"], column, row[column], found[column]))
    return count, differences


def main(arguments: list[str]) -> int:
    """Print what was checked; the exit code is 1 if a number differs, 2 without a table of arms."""
    tables = [Path(name) for name in arguments]
    if not tables or not all(table.is_file() and table.suffix == ".csv" for table in tables):
        print("usage: python tests/verify.py results/PROFILE/tables/PAPER/CORPUS.csv …", file=sys.stderr)
        return 2
    failed = False
    for table in tables:
        count, differences = verify(table)
        for each in differences:
            what = f"{each.column} of {each.metric} of {each.arm}"
            print(f"{table}: {what} is {each.table}, recomputed {each.recomputed:.6f}")
        print(f"{table}: {count} numbers recomputed from the predictions, {len(differences)} differ")
        failed |= bool(differences) or not count
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
