"""Tests that reject a true hypothesis 5 % of the time and intervals that cover 95 %, found out by simulation.

Slow, so run by hand: `pytest -m slow tests/test_statistics_simulated.py --log-cli-level=INFO` prints the rates. Every
bound leaves three standard errors of the simulation, and says so where a method is known to err on one side.
"""

import logging
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from msakit.evaluation import statistics
from msakit.evaluation.contrasts import Scored, contrast

pytestmark = pytest.mark.slow
log = logging.getLogger(__name__)


def rate(times: int, happens: Callable[[np.random.Generator], bool], what: str) -> float:
    generator = np.random.default_rng(2024)
    share = float(np.mean([happens(generator) for _ in range(times)]))
    log.info("%s: %.1f %% of %d", what, 100 * share, times)
    return share


def within(share: float, wanted: float, times: int, slack: float = 0.0) -> bool:
    return abs(share - wanted) <= 3 * np.sqrt(wanted * (1 - wanted) / times) + slack


def in_videos(generator, n_videos, size, within_video, shape=()):
    """Standard normal values [..., segments] that share the given part of their variance within a video."""
    own = generator.normal(size=(*shape, n_videos * size))
    shared = np.repeat(generator.normal(size=(*shape, n_videos)), size, axis=-1)
    return np.sqrt(within_video) * shared + np.sqrt(1 - within_video) * own


def regression(generator, n_videos, size, within_video, arms=1, seeds=2):
    """Labels, and arms of seeds whose errors (s.d. 1) agree in part between arms, in part between seeds."""
    label = in_videos(generator, n_videos, size, within_video)
    common = in_videos(generator, n_videos, size, within_video)
    own = in_videos(generator, n_videos, size, within_video, (arms, 1))
    chance = in_videos(generator, n_videos, size, within_video, (arms, seeds))
    error = np.sqrt(0.3) * common + np.sqrt(0.5) * own + np.sqrt(0.2) * chance
    return label, label + error, np.repeat(np.arange(n_videos), size)


# With errors of s.d. 1 around labels of s.d. 1: what the metrics are in the long run.
TRUTH = {"mae": np.sqrt(2 / np.pi), "corr": np.sqrt(0.5), "acc2_has0": 0.75}


@pytest.mark.parametrize("metric", TRUTH)
def test_the_segment_interval_covers(metric):
    def covers(generator):
        label, (arm,), _ = regression(generator, 300, 1, 0.0)
        got = statistics.over_segments(metric, arm, label, resamples=1000)
        return got.low <= TRUTH[metric] <= got.high

    share = rate(2000, covers, f"coverage, {metric}, 300 segments")
    assert within(share, 0.95, 2000, slack=0.005)  # percentile intervals are a little narrow


@pytest.mark.parametrize("metric", ["mae", "corr"])
@pytest.mark.parametrize(("n_videos", "low"), [(10, 0.85), (31, 0.92), (93, 0.935)])
def test_the_video_interval_covers_and_the_segment_interval_does_not(metric, n_videos, low):
    def covers(clustered):
        def once(generator):
            label, (arm,), videos = regression(generator, n_videos, 15, 0.3)
            got = statistics.over_segments(metric, arm, label, videos if clustered else None, resamples=1000)
            return got.low <= TRUTH[metric] <= got.high

        return once

    setting = f"{metric}, {n_videos} videos of 15 segments"
    assert low < rate(1000, covers(True), f"coverage by video, {setting}") < 0.97
    assert rate(1000, covers(False), f"coverage by segment, {setting}") < 0.9


@pytest.mark.parametrize("metric", ["mae", "corr", "f1w_has0"])
@pytest.mark.parametrize("test", [statistics.paired_difference, statistics.paired_permutation])
def test_paired_tests_reject_a_true_hypothesis_at_their_level(metric, test):
    def rejects(generator):
        label, arms, _ = regression(generator, 200, 1, 0.0, arms=2)
        return test(metric, *arms, label, None, 1000).p <= 0.05

    share = rate(1000, rejects, f"false positives, {test.__name__}, {metric}, 200 segments")
    assert within(share, 0.05, 1000, slack=0.005)


@pytest.mark.parametrize("metric", ["mae", "corr"])
@pytest.mark.parametrize("test", [statistics.paired_difference, statistics.paired_permutation])
def test_paired_tests_on_videos(metric, test):
    def rejects(clustered):
        def once(generator):
            label, arms, videos = regression(generator, 60, 10, 0.5, arms=2)
            return test(metric, *arms, label, videos if clustered else None, 1000).p <= 0.05

        return once

    setting = f"{test.__name__}, {metric}, 60 videos of 10 segments"
    share = rate(1000, rejects(True), f"false positives by video, {setting}")
    # The permutation test is exact; the bootstrap of 60 videos rejects a little too often.
    assert within(share, 0.05, 1000, slack=0.0 if test is statistics.paired_permutation else 0.015)
    assert rate(1000, rejects(False), f"false positives by segment, {setting}") > 0.08


