"""How much of a number hangs on which segments were in the test split: bootstrap and permutation over segments.

The metric is averaged over the seeds throughout. Two arms are compared on the same resampled segments, which removes
what a hard segment does to both. Segments of one video share a speaker and a mood; taken as independent they make
intervals too narrow and tests too eager. Each function therefore takes `videos`, and then resamples whole videos.
That needs some dozens of them: simulated, the 95 % interval by video covers 88 to 92 % with 10 videos of 15 segments,
93 to 94 % with 31 and 95 % with 93, where the interval by segment covers 80 to 84 % throughout (three tenths of the
variance shared within a video).

A result that is undefined (a collapsed run, a single segment) is nan, never an error. p-values are two-sided.

Sources: Efron & Tibshirani, An Introduction to the Bootstrap (1993), ch. 13 and 15; Davison & Hinkley, Bootstrap
Methods and their Application (1997), ch. 3.8 and 4.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Real, Shaped
from tqdm.auto import tqdm

from msakit.evaluation.metrics import metric as metric_called
from msakit.evaluation.statistics import LEVEL

RESAMPLES = 2000
_BLOCK = 2**22  # weights held at a time: 32 MiB

Labels = Real[np.ndarray, " segments"]
Videos = Shaped[np.ndarray, " segments"]


@dataclass(frozen=True)
class PairedDifference:
    """First arm minus second on the same segments, seeds averaged; p is two-sided, from the bootstrap's tails."""

    difference: float
    low: float
    high: float
    p: float
    better: str | None  # "first" or "second" where the interval leaves out zero
    n_seeds: tuple[int, int]
    n_segments: int
    n_videos: int | None  # None where segments were taken as independent
    resamples: int  # those on which both arms were defined


@dataclass(frozen=True)
class PermutationTest:
    """First arm minus second on the same segments, seeds averaged, against exchanging the arms."""

    difference: float
    p: float
    method: str  # "sign flips" (the metric is a mean over segments) or "exchanged predictions"
    exact: bool  # all permutations were visited, not a sample
    permutations: int  # those on which both arms were defined
    n_seeds: tuple[int, int]
    n_segments: int
    n_videos: int | None  # None where segments were taken as independent


