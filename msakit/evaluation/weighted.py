"""Metrics of many resamples at once: a resample is a row of weights, one weight a segment.

Leaving segments out, or drawing them repeatedly, gives each a weight (how often it counts), and a metric of the
resample is the metric with those weights: sums over segments become one matrix product for all resamples. The values
are those of :mod:`msakit.evaluation.metrics` on the repeated segments (and so scikit-learn's, with `zero_division=0`);
a resample in which the metric is undefined gives nan.

Each function takes what the metric compares, `[segments]`, and weights `[resamples, segments]`, at least zero, and
returns one value a resample.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Real, Shaped

Weights = Real[np.ndarray, "resamples segments"]
Values = Float[np.ndarray, " resamples"]


def mean(value: Shaped[np.ndarray, " segments"], counts: Bool[np.ndarray, " segments"], weights: Weights) -> Values:
    """Mean of the values of the segments that count."""
    return _share(weights @ np.where(counts, value, 0.0), weights @ counts.astype(float))


def correlation(
    first: Real[np.ndarray, " segments"], second: Real[np.ndarray, " segments"], weights: Weights
) -> Values:
    """Pearson's correlation; nan where either side is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return np.full(len(weights), np.nan)
    # Standardised first: sums of squares then lose no digits, and a variance can be called zero.
    x, y = ((side - side.mean()) / side.std() for side in (first, second))
    sums = weights @ np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y, xx, yy, xy = sums[:, 1:].T / sums[:, 0]
        variances = np.stack([xx - x * x, yy - y * y])
        value = np.clip((xy - x * y) / np.sqrt(variances.prod(axis=0)), -1, 1)
    return np.where((variances > 1e-12).all(axis=0), value, np.nan)


def class_score(
    scorer: str,
    true: Int[np.ndarray, " segments"],
    predicted: Int[np.ndarray, " segments"],
    weights: Weights,
    average: str = "binary",
) -> Values:
    """F1 or recall from weighted confusion counts.

    scorer is "f1_score" or "recall_score"; average "macro" (over the classes that occur: among labels or predictions
    for F1, among labels for recall), "weighted" (by the labels) or "binary" (class 1 is the positive one).
    """
    classes = np.union1d(true, predicted)
    labelled, answered = true[:, None] == classes, predicted[:, None] == classes
    hit, label, answer = (weights @ each.astype(float) for each in (labelled & answered, labelled, answered))
    value = _share(hit, label, empty=0.0) if scorer == "recall_score" else _share(2 * hit, label + answer, empty=0.0)
    total = weights.sum(axis=1)
    if average == "weighted":
        return _share((value * label).sum(axis=1), total)
    if average == "binary":
        return np.where(total > 0, value[:, classes == 1].sum(axis=1), np.nan)
    occurs = label > 0 if scorer == "recall_score" else label + answer > 0
    return _share((value * occurs).sum(axis=1), occurs.sum(axis=1))


def auroc(score: Real[np.ndarray, " segments"], positive: Bool[np.ndarray, " segments"], weights: Weights) -> Values:
    """Area under the ROC curve: how often a positive outranks a negative, ties counting half (Mann–Whitney)."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)  # one group for each distinct score
    ranked, positive = weights[:, order].astype(float), positive[order]
    up = np.add.reduceat(np.where(positive, ranked, 0.0), starts, axis=1)
    down = np.add.reduceat(np.where(positive, 0.0, ranked), starts, axis=1)
    won = (up * (np.cumsum(down, axis=1) - down / 2)).sum(axis=1)
    return _share(won, up.sum(axis=1) * down.sum(axis=1))


def _share(
    part: Float[np.ndarray, "resamples *classes"], whole: Real[np.ndarray, "resamples *classes"], empty: float = np.nan
) -> Float[np.ndarray, "resamples *classes"]:
    return np.divide(part, whole, out=np.full(part.shape, empty), where=whole > 0)
