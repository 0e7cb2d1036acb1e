"""What a paper's facts must be like for reports."""

import numpy as np
import pandas as pd
from small_runs import paper

from msakit import papers
from msakit.evaluation.metrics import METRICS
from msakit.reporting.contract import PUBLISHED_COLUMNS, TAGS, read_published

ROWS = [
    ["cmu-mosi", "conv", "mae", "0.9343", "file", "C", "note"],
    ["cmu-mosei", "conv", "mae", "0.598", "file", "S", ""],
]


def test_published_values(tmp_path):
    path = tmp_path / "published.csv"
    pd.DataFrame(ROWS, columns=PUBLISHED_COLUMNS).to_csv(path, index=False)
    frame = read_published(path)
    assert frame["value"].tolist() == [0.9343, 0.598]
    known = paper(values=frame)
    assert known.published_on("CMU_MOSI")["value"].tolist() == [0.9343]
    assert known.published_on("mini-mosi").empty
    none = read_published(tmp_path / "none.csv")
    assert (list(none.columns), len(none)) == (PUBLISHED_COLUMNS, 0)


def test_each_published_value_has_its_source_its_tag_and_a_metric():
    published = pd.concat([papers.load(name).published for name in papers.PAPERS])
    assert len(published)
    assert list(published.columns) == PUBLISHED_COLUMNS
    assert set(published["tag"]) <= set(TAGS)
    assert published["source"].all()
    assert np.isfinite(published["value"]).all()
    assert set(published["metric"]) <= set(METRICS)


def test_arms_and_metrics_of_the_facts():
    known = paper(arms={"b": {"title": "B", "model": "m"}, "a": {"like": "b", "title": "A"}})
    assert [(name, arm.title, arm.model) for name, arm in known.arms.items()] == [("b", "B", "m"), ("a", "A", "m")]
    assert known.metrics("regression") == ("mae", "corr")
