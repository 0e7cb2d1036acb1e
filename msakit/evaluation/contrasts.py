"""Is one arm better than another, when both the seeds and the test segments are only samples?

A difference between arms would come out otherwise with other training seeds, and with other test videos. Both chances
count against a claim, so the test rests on the sum of two variances:

    D = Σ cᵢ·mᵢ                      m: an arm's metric, averaged over its seeds; c: 1 and -1, or a difference of two
    V_seeds  = Σ cᵢ²·sᵢ²/nᵢ          s: standard deviation over seeds (as Welch)
    V_videos = (g-1)/g · Σᵥ (D₍ᵥ₎ - D̄)²    D₍ᵥ₎: D without video v (leave one out); all arms on the same segments
    t = (D - null) / √(V_seeds + V_videos), with Welch–Satterthwaite degrees of freedom (nᵢ - 1 each, and g - 1)

What a seed does to single videos is in both sums, which errs on the careful side. Simulated without any difference, the
test rejects in 4.7 to 6.0 % of cases (3 or 10 seeds, 10 or 30 videos, seeds that matter not at all or much). Where
each "seed" is a fold with test segments of its own, arms are compared fold by fold, and the variance is Nadeau &
Bengio's: (1/k + n_test/n_train)·s² with k - 1 degrees of freedom, because folds share most of their training segments.

Everything is computed, nothing drawn: the same records give the same digits. p-values are two-sided; undefined is nan.

Sources: Welch, Biometrika 34 (1947); Satterthwaite, Biometrics Bulletin 2 (1946); Efron & Stein, Annals of Statistics
9 (1981), for the leave-one-out variance; Nadeau & Bengio, Machine Learning 52 (2003).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from msakit.evaluation import metrics
from msakit.evaluation.resampling import LEVEL, inside
from msakit.runs.record import Runs, arrays


@dataclass(frozen=True, eq=False)
class Scored:
    """One arm under one metric on the test split: a value a seed, and what leaving a video out does to their mean."""

    arm: str
    metric: str
    seeds: tuple[int, ...]
    values: Float[np.ndarray, " seeds"]
    left_out: Float[np.ndarray, " videos"] | None  # None in folds
    tested_on: tuple[str, ...]  # digest of ids and labels of the segments, a seed each
    n_segments: int  # all that were tested on
    n_videos: int
    trained: bool = True  # False for a reference that no seed can change

    @property
    def folds(self) -> bool:
        """Whether each seed has test segments of its own."""
        return len(set(self.tested_on)) > 1


@dataclass(frozen=True)
class Contrast:
    """A difference of arms with both chances in it; in folds `se_seeds` is the whole and `se_videos` is nan."""

    difference: float
    low: float
    high: float
    level: float
    se: float
    se_seeds: float
    se_videos: float
    df: float
    p: float  # of the difference against `null`
    null: float
    unit: str  # "seeds and videos" or "folds"
    n_seeds: tuple[int, ...]  # seeds of each arm, or the folds that all arms have
    n_segments: int
    n_videos: int


def videos_of(predictions: pd.DataFrame) -> Shaped[np.ndarray, " segments"]:
    """Each segment's video: the column ``video_id``, or the segment's id without its last ``_part``."""
    if "video_id" in predictions:
        return predictions["video_id"].to_numpy(str)
    return predictions["segment_id"].astype(str).str.replace(r"_[^_]*$", "", regex=True).to_numpy(str)


def scored(runs: Runs, arm: str, metric: str, split: str = "test", trained: bool = True) -> Scored:
    """Score one arm of one corpus. Raises ValueError where it has no runs."""
    chosen = list(runs.select(arm=arm))
    if not chosen:
        raise ValueError(f"{runs.root}: no run of arm {arm!r} to score; run it, or leave it out")
    parts = []
    for run in chosen:
        frame = runs.predictions(run)
        parts.append((*arrays(frame, split, run.path), frame[frame["split"] == split]))
    values = [metrics.score([metric], prediction, label)[metric].value for prediction, label, _ in parts]
    digests = tuple(_digest(part) for *_, part in parts)
    left_out = None
    if len(set(digests)) == 1:
        left_out = np.mean([_without_each(metric, *part) for part in parts], axis=0)
    together = pd.concat([part for *_, part in parts]).drop_duplicates("segment_id")
    return Scored(arm, metric, tuple(run.record.seed for run in chosen), np.array(values), left_out, digests,
                  len(together), len(set(videos_of(together))), trained)  # fmt: skip


def _digest(part: pd.DataFrame) -> str:
    rows = sorted(zip(part["segment_id"].astype(str), part["label"].astype(str), strict=True))
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def _without_each(
    metric: str, prediction: np.ndarray, label: np.ndarray, part: pd.DataFrame
) -> Float[np.ndarray, " videos"]:
    """The metric without each video in turn, videos in alphabetical order."""
    unit, place = np.unique(videos_of(part), return_inverse=True)
    rule = metrics.metric(metric)
    if not np.isfinite(prediction).all() or len(unit) < 2:
        return np.full(len(unit), np.nan)
    weights = (place[None] != np.arange(len(unit))[:, None]).astype(float)
    if rule.kind == "classification":
        label = label.astype(int)
    return np.asarray(rule.weighted(prediction, label, weights), dtype=float)


def contrast(
    terms: Sequence[tuple[float | int, Scored]], null: float = 0.0, level: float = LEVEL, where: Path | str = "arms"
) -> Contrast:
    """The weighted sum of arms' scores, tested against `null`.

    terms: (coefficient, arm); (1, a), (-1, b) for a plain difference. p, interval and se are nan where a trained arm
    has one seed only, there is one video only, a value is undefined, or nothing varies at all.
    Raises ValueError where the arms were not tested on the same segments.
    """
    inside(level=level)
    terms = [(float(c), arm) for c, arm in terms]
    arms = [arm for _, arm in terms]
    if any(arm.folds for arm in arms):
        return _over_folds(terms, null, level, where)
    if len({arm.tested_on[0] for arm in arms}) > 1:
        names = ", ".join(arm.arm for arm in arms)
        raise ValueError(f"{where}: {names} were tested on different segments; run them on the same corpus and split")
    difference = float(sum(c * arm.values.mean() for c, arm in terms))
    varying = [(c, arm) for c, arm in terms if arm.trained]
    by_seed = [(_squared(c, arm.values), len(arm.values) - 1) for c, arm in varying]
    left_out = np.sum([c * arm.left_out for c, arm in terms if arm.left_out is not None], axis=0)
    g = len(left_out)
    by_video = (g - 1) / g * float(((left_out - left_out.mean()) ** 2).sum())
    parts = [*by_seed, (by_video, g - 1)]
    variance = float(sum(part for part, _ in parts))
    df = se = float("nan")
    if variance > 0:
        se = float(np.sqrt(variance))
        df = variance**2 / sum(part**2 / d for part, d in parts if part > 0)
    seeds = float(np.sqrt(sum(part for part, _ in by_seed)))
    return _tested(difference, se, seeds, float(np.sqrt(by_video)), df, null, level, "seeds and videos",
                   tuple(len(arm.values) for arm in arms), arms[0].n_segments, arms[0].n_videos)  # fmt: skip


def _squared(c: float, values: np.ndarray) -> float:
    if len(values) < 2:
        return float("nan")
    return 0.0 if np.ptp(values) == 0 else float(c**2 * np.var(values, ddof=1) / len(values))


def _over_folds(terms: Sequence[tuple[float, Scored]], null: float, level: float, where: Path | str) -> Contrast:
    places = [dict(zip(arm.seeds, range(len(arm.seeds)), strict=True)) for _, arm in terms]
    common = sorted(set.intersection(*(set(place) for place in places)))
    for fold in common:
        if len({arm.tested_on[place[fold]] for (_, arm), place in zip(terms, places, strict=True)}) > 1:
            raise ValueError(
                f"{where}: fold {fold} of {', '.join(arm.arm for _, arm in terms)} differs in its segments; run all "
                "arms with the same folds"
            )
    rows = [c * arm.values[[place[f] for f in common]] for (c, arm), place in zip(terms, places, strict=True)]
    by_fold = np.sum(rows, axis=0)
    k = len(common)
    se = df = float("nan")
    if k > 1:
        # Of the segments, 1/k are tested on and the rest trained on.
        se, df = float(np.sqrt((1 / k + 1 / (k - 1)) * np.var(by_fold, ddof=1))), k - 1.0
    se = se if se > 0 else float("nan")
    arm = terms[0][1]
    difference = float(by_fold.mean()) if k else float("nan")
    return _tested(difference, se, se, float("nan"), df, null, level, "folds", (k,) * len(terms), arm.n_segments,
                   arm.n_videos)  # fmt: skip


def _tested(difference: float, se: float, seeds: float, videos: float, df: float, null: float, level: float, unit: str,
            n_seeds: tuple[int, ...], n_segments: int, n_videos: int) -> Contrast:  # fmt: skip
    from scipy import stats

    p = low = high = float("nan")
    if np.isfinite([difference, se, df]).all():
        p = float(2 * stats.t.sf(abs(difference - null) / se, df))
        half = float(stats.t.ppf((1 + level) / 2, df)) * se
        low, high = difference - half, difference + half
    return Contrast(difference, low, high, level, se, seeds, videos, df, p, null, unit, n_seeds, n_segments, n_videos)
