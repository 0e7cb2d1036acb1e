"""Figures of Ando et al. 2022, from recorded runs alone: over layers, and of all arms beside one another.

`layer_figure` is the error of each layer, `weight_figure` what a mixture of layers learns, `arm_figure` the arms. What
the fullest arm's models do is in :mod:`msakit.papers.ando2022.inside`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from msakit.papers.ando2022.inputs import CONCAT
from msakit.papers.ando2022.inside import colour, in_order
from msakit.papers.ando2022.recipe import LAYER_ARM, MODALITIES, best_layers
from msakit.papers.ando2022.recipe import inside as ando_inside
from msakit.reporting import figures as draw
from msakit.reporting.corpora import kind_of_data, reference_value
from msakit.runs.record import Runs

Named = Sequence[tuple[str, str, str]]  # arm, the arm whose runs it shares, title


def draw_all(runs: Runs, corpus: str, folder: Path, named: Named) -> list[Figure]:
    """Draw and save every figure that the runs of one corpus give.

    named: the rows of the table of arms.
    """
    made: list[Figure] = []
    where = f"{corpus} ({kind_of_data(runs)})"

    def keep(name: str, figure: Figure, data: pd.DataFrame) -> None:
        draw.save(figure, data, folder, f"{corpus}-{name}")
        made.append(figure)

    with draw.style():
        curve = layer_scores(runs, "test")
        if len(curve):
            keep("layers", layer_figure(curve, best_layers(runs), f"Single layers on {where}, test"), curve)
        weights = layer_weights(runs)
        if len(weights):
            keep("weights", weight_figure(weights, f"Learnt layer weights on {where}"), weights)
        points = arm_scores(runs, named)
        keep("arms", arm_figure(runs, points, named, f"Arms on {where}, test"), points)
        arm = fullest(runs)
        if arm:
            for name, figure, data in ando_inside.of_arm(runs, arm, where):
                keep(name, figure, data)
    return made


def fullest(runs: Runs) -> str:
    """The gated arm ``best-…`` of most modalities; empty where there is none."""
    arms = sorted({str(arm) for arm in runs.frame["arm"] if arm.startswith("best-") and not arm.endswith(CONCAT)})
    return max(arms, key=lambda arm: arm.count("-"), default="")


def panels(count: int, height: float) -> tuple[Figure, np.ndarray]:
    """A row of panels: one column wide for a single one, the page's width for more."""
    width = draw.COLUMN if count == 1 else draw.PAGE
    figure, axes = plt.subplots(1, count, figsize=(width, height), squeeze=False)
    return figure, axes[0]


# --- over layers --------------------------------------------------------------------------------------------------


def layer_scores(runs: Runs, split: str) -> pd.DataFrame:
    """MAE of every single-layer run: modality, layer, seed, value."""
    scores = runs.scores("mae", split=split)
    found = scores["arm"].str.extract(LAYER_ARM)
    scores = scores.assign(modality=found["modality"], layer=found["layer"].astype(float)).dropna(subset="layer")
    order = {name: place for place, name in enumerate(MODALITIES)}
    scores = scores.assign(layer=scores["layer"].astype(int), place=scores["modality"].map(order))
    return scores.sort_values(["place", "layer", "seed"])[["modality", "layer", "seed", "value"]]


def layer_figure(curve: pd.DataFrame, best: Mapping[str, int], title: str = "") -> Figure:
    """One panel a modality, each with its own scale: their levels differ by more than their layers do.

    curve: modality, layer, seed, value (MAE).
    """
    shown = in_order(curve["modality"])
    figure, axes = panels(len(shown), 2.9 if len(shown) == 1 else 2.5)
    for axis, modality in zip(axes, shown, strict=True):
        draw.layer_curve(axis, curve[curve["modality"] == modality], "mae", best, first=MODALITIES.index(modality))
        axis.get_legend().remove()
        axis.set_title(modality)
        axis.set_ylabel("Test MAE ↓ (label units)" if axis is axes[0] else "")
    marks = [
        plt.Line2D([], [], ls="", marker="o", ms=8, mfc="none", mec=draw.GREY),
        plt.Line2D([], [], ls="", marker="*", ms=9, mfc="white", mec=draw.GREY),
        plt.Rectangle((0, 0), 1, 1, color=draw.GREY, alpha=0.15, lw=0),
    ]
    labels = ["output layer", "best on validation", "95 % interval over seeds"]
    figure.legend(marks, labels, loc="outside lower center", ncols=1 if len(shown) == 1 else 3)
    draw.heading(figure, title)
    return figure


