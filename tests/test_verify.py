"""The committed tables of arms say what the committed predictions give, by means that know nothing of msakit."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from verify import main, verify

RESULTS = Path(__file__).parents[1] / "results"
TABLES = sorted(
    table
    for records in RESULTS.glob("*/runs/*/records.jsonl")
    for table in (records.parents[2] / "tables" / records.parent.name).glob("*.csv")
    if table.stem in set(pd.read_parquet(records.with_name("predictions.parquet"), columns=["corpus"])["corpus"])
)


@pytest.mark.parametrize("table", TABLES, ids=lambda path: "-".join((path.parts[-4], path.parts[-2], path.stem)))
def test_a_committed_table_of_arms_is_what_its_predictions_give(table):
    count, differences = verify(table)
    assert count > 50
    assert differences == []


def test_a_changed_number_is_named(tmp_path, capsys):
    original = TABLES[0]
    table = tmp_path / "tables" / original.parent.name / original.name
    table.parent.mkdir(parents=True)
    shutil.copytree(original.parents[2] / "runs" / original.parent.name, tmp_path / "runs" / original.parent.name)
    rows = pd.read_csv(original)
    rows.loc[rows.index[3], "mean"] += 1e-3
    rows.to_csv(table, index=False)
    assert main([str(table)]) == 1
    assert f"mean of {rows['metric'][3]} of {rows['arm'][3]}" in capsys.readouterr().out


def test_what_is_no_table_is_refused(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
