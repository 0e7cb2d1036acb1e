"""Is one arm better than another, when both the seeds and the test segments are only samples?

A difference between arms would come out otherwise with other training seeds, and with other test videos. Both chances
count against a claim, so the test rests on the sum of two variances:

    D = Σ cᵢ·mᵢ                      m: an arm's metric, averaged over its seeds; c: 1 and -1, or a difference of two
    V_seeds  = Σ cᵢ²·sᵢ²/nᵢ          s: standard deviation over seeds (as Welch)
    V_videos = (g-1)/g · Σᵥ (D₍ᵥ₎ - D̄)²    D₍ᵥ₎: D without video v (leave one out); all arms on the same segments
    t = (D - null) / √(V_seeds + V_videos), with Welch–Satterthwaite degrees of freedom (nᵢ - 1 each, and g - 1)

What a seed does to single videos is in both sums, which errs on the careful side. Simulated without any difference, the
test rejects in 4.7 to 6.0 % of cases (3 or 10 seeds, 10 or 30 videos, seeds that matter not at all or much).

In cross-validation each fold has test segments of its own, and folds share most of their training segments. Arms of one
division into folds are compared fold by fold: the variance is Nadeau & Bengio's, (1/k + n_test/n_train)·s² of the
differences, with k - 1 degrees of freedom. Arms of different divisions (shuffled against stratified folds) are not
paired: the sum of each arm's own such variance, with Welch–Satterthwaite degrees of freedom.

Everything is computed, nothing drawn: the same records give the same digits. p-values are two-sided; undefined is nan.

Sources: Welch, Biometrika 34 (1947); Satterthwaite, Biometrics Bulletin 2 (1946); Efron & Stein, Annals of Statistics
9 (1981), for the leave-one-out variance; Nadeau & Bengio, Machine Learning 52 (2003).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Real, Shaped

from msakit.evaluation import metrics
from msakit.evaluation.statistics import LEVEL

SEEDS_AND_VIDEOS, PAIRED_FOLDS, UNPAIRED_FOLDS = "seeds and videos", "folds", "folds, unpaired"


@dataclass(frozen=True, eq=False)
class Predicted:
    """What one run predicted for the segments that it is tested on."""

    prediction: Real[np.ndarray, "segments *classes"]  # on the label's scale, or class probabilities
    label: Real[np.ndarray, " segments"]  # class indices for classification
    segment_id: Shaped[np.ndarray, " segments"]
    video_id: Shaped[np.ndarray, " segments"]
    fold: int | None = None
    sizes: tuple[int, int] | None = None  # segments that the run was trained on, and tested on; needed in folds


@dataclass(frozen=True, eq=False)
class Scored:
    """One arm under one metric: a value a run, and what leaving a video out does to their mean."""

    arm: str
    metric: str
    values: Float[np.ndarray, " runs"]  # one a seed; in folds one a fold, averaged over its seeds
    left_out: Float[np.ndarray, " videos"] | None  # videos in alphabetical order; None in folds
    segments: str  # digest of ids and labels of all segments tested on
    n_segments: int
    n_videos: int
    folds: Int[np.ndarray, " runs"] | None = None  # which fold each value is of
    division: str = ""  # names the division into folds; equal names are equal divisions
    test_to_train: float = float("nan")  # mean over folds of n_test / n_train
    trained: bool = True  # False for a reference that no seed can change


@dataclass(frozen=True)
class Comparison:
    """A difference of arms, or a single arm's mean; in folds `se_seeds` is the whole and `se_videos` is nan."""

    difference: float
    low: float  # of the t-interval
    high: float
    se: float
    se_seeds: float
    se_videos: float
    df: float
    p: float  # of the difference against `null`
    null: float
    unit: str  # SEEDS_AND_VIDEOS, PAIRED_FOLDS or UNPAIRED_FOLDS
    n_runs: tuple[int, ...]  # seeds of each arm, or folds; where paired, the folds that all arms have
    n_segments: int
    n_videos: int


def score_runs(arm: str, metric: str, runs: Sequence[Predicted], division: str = "", trained: bool = True) -> Scored:
    """Score the runs of one arm: seeds on the same segments, or folds (each of which may have several seeds).

    Raises:
        ValueError: no runs; seeds that were tested on different segments; folds beside runs without a fold, or without
            their sizes.
    """
    if not runs:
        raise ValueError(f"arm {arm!r} has no runs to score")
    values = np.array([metrics.score([metric], run.prediction, run.label)[metric].value for run in runs])
    ids = np.concatenate([run.segment_id.astype(str) for run in runs])
    videos = np.concatenate([run.video_id.astype(str) for run in runs])
    _, first = np.unique(ids, return_index=True)
    segments = _digest(ids[first], np.concatenate([run.label for run in runs])[first])
    n_segments, n_videos = len(first), len(np.unique(videos))
    if all(run.fold is None for run in runs):
        if any(_digest(run.segment_id.astype(str), run.label) != segments for run in runs):
            raise ValueError(f"the seeds of arm {arm!r} were tested on different segments; run them on the same split")
        left_out = np.mean([_without_each_video(metric, run) for run in runs], axis=0)
        return Scored(arm, metric, values, left_out, segments, n_segments, n_videos, trained=trained)
    if any(run.fold is None or (run.sizes is None and trained) for run in runs):
        raise ValueError(f"arm {arm!r}: runs in folds want a fold and their sizes each")
    of_run = np.array([run.fold for run in runs])
    folds = np.unique(of_run)
    by_fold = np.array([values[of_run == fold].mean() for fold in folds])
    shares = [run.sizes[1] / run.sizes[0] for run in runs if run.sizes is not None]
    ratio = float(np.mean(shares)) if trained else float("nan")
    return Scored(arm, metric, by_fold, None, segments, n_segments, n_videos, folds, division, ratio, trained)


