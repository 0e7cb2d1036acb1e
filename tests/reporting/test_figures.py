"""Figures are written with the numbers that they show, and the same figure gives the same bytes."""

import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from small_runs import paper, regression, write

from msakit.reporting import figures
from msakit.runs.store import read_runs

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


def test_arm_points(ax):
    frame = values(arm=["a", "b"], seed=[0, 1, 2])
    figures.arm_points(ax, frame, "mae", {"b": "Second", "a": "First", "c": "Not run"},
                       {"oracle": 0.1, "constant": 0.9})  # fmt: skip
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["Second", "First"]
    assert ax.get_xlabel() == "MAE (← better)"
    assert sorted(float(line.get_xdata()[0]) for line in ax.get_lines() if len(set(line.get_xdata())) == 1)[0] == 0.1
    assert {text.get_text() for text in ax.texts} == {"oracle", "constant"}


def test_one_seed_has_no_interval(ax):
    figures.arm_points(ax, values(arm=["a"], seed=[0]), "corr", {"a": "A"})
    assert ax.get_xlabel() == "Corr (→ better)"
    assert len(ax.get_lines()) == 2  # the seed and the mean


@pytest.fixture
def runs(tmp_path):
    label = np.linspace(-2, 2, 6)
    for place, (arm, group) in enumerate((("b", "First group"), ("a", "Second"), ("own", "Second"))):
        for seed in range(2):
            write(tmp_path, arm, seed, regression(label, label + 0.1 * (seed + place)), group=group, title=f"Arm {arm}")
    for name, error in (("oracle", 0.0), ("constant", 1.0)):
        write(tmp_path, name, 0, regression(label, label + error), reference=True)
    return read_runs(tmp_path)


def test_the_figure_of_arms_has_a_panel_a_group(runs):
    known = paper(arms={name: {"title": name, "model": "m"} for name in "ba"})
    figure, data = figures.arm_figure(runs, known, "mae")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["First group", "Second"]
    labels = [[tick.get_text() for tick in axes.get_yticklabels()] for axes in figure.axes]
    assert labels == [["Arm b"], ["Arm a", "Arm own"]]
    assert list(data.columns) == ["arm", "seed", "value"]
    assert set(data["arm"]) == {"a", "b", "own"}
    assert [text.get_text() for text in figure.axes[0].texts] == ["oracle", "constant"]
    figure, data = figures.arm_figure(runs, known, "mae", elsewhere=["b"], titles={"own": "Mine"})
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["Arm a", "Mine"]
    plt.close("all")


def test_saved_picture_and_data(ax, tmp_path):
    frame = values(modality=["text"], layer=[0, 1], seed=[0, 1])
    ax.plot(frame["layer"], frame["value"])
    picture = figures.save(ax.figure, frame, tmp_path / "first", "layers")
    again = figures.save(ax.figure, frame, tmp_path / "second", "layers")
    assert picture.name == "layers.png"
    assert picture.read_bytes() == again.read_bytes()
    assert (tmp_path / "first/data.json").read_bytes() == (tmp_path / "second/data.json").read_bytes()
    assert b"Software" not in picture.read_bytes()
    assert plt.imread(picture).shape[1] == int(figures.COLUMN * figures.DPI)
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["data.json", "layers.png"]


def test_the_plotted_data_of_a_folder_are_one_file_that_pandas_reads(ax, tmp_path):
    frame = values(modality=["text"], layer=[0, 1], seed=[0, 1])
    other = pd.DataFrame({"word": ["ä", "b"], "fold": pd.array([1, None], dtype="Int64"), "value": [1 / 3, np.nan]})
    for name, data in (("b", frame), ("a", frame.head(1)), ("a", other)):
        figures.save(ax.figure, data, tmp_path, name)
    stored = json.loads((tmp_path / "data.json").read_text(encoding="utf-8"))
    assert list(stored) == ["a", "b"]
    pd.testing.assert_frame_equal(pd.DataFrame(**stored["b"]), frame, rtol=1e-5)
    assert stored["a"]["data"] == [["ä", 1, 0.333333], ["b", None, None]]
    assert figures.read_data(tmp_path)["b"].shape == (4, 4)
    assert figures.read_data(tmp_path / "none") == {}


def test_figures_are_copied_with_their_data_and_neither_without_the_other(ax, tmp_path):
    for name in ("kept", "gone"):
        figures.save(ax.figure, values(arm=["a"], seed=[0]), tmp_path / "from", name)
    (tmp_path / "from/gone.png").rename(tmp_path / "from/other.png")
    figures.copy_figures(tmp_path / "from", tmp_path / "to")
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["data.json", "kept.png"]
    assert list(figures.read_data(tmp_path / "to")) == ["kept"]
    assert (tmp_path / "to/kept.png").read_bytes() == (tmp_path / "from/kept.png").read_bytes()
