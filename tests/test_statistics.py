"""Values worked by hand, and intervals that cover what they should."""

import numpy as np
import pytest
from scipy import stats

from msakit import statistics


def test_over_seeds_by_hand():
    got = statistics.over_seeds(np.array([1.0, 2.0, 3.0]))
    assert (got.n, got.mean, got.sd) == (3, 2.0, 1.0)
    half = 4.302652729911275 / np.sqrt(3)  # t(2) at .975
    assert (got.low, got.high) == (pytest.approx(2 - half), pytest.approx(2 + half))


def test_over_seeds_at_the_edges():
    one = statistics.over_seeds(np.array([0.5]))
    assert one.mean == 0.5
    assert np.isnan([one.sd, one.low, one.high]).all()
    same = statistics.over_seeds(np.array([0.1] * 5))
    assert (same.mean, same.sd, same.low, same.high) == (0.1, 0.0, 0.1, 0.1)
    collapsed = statistics.over_seeds(np.array([0.7, np.nan, 0.6]))
    assert (collapsed.n, collapsed.undefined) == (3, 1)
    assert np.isnan([collapsed.mean, collapsed.sd]).all()
    with pytest.raises(ValueError, match="no seed"):
        statistics.over_seeds(np.array([]))


@pytest.fixture
def arms():
    generator = np.random.default_rng(3)
    label = generator.normal(size=83)
    good = label + 0.5 * generator.normal(size=(3, 83))
    poor = label + 1.0 * generator.normal(size=(2, 83))
    return good, poor, label


def test_segment_interval_agrees_with_scipy(arms):
    good, _, label = arms
    got = statistics.over_segments("mae", good, label, resamples=4000)
    error = np.abs(good - label).mean(axis=0)
    theirs = stats.bootstrap((error,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    assert got.value == pytest.approx(error.mean())
    assert (got.low, got.high) == (pytest.approx(theirs.low, abs=0.006), pytest.approx(theirs.high, abs=0.006))
    assert (got.n_seeds, got.n_segments, got.resamples) == (3, 83, 4000)


@pytest.mark.parametrize("metric", ["mae", "acc2_non0", "corr", "f1w_non0"])
def test_the_better_arm_is_found_in_either_direction(arms, metric):
    good, poor, label = arms
    got = statistics.paired_difference(metric, good, poor, label, resamples=200)
    assert got.low <= got.difference <= got.high
    assert (got.difference < 0) == (metric == "mae")
    back = statistics.paired_difference(metric, poor, good, label, resamples=200)
    assert (back.low, back.high) == (pytest.approx(-got.high), pytest.approx(-got.low))
    if metric in ("mae", "corr"):
        assert (got.better, back.better) == ("first", "second")
        assert got.p < 0.05
    assert got.n_seeds == (3, 2)


def test_fast_and_slow_resampling_agree(arms):
    good, _, label = arms
    fast = statistics._resampled("mae_non0", [good], label, 20, seed=0)
    draws = statistics._indices(83, 20, seed=0)
    slow = [np.mean([np.abs(p[rows] - label[rows]).mean() for p in good]) for rows in draws]
    assert fast[0] == pytest.approx(slow)


def test_an_arm_against_itself(arms):
    good, _, label = arms
    got = statistics.paired_difference("mae", good, good, label, resamples=50)
    assert (got.difference, got.low, got.high, got.p, got.better) == (0, 0, 0, 1.0, None)


def test_undefined_and_misshapen():
    label = np.array([1.0, -1.0, 0.5])
    flat = statistics.over_segments("corr", np.ones((2, 3)), label, resamples=10)
    assert np.isnan([flat.value, flat.low, flat.high]).all()
    assert flat.resamples == 0
    broken = statistics.paired_difference("mae", np.full((1, 3), np.nan), np.ones((1, 3)), label, resamples=10)
    assert np.isnan([broken.difference, broken.low, broken.p]).all()
    with pytest.raises(ValueError, match=r"accuracy wants predictions \[seeds, segments, classes\] for 3 labels"):
        statistics.over_segments("accuracy", np.ones((2, 3)), label)


def test_classification_pairs():
    label = np.tile([0, 1], 20)
    right = np.stack([1 - label, label], axis=1)[None] * 0.8 + 0.1
    wrong = right[:, :, ::-1].copy()
    for metric in ("accuracy", "auroc"):
        got = statistics.paired_difference(metric, right, wrong, label, resamples=50)
        assert got.difference == pytest.approx(1.0)
        assert got.better == "first"