@pytest.mark.parametrize(("n", "sds"), [((5, 5), (1, 1)), ((5, 5), (1, 3)), ((5, 10), (3, 1)), ((10, 10), (1, 1))])
def test_welch_keeps_its_level_and_its_interval_covers(n, sds):
    def draw(generator):
        return statistics.welch(*[generator.normal(0.0, sd, size) for size, sd in zip(n, sds, strict=True)])

    share = rate(4000, lambda generator: draw(generator).p <= 0.05, f"false positives, Welch, seeds {n}, s.d. {sds}")
    assert within(share, 0.05, 4000, slack=0.01)
    covers = rate(4000, lambda generator: (got := draw(generator)).low <= 0 <= got.high, "its interval's coverage")
    assert covers == pytest.approx(1 - share)


@pytest.mark.parametrize(("n", "low"), [(3, 0.0), (5, 0.0), (10, 0.02), (30, 0.035)])
@pytest.mark.parametrize("shape", ["normal", "t(5)"])
def test_brown_forsythe_never_rejects_too_often(n, low, shape):
    def rejects(generator):
        values = generator.normal(size=(2, n)) if shape == "normal" else generator.standard_t(5, size=(2, n))
        return statistics.compare_spread(*values).p <= 0.05

    share = rate(4000, rejects, f"false positives, Brown–Forsythe, {n} seeds, {shape}")
    assert low <= share <= 0.06


@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_the_power_of_brown_forsythe(ratio):
    def rejects(generator):
        return statistics.compare_spread(generator.normal(size=10), generator.normal(0, ratio, 10)).p <= 0.05

    share = rate(2000, rejects, f"power, Brown–Forsythe, 10 seeds, s.d. ratio {ratio}")
    assert share > {2: 0.2, 4: 0.8, 8: 0.9}[ratio]


@pytest.mark.parametrize("n", [5, 10, 30])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_cliffs_interval_covers(n, shift):
    truth = 2 * stats.norm.cdf(shift / np.sqrt(2)) - 1

    def covers(generator):
        got = statistics.cliffs_delta(generator.normal(shift, 1, n), generator.normal(size=n))
        return got.low <= truth <= got.high

    # Near ±1 the interval is known to be short: few pairs are out of order, often none.
    assert rate(4000, covers, f"coverage, Cliff's delta {truth:.2f}, {n} seeds") >= (0.94 if shift < 2 else 0.905)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_detectable_effect_is_found_four_times_out_of_five(n):
    effect = statistics.detectable_over_seeds(n, 2.0).effect
    generator = np.random.default_rng(5)
    first, second = generator.normal(effect, 2, (40000, n)), generator.normal(0, 2, (40000, n))
    share = float(np.mean(stats.ttest_ind(first, second, axis=1).pvalue <= 0.05))
    log.info("power at the detectable effect, %d seeds: %.1f %%", n, 100 * share)
    assert within(share, 0.8, 40000)
    paired = statistics.detectable_over_segments(n, 2.0).effect
    share = float(np.mean(stats.ttest_1samp(generator.normal(paired, 2, (40000, n)), 0, axis=1).pvalue <= 0.05))
    assert within(share, 0.8, 40000)


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_corrections_keep_what_they_promise(shared):
    null = np.arange(20) < 12

    def p_values(generator):
        noise = np.sqrt(shared) * generator.normal() + np.sqrt(1 - shared) * generator.normal(size=20)
        return 2 * stats.norm.sf(np.abs(noise + np.where(null, 0.0, 3.0)))

    def false_share(generator):
        rejected = statistics.benjamini_hochberg(p_values(generator)).rejected
        return (rejected & null).sum() / max(1, rejected.sum())

    family = rate(4000, lambda g: statistics.holm(p_values(g)).rejected[null].any(), "family-wise errors, Holm")
    assert family <= 0.05 + 3 * 0.0035
    share = rate(4000, false_share, "share of false claims, Benjamini–Hochberg")
    assert share <= 0.05 * 12 / 20 + 0.005
    raw = rate(4000, lambda g: (p_values(g) <= 0.05)[null].any(), "family-wise errors without correction")
    assert raw > 0.2


@pytest.mark.parametrize(("n_seeds", "n_videos"), [(3, 30), (10, 30), (10, 10)])
@pytest.mark.parametrize("seed_sd", [0.0, 0.1, 0.5])
def test_the_test_over_seeds_and_videos_keeps_its_level(n_seeds, n_videos, seed_sd):
    """Arms without a difference in the long run, on test videos drawn anew each time, trained with seeds drawn anew."""

    def draw(generator):
        arms = []
        for _ in range(2):
            # What a segment adds to the metric: shared by the arm, a seed's own level, and what the two do together.
            values = 1 + in_videos(generator, n_videos, 8, 0.3) + 0.5 * generator.normal(size=(n_seeds, n_videos * 8))
            values += seed_sd * generator.normal(size=(n_seeds, 1))
            mean = values.mean(axis=0).reshape(n_videos, 8)
            left_out = (mean.sum() - mean.sum(axis=1)) / (8 * (n_videos - 1))
            arms.append(Scored("a", "mae", tuple(range(n_seeds)), values.mean(axis=1), left_out, ("s",) * n_seeds,
                               n_videos * 8, n_videos))  # fmt: skip
        return contrast([(1, arms[0]), (-1, arms[1])])

    setting = f"{n_seeds} seeds of s.d. {seed_sd}, {n_videos} videos of 8 segments"
    share = rate(2000, lambda generator: draw(generator).p <= 0.05, f"false positives, seeds and videos, {setting}")
    # Never too eager; a little too careful, for what a seed does to single videos is counted twice.
    assert 0.02 <= share <= 0.05 + 3 * 0.005
