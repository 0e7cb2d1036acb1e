"""A figure in words: panels, axes, and what the plotted data say, inside the picture itself."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from msakit.reporting import figures
from msakit.reporting.describe import describe, finding, of_picture, title


def frame(**columns):
    return pd.DataFrame(columns)


def test_groups_are_told_one_by_one_as_means_over_seeds():
    told = finding(frame(arm=["mag", "mag", "cms", "cms"], seed=[0, 1, 0, 1], value=[1.0, 2.0, 0.25, 0.75]))
    assert told == "Means over 2 seeds: mag 1.5; cms 0.5."


def test_of_many_groups_the_extremes():
    told = finding(frame(arm=[f"a{k}" for k in range(12)], value=np.arange(12.0)))
    assert told == "lowest a0 0, a1 1, a2 2; highest a11 11, a10 10, a9 9, of 12."


def test_a_course_is_told_by_its_ends_and_its_turning_points():
    data = frame(modality=["text"] * 4, layer=[0, 1, 2, 3], seed=[0] * 4, value=[4.0, 1.0, 2.0, 3.0])
    assert finding(data) == "from 4 at layer 0 to 3 at 3, lowest 1 at 1."
    both = pd.concat([data, data.assign(modality="audio", value=[1.0, 2.0, 3.0, 4.0])])
    assert finding(both) == "text, from 4 at layer 0 to 3 at 3, lowest 1 at 1; audio, from 1 at layer 0 to 4 at 3."


def test_points_and_plain_values_are_counted():
    points = frame(segment_id=list("abcdef"), x=np.arange(6.0), y=np.arange(6.0), modality=["text", "audio"] * 3)
    assert finding(points) == "6 points: text 3, audio 3."
    assert finding(frame(x=[1.0, 2.0], y=[0.5, 0.5])) == "2 points."
    assert finding(frame(error=[1.0, 2.0, 6.0])) == "3 values, from 1 to 6, median 2."
    assert finding(frame(word=["a", "b"])) == "2 rows are plotted."
    assert finding(frame(value=[])) == "0 rows are plotted."


def test_what_was_measured_beside_the_value_is_averaged():
    cost = frame(title=["small", "large"], cost=[1.0, 3.5], mean=[0.5, 0.75])
    assert finding(cost) == "small: cost 1, mean 0.5; large: cost 3.5, mean 0.75."
    sure = frame(arm=["a", "a", "b", "b"], confidence=[0.9, 0.7, 0.6, 0.5], correct=[True, False, True, True])
    assert finding(sure) == "Averages: a: confidence 0.8, correct 0.5; b: confidence 0.55, correct 1."


def test_a_scatter_is_told_by_its_correlation():
    x = np.linspace(0, 1, 100)
    assert finding(frame(label=x, prediction=2 * x)) == "100 points; correlation of label and prediction 1.00."


def test_a_grid_is_told_by_its_peaks():
    grid = frame(label=[0, 0, 1, 1], predicted=[0, 1, 0, 1], share=[0.9, 0.1, 0.4, 0.6])
    assert finding(grid) == "highest 0.9 at label 0, predicted 0; lowest 0.1 at label 0, predicted 1."


def test_too_many_series_are_told_by_the_coarser_columns():
    words = frame(word=[f"w{k}" for k in range(90)], arm=["a", "b"] * 45, shift=[1.0, 2.0] * 45)
    assert finding(words) == "a 1; b 2."


@pytest.fixture
def drawn():
    data = frame(modality=["text", "text", "audio", "audio"], layer=[0, 1, 0, 1], value=[1.0, 2.0, 3.0, 1.0])
    figure, panels = plt.subplots(1, 2)
    for axes, (name, part) in zip(panels, data.groupby("modality", sort=False), strict=True):
        axes.plot(part["layer"], part["value"], label="mean")
        axes.set(title=name, xlabel="Layer", ylabel="MAE ↓")
    figure.suptitle("Layers\nof mini")
    return figure, data


def test_panels_that_differ_in_their_titles_alone_are_described_once(drawn):
    figure, data = drawn
    assert title(figure) == "Layers of mini"
    assert describe(figure, data) == (
        "Panels text, audio: vertical axis: MAE ↓; horizontal axis: Layer; series: “mean”. "
        "text, from 1 at layer 0 to 2 at 1; audio, from 3 at layer 0 to 1 at 1."
    )


def test_colours_are_described_and_many_titles_are_no_title():
    figure, axes = plt.subplots(1, 3)
    for place, each in enumerate(axes):
        bar = each.scatter([0, 1], [0, 1], c=[0, 1])
        each.set_title(f"t{place}")
    figure.colorbar(bar, label="Label")
    assert title(figure) == ""
    assert "Colours: Label." in describe(figure, frame(x=[0.0], y=[1.0]))


def test_powers_of_ten_are_no_names():
    figure, axes = plt.subplots()
    axes.semilogx([1, 1000], [0, 1])
    axes.set_xlabel("Cost")
    assert describe(figure, frame(value=[1.0])).startswith("Horizontal axis: Cost. ")


def test_named_ticks_are_positions():
    figure, axes = plt.subplots()
    axes.plot([0.5, 0.7], [0, 1])
    axes.set_yticks([0, 1], ["Text only", "Both"])
    axes.set(xlabel="MAE", title="Arms")
    assert title(figure) == "Arms"
    assert describe(figure, frame(arm=["t", "b"], value=[0.5, 0.7])) == (
        "Vertical axis: 2 positions, “Text only”, “Both”; horizontal axis: MAE. t 0.5; b 0.7."
    )


def test_the_words_travel_inside_the_picture(drawn, tmp_path):
    picture = figures.save(*drawn, tmp_path, "mini-layers")
    assert of_picture(picture) == ("Layers of mini", describe(*drawn))


def test_a_picture_without_words_has_its_name(drawn, tmp_path):
    drawn[0].savefig(tmp_path / "mini-layers.png")
    assert of_picture(tmp_path / "mini-layers.png") == ("mini layers", "")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")
