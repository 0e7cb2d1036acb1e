"""How sure a number is: over training seeds, over many claims at once, and what a test could have shown.

Values over seeds are few, and the tests rest on t distributions. A result that is undefined (one seed only, a collapsed
run, no spread) is nan, never an error. p-values are two-sided. Tests that count the test segments as well are in
:mod:`msakit.evaluation.comparisons`.

Sources: Welch, Biometrika 34 (1947); Brown & Forsythe, JASA 69 (1974); Holm, Scandinavian Journal of Statistics 6
(1979); Cohen, Statistical Power Analysis (1988), ch. 2.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

LEVEL = 0.95  # of intervals
ALPHA = 0.05  # of tests
POWER = 0.8  # with which a detectable effect is found


@dataclass(frozen=True)
class SeedSummary:
    """A metric over seeds. nan where n < 2.

    `undefined` counts the seeds whose value is nan (a run that collapsed); then mean, sd and interval are nan too,
    for leaving such runs out would flatter the arm.
    """

    n: int
    mean: float
    sd: float  # ddof 1
    low: float  # of the mean's t-interval
    high: float
    undefined: int


class WelchTest(NamedTuple):
    """First arm minus second over seeds."""

    low: float  # of the t-interval of the means' difference
    high: float
    df: float  # Welch–Satterthwaite
    p: float


class SpreadTest(NamedTuple):
    """Whether one arm is steadier over seeds than the other."""

    ratio: float  # first s.d. (ddof 1) over second
    p: float
    n: tuple[int, int]


def over_seeds(values: Real[np.ndarray, " seeds"]) -> SeedSummary:
    """Mean, sample standard deviation and t-interval mean ± t(n-1)·sd/√n of one value a seed (or fold).

    Raises ValueError without any value.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no seed to summarise")
    undefined = int(np.isnan(values).sum())
    # Equal values give an sd of exactly zero, not rounding noise.
    mean = float(values[0]) if np.ptp(values) == 0 else float(np.mean(values))
    sd = low = high = float("nan")
    if n > 1 and not undefined:
        from scipy import stats

        sd = _sd(values)
        half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / np.sqrt(n)
        low, high = float(mean - half), float(mean + half)
    return SeedSummary(n, mean, sd, low, high, undefined)


def welch(first: Real[np.ndarray, " first"], second: Real[np.ndarray, " second"]) -> WelchTest:
    """Welch's t-test of two arms' means over seeds, spreads not assumed equal.

    t = (m₁ - m₂) / √(s₁²/n₁ + s₂²/n₂), with the Welch–Satterthwaite degrees of freedom. The values are one metric, a
    seed each; seeds of the two arms are not paired. p and interval are nan where an arm has fewer than two seeds
    or an undefined one, or where neither arm varies.
    """
    from scipy import stats

    if not _sd(first) + _sd(second) > 0:
        return WelchTest(*[float("nan")] * 4)
    got = stats.ttest_ind(first, second, equal_var=False)
    interval = got.confidence_interval(LEVEL)
    return WelchTest(float(interval.low), float(interval.high), float(got.df), float(got.pvalue))


def compare_spread(first: Real[np.ndarray, " first"], second: Real[np.ndarray, " second"]) -> SpreadTest:
    """Brown–Forsythe test of equal spread over seeds, for claims that an arm is steadier.

    Levene's test on distances from the median: F = the one-way analysis of variance of |xᵢⱼ - medianᵢ|. It hardly
    minds values that are not normal, but few seeds make it timid: simulated, it rejects equal spreads in 0.7 % of cases
    at five seeds an arm and 4 % at ten, where it finds a ratio of two in 30 % and of four in 81 %. So a large p from
    few seeds shows nothing about steadiness. p is nan where an arm has fewer than three seeds
    (two always lie equally far from their median) or an undefined one, or where neither varies.
    """
    from scipy import stats

    n = (len(first), len(second))
    sds = (_sd(first), _sd(second))
    p = float("nan")
    if min(n) > 2 and sum(sds) > 0:
        p = float(stats.levene(first, second, center="median").pvalue)
    return SpreadTest(sds[0] / sds[1] if sds[1] else float("nan"), p, n)


def holm(p: Real[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """p-values adjusted by Holm's correction; the chance of even one false claim stays at most alpha, however the
    tests depend.

    With p in rising order, adjusted p₍ᵢ₎ = max over j ≤ i of min(1, (m - j + 1)·p₍ⱼ₎). nan stays nan and is no member
    of the family. Raises ValueError for p outside 0 to 1.
    """
    p = np.asarray(p, dtype=float)
    tested = ~np.isnan(p)
    if ((p[tested] < 0) | (p[tested] > 1)).any():
        raise ValueError(f"p-values lie between 0 and 1, these are {p.tolist()}")
    family = p[tested]
    order = np.argsort(family)
    raised = np.maximum.accumulate(family[order] * np.arange(len(family), 0, -1))
    adjusted = p.copy()
    adjusted[np.flatnonzero(tested)[order]] = np.minimum(raised, 1)
    return adjusted


def detectable(se: float, df: float | int, alpha: float = ALPHA) -> float:
    """Smallest true difference that a two-sided t-test at alpha finds with power `POWER`; nan for an undefined one.

    se, df: the difference's own standard error and degrees of freedom, as
    :class:`msakit.evaluation.comparisons.Comparison` has them.
    """
    if not np.isfinite([se, df]).all():
        return float("nan")
    return se * _shift(float(df), alpha)


def detectable_spread(n: tuple[int, int], alpha: float = ALPHA) -> float:
    """Smallest ratio of standard deviations (above 1) that `compare_spread` finds at alpha with power `POWER`.

    By simulation with normal values, always the same ones (2000 pairs; the ratio is good to some per cent); infinite
    where even a ratio of 1000 is not found. nan for fewer than three seeds in an arm.
    """
    from scipy import optimize, stats

    if min(n) < 3:
        return float("nan")
    generator = np.random.default_rng(0)
    first, second = (np.abs(x - np.median(x, axis=1, keepdims=True))
                     for x in (generator.normal(size=(2000, size)) for size in n))  # fmt: skip
    cut = float(stats.f.ppf(1 - alpha, 1, sum(n) - 2))

    def lacking(log_ratio: float) -> float:
        a, b = first * np.exp(log_ratio), second
        between = (a.mean(1) - b.mean(1)) ** 2 * n[0] * n[1] / sum(n)
        inner = (n[0] * a.var(1) + n[1] * b.var(1)) / (sum(n) - 2)
        return float((between > cut * inner).mean()) - POWER

    top = float(np.log(1000))
    return float("inf") if lacking(top) < 0 else float(np.exp(optimize.brentq(lacking, 0.0, top, xtol=1e-3)))


def _shift(df: float, alpha: float) -> float:
    """The noncentrality at which a t with df degrees of freedom lies outside ±t(1 - alpha/2) with power `POWER`."""
    from scipy import optimize, stats

    cut = float(stats.t.ppf(1 - alpha / 2, df))

    def lacking(shift: float) -> float:
        # The far tail lies below Φ(-shift); scipy has no digits for it, and may give nan, where it is next to nothing.
        return float(stats.nct.sf(cut, df, shift)) + float(np.nan_to_num(stats.nct.cdf(-cut, df, shift))) - POWER

    top = cut + 1.0
    while lacking(top) < 0:
        top *= 2
    return float(optimize.brentq(lacking, 0.0, top))


def _sd(values: np.ndarray) -> float:
    if len(values) < 2:
        return float("nan")
    return 0.0 if np.ptp(values) == 0 else float(np.std(values, ddof=1))
