"""How sure a number is: over training seeds, and over the segments of the test split.

Two sources of chance are kept apart. Training chance (initialisation, batch order) shows in the spread over seeds and
is summarised by a t-interval for the mean. Sampling chance (which segments happened to be in the test split) shows in
the percentile bootstrap over segments (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13), here with
the metric averaged over the seeds. Two arms are compared on the same resampled segments, which removes
what a hard segment does to both.

Segments are resampled one by one; segments of one speaker are taken as independent, so intervals are, if anything, a
little narrow.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Real
from tqdm.auto import tqdm

from msakit.metrics import metric as metric_called

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class SeedSummary:
    """A metric over seeds. sd has ddof 1; low and high bound the mean's t-interval; nan where n < 2.

    `undefined` counts the seeds whose value is nan (a run that collapsed); then mean, sd and interval are nan too,
    for leaving such runs out would flatter the arm.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    level: float
    undefined: int


@dataclass(frozen=True)
class BootstrapInterval:
    """A metric on one set of segments, its seeds averaged, and the percentile interval over resampled segments."""

    value: float
    low: float
    high: float
    level: float
    n_seeds: int
    n_segments: int
    resamples: int  # those on which the metric was defined


@dataclass(frozen=True)
class PairedDifference:
    """First arm minus second on the same segments, seeds averaged; p is two-sided, from the bootstrap's tails."""

    difference: float
    low: float
    high: float
    level: float
    p: float
    better: str | None  # "first" or "second" where the interval leaves out zero
    n_seeds: tuple[int, int]
    n_segments: int
    resamples: int


def over_seeds(values: Real[np.ndarray, " seeds"], level: float = LEVEL) -> SeedSummary:
    """Mean, sample standard deviation and t-interval of one value a seed. Raises ValueError without any."""
    n = len(values)
    if n == 0:
        raise ValueError("no seed to summarise")
    undefined = int(np.isnan(values).sum())
    # Equal values give an sd of exactly zero, not rounding noise.
    mean = float(values[0]) if np.ptp(values) == 0 else float(np.mean(values))
    sd = low = high = float("nan")
    if n > 1 and not undefined:
        from scipy import stats

        sd = 0.0 if np.ptp(values) == 0 else float(np.std(values, ddof=1))
        half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / np.sqrt(n)
        low, high = float(mean - half), float(mean + half)
    return SeedSummary(n, mean, sd, low, high, level, undefined)


def over_segments(
    metric: str,
    prediction: Real[np.ndarray, "seeds segments *classes"],
    label: Real[np.ndarray, " segments"],
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> BootstrapInterval:
    """Percentile bootstrap interval of a metric over segments, averaged over the seeds in each resample."""
    _check(metric, prediction, label)
    value = float(np.mean([metric_called(metric).function(p, label).value for p in prediction]))
    draws = _resampled(metric, [prediction], label, resamples, seed)[0]
    draws = draws[~np.isnan(draws)]
    low, high = _percentiles(draws, level)
    return BootstrapInterval(value, low, high, level, len(prediction), len(label), len(draws))


def paired_difference(
    metric: str,
    first: Real[np.ndarray, "first_seeds segments *classes"],
    second: Real[np.ndarray, "second_seeds segments *classes"],
    label: Real[np.ndarray, " segments"],
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> PairedDifference:
    """Difference of two arms (first - second) in a metric, both scored on the same resampled segments.

    The rows of all three arrays are the same segments in the same order. The arms may have other numbers of seeds.
    p is 2·min(share of resamples ≤ 0, share ≥ 0), each with one added to count and total, at most 1.
    """
    for prediction in (first, second):
        _check(metric, prediction, label)
    chosen = metric_called(metric)
    values = [float(np.mean([chosen.function(p, label).value for p in arm])) for arm in (first, second)]
    draws = np.subtract(*_resampled(metric, [first, second], label, resamples, seed))
    draws = draws[~np.isnan(draws)]
    low, high = _percentiles(draws, level)
    p = float("nan")
    if len(draws):
        tails = [(1 + int((draws <= 0).sum())) / (1 + len(draws)), (1 + int((draws >= 0).sum())) / (1 + len(draws))]
        p = min(1.0, 2 * min(tails))
    better = None
    if low > 0 or high < 0:
        better = "first" if (low > 0) == (chosen.direction == "up") else "second"
    counts = (len(first), len(second))
    return PairedDifference(values[0] - values[1], low, high, level, p, better, counts, len(label), len(draws))


def _check(metric: str, prediction: np.ndarray, label: np.ndarray) -> None:
    kind = metric_called(metric).kind
    dimensions = 2 if kind == "regression" else 3
    if prediction.ndim != dimensions or prediction.shape[1] != len(label):
        shape = "[seeds, segments]" if kind == "regression" else "[seeds, segments, classes]"
        raise ValueError(f"{metric} wants predictions {shape} for {len(label)} labels, these are {prediction.shape}")


def _percentiles(draws: Float[np.ndarray, " resamples"], level: float) -> tuple[float, float]:
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled(
    metric: str, arms: list[np.ndarray], label: np.ndarray, resamples: int, seed: int
) -> Float[np.ndarray, "arms resamples"]:
    """The metric of each arm, its seeds averaged, on the same resamples of the segments."""
    chosen = metric_called(metric)
    if not len(label) or not all(np.isfinite(arm).all() for arm in arms):
        return np.full((len(arms), resamples), np.nan)
    if chosen.contribution is None:
        draws = list(_indices(len(label), resamples, seed))
        # Rank and F1 metrics are no sums over segments: score every resample.
        return np.array([
            [np.mean([chosen.function(p[rows], label[rows]).value for p in arm]) for rows in draws]
            for arm in tqdm(arms, desc=f"bootstrap {metric}", leave=False, delay=2)
        ])  # fmt: skip
    sums = np.empty((len(arms), resamples))
    parts = [[chosen.contribution(p, label) for p in arm] for arm in arms]
    counts = parts[0][0].counts  # depends on the labels alone
    values = np.array([np.mean([part.value for part in arm], axis=0) * counts for arm in parts])
    with np.errstate(invalid="ignore"):
        for index, rows in enumerate(_indices(len(label), resamples, seed)):
            sums[:, index] = values[:, rows].sum(axis=1) / counts[rows].sum()
    return sums


def _indices(n: int, resamples: int, seed: int) -> Iterator[Int[np.ndarray, " segments"]]:
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield generator.integers(0, n, n)