def paired_difference(
    metric: str,
    first: Real[np.ndarray, "first_seeds segments *classes"],
    second: Real[np.ndarray, "second_seeds segments *classes"],
    label: Labels,
    videos: Videos | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Paired bootstrap: difference of two arms (first - second), both scored on the same resampled segments.

    The rows of all arrays are the same segments in the same order; the arms may have other numbers of seeds; videos:
    each segment's video, to resample whole videos. p = 2·min(share of resamples ≤ 0, share ≥ 0), each with one added
    to count and total, at most 1. Interval and p are nan for fewer than two segments (or videos).
    Raises ValueError for shapes that do not fit or missing videos.
    """
    _check(metric, label, first, second)
    unit = _units(label, videos)
    difference = _scored(metric, first, label) - _scored(metric, second, label)
    draws = np.subtract(*_over_weights(metric, [first, second], label, _resamples(unit, resamples, seed)))
    draws = draws[~np.isnan(draws)]
    low, high = _percentiles(draws)
    p = float("nan")
    if len(draws):
        tails = [(1 + int((draws <= 0).sum())) / (1 + len(draws)), (1 + int((draws >= 0).sum())) / (1 + len(draws))]
        p = min(1.0, 2 * min(tails))
    better = None
    if low > 0 or high < 0:
        better = "first" if (low > 0) == (metric_called(metric).direction == "up") else "second"
    return PairedDifference(difference, low, high, p, better, (len(first), len(second)), len(label),
                            _count(unit, videos), len(draws))  # fmt: skip


def paired_permutation(
    metric: str,
    first: Real[np.ndarray, "first_seeds segments *classes"],
    second: Real[np.ndarray, "second_seeds segments *classes"],
    label: Labels,
    videos: Videos | None = None,
    permutations: int = RESAMPLES,
    seed: int = 0,
) -> PermutationTest:
    """Paired permutation test of two arms: would the difference stand out if the arms' names meant nothing?

    Where the metric is a mean over segments, each segment's contribution is averaged over an arm's seeds, and the
    differences of the arms change sign at random. Otherwise each segment's predictions change arms at random, those
    of the k-th seeds with one another, and the metric is taken anew; this asks whether the predictions can be
    exchanged, so for Corr put both arms on one scale first. With `videos`, all segments of a video change together.
    p = (1 + permutations at least as far from zero) / (1 + permutations); where there are no more than `permutations`
    ways, each is visited once and p is their exact share.
    Raises ValueError for shapes that do not fit, missing videos, or arms with other numbers of seeds where the metric
    is no mean over segments.
    """
    _check(metric, label, first, second)
    unit = _units(label, videos)
    difference = _scored(metric, first, label) - _scored(metric, second, label)
    contribution = metric_called(metric).contribution
    exact = bool(unit.max(initial=-1) + 1 <= np.log2(permutations))
    method = "exchanged predictions" if contribution is None else "sign flips"
    if not np.isfinite(difference):
        draws = np.empty(0)
    elif contribution is not None:
        arms = [[contribution(p, label) for p in arm] for arm in (first, second)]
        means = [np.mean([part.value for part in arm], axis=0) for arm in arms]
        counts = arms[0][0].counts  # depends on the labels alone
        apart = np.where(counts, means[0] - means[1], 0.0) / counts.sum()
        draws = np.concatenate([(2.0 * stay - 1) @ apart for stay in _exchanges(unit, permutations, seed, exact)])
    elif len(first) != len(second):
        raise ValueError(
            f"{metric} is no mean over segments, so seeds are exchanged in pairs, but there are {len(first)} and "
            f"{len(second)}; give as many of each, or use paired_difference"
        )
    else:
        # An arm after exchange is a weighting of both arms' predictions: its own where it stays, else the other's.
        both, twice = np.concatenate([first, second], axis=1), np.concatenate([label, label])
        sides = [_sides(_exchanges(unit, permutations, seed, exact), own) for own in (1, 0)]
        draws = np.subtract(*[_over_weights(metric, [both], twice, weights)[0] for weights in sides])
    draws = draws[~np.isnan(draws)]
    # Sums in another order differ in the last digits; what equals the observed value must count.
    beyond = int((np.abs(draws) >= abs(difference) - 1e-9).sum())
    p = float("nan")
    if len(draws):
        p = beyond / len(draws) if exact else (1 + beyond) / (1 + len(draws))
    return PermutationTest(difference, p, method, exact, len(draws), (len(first), len(second)), len(label),
                           _count(unit, videos))  # fmt: skip


def _check(metric: str, label: np.ndarray, *arms: np.ndarray) -> None:
    kind = metric_called(metric).kind
    missing = int((~np.isfinite(label)).sum())
    if missing:
        raise ValueError(f"{missing} of {len(label)} labels are missing; score labelled segments only")
    if not all(len(arm) for arm in arms):
        raise ValueError(f"an arm has no seed to score with {metric}")
    dimensions = 2 if kind == "regression" else 3
    for arm in arms:
        if arm.ndim != dimensions or arm.shape[1] != len(label):
            shape = "[seeds, segments]" if kind == "regression" else "[seeds, segments, classes]"
            raise ValueError(f"{metric} wants predictions {shape} for {len(label)} labels, these are {arm.shape}")


def _units(label: np.ndarray, videos: np.ndarray | None) -> Int[np.ndarray, " segments"]:
    """What is resampled as one: each segment's place among the videos, or among the segments."""
    import pandas as pd

    if videos is None:
        return np.arange(len(label))
    unit = pd.factorize(videos)[0]
    if len(unit) != len(label) or (unit < 0).any():
        raise ValueError(
            f"{len(unit)} videos, {int((unit < 0).sum())} of them missing, for {len(label)} labels; give one a segment"
        )
    return unit


def _count(unit: np.ndarray, videos: np.ndarray | None) -> int | None:
    return None if videos is None else int(unit.max(initial=-1)) + 1


def _scored(metric: str, arm: np.ndarray, label: np.ndarray) -> float:
    return float(np.mean([metric_called(metric).function(p, label).value for p in arm]))


def _percentiles(draws: Float[np.ndarray, " resamples"]) -> tuple[float, float]:
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _over_weights(
    metric: str, arms: list[np.ndarray], label: np.ndarray, weights: Iterator[np.ndarray]
) -> Float[np.ndarray, "arms resamples"]:
    """The metric of each arm, its seeds averaged, under the same weights; no resample where none is meaningful."""
    if not len(label) or not all(np.isfinite(arm).all() for arm in arms):
        return np.empty((len(arms), 0))
    weighted = metric_called(metric).weighted
    blocks = [
        [np.mean([weighted(p, label, block) for p in arm], axis=0) for arm in arms]
        for block in tqdm(weights, desc=f"resampling {metric}", leave=False, delay=2)
    ]
    return np.concatenate(blocks, axis=1) if blocks else np.empty((len(arms), 0))


def _resamples(unit: Int[np.ndarray, " segments"], resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each segment is drawn, in blocks of resamples; units are drawn with replacement, as many as are."""
    units = int(unit.max(initial=-1)) + 1
    if units < 2:
        return
    generator = np.random.default_rng(seed)
    for size in _blocks(resamples, len(unit)):
        drawn = generator.integers(0, units, (size, units)) + units * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units)[:, unit].astype(float)


def _exchanges(
    unit: Int[np.ndarray, " segments"], permutations: int, seed: int, exact: bool
) -> Iterator[Int[np.ndarray, "permutations segments"]]:
    """1 where a segment stays with its arm, 0 where it changes, in blocks; all ways in turn where exact."""
    units = int(unit.max(initial=-1)) + 1
    generator = np.random.default_rng(seed)
    done = 0
    for size in _blocks(2**units if exact else permutations, len(unit)):
        ways = np.arange(done, done + size)[:, None] >> np.arange(units) & 1 if exact else None
        done += size
        yield (generator.integers(0, 2, (size, units)) if ways is None else ways)[:, unit]


def _sides(exchanges: Iterator[np.ndarray], own: int) -> Iterator[Float[np.ndarray, "permutations twice_segments"]]:
    """Weights on the first arm's predictions, then the second's: own is 1 for the first arm, 0 for the second."""
    for stay in exchanges:
        yield np.concatenate([stay == own, stay != own], axis=1).astype(float)


def _blocks(total: int, segments: int) -> Iterator[int]:
    most = max(1, _BLOCK // segments)
    for start in range(0, total, most):
        yield min(most, total - start)