def _digest(ids: Shaped[np.ndarray, " segments"], label: Real[np.ndarray, " segments"]) -> str:
    rows = sorted(zip(ids.tolist(), map(str, label.tolist()), strict=True))
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def _without_each_video(metric: str, run: Predicted) -> Float[np.ndarray, " videos"]:
    """The metric without each video in turn, videos in alphabetical order."""
    unit, index = np.unique(run.video_id.astype(str), return_inverse=True)
    rule = metrics.metric(metric)
    if not np.isfinite(run.prediction).all() or len(unit) < 2:
        return np.full(len(unit), np.nan)
    weights = (index[None] != np.arange(len(unit))[:, None]).astype(float)
    label = run.label.astype(int) if rule.kind == "classification" else run.label
    return np.asarray(rule.weighted(run.prediction, label, weights), dtype=float)


def compare(terms: Sequence[tuple[float | int, Scored]], null: float = 0.0) -> Comparison:
    """The weighted sum of arms' scores, tested against `null`.

    terms: (coefficient, arm); (1, a), (-1, b) for a plain difference; (1, a) alone for a mean with its interval. p,
    interval and se are nan where a trained arm has one run only, there is one video only, a value is undefined, or
    nothing varies at all.

    Raises:
        ValueError: arms that were not tested on the same segments, or folds against seeds.
    """
    terms = [(float(c), arm) for c, arm in terms]
    arms = [arm for _, arm in terms]
    names = ", ".join(arm.arm for arm in arms)
    if len({arm.folds is None for arm in arms}) > 1:
        raise ValueError(f"of {names} some were run in folds and some were not; run them in the same way")
    difference = float(sum(c * arm.values.mean() for c, arm in terms))
    n_runs, videos = tuple(len(arm.values) for arm in arms), float("nan")
    if arms[0].folds is None:
        if len({arm.segments for arm in arms}) > 1:
            raise ValueError(f"{names} were tested on different segments; run them on the same corpus and split")
        parts = [(_variance(c, arm.values), len(arm.values) - 1) for c, arm in terms if arm.trained]
        seeds = float(np.sqrt(sum(part for part, _ in parts)))
        left_out = np.sum([c * arm.left_out for c, arm in terms if arm.left_out is not None], axis=0)
        g = len(left_out)
        by_video = (g - 1) / g * float(((left_out - left_out.mean()) ** 2).sum())
        unit, videos = SEEDS_AND_VIDEOS, float(np.sqrt(by_video))
        se, df = _together([*parts, (by_video, g - 1)])
    elif len({arm.division for arm in arms}) == 1:
        folds = [(c, arm.values, arm.folds) for c, arm in terms if arm.folds is not None]
        common = sorted(set.intersection(*(set(own.tolist()) for _, _, own in folds)))
        by_fold = np.sum([c * values[np.isin(own, common)] for c, values, own in folds], axis=0)
        k = len(common)
        # Where the arms were trained on different shares of the folds, the larger correction.
        share = max((arm.test_to_train for arm in arms if arm.trained), default=0.0)
        se, df = _together([(_variance(1.0, by_fold, share), k - 1)])
        difference = float(by_fold.mean()) if k else float("nan")
        unit, n_runs, seeds = PAIRED_FOLDS, (k,) * len(terms), se
    else:
        shares = [arm.test_to_train if arm.trained else 0.0 for arm in arms]
        variances = [_variance(c, arm.values, share) for (c, arm), share in zip(terms, shares, strict=True)]
        se, df = _together([(part, n - 1) for part, n in zip(variances, n_runs, strict=True)])
        unit, seeds = UNPAIRED_FOLDS, se
    p = low = high = float("nan")
    if np.isfinite([difference, se, df]).all():
        from scipy import stats

        p = float(2 * stats.t.sf(abs(difference - null) / se, df))
        half = float(stats.t.ppf((1 + LEVEL) / 2, df)) * se
        low, high = difference - half, difference + half
    return Comparison(difference, low, high, se, seeds, videos, df, p, null, unit, n_runs, arms[0].n_segments,
                      arms[0].n_videos)  # fmt: skip


def _variance(c: float, values: np.ndarray, share: float = 0.0) -> float:
    """Of c times the mean of the values: c²·s²·(1/n + share)."""
    if len(values) < 2:
        return float("nan")
    if np.ptp(values) == 0:
        return 0.0
    variance = c**2 * np.var(values, ddof=1)
    return float(variance / len(values) + variance * share)


def _together(parts: Sequence[tuple[float, float | int]]) -> tuple[float, float]:
    """Standard error and Welch–Satterthwaite degrees of freedom of a sum of (variance, degrees of freedom)."""
    variance = float(sum(part for part, _ in parts))
    if not variance > 0:
        return float("nan"), float("nan")
    return float(np.sqrt(variance)), variance**2 / sum(part**2 / d for part, d in parts if part > 0)
