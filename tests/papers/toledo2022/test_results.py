"""What the committed results of mini-memes must show: the class lies between text and picture, and fusion finds it."""

from pathlib import Path

import pytest

from msakit.reporting.scores import scores
from msakit.runs.store import read_runs

RESULTS = Path(__file__).parents[3] / "results"
PROFILES = [name for name in ("mini", "mini-full") if (RESULTS / name / "runs/toledo2022/records.jsonl").is_file()]


def test_there_are_committed_results():
    assert "mini" in PROFILES


@pytest.fixture(scope="module", params=PROFILES)
def runs(request):
    return read_runs(RESULTS / request.param / "runs").select(paper="toledo2022", corpus="mini-memes")


def test_neither_modality_alone_beats_chance_by_much_and_joint_does(runs):
    means = scores(runs, ["accuracy", "auroc"]).groupby(["metric", "arm"])["value"].mean().unstack("metric")
    for metric in ("accuracy", "auroc"):
        found = means[metric]
        alone = found[["text-only", "image-only"]]
        assert alone.max() < 0.58, (metric, alone)
        assert found["joint"] > 0.75, metric
        assert found["joint"] - alone.max() > 0.2, metric
        # How far there is to go; a few folds may go a little beyond the best possible predictor by luck.
        assert 0.9 < found["oracle"] <= 1
        assert found["joint"] < found["oracle"] + 0.02, metric


def test_the_oracle_is_there_for_every_fold(runs):
    folds = runs.frame.groupby("arm")["fold"].agg(set)
    assert folds["oracle"] == folds["joint"]
