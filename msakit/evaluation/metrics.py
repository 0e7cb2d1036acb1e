"""Every published way of scoring a sentiment prediction, each under a name of its own.

"Acc-2" means at least four things in the literature (is a zero label positive, negative or left out? is a zero
prediction positive?) and "F1" more, so a number is only comparable with another number of the same name here.
The definitions follow the evaluation scripts of MMSA, MulT, MISA, MMIM, MAG-BERT, Cross-Modal-BERT, the CMU SDK
and Ando et al.; `PROFILES` lists what each of them prints.

Conventions: p is a prediction and t a label, one value a segment, on the corpus's own scale (-3 to 3 for MOSI and
MOSEI, -1 to 1 for SIMS). Classification takes probabilities `[segments, classes]` and class indices. Each metric
returns (value, n) with n the number of segments that it used; where a metric is undefined (no segment left, a
correlation with a constant, a prediction that is not finite) the value is nan and n still tells how many there were.
Nothing is rounded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Real

from msakit.evaluation import weighted as weigh

Array = np.ndarray
Regression = Real[np.ndarray, " segments"]

# Raised whenever a metric's value on given predictions changes; written with claims and results.
VERSION = 1
# Toledo & Marcacini's code hands raw logits to a scorer that cuts at 0.5, so the effective cut is sigmoid(0.5).
LOGIT_CUT = 1.0 / (1.0 + np.exp(-0.5))
ARROWS = {"up": "↑", "down": "↓"}


class Score(NamedTuple):
    """A metric's value and the number of segments behind it."""

    value: float
    n: int


@dataclass(frozen=True)
class Metric:
    """One scoring rule.

    function(prediction, label) -> Score; direction "up" or "down" says which way is better; label is the heading
    without arrow; weighted(prediction, label, weights) -> values does the same for many weightings of the segments at
    once, weights `[resamples, segments]` (predictions must be finite); kind is "regression" or "classification".
    """

    function: Callable[[Any, Any], Score]
    direction: str
    label: str
    weighted: Callable[[Any, Any, Any], Array]
    kind: str = "regression"

    @property
    def title(self) -> str:
        """Heading with the arrow that points to better values."""
        return f"{self.label} {ARROWS[self.direction]}"


Binning = Callable[[Array], Array]
Subset = Callable[[Array], Array]


def everything(label: Regression) -> Bool[np.ndarray, " segments"]:
    return np.ones(len(label), dtype=bool)


def non_zero(label: Regression) -> Bool[np.ndarray, " segments"]:
    return label != 0


def at_least_zero(values: Regression) -> Int[np.ndarray, " segments"]:
    return (values >= 0).astype(int)


def above_zero(values: Regression) -> Int[np.ndarray, " segments"]:
    return (values > 0).astype(int)


def rounded(limit: int) -> Binning:
    """Clip to ±limit, then round half to even (0.5 -> 0, 1.5 -> 2), as `np.round` does in the published scripts."""

    def bins(values: Regression) -> Int[np.ndarray, " segments"]:
        return np.round(np.clip(values, -limit, limit)).astype(int)

    return bins


def sdk_classes(values: Regression) -> Int[np.ndarray, " segments"]:
    """CMU SDK's seven classes: 0 -> 0, otherwise the magnitude rounded up, at most 3, sign kept (0.2 -> 1)."""
    return (np.sign(values) * np.minimum(np.ceil(np.abs(values)), 3)).astype(int)


def sims_classes(*edges: float) -> Binning:
    """Clip to ±1, then bins closed on the right, as MMSA does for SIMS."""

    def bins(values: Regression) -> Int[np.ndarray, " segments"]:
        # The edges take the values' own precision: a float32 0.1 must fall on the edge, not just above it.
        return np.digitize(np.clip(values, -1, 1), np.asarray(edges, dtype=values.dtype), right=True)

    return bins


def _mean(
    title: str, direction: str, contribution: Callable[[Any, Any], tuple[Array, Array]], kind: str = "regression"
) -> Metric:
    """The mean over segments of what each contributes: its value, and whether it counts."""

    def function(prediction: Array, label: Array) -> Score:
        value, counts = contribution(prediction, label)
        n = int(counts.sum())
        if n == 0 or not np.isfinite(prediction).all():
            return Score(float("nan"), n)
        return Score(float(value[counts].mean()), n)

    def weighted(prediction: Array, label: Array, weights: Array) -> Array:
        return weigh.mean(*contribution(prediction, label), weights)

    return Metric(function, direction, title, weighted, kind)


