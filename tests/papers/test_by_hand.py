"""The committed tables of arms say what the committed predictions give, by means that know nothing of msakit."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

RESULTS = Path(__file__).parents[2] / "results"
TABLES = sorted(
    path
    for profile in ("mini", "cmu-mosi")
    for records in (RESULTS / profile / "runs").glob("*/records.jsonl")
    for path in (RESULTS / profile / "tables" / records.parent.name).glob("*.csv")
    if path.stem in set(pd.read_parquet(records.with_name("predictions.parquet"), columns=["corpus"])["corpus"])
)


def by_hand(run: pd.DataFrame, metric: str) -> float:
    """A metric of one run's test predictions."""
    label = run["label"].to_numpy()
    if run["prediction"].notna().all() if "prediction" in run else False:
        given = run["prediction"].to_numpy()
        signed = label != 0
        return {
            "mae": lambda: np.abs(given - label).mean(),
            "corr": lambda: np.corrcoef(given, label)[0, 1],
            "acc2_non0": lambda: np.mean((given[signed] > 0) == (label[signed] > 0)),
            "acc2_has0": lambda: np.mean((given >= 0) == (label >= 0)),
            "acc7_round": lambda: np.mean(np.round(given.clip(-3, 3)) == np.round(label.clip(-3, 3))),
        }[metric]()
    values = run[[name for name in run if name.startswith("p_")]].dropna(axis=1).to_numpy(float)
    values, label = values / values.sum(axis=1, keepdims=True), label.astype(int)
    chosen = values.argmax(axis=1)
    if metric == "accuracy":
        return accuracy_score(label, chosen)
    if metric == "f1_macro":
        return f1_score(label, chosen, average="macro", labels=range(values.shape[1]), zero_division=0)
    if values.shape[1] == 2:
        return roc_auc_score(label, values[:, 1])
    return roc_auc_score(label, values, multi_class="ovr", average="macro")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parts[-4]}-{path.parent.name}-{path.stem}")
def test_a_table_of_arms_is_what_the_predictions_give(path):
    table = pd.read_csv(path)
    runs = path.parents[2] / "runs" / path.parent.name / "predictions.parquet"
    predictions = pd.read_parquet(runs).query("split == 'test' and corpus == @path.stem")
    groups = dict(list(predictions.groupby("arm")))
    compared = 0
    for row in table[table["arm"].isin(groups)].to_dict("records"):
        each = groups[row["arm"]].groupby(["seed", "fold"], dropna=False)
        values = np.array([by_hand(run, row["metric"]) for _, run in each])
        assert len(values) == row["n"], row["arm"]
        if np.isnan(values).any():
            assert np.isnan(row["mean"])
            continue
        assert row["mean"] == pytest.approx(values.mean(), abs=2e-5), (row["arm"], row["metric"])
        if len(values) > 1:
            assert row["sd"] == pytest.approx(values.std(ddof=1), abs=2e-5), (row["arm"], row["metric"])
        compared += 1
    assert compared > 10
