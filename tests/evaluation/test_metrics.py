"""Hand-made arrays on which the published variants disagree: zeros, ties at .5, values out of range, p = 0."""

import subprocess
import sys

import numpy as np
import pytest

from msakit.evaluation import metrics

#                      t:  zero  zero  tie   tie   out   out   small  p=0   p=0
LABEL = np.array([0.0, 0.0, 0.5, 1.5, 3.0, -3.0, 0.2, 1.0, -1.0])
GUESS = np.array([0.4, -0.4, 0.6, 2.5, 9.0, -4.0, 0.4, 0.0, 0.0])


def value(name, prediction=GUESS, label=LABEL):
    return metrics.score((name,), np.asarray(prediction, dtype=float), np.asarray(label))[name]


@pytest.mark.parametrize(
    ("name", "right", "n"),
    [
        ("acc2_has0", 7, 9),  # wrong: t=0 with p=-.4, t=-1 with p=0
        ("acc2_non0", 6, 7),  # wrong: t=1 with p=0 (counted negative)
        ("acc2_non0_ge", 6, 7),  # wrong: t=-1 with p=0 (counted positive)
        ("acc2_all_gt", 7, 9),  # wrong: t=0 with p=.4, t=1 with p=0
        ("acc7_round", 6, 9),  # .5 -> 0 against .6 -> 1; 1.5 -> 2 and 2.5 -> 2 agree; both p=0 wrong
        ("acc5_round", 6, 9),
        ("acc3_round", 6, 9),  # .5 -> 0 against 1; ±1 against 0
        ("acc7_sdk", 4, 9),  # right: .5/.6 -> 1, ±3, .2/.4 -> 1; wrong: ±.4 -> ±1 against 0, 1.5 -> 2 against 3
    ],
)
def test_accuracies_on_the_shared_example(name, right, n):
    assert value(name) == (pytest.approx(right / n), n)


def test_sdk_classes_round_magnitudes_up():
    got = metrics.sdk_classes(np.array([-9.0, -2.1, -2.0, -0.2, 0.0, 0.2, 1.0, 1.2, 2.0, 2.1]))
    assert got.tolist() == [-3, -3, -2, -1, 0, 1, 1, 2, 2, 3]