def layer_weights(runs: Runs) -> pd.DataFrame:
    """What the mixtures learnt: modality, arm ("alone" or "together", the widest gated one), layer, seed, weight."""
    rows = []
    weighted = [run for run in runs if run.record.arm.startswith("weighted-") and not run.record.arm.endswith(CONCAT)]
    widest = max((run.record.arm.count("-") for run in weighted), default=0)
    for run in weighted:
        size = run.record.arm.count("-")
        if size not in (1, widest):
            continue
        for modality, weights in run.record.measurements.get("layer_weights", {}).items():
            layers = run.record.config["inputs"][modality]["layer"]
            numbers = range(len(weights)) if layers == "all" else layers
            arm = "alone" if size == 1 else "together"
            rows += [(modality, arm, layer, run.record.seed, w) for layer, w in zip(numbers, weights, strict=True)]
    frame = pd.DataFrame(rows, columns=["modality", "arm", "layer", "seed", "weight"])
    order = {name: place for place, name in enumerate(in_order(frame["modality"]))}
    frame = frame.assign(place=frame["modality"].map(order))
    return frame.sort_values(["place", "arm", "layer", "seed"]).drop(columns="place").reset_index(drop=True)


def weight_figure(weights: pd.DataFrame, title: str = "") -> Figure:
    """One panel a modality: the softmax weight of each hidden state, for the modality alone and with the others."""
    shown = in_order(weights["modality"])
    figure, axes = panels(len(shown), 2.9 if len(shown) == 1 else 2.5)
    for axis, modality in zip(axes, shown, strict=True):
        part = weights[weights["modality"] == modality]
        tint, _, _ = colour(modality)
        layers = np.array(sorted(part["layer"].unique()))
        points = draw.over_seeds(part.rename(columns={"weight": "value"}), ["arm", "layer"])
        arms = [arm for arm in ("alone", "together") if arm in set(points["arm"])]
        width = 0.8 / len(arms)
        for place, arm in enumerate(arms):
            bars = points[points["arm"] == arm].set_index("layer").reindex(layers)
            left = np.arange(len(layers)) + (place - (len(arms) - 1) / 2) * width
            axis.bar(left, bars["mean"], width * 0.92, color=tint, alpha=0.85 if arm == "alone" else 0.4,
                     hatch="" if arm == "alone" else "////", edgecolor="white", lw=0)  # fmt: skip
            error = draw.error_bars(bars)
            axis.errorbar(left, bars["mean"], error, fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5)
        axis.axhline(1 / len(layers), color=draw.GREY, ls="--", lw=0.9)
        step = max(1, len(layers) // 8)
        axis.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
        axis.set_xlabel("Hidden state (0 = embeddings)")
        axis.set_ylabel("Weight in the mixture (sums to 1)" if axis is axes[0] else "")
        axis.set_title(modality)
        axis.spines[["top", "right"]].set_visible(False)
    marks = [
        plt.Rectangle((0, 0), 1, 1, color=draw.GREY, alpha=0.85, lw=0),
        plt.Rectangle((0, 0), 1, 1, fc=draw.GREY, ec="white", hatch="////", alpha=0.5, lw=0),
        plt.Line2D([], [], color=draw.GREY, ls="--", lw=0.9),
    ]
    told = ["the modality alone", "with the other modalities", "all layers alike (the start)"]
    figure.legend(marks, told, loc="outside lower center", ncols=1 if len(shown) == 1 else 3)
    draw.heading(figure, title)
    return figure


# --- arms ---------------------------------------------------------------------------------------------------------


def arm_scores(runs: Runs, named: Named) -> pd.DataFrame:
    """Test MAE: arm, seed, value."""
    scores = runs.scores("mae").set_index("arm")[["seed", "value"]]
    parts = [scores.loc[[source]].assign(arm=arm) for arm, source, _ in named]
    return pd.concat(parts, ignore_index=True)[["arm", "seed", "value"]]


def arm_figure(runs: Runs, points: pd.DataFrame, named: Named, title: str) -> Figure:
    """Every arm but the single layers, one panel a family, in the order of the table."""
    groups: dict[str, dict[str, str]] = {}
    for arm, _, told in named:
        family, _, parts = told.partition(": ")
        groups.setdefault(family, {})[arm] = parts
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(0.8 * draw.PAGE, 1.0 + 0.19 * len(named) + 0.22 * len(groups)), squeeze=False,
        sharex=True, height_ratios=[len(titles) + 0.5 for titles in groups.values()],
    )  # fmt: skip
    oracle, constant = (reference_value(runs, name, "mae") for name in ("oracle", "constant"))
    for axis, (family, titles) in zip(axes[:, 0], groups.items(), strict=True):
        draw.arm_points(axis, points, "mae", titles, oracle=oracle, constant=constant)
        axis.set_title(family, loc="left", fontsize=7.5, pad=12 if axis is axes[0, 0] else 3)
        if axis is not axes[0, 0]:
            for text in list(axis.texts):
                text.remove()
        if axis is not axes[-1, 0]:
            axis.set_xlabel("")
    draw.heading(figure, title)
    return figure