def _accuracy(title: str, bins: Binning, subset: Subset = everything) -> Metric:
    def contribution(prediction: Array, label: Array) -> tuple[Array, Array]:
        finite = np.nan_to_num(prediction, nan=0.0)
        return (bins(finite) == bins(label)).astype(float), subset(label)

    return _mean(title, "up", contribution)


def _mae(title: str, subset: Subset = everything, limit: float | None = None) -> Metric:
    def contribution(prediction: Array, label: Array) -> tuple[Array, Array]:
        p, t = (_clip(values, limit).astype(float) for values in (prediction, label))
        return np.abs(p - t), subset(label)

    return _mean(title, "down", contribution)


def _corr(title: str, subset: Subset = everything, limit: float | None = None) -> Metric:
    def function(prediction: Array, label: Array) -> Score:
        kept = subset(label)
        n = int(kept.sum())
        p, t = (_clip(values, limit)[kept].astype(float) for values in (prediction, label))
        if n < 2 or not np.isfinite(prediction).all() or np.ptp(p) == 0 or np.ptp(t) == 0:
            return Score(float("nan"), n)
        return Score(float(np.corrcoef(p, t)[0, 1]), n)

    def weighted(prediction: Array, label: Array, weights: Array) -> Array:
        kept = subset(label)
        p, t = (_clip(values, limit)[kept].astype(float) for values in (prediction, label))
        return weigh.correlation(p, t, weights[:, kept])

    return Metric(function, "up", title, weighted)


def _clip(values: Array, limit: float | None) -> Array:
    return values if limit is None else np.clip(values, -limit, limit)


def _classified(title: str, scorer: str, bins: Binning, subset: Subset = everything, swapped: bool = False,
                kind: str = "regression", binary: bool = False, **options: Any) -> Metric:  # fmt: skip
    """A scikit-learn score of classes: bins of numbers, or decided from probabilities.

    `swapped` exchanges label and prediction, as some scripts do. `binary` metrics take class 1 as the positive one and
    are nan for other counts of classes.
    """

    def compared(prediction: Array, label: Array) -> tuple[Array, Array]:
        true, predicted = bins(label) if kind == "regression" else label.astype(int), bins(prediction)
        return (predicted, true) if swapped else (true, predicted)

    def function(prediction: Array, label: Array) -> Score:
        kept = subset(label)
        n = int(kept.sum())
        if n == 0 or not np.isfinite(prediction).all() or (binary and prediction.shape[1] != 2):
            return Score(float("nan"), n)
        true, predicted = compared(prediction[kept], label[kept])
        # Macro recall is a mean over the classes among the labels: a class that is only predicted has no recall.
        labels = {"labels": np.unique(true)} if scorer == "recall_score" else {}
        from sklearn import metrics

        return Score(float(getattr(metrics, scorer)(true, predicted, zero_division=0, **labels, **options)), n)

    def weighted(prediction: Array, label: Array, weights: Array) -> Array:
        if binary and prediction.shape[1] != 2:
            return np.full(len(weights), np.nan)
        kept = subset(label)
        return weigh.class_score(scorer, *compared(prediction[kept], label[kept]), weights[:, kept], **options)

    return Metric(function, "up", title, weighted, kind)


def _f1w(title: str, bins: Binning, subset: Subset = everything, swapped: bool = False) -> Metric:
    return _classified(title, "f1_score", bins, subset, swapped, average="weighted")


def _decided(title: str, decide: Binning, scorer: str = "f1_score", **options: Any) -> Metric:
    return _classified(title, scorer, decide, kind="classification", **options)


def _share_right(title: str, decide: Binning, binary: bool = False) -> Metric:
    def contribution(prediction: Array, label: Array) -> tuple[Array, Array]:
        if binary and prediction.shape[1] != 2:
            return np.full(len(label), np.nan), everything(label)
        return (decide(prediction) == label).astype(float), everything(label)

    return _mean(title, "up", contribution, "classification")


def _most_probable(probabilities: Real[np.ndarray, "segments classes"]) -> Int[np.ndarray, " segments"]:
    return probabilities.argmax(axis=1)


