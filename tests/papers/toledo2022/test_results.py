"""What the committed results of mini-memes must show: the class lies between text and picture, and fusion finds it."""

from pathlib import Path

import pytest

from msakit.runs.record import read_all

RESULTS = Path(__file__).parents[2] / "results"
PROFILES = [profile for profile in ("mini", "mini-full") if (RESULTS / profile / "runs/toledo2022/mini-memes").is_dir()]


def test_there_are_committed_results():
    assert "mini" in PROFILES


@pytest.mark.parametrize("profile", PROFILES)
def test_neither_modality_alone_beats_chance_by_much_and_joint_does(profile):
    runs = read_all(RESULTS / profile / "runs").select(paper="toledo2022", corpus="mini-memes")
    scores = runs.scores(["accuracy", "auroc"]).groupby(["metric", "arm"])["value"].mean().unstack("metric")
    for metric in ("accuracy", "auroc"):
        found = scores[metric]
        alone = found[["text-only", "image-only"]]
        assert alone.max() < 0.58, (metric, alone)
        assert found["joint"] > 0.75, metric
        assert found["joint"] - alone.max() > 0.2, metric
        # How far there is to go; a few folds may go a little beyond the best possible predictor by luck.
        assert 0.9 < found["oracle"] <= 1
        assert found["joint"] < found["oracle"] + 0.02, metric


@pytest.mark.parametrize("profile", PROFILES)
def test_the_oracle_is_there_for_every_fold(profile):
    frame = read_all(RESULTS / profile / "runs").select(paper="toledo2022", corpus="mini-memes").frame
    seeds = frame.groupby("arm")["seed"].agg(set)
    config = {
        run.record.config.get("fold_count", 0) for run in read_all(RESULTS / profile / "runs").select(arm="joint")
    }
    assert seeds["oracle"] == (seeds["joint"] if config != {0} else {0})
