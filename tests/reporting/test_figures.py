"""Figures are written with the numbers that they show, and the same figure gives the same bytes."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from msakit.reporting import figures

mpl.use("agg")
import matplotlib.pyplot as plt


@pytest.fixture
def ax():
    with figures.style():
        figure, axes = plt.subplots(figsize=(figures.COLUMN, 2.2))
        yield axes
        plt.close(figure)


def values(**axes):
    """A tidy frame over the product of the given columns, with made-up values."""
    frame = pd.MultiIndex.from_product(axes.values(), names=axes.keys()).to_frame(index=False)
    return frame.assign(value=np.random.default_rng(0).random(len(frame)))


def lines(ax, label):
    return next(line for line in ax.get_lines() if line.get_label() == label)


def test_layer_curve_shows_the_means_and_marks(ax):
    frame = values(modality=["text", "audio"], layer=[2, 0, 1], seed=[0, 1, 2])
    assert figures.layer_curve(ax, frame, "mae", best={"text": 1}) is ax
    expected = frame[frame["modality"] == "audio"].groupby("layer")["value"].mean()
    assert lines(ax, "audio").get_xdata().tolist() == [0, 1, 2]
    assert lines(ax, "audio").get_ydata() == pytest.approx(expected.to_numpy())
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["text", "audio", "output layer", "best on validation"]
    assert lines(ax, "output layer").get_xdata().tolist() == [2]
    assert ax.get_ylabel() == "MAE ↓"
    styles = {(line.get_marker(), str(line.get_linestyle())) for line in ax.get_lines() if line.get_label() in legend}
    assert len(styles) == 3, "series differ without colour"


def test_arm_points(ax):
    frame = values(arm=["a", "b"], seed=[0, 1, 2])
    figures.arm_points(ax, frame, "mae", {"b": "Second", "a": "First", "c": "Not run"}, oracle=0.1, constant=0.9)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["Second", "First"]
    assert ax.get_xlabel() == "MAE (← better)"
    assert sorted(float(line.get_xdata()[0]) for line in ax.get_lines() if len(set(line.get_xdata())) == 1)[0] == 0.1
    assert {text.get_text() for text in ax.texts} == {"oracle", "constant"}


def test_one_seed_has_no_interval(ax):
    figures.arm_points(ax, values(arm=["a"], seed=[0]), "corr", {"a": "A"})
    assert ax.get_xlabel() == "Corr (→ better)"
    assert len(ax.get_lines()) == 2  # the seed and the mean


def test_learning_curves_and_bars(ax):
    figures.learning_curves(ax, values(series=["train", "valid"], epoch=range(5), seed=[0, 1]), "L1 loss ↓")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Epoch", "L1 loss ↓")
    figure, other = plt.subplots()
    frame = values(group=["agree", "disagree"], arm=["a", "b"], seed=[0, 1])
    figures.group_bars(other, frame, "accuracy", {"b": "B", "a": "A"})
    heights = [patch.get_height() for patch in other.patches]
    expected = frame.groupby(["arm", "group"])["value"].mean()
    assert heights == pytest.approx([expected[key] for key in (("b", "agree"), ("b", "disagree"), ("a", "agree"),
                                                               ("a", "disagree"))])  # fmt: skip
    plt.close(figure)


def test_saved_picture_and_data(ax, tmp_path):
    frame = values(modality=["text"], layer=[0, 1], seed=[0, 1])
    figures.layer_curve(ax, frame, "mae")
    picture, data = figures.save(ax.figure, frame, tmp_path / "first", "layers")
    again, same = figures.save(ax.figure, frame, tmp_path / "second", "layers")
    assert picture.name == "layers.png"
    assert picture.read_bytes() == again.read_bytes()
    assert data.read_bytes() == same.read_bytes()
    assert b"Software" not in picture.read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv(data), frame, rtol=1e-5)
    assert plt.imread(picture).shape[1] == int(figures.COLUMN * figures.DPI)
