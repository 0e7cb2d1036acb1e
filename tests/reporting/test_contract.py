"""What a paper's facts must be like for reports."""

import pandas as pd
import pytest
from small_runs import paper

from msakit.reporting.contract import PUBLISHED_COLUMNS, paper_of, read_published

ROWS = [
    ["cmu-mosi", "conv", "mae", "0.9343", "file", "C", "note"],
    ["cmu-mosei", "conv", "mae", "0.598", "file", "S", ""],
]


def write(path, rows=ROWS, columns=PUBLISHED_COLUMNS):
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return path


def test_published_values(tmp_path):
    frame = read_published(write(tmp_path / "published.csv"))
    assert frame["value"].tolist() == [0.9343, 0.598]
    known = paper(values=frame)
    assert known.published_on("CMU_MOSI")["value"].tolist() == [0.9343]
    assert known.published_on("mini-mosi").empty
    none = read_published(tmp_path / "none.csv")
    assert (list(none.columns), len(none)) == (PUBLISHED_COLUMNS, 0)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("tag", "X", "line 3: tag 'X'; choose from P, C, S, I"), ("value", "high", "line 3: value 'high' is no number"),
     ("source", "", "line 3: a published value needs its source"), ("metric", "acc", "no metric is called 'acc'")],
)  # fmt: skip
def test_published_faults(tmp_path, column, value, message):
    rows = [list(row) for row in ROWS]
    rows[1][PUBLISHED_COLUMNS.index(column)] = value
    with pytest.raises(ValueError, match=message):
        read_published(write(tmp_path / "published.csv", rows))
    with pytest.raises(ValueError, match=r"columns are corpus, row; wanted corpus, row, metric"):
        read_published(write(tmp_path / "other.csv", [["a", "b"]], ["corpus", "row"]))


def test_arms_and_metrics_of_the_facts():
    known = paper(arms={"b": {"title": "B", "model": "m"}, "a": {"like": "b", "title": "A"}})
    assert [(name, arm.title, arm.model) for name, arm in known.arms.items()] == [("b", "B", "m"), ("a", "A", "m")]
    assert known.metrics("regression") == ("mae", "corr")
    with pytest.raises(ValueError, match=r"unknown paper 'kim2023'; there are: kim2022\. Did you mean 'kim2022'"):
        paper_of({"kim2022": known}, "kim2023")
