"""Values worked by hand, and intervals that cover what they should."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from msakit.evaluation import metrics, resampling, statistics


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


@pytest.mark.parametrize("metric", ["mae_non0", "corr", "f1w_non0"])
def test_blocks_of_resamples_are_the_metric_on_drawn_segments(arms, metric, monkeypatch):
    good, _, label = arms
    draws = np.random.default_rng(0).integers(0, 83, (20, 83))
    function = metrics.METRICS[metric].function
    scores = [np.mean([function(p[rows], label[rows]).value for p in good]) for rows in draws]
    whole = statistics.over_segments(metric, good, label, resamples=20)
    assert (whole.low, whole.high) == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])))
    monkeypatch.setattr(resampling, "_BLOCK", 83 * 3)
    blocks = statistics.over_segments(metric, good, label, resamples=20)
    assert (blocks.low, blocks.high) == pytest.approx((whole.low, whole.high), rel=1e-12)


def test_whole_videos_are_drawn(arms):
    good, poor, label = arms
    videos = np.array([f"video {index // 7}" for index in range(83)], dtype=object)
    got = statistics.over_segments("mae", good, label, videos, resamples=4000)
    assert (got.n_segments, got.n_videos) == (83, 12)
    # The same by hand: means over videos drawn whole, weighted by their lengths.
    error = np.abs(good - label).mean(axis=0)
    members = [np.flatnonzero(videos == video) for video in np.unique(videos)]
    generator = np.random.default_rng(7)
    drawn = [np.concatenate([members[v] for v in generator.integers(0, 12, 12)]) for _ in range(4000)]
    low, high = np.quantile([error[rows].mean() for rows in drawn], [0.025, 0.975])
    assert (got.low, got.high) == (pytest.approx(low, abs=0.006), pytest.approx(high, abs=0.006))
    # Each segment its own video is no clustering at all.
    single = statistics.paired_difference("corr", good, poor, label, np.arange(83), resamples=50)
    plain = statistics.paired_difference("corr", good, poor, label, resamples=50)
    assert (single.n_videos, plain.n_videos) == (83, None)
    assert (single.low, single.high, single.p) == (plain.low, plain.high, plain.p)


def test_videos_that_move_together_widen_the_interval():
    generator = np.random.default_rng(11)
    videos = np.repeat(np.arange(40), 10)
    label = generator.normal(size=400)
    prediction = (label + np.repeat(generator.normal(size=40), 10))[None]
    apart = statistics.over_segments("mae", prediction, label, resamples=500)
    together = statistics.over_segments("mae", prediction, label, videos, resamples=500)
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_sign_flips_by_hand():
    label = np.zeros(4)
    first, second = np.array([[1.0, 2.0, 3.0, 0.5]]), np.array([[2.0, 3.0, 4.0, 0.0]])
    # Differences -1, -1, -1, +½: of 16 sign patterns, 2 have |sum| 3.5 and 2 have 2.5.
    got = statistics.paired_permutation("mae", first, second, label)
    assert (got.difference, got.p, got.method) == (-0.625, 4 / 16, "sign flips")
    assert (got.exact, got.permutations) == (True, 16)
    # Two videos: sums -2 and -½; only the pattern itself and its mirror image reach 2.5.
    clustered = statistics.paired_permutation("mae", first, second, label, np.array(["a", "a", "b", "b"]))
    assert (clustered.p, clustered.permutations, clustered.n_videos) == (2 / 4, 4, 2)


def test_sign_flips_agree_with_scipy(arms):
    good, poor, label = arms
    got = statistics.paired_permutation("mae", good[:1], good[1:], label, permutations=4000)
    errors = np.abs(good - label)
    theirs = stats.permutation_test(
        (errors[0], errors[1:].mean(axis=0)), lambda a, b: np.mean(a - b), permutation_type="samples",
        n_resamples=4000, rng=1)  # fmt: skip
    assert got.difference == pytest.approx(theirs.statistic)
    assert got.p == pytest.approx(theirs.pvalue, abs=0.03)
    assert not got.exact
    assert statistics.paired_permutation("mae", good, poor, label, permutations=200).p == pytest.approx(1 / 201)


@pytest.mark.parametrize("metric", ["corr", "f1w_non0"])
def test_exchanged_predictions_agree_with_scipy(arms, metric):
    good, _, label = arms
    function = metrics.METRICS[metric].function
    theirs = stats.permutation_test(
        (good[0], good[1]), lambda a, b: function(a, label).value - function(b, label).value,
        permutation_type="samples", n_resamples=300, vectorized=False, rng=1)  # fmt: skip
    got = statistics.paired_permutation(metric, good[:1], good[1:2], label, permutations=4000)
    assert got.method == "exchanged predictions"
    assert got.difference == pytest.approx(theirs.statistic)
    assert got.p == pytest.approx(theirs.pvalue, abs=0.06)


def test_both_ways_of_permuting_agree_where_both_apply(arms, monkeypatch):
    good, poor, label = arms
    by_sign = statistics.paired_permutation("acc2_non0", good[:2], poor, label, permutations=500)
    monkeypatch.setitem(metrics.METRICS, "acc2_non0", replace(metrics.METRICS["acc2_non0"], contribution=None))
    exchanged = statistics.paired_permutation("acc2_non0", good[:2], poor, label, permutations=500)
    assert (exchanged.method, exchanged.p) == ("exchanged predictions", by_sign.p)
    with pytest.raises(ValueError, match="there are 3 and 2; give as many of each"):
        statistics.paired_permutation("corr", good, poor, label)


def test_an_arm_against_itself(arms):
    good, _, label = arms
    got = statistics.paired_difference("mae", good, good, label, resamples=50)
    assert (got.difference, got.low, got.high, got.p, got.better) == (0, 0, 0, 1.0, None)
    for metric in ("mae", "corr"):
        assert statistics.paired_permutation(metric, good, good, label, permutations=50).p == 1.0


def test_undefined_and_misshapen():
    label = np.array([1.0, -1.0, 0.5])
    flat = statistics.over_segments("corr", np.ones((2, 3)), label, resamples=10)
    assert np.isnan([flat.value, flat.low, flat.high]).all()
    assert flat.resamples == 0
    broken = statistics.paired_difference("mae", np.full((1, 3), np.nan), np.ones((1, 3)), label, resamples=10)
    assert np.isnan([broken.difference, broken.low, broken.p]).all()
    with pytest.raises(ValueError, match=r"accuracy wants predictions \[seeds, segments, classes\] for 3 labels"):
        statistics.over_segments("accuracy", np.ones((2, 3)), label)
    assert np.isnan(statistics.paired_permutation("mae", np.full((1, 3), np.nan), np.ones((1, 3)), label).p)
    alone = statistics.over_segments("mae", np.ones((2, 3)), label, np.array(["a"] * 3))
    assert np.isnan([alone.low, alone.high]).all()
    assert alone.n_videos == 1
    with pytest.raises(ValueError, match="3 videos, 1 of them missing, for 3 labels"):
        statistics.over_segments("mae", np.ones((2, 3)), label, np.array(["a", None, "b"], dtype=object))
    with pytest.raises(ValueError, match="1 of 3 labels are missing"):
        statistics.over_segments("mae", np.ones((2, 3)), np.array([0, np.nan, 1]))
    with pytest.raises(ValueError, match="no seed"):
        statistics.paired_difference("mae", np.ones((0, 3)), np.ones((2, 3)), label)
    with pytest.raises(ValueError, match=r"level is 95\.0; it lies between 0 and 1"):
        statistics.over_segments("mae", np.ones((2, 3)), label, level=95.0)


def test_classification_pairs():
    label = np.tile([0, 1], 20)
    right = np.stack([1 - label, label], axis=1)[None] * 0.8 + 0.1
    wrong = right[:, :, ::-1].copy()
    for metric in ("accuracy", "auroc"):
        got = statistics.paired_difference(metric, right, wrong, label, resamples=50)
        assert got.difference == pytest.approx(1.0)
        assert got.better == "first"


def test_welch_by_hand_and_by_scipy():
    # Means 2 and 6, variances 1 and 4 over 3 and 3 seeds: t = -4 / √(1/3 + 4/3), df = (5/3)² / (1/18 + 16/18).
    got = statistics.welch(np.array([1.0, 2.0, 3.0]), np.array([4.0, 6.0, 8.0]))
    assert (got.difference, got.n) == (-4, (3, 3))
    assert got.t == pytest.approx(-4 / np.sqrt(5 / 3))
    assert got.df == pytest.approx(25 / 9 * 18 / 17)
    assert got.p == pytest.approx(2 * stats.t.sf(4 / np.sqrt(5 / 3), got.df))
    half = stats.t.ppf(0.975, got.df) * np.sqrt(5 / 3)
    assert (got.low, got.high) == (pytest.approx(-4 - half), pytest.approx(-4 + half))


def test_spreads_by_hand_and_by_scipy():
    # Distances from the medians 2 and 6: (1, 0, 1) and (4, 0, 4). Between: 3·2·1² = 6; within: 2/3 + 32/3 over 4.
    got = statistics.compare_spread(np.array([1.0, 2.0, 3.0]), np.array([2.0, 6.0, 10.0]))
    assert (got.sds, got.ratio, got.n) == ((1.0, 4.0), 0.25, (3, 3))
    assert got.f == pytest.approx(6 / (34 / 3 / 4))
    assert got.p == pytest.approx(stats.f.sf(got.f, 1, 4))


def test_tests_over_seeds_at_the_edges():
    one, two, same = np.array([0.5]), np.array([0.1, 0.3]), np.array([0.2, 0.2, 0.2])
    assert statistics.welch(one, two).difference == pytest.approx(0.3)
    for first, second in ((one, two), (same, same + 1), (two, np.array([np.nan, 1.0]))):
        assert np.isnan([statistics.welch(first, second).p, statistics.welch(first, second).low]).all()
    for first, second in ((two, two), (same, same), (same, np.array([np.nan, 0.1, 0.2]))):
        assert np.isnan(statistics.compare_spread(first, second).p)
    assert np.isnan(statistics.cliffs_delta(one, two).delta)
    assert np.isnan(statistics.cliffs_delta(two, np.array([np.nan, 1.0])).low)
    assert np.isnan(statistics.compare_spread(np.arange(3.0), same).ratio)


def test_cliffs_delta_by_hand():
    # Of 3 × 2 pairs, 3 are above, 2 below, 1 tied.
    got = statistics.cliffs_delta(np.array([1.0, 3.0, 5.0]), np.array([1.0, 4.0]))
    assert got.delta == pytest.approx(1 / 6)
    # Rows (-½, 0, 1), columns (2/3, -1/3), signs (0, -1, 1, -1, 1, 1), each squared from 1/6:
    # 7/6, 1/2, 29/6; s² = (4·7/6 + 9/2 - 29/6) / (6·2·1) = 13/36, above the least, (35/36)/5.
    variance, t = 13 / 36, stats.t.ppf(0.975, 3)
    delta = 1 / 6
    half = t * np.sqrt(variance * ((1 - delta**2) ** 2 + t**2 * variance))
    below = 1 - delta**2 + t**2 * variance
    assert got.low == pytest.approx((delta - delta**3 - half) / below)
    assert got.high == pytest.approx((delta - delta**3 + half) / below)


def test_cliffs_delta_is_the_rank_sum_statistic():
    generator = np.random.default_rng(4)
    first, second = generator.integers(0, 9, 11), generator.integers(3, 9, 7)
    got = statistics.cliffs_delta(first, second)
    assert got.delta == pytest.approx(2 * stats.mannwhitneyu(first, second).statistic / 77 - 1)
    assert -1 <= got.low <= got.delta <= got.high <= 1
    back = statistics.cliffs_delta(second, first)
    assert (back.low, back.high) == (pytest.approx(-got.high), pytest.approx(-got.low))


def test_cliffs_delta_without_overlap():
    z2 = stats.norm.ppf(0.975) ** 2
    got = statistics.cliffs_delta(np.arange(5.0) + 9, np.arange(8.0))
    assert (got.delta, got.low, got.high) == (1, pytest.approx((5 - z2) / (5 + z2)), 1)
    # Wilson's bound for 5 of 5, on the scale of delta.
    wilson = stats.binomtest(5, 5).proportion_ci(0.95, method="wilson").low
    assert got.low == pytest.approx(2 * wilson - 1)
    assert statistics.cliffs_delta(np.arange(8.0), np.arange(5.0) + 9).high == pytest.approx(-got.low)


# Adjusted values as given by statsmodels 0.15 (multipletests, "holm" and "fdr_bh").
P = np.array([0.01, 0.04, 0.03, 0.005, 0.2, 0.2, 0.9])


def test_corrections():
    got = statistics.holm(P)
    assert got.adjusted == pytest.approx([0.06, 0.16, 0.15, 0.035, 0.6, 0.6, 0.9])
    assert (got.rejected.tolist(), got.method, got.n) == ([False] * 3 + [True] + [False] * 3, "Holm", 7)
    got = statistics.benjamini_hochberg(P)
    assert got.adjusted == pytest.approx([0.035, 0.07, 0.07, 0.035, 0.7 / 3, 0.7 / 3, 0.9])
    assert got.rejected.tolist() == [True, False, False, True, False, False, False]


@pytest.mark.parametrize("correct", [statistics.holm, statistics.benjamini_hochberg])
def test_corrections_at_the_edges(correct):
    plain, gaps = correct(P), correct(np.insert(P, 3, np.nan))
    assert np.isnan(gaps.adjusted[3])
    assert not gaps.rejected[3]
    assert (np.delete(gaps.adjusted, 3).tolist(), gaps.n) == (plain.adjusted.tolist(), 7)
    assert correct(np.array([0.03])).adjusted.tolist() == [0.03]
    assert correct(np.array([])).n == 0
    assert correct(np.array([np.nan])).n == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        correct(np.array([0.2, 1.1]))


# As solved by statsmodels 0.15 (TTestIndPower and TTestPower, power .8 at .05, two-sided).
@pytest.mark.parametrize(
    ("n", "seeds", "segments"),
    [(3, 3.070892, 3.264044), (5, 2.024440, 1.681997), (10, 1.324947, 0.996002), (64, 0.499069, 0.355650)],
)
def test_detectable_effects(n, seeds, segments):
    got = statistics.detectable_over_seeds(n, 0.02)
    assert (got.standardised, got.effect) == (pytest.approx(seeds, rel=1e-5), pytest.approx(0.02 * seeds, rel=1e-5))
    assert statistics.detectable_over_segments(n, 1.0).effect == pytest.approx(segments, rel=1e-5)


def test_detectable_effects_at_the_edges():
    # Many segments: the normal approximation (z.975 + z.8) / √n.
    many = statistics.detectable_over_segments(4662, 1.0).effect
    assert many == pytest.approx((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) / np.sqrt(4662), rel=1e-3)
    assert statistics.detectable_over_seeds(5, 0.0).effect == 0
    assert statistics.detectable_over_seeds(2, 1.0, power=0.99).effect > statistics.detectable_over_seeds(2, 1.0).effect
    for arguments in ((1, 1.0), (5, -1.0), (5, float("nan"))):
        with pytest.raises(ValueError, match="n of at least 2"):
            statistics.detectable_over_seeds(*arguments)
    with pytest.raises(ValueError, match=r"power 0\.04 must exceed alpha 0\.05"):
        statistics.detectable_over_seeds(5, 1.0, 0.05, 0.04)


def test_detectable_with_a_standard_error_is_the_same_calculation():
    # Ten seeds an arm with s.d. 2: the standard error of the difference is 2·√(2/10), with 18 degrees of freedom.
    got = statistics.detectable(2 * np.sqrt(2 / 10), 18)
    assert got == pytest.approx(statistics.detectable_over_seeds(10, 2.0).effect)
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
        for ours, theirs in ((statistics.holm, "holm"), (statistics.benjamini_hochberg, "fdr_bh")):
            rejected, adjusted, *_ = multitest.multipletests(p, alpha=0.05, method=theirs)
            got = ours(p)
            assert got.adjusted == pytest.approx(adjusted)
            assert got.rejected.tolist() == rejected.tolist()
    for n in (3, 5, 10, 64):
        seeds = power.TTestIndPower().solve_power(nobs1=n, alpha=0.05, power=0.8)
        segments = power.TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
        assert statistics.detectable_over_seeds(n, 1.0).effect == pytest.approx(seeds, rel=1e-4)
        assert statistics.detectable_over_segments(n, 1.0).effect == pytest.approx(segments, rel=1e-4)