def _logit_cut(probabilities: Real[np.ndarray, "segments 2"]) -> Int[np.ndarray, " segments"]:
    return (probabilities[:, 1] >= LOGIT_CUT).astype(int)


def _auroc(prediction: Real[np.ndarray, "segments classes"], label: Int[np.ndarray, " segments"]) -> Score:
    """Area under the ROC curve; with more than two classes the mean of one-against-rest areas. All must occur."""
    from sklearn.metrics import roc_auc_score

    n, classes = prediction.shape
    if n == 0 or not np.isfinite(prediction).all() or len(np.unique(label)) < max(2, classes):
        return Score(float("nan"), n)
    positives = [1] if classes == 2 else range(classes)
    return Score(float(np.mean([roc_auc_score(label == c, prediction[:, c]) for c in positives])), n)


def _weighted_auroc(prediction: Array, label: Array, weights: Array) -> Array:
    positives = [1] if prediction.shape[1] == 2 else range(prediction.shape[1])
    return np.mean([weigh.auroc(prediction[:, c], label == c, weights) for c in positives], axis=0)


METRICS: dict[str, Metric] = {
    "mae": _mae("MAE"),
    "corr": _corr("Corr"),
    "mae_non0": _mae("MAE (t≠0)", non_zero),
    "corr_non0": _corr("Corr (t≠0)", non_zero),
    "mae_sims": _mae("MAE (clipped ±1)", limit=1.0),
    "corr_sims": _corr("Corr (clipped ±1)", limit=1.0),
    "acc2_has0": _accuracy("Acc-2 (≥0)", at_least_zero),
    "acc2_non0": _accuracy("Acc-2 (t≠0, >0)", above_zero, non_zero),
    "acc2_non0_ge": _accuracy("Acc-2 (t≠0, ≥0)", at_least_zero, non_zero),
    "acc2_all_gt": _accuracy("Acc-2 (>0)", above_zero),
    "acc2_sims": _accuracy("Acc-2 (SIMS)", sims_classes(0.0)),
    "acc3_round": _accuracy("Acc-3", rounded(1)),
    "acc5_round": _accuracy("Acc-5", rounded(2)),
    "acc7_round": _accuracy("Acc-7", rounded(3)),
    "acc7_sdk": _accuracy("Acc-7 (SDK)", sdk_classes),
    "acc3_sims": _accuracy("Acc-3 (SIMS)", sims_classes(-0.1, 0.1)),
    "acc5_sims": _accuracy("Acc-5 (SIMS)", sims_classes(-0.7, -0.1, 0.1, 0.7)),
    "f1w_has0": _f1w("F1w (≥0)", at_least_zero),
    "f1w_non0": _f1w("F1w (t≠0, >0)", above_zero, non_zero),
    "f1w_non0_ge": _f1w("F1w (t≠0, ≥0)", at_least_zero, non_zero),
    "f1w_all_gt": _f1w("F1w (>0)", above_zero),
    "f1w_sims": _f1w("F1w (SIMS)", sims_classes(0.0)),
    "f1w_swapped_non0": _f1w("F1w swapped (t≠0, >0)", above_zero, non_zero, swapped=True),
    "f1w_swapped_all_gt": _f1w("F1w swapped (>0)", above_zero, swapped=True),
    "ua_has0": _classified("UA (≥0)", "recall_score", at_least_zero, average="macro"),
    "ua_non0": _classified("UA (t≠0, >0)", "recall_score", above_zero, non_zero, average="macro"),
    "f1_macro_has0": _classified("F1 macro (≥0)", "f1_score", at_least_zero, average="macro"),
    "f1_macro_non0": _classified("F1 macro (t≠0, >0)", "f1_score", above_zero, non_zero, average="macro"),
    "accuracy": _share_right("Accuracy", _most_probable),
    "f1_macro": _decided("F1 macro", _most_probable, average="macro"),
    "f1_weighted": _decided("F1 weighted", _most_probable, average="weighted"),
    "f1_binary": _decided("F1 (positive class)", _most_probable, binary=True),
    "ua": _decided("UA (macro recall)", _most_probable, "recall_score", average="macro"),
    "auroc": Metric(_auroc, "up", "AUROC", _weighted_auroc, kind="classification"),
    "accuracy_logit05": _share_right("Accuracy (logit ≥ 0.5)", _logit_cut, binary=True),
    "f1_macro_logit05": _decided("F1 macro (logit ≥ 0.5)", _logit_cut, binary=True, average="macro"),
    "f1_binary_logit05": _decided("F1 (positive class, logit ≥ 0.5)", _logit_cut, binary=True),
}

