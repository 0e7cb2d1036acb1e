"""Values worked by hand, and intervals that cover what they should."""

import numpy as np
import pytest
from scipy import stats

from msakit.evaluation import statistics


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


def test_welch_by_hand_and_by_scipy():
    # Means 2 and 6, variances 1 and 4 over 3 and 3 seeds: t = -4 / √(1/3 + 4/3), df = (5/3)² / (1/18 + 16/18).
    got = statistics.welch(np.array([1.0, 2.0, 3.0]), np.array([4.0, 6.0, 8.0]))
    assert got.df == pytest.approx(25 / 9 * 18 / 17)
    assert got.p == pytest.approx(2 * stats.t.sf(4 / np.sqrt(5 / 3), got.df))
    half = stats.t.ppf(0.975, got.df) * np.sqrt(5 / 3)
    assert (got.low, got.high) == (pytest.approx(-4 - half), pytest.approx(-4 + half))


def test_spreads_by_hand_and_by_scipy():
    # Distances from the medians 2 and 6: (1, 0, 1) and (4, 0, 4). Between: 3·2·1² = 6; within: 2/3 + 32/3 over 4.
    got = statistics.compare_spread(np.array([1.0, 2.0, 3.0]), np.array([2.0, 6.0, 10.0]))
    assert (got.ratio, got.n) == (0.25, (3, 3))
    assert got.p == pytest.approx(stats.f.sf(6 / (34 / 3 / 4), 1, 4))


def test_tests_over_seeds_at_the_edges():
    one, two, same = np.array([0.5]), np.array([0.1, 0.3]), np.array([0.2, 0.2, 0.2])
    for first, second in ((one, two), (same, same + 1), (two, np.array([np.nan, 1.0]))):
        assert np.isnan([statistics.welch(first, second).p, statistics.welch(first, second).low]).all()
    for first, second in ((two, two), (same, same), (same, np.array([np.nan, 0.1, 0.2]))):
        assert np.isnan(statistics.compare_spread(first, second).p)
    assert np.isnan(statistics.compare_spread(np.arange(3.0), same).ratio)


# Adjusted values as given by statsmodels 0.15 (multipletests, "holm").
P = np.array([0.01, 0.04, 0.03, 0.005, 0.2, 0.2, 0.9])


def test_holm():
    assert statistics.holm(P) == pytest.approx([0.06, 0.16, 0.15, 0.035, 0.6, 0.6, 0.9])
    gaps = statistics.holm(np.insert(P, 3, np.nan))
    assert np.isnan(gaps[3])
    assert np.delete(gaps, 3).tolist() == statistics.holm(P).tolist()
    assert statistics.holm(np.array([0.03])).tolist() == [0.03]
    assert statistics.holm(np.array([])).tolist() == []
    assert np.isnan(statistics.holm(np.array([np.nan]))).all()
    with pytest.raises(ValueError, match="between 0 and 1"):
        statistics.holm(np.array([0.2, 1.1]))


# As solved by statsmodels 0.15 (TTestIndPower, power .8 at .05, two-sided): n seeds an arm of s.d. 1 each.
@pytest.mark.parametrize(("n", "effect"), [(3, 3.070892), (5, 2.024440), (10, 1.324947), (64, 0.499069)])
def test_detectable_effects(n, effect):
    assert statistics.detectable(np.sqrt(2 / n), 2 * n - 2) == pytest.approx(effect, rel=1e-5)


def test_detectable_effects_at_the_edges():
    # Many degrees of freedom: the normal approximation z.975 + z.8.
    assert statistics.detectable(1.0, 4661) == pytest.approx(stats.norm.ppf(0.975) + stats.norm.ppf(0.8), rel=1e-3)
    assert statistics.detectable(0.0, 8) == 0
    assert statistics.detectable(1.0, 8, alpha=0.01) > statistics.detectable(1.0, 8)
    assert np.isnan(statistics.detectable(float("nan"), 18))


def test_detectable_spread_is_found_by_the_test_it_speaks_of():
    ratio = statistics.detectable_spread((10, 10))
    generator = np.random.default_rng(9)
    found = [
        statistics.compare_spread(generator.normal(0, ratio, 10), generator.normal(size=10)).p <= 0.05
        for _ in range(1000)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)
    assert statistics.detectable_spread((30, 30)) < ratio < statistics.detectable_spread((6, 6))
    assert np.isnan(statistics.detectable_spread((2, 10)))


def test_against_statsmodels_where_it_is_installed():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    power = pytest.importorskip("statsmodels.stats.power")
    generator = np.random.default_rng(8)
    for _ in range(20):
        p = generator.uniform(size=generator.integers(1, 12)) ** 3
        _, adjusted, *_ = multitest.multipletests(p, alpha=0.05, method="holm")
        assert statistics.holm(p) == pytest.approx(adjusted)
    for n in (3, 5, 10, 64):
        theirs = power.TTestIndPower().solve_power(nobs1=n, alpha=0.05, power=0.8)
        assert statistics.detectable(np.sqrt(2 / n), 2 * n - 2) == pytest.approx(theirs, rel=1e-4)
