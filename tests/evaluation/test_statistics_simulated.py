"""Tests that reject a true hypothesis 5 % of the time and intervals that cover 95 %, found out by simulation.

Slow, so run by hand: `pytest -m slow tests/evaluation/test_statistics_simulated.py --log-cli-level=INFO` prints the
rates. Every bound leaves three standard errors of the simulation, and says so where a method is known to err on one
side.
"""

import logging
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from msakit.evaluation import statistics
from msakit.evaluation.comparisons import Scored, compare

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


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_detectable_effect_is_found_four_times_out_of_five(n):
    effect = statistics.detectable(2 * np.sqrt(2 / n), 2 * n - 2)
    generator = np.random.default_rng(5)
    first, second = generator.normal(effect, 2, (40000, n)), generator.normal(0, 2, (40000, n))
    share = float(np.mean(stats.ttest_ind(first, second, axis=1).pvalue <= 0.05))
    log.info("power at the detectable effect, %d seeds: %.1f %%", n, 100 * share)
    assert within(share, 0.8, 40000)


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_the_correction_keeps_what_it_promises(shared):
    null = np.arange(20) < 12

    def p_values(generator):
        noise = np.sqrt(shared) * generator.normal() + np.sqrt(1 - shared) * generator.normal(size=20)
        return 2 * stats.norm.sf(np.abs(noise + np.where(null, 0.0, 3.0)))

    family = rate(4000, lambda g: (statistics.holm(p_values(g)) <= 0.05)[null].any(), "family-wise errors, Holm")
    assert family <= 0.05 + 3 * 0.0035
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
            arms.append(Scored("a", "mae", values.mean(axis=1), left_out, "s", n_videos * 8, n_videos))
        return compare([(1, arms[0]), (-1, arms[1])])

    setting = f"{n_seeds} seeds of s.d. {seed_sd}, {n_videos} videos of 8 segments"
    share = rate(2000, lambda generator: draw(generator).p <= 0.05, f"false positives, seeds and videos, {setting}")
    # Never too eager; a little too careful, for what a seed does to single videos is counted twice.
    assert 0.02 <= share <= 0.05 + 3 * 0.005


@pytest.mark.parametrize("overlap", [0.0, 0.3])
def test_the_corrected_test_over_folds_keeps_its_level(overlap):
    """Differences of folds that share training segments are correlated; uncorrected, the test would be too eager."""
    folds, train, test = 10, 96, 12
    ratio = test / train

    def rejects(corrected):
        def once(generator):
            shared, own = generator.normal(), generator.normal(size=folds)
            values = np.sqrt(overlap) * shared + np.sqrt(1 - overlap) * own
            sides = [Scored(name, "mae", x, None, "s", 120, 120, np.arange(folds), "d", ratio * corrected)
                     for name, x in (("a", values), ("b", np.zeros(folds)))]  # fmt: skip
            return compare([(1, sides[0]), (-1, sides[1])]).p <= 0.05

        return once

    uncorrected = rate(2000, rejects(0.0), f"false positives over folds, uncorrected, correlation {overlap}")
    share = rate(2000, rejects(1.0), f"false positives over folds, corrected, correlation {overlap}")
    assert share < uncorrected
    if overlap == 0:
        assert share <= 0.05 + 3 * 0.005