def test_rounding_is_half_to_even():
    halves = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 7.0])
    assert metrics.rounded(3)(halves).tolist() == [-2, -2, 0, 0, 2, 2, 3]
    assert metrics.rounded(1)(halves).tolist() == [-1, -1, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sims_bins_are_closed_on_the_right(dtype):
    values = np.array([-5.0, -0.7, -0.6, -0.1, 0.0, 0.1, 0.2, 0.7, 0.8, 5.0], dtype=dtype)
    assert metrics.sims_classes(0.0)(values).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert metrics.sims_classes(-0.1, 0.1)(values).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert metrics.sims_classes(-0.7, -0.1, 0.1, 0.7)(values).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_errors_and_correlations():
    assert value("mae") == (pytest.approx((0.4 + 0.4 + 0.1 + 1 + 6 + 1 + 0.2 + 1 + 1) / 9), 9)
    assert value("mae_non0") == (pytest.approx((0.1 + 1 + 6 + 1 + 0.2 + 1 + 1) / 7), 7)
    # Clipped to ±1: .4 .4 .1 0 0 0 .2 1 1
    assert value("mae_sims") == (pytest.approx(3.1 / 9), 9)
    assert value("corr", [1, 2, 3, 5.0], [1, 2, 3, 4.0]).value == pytest.approx(6.5 / np.sqrt(8.75 * 5))
    assert value("corr_non0", [1, 2, 3, -9.0], [1, 2, 3, 0.0]) == (pytest.approx(1), 3)
    assert value("corr_sims", [0.1, 0.5, 7], [0.1, 0.5, 1]).value == pytest.approx(1)


def test_weighted_f1_and_its_swapped_twin():
    label = np.array([1.0, 1, 1, -1, 0])
    guess = np.array([1.0, -1, -1, -1, 5])
    # Non-zero subset: F1(pos) = 2·1/(1+3) = .5, F1(neg) = 2·1/(3+1) = .5 … weights 3:1 by label, 1:3 by prediction.
    assert value("f1w_non0", guess, label) == (pytest.approx(0.5), 4)
    # All five, zero counted positive: F1(pos) = 4/6, F1(neg) = 2/4, support 4:1.
    assert value("f1w_has0", guess, label) == (pytest.approx((4 * 2 / 3 + 0.5) / 5), 5)
    # All five, zero counted negative: F1(pos) = 2/5, F1(neg) = 2/5.
    assert value("f1w_all_gt", guess, label).value == pytest.approx(0.4)
    label, guess = np.array([1.0, 1, 1, -1]), np.array([1.0, 1, -1, -1])
    # F1(pos) = 4/5, F1(neg) = 2/3; label support 3:1, predicted support 2:2.
    assert value("f1w_non0", guess, label).value == pytest.approx((3 * 0.8 + 2 / 3) / 4)
    assert value("f1w_swapped_non0", guess, label).value == pytest.approx((2 * 0.8 + 2 * 2 / 3) / 4)
    assert value("f1_macro_non0", guess, label).value == pytest.approx((0.8 + 2 / 3) / 2)
    assert value("ua_non0", guess, label).value == pytest.approx((2 / 3 + 1) / 2)


def test_classification():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
    label = np.array([0, 1, 2, 2])
    got = metrics.score("classification", p, label)
    assert got["accuracy"] == (0.75, 4)
    assert got["f1_macro"].value == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert got["f1_weighted"].value == pytest.approx((1 + 2 / 3 + 2 * 2 / 3) / 4)
    assert got["auroc"].value == pytest.approx((1 + 1 + 1) / 3)
    assert np.isnan(metrics.score(["accuracy_logit05"], p, label)["accuracy_logit05"].value)


def test_binary_cut_of_the_raw_logits():
    p1 = np.array([0.55, 0.62, 0.63, 0.2])  # sigmoid(0.5) = 0.6225
    got = metrics.score("toledo", np.stack([1 - p1, p1], axis=1), np.array([1, 1, 1, 0]))
    assert got["accuracy"].value == 1.0
    assert got["accuracy_logit05"].value == 0.5
    assert got["f1_binary_logit05"].value == pytest.approx(0.5)
    assert metrics.score("f1_macro_logit05", np.stack([1 - p1, p1], axis=1), np.array([1, 1, 1, 0]))[
        "f1_macro_logit05"
    ].value == pytest.approx(0.5)
    assert got["auroc"] == (1.0, 4)


@pytest.mark.parametrize("name", [name for name, m in metrics.METRICS.items() if m.kind == "regression"])
def test_undefined_is_nan_with_n(name):
    assert value(name, [], []).n == 0
    assert np.isnan(value(name, [], []).value)
    broken = value(name, [1.0, np.nan, -1.0], [1.0, 0.5, -1.0])
    assert np.isnan(broken.value)
    assert broken.n == 3
    perfect = value(name, LABEL, LABEL)
    assert perfect.value == pytest.approx(0.0 if name.startswith("mae") else 1.0)


def test_undefined_cases_by_name():
    assert np.isnan(value("corr", [0.1] * 9).value)
    assert value("corr", [0.1] * 9).n == 9
    assert value("acc2_non0", [1.0, 2], [0.0, 0]).n == 0
    one_class = metrics.score("classification", np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([1, 1]))
    assert np.isnan(one_class["auroc"].value)
    assert one_class["accuracy"].value == 0.5


def test_metrics_on_logits_are_there():
    assert set(metrics.ON_LOGITS) | set(metrics.ON_LOGITS.values()) <= set(metrics.METRICS)


def test_names_profiles_and_errors():
    assert len(metrics.METRICS) == 37
    for name, profile in metrics.PROFILES.items():
        assert metrics.names(name) == profile
    assert metrics.METRICS["mae"].title == "MAE ↓"
    with pytest.raises(ValueError, match="choose from: mae, corr"):
        metrics.names(["acc2"])
    with pytest.raises((ValueError, TypeError)):  # the shape check, or without it our own
        metrics.score("mini", np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="1 of 2 labels are missing"):
        metrics.score("mini", np.zeros(2), np.array([0, np.nan]))
    with pytest.raises(ValueError, match="accuracy scores classification predictions"):
        metrics.score(["accuracy"], GUESS, LABEL)


def test_importing_is_light():
    modules = "msakit.evaluation.metrics, msakit.runs.record"
    code = f"import sys, {modules}; print({{'torch', 'sklearn', 'scipy'}} & set(sys.modules))"
    got = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert got.strip() == "set()"


# What each metric gave on fixed arrays when metrics.VERSION was last raised; a new metric adds its value.
VERSION = 1
STOOD = {
    "mae": 0.814921, "corr": 0.862340, "mae_non0": 0.807831, "corr_non0": 0.867173, "mae_sims": 0.252051,
    "corr_sims": 0.856105, "acc2_has0": 0.875000, "acc2_non0": 0.876289, "acc2_non0_ge": 0.876289,
    "acc2_all_gt": 0.855000, "acc2_sims": 0.855000, "acc3_round": 0.770000, "acc5_round": 0.560000,
    "acc7_round": 0.375000, "acc7_sdk": 0.435000, "acc3_sims": 0.835000, "acc5_sims": 0.695000, "f1w_has0": 0.875730,
    "f1w_non0": 0.876818, "f1w_non0_ge": 0.876818, "f1w_all_gt": 0.855273, "f1w_sims": 0.855273,
    "f1w_swapped_non0": 0.875759, "f1w_swapped_all_gt": 0.854727, "ua_has0": 0.880747, "ua_non0": 0.881061,
    "f1_macro_has0": 0.873607, "f1_macro_non0": 0.875441, "accuracy": 0.535000, "f1_macro": 0.534709,
    "f1_weighted": 0.535872, "f1_binary": 0.546341, "ua": 0.537879, "auroc": 0.556465, "accuracy_logit05": 0.520000,
    "f1_macro_logit05": 0.514121, "f1_binary_logit05": 0.460674,
}  # fmt: skip


def test_a_metric_that_changes_needs_a_new_version():
    generator = np.random.default_rng(0)
    label = np.round(generator.uniform(-3, 3, 200) * 5) / 5
    data = {
        "regression": (label + generator.normal(size=200), label),
        "classification": (generator.dirichlet([1, 1], 200), (label > 0).astype(int)),
    }
    values = {
        name: round(metrics.score([name], *data[metric.kind])[name].value, 6)
        for name, metric in metrics.METRICS.items()
    }
    assert values == pytest.approx(STOOD), "a metric gives other values: raise metrics.VERSION and note them here"
    assert metrics.VERSION == VERSION
