"""A weight of three is a segment three times over, for every metric there is."""

import numpy as np
import pytest

from msakit.evaluation import weighted
from msakit.evaluation.metrics import METRICS

SEGMENTS, RESAMPLES = 47, 13


@pytest.fixture
def weights():
    drawn = np.random.default_rng(1).integers(0, SEGMENTS, (RESAMPLES, SEGMENTS))
    return np.stack([np.bincount(row, minlength=SEGMENTS) for row in drawn]).astype(float)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", METRICS)
def test_weighting_is_repeating(name, classes, weights):
    generator = np.random.default_rng(2)
    if METRICS[name].kind == "regression":
        # Halves: ties, and values on the edges between bins.
        label = generator.integers(-6, 7, SEGMENTS) / 2
        prediction = np.round(2 * (label + generator.normal(size=SEGMENTS))) / 2
    else:
        label = generator.integers(0, classes, SEGMENTS)
        prediction = np.round(generator.dirichlet(np.ones(classes), SEGMENTS), 1)
    rows = [np.repeat(np.arange(SEGMENTS), row.astype(int)) for row in weights]
    repeated = [METRICS[name].function(prediction[row], label[row]).value for row in rows]
    got = METRICS[name].weighted(prediction, label, weights)
    assert got.shape == (RESAMPLES,)
    assert got == pytest.approx(repeated, nan_ok=True)
    two_only = name == "f1_binary" or name.endswith("_logit05")
    assert np.isnan(got).all() == (two_only and classes == 3)


def test_undefined_resamples_are_nan():
    label, up = np.array([0, 0, 1, 1]), np.array([1.0, 2.0, 2.0, 3.0])
    one_class = np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    assert weighted.auroc(up, label == 1, one_class) == pytest.approx([np.nan, np.nan, 0.875], nan_ok=True)
    assert weighted.mean(up, label == 1, one_class) == pytest.approx([np.nan, np.nan, 2.5], nan_ok=True)
    constant = np.array([[1.0, 0, 0, 1], [0, 2, 2, 0], [3, 0, 0, 0]])
    assert weighted.correlation(up, np.arange(4.0), constant) == pytest.approx([1, np.nan, np.nan], nan_ok=True)
    for average in ("macro", "weighted", "binary"):
        assert np.isnan(weighted.class_score("f1_score", label, label, np.zeros((1, 4)), average)).all()
    # No positive among labels or predictions: zero, as in scikit-learn.
    assert weighted.class_score("f1_score", label, label, one_class)[0] == 0


def test_a_large_offset_costs_no_digits():
    x = np.random.default_rng(0).normal(size=(2, 50))
    weights = np.ones((1, 50))
    got = weighted.correlation(x[0] + 1e6, x[1] - 1e6, weights)
    assert got == pytest.approx(np.corrcoef(x)[0, 1], abs=1e-8)