# The same where two classes are decided by a threshold of 0.5 on the logit in place of the probability.
ON_LOGITS = {"accuracy": "accuracy_logit05", "f1_macro": "f1_macro_logit05", "f1_binary": "f1_binary_logit05"}

PROFILES: dict[str, tuple[str, ...]] = {
    "mini": ("mae", "corr", "acc2_has0", "acc2_non0", "acc7_round", "f1w_non0"),
    "ando": ("mae", "corr", "acc2_has0", "acc2_non0", "f1w_has0", "f1w_non0", "ua_has0", "ua_non0", "f1_macro_has0",
             "f1_macro_non0", "acc3_round", "acc5_round", "acc7_round"),
    "mmsa": ("acc2_has0", "f1w_has0", "acc2_non0", "f1w_non0", "acc5_round", "acc7_round", "mae", "corr"),
    "sims": ("acc2_sims", "f1w_sims", "acc3_sims", "acc5_sims", "mae_sims", "corr_sims"),
    "magbert": ("acc2_non0_ge", "f1w_non0_ge", "mae_non0", "corr_non0"),
    "mult": ("mae", "corr", "acc7_round", "acc5_round", "f1w_swapped_non0", "acc2_non0"),
    "misa": ("mae", "corr", "acc7_round", "acc5_round", "acc2_has0", "acc2_non0", "f1w_swapped_non0"),
    "mmim": ("mae", "corr", "acc7_round", "acc5_round", "acc2_has0", "f1w_has0", "acc2_non0", "f1w_non0"),
    "cmbert": ("acc2_all_gt", "f1w_swapped_all_gt", "acc7_round", "mae", "corr"),
    "sdk": ("mae", "corr", "acc7_sdk"),
    "classification": ("accuracy", "f1_macro", "f1_weighted", "auroc"),
    "toledo": ("accuracy", "accuracy_logit05", "f1_macro", "f1_weighted", "f1_binary", "f1_binary_logit05", "auroc"),
}  # fmt: skip


def metric(name: str) -> Metric:
    """The metric of that name. Raises ValueError listing the choices."""
    if name not in METRICS:
        raise ValueError(f"no metric is called {name!r}; choose from: {', '.join(METRICS)}")
    return METRICS[name]


def names(wanted: str | Sequence[str]) -> tuple[str, ...]:
    """Metric names from a list of them, one name, or a profile's name."""
    if isinstance(wanted, str):
        wanted = PROFILES.get(wanted, (wanted,))
    for name in wanted:
        metric(name)
    return tuple(wanted)


def score(
    wanted: str | Sequence[str],
    prediction: Real[np.ndarray, "segments *classes"],
    label: Real[np.ndarray, " segments"],
) -> dict[str, Score]:
    """Score predictions under several names.

    Parameters: metric names or a profile's name; predictions `[segments]` on the label's scale, or class
    probabilities `[segments, classes]`; labels `[segments]` (class indices for classification).
    Returns a dict from name to Score(value, n); undefined values are nan.
    Raises ValueError for unknown names, lengths that differ, missing labels, or a metric of the other kind.
    """
    if len(prediction) != len(label):
        raise ValueError(f"{len(prediction)} predictions for {len(label)} labels; pass one of each a segment")
    missing = int((~np.isfinite(label)).sum())
    if missing:
        raise ValueError(f"{missing} of {len(label)} labels are missing; score labelled segments only")
    kind = "regression" if prediction.ndim == 1 else "classification"
    # Half precision overflows in sums, and integers have no nan.
    if not np.issubdtype(prediction.dtype, np.floating) or prediction.dtype == np.float16:
        prediction = prediction.astype(float)
    label = label.astype(int) if kind == "classification" else label.astype(prediction.dtype, copy=False)
    scores = {}
    for name in names(wanted):
        chosen = metric(name)
        if chosen.kind != kind:
            raise ValueError(f"{name} scores {chosen.kind} predictions, these are {kind} (shape {prediction.shape})")
        scores[name] = chosen.function(prediction, label)
    return scores
