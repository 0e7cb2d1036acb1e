"""Figures of Ando et al. 2022, from recorded runs alone: over layers, and of all arms beside one another.

`layer_figure` is the score of each layer, `weight_figure` what a mixture of layers learns. What the models of the
fullest arm do is in :mod:`msakit.papers.ando2022.inside`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from msakit import papers
from msakit.evaluation import metrics
from msakit.papers.ando2022 import inside
from msakit.papers.ando2022.inside import in_order, look
from msakit.papers.ando2022.layers import best_layers, layer_runs, takes_best
from msakit.papers.ando2022.tables import PAPER, layer_scores, resolved, single_layers
from msakit.reporting import figures as draw
from msakit.reporting.contract import Paper
from msakit.reporting.scores import definitions, main_metric
from msakit.runs.arm import Arm
from msakit.runs.store import Runs


def figures(runs: Runs, folder: Path) -> list[Figure]:
    """Draw and save, for each corpus, every figure that its runs give."""
    return draw.draw_all(runs, folder, _drawn)


def _drawn(runs: Runs, where: str) -> Iterator[tuple[str, str, Figure, pd.DataFrame]]:
    paper = papers.load(PAPER)
    metric, elsewhere, arms = main_metric(runs, paper), single_layers(runs, paper), definitions(runs, paper)
    curve, weights = layer_scores(runs, metric, "test"), layer_weights(runs, paper)
    if len(curve):
        yield "layers", f"Single layers on {where}, test", layer_figure(runs, curve, metric), curve
    if len(weights):
        yield "weights", f"Learnt layer weights on {where}", weight_figure(weights), weights
    if set(arms) - elsewhere:
        titles = {arm: arms[arm].title + words for arm, words in resolved(runs).items()}
        yield "arms", "", *draw.arm_figure(runs, paper, metric, elsewhere, titles)
    # Of the arms of best layers the one with the most modalities.
    fullest = [arm for arm, each in arms.items() if takes_best(each) and gated(each)]
    if fullest:
        yield from inside.of_arm(runs, max(fullest, key=lambda arm: len(arms[arm].inputs)), where)


def gated(arm: Arm) -> bool:
    """Whether its decoder has gates."""
    return bool(arm.args.get("decoder", "gated") == "gated")


def panels(count: int) -> tuple[Figure, np.ndarray]:
    """A row of panels: one column wide for a single one, the page's width for more."""
    size = (draw.COLUMN, 2.9) if count == 1 else (draw.PAGE, 2.5)
    figure, axes = plt.subplots(1, count, figsize=size, squeeze=False)
    return figure, axes[0]


def layer_figure(runs: Runs, curve: pd.DataFrame, metric: str) -> Figure:
    """One panel an encoder, each with its own scale: their levels differ by more than their layers do.

    The mean of each layer with the t-interval over runs. In folds, where the choice differs, no layer is marked as
    chosen.

    curve: encoder, layer, seed, value, by layer.
    """
    shown, best = list(curve["encoder"].unique()), best_layers(runs).get(-1, {})
    modality = layer_runs(runs).drop_duplicates("encoder").set_index("encoder")["modality"]
    figure, axes = panels(len(shown))
    arrow = "↓" if metrics.metric(metric).direction == "down" else "↑"
    for axis, encoder in zip(axes, shown, strict=True):
        line, style = draw.over_seeds(curve[curve["encoder"] == encoder], ["layer"]), look(modality[encoder])
        axis.plot(line["layer"], line["mean"], **style, label=encoder, zorder=3)
        axis.fill_between(line["layer"], line["low"], line["high"], color=style["color"], alpha=0.15, lw=0)
        last, chosen = line.iloc[-1:], line[line["layer"] == best.get(encoder)]
        axis.plot(last["layer"], last["mean"], ls="", marker="o", ms=9, mfc="none", mec=draw.GREY, mew=0.9,
                  label="output layer", zorder=4)  # fmt: skip
        axis.plot(chosen["layer"], chosen["mean"], ls="", marker="*", ms=10, mfc="white", mec=style["color"], mew=1.1,
                  zorder=5)  # fmt: skip
        axis.set_title(encoder)
        axis.set_xlabel("Hidden state (0 = embeddings)")
        axis.set_ylabel(f"Test {metrics.metric(metric).label} {arrow}" if axis is axes[0] else "")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.spines[["top", "right"]].set_visible(False)
    marks = {
        "output layer": plt.Line2D([], [], ls="", marker="o", ms=8, mfc="none", mec=draw.GREY),
        "best on validation": plt.Line2D([], [], ls="", marker="*", ms=9, mfc="white", mec=draw.GREY),
        "95 % interval over runs": plt.Rectangle((0, 0), 1, 1, color=draw.GREY, alpha=0.15, lw=0),
    }
    if not best:
        del marks["best on validation"]
    columns = 1 if len(shown) == 1 else 3
    figure.legend(list(marks.values()), list(marks), loc="outside lower center", ncols=columns)
    return figure


def layer_weights(runs: Runs, paper: Paper) -> pd.DataFrame:
    """What the mixtures learnt: modality, arm ("alone" or "together", the widest gated one), layer, seed, weight.

    Of several arms that mix a modality's layers alone, or together, the first one of the tables.
    """
    records = {arm: [run.record for run in runs.select(arm=arm)]
               for arm, each in definitions(runs, paper).items() if gated(each)}  # fmt: skip
    mixed = {arm: found for arm, found in records.items() if "layer_weights" in found[0].measurements}
    widest = max((len(found[0].features) for found in mixed.values()), default=0)
    rows = []
    seen: set[tuple[str, str]] = set()
    for found in (found for found in mixed.values() if len(found[0].features) in (1, widest)):
        kind = "alone" if len(found[0].features) == 1 else "together"
        for modality in (name for name in found[0].measurements["layer_weights"] if (name, kind) not in seen):
            seen.add((modality, kind))
            for record in found:
                weights, layers = record.measurements["layer_weights"][modality], record.features[modality].layer
                numbers = layers if isinstance(layers, list) else range(len(weights))
                rows += [(modality, kind, k, record.seed, w) for k, w in zip(numbers, weights, strict=True)]
    frame = pd.DataFrame(rows, columns=["modality", "arm", "layer", "seed", "weight"])
    order = in_order(frame["modality"])
    frame = frame.sort_values(["arm", "layer", "seed"], kind="stable")
    return frame.sort_values("modality", key=lambda c: c.map(order.index), kind="stable").reset_index(drop=True)


def weight_figure(weights: pd.DataFrame) -> Figure:
    """One panel a modality: the softmax weight of each hidden state, for the modality alone and with the others."""
    shown = in_order(weights["modality"])
    figure, axes = panels(len(shown))
    for axis, modality in zip(axes, shown, strict=True):
        part = weights[weights["modality"] == modality]
        layers = np.array(sorted(part["layer"].unique()))
        points = draw.over_seeds(part.rename(columns={"weight": "value"}), ["arm", "layer"])
        arms = [arm for arm in ("alone", "together") if arm in set(points["arm"])]
        width = 0.8 / len(arms)
        for number, arm in enumerate(arms):
            bars = points[points["arm"] == arm].set_index("layer").reindex(layers)
            left = np.arange(len(layers)) + (number - (len(arms) - 1) / 2) * width
            axis.bar(left, bars["mean"], width * 0.92, color=look(modality)["color"], edgecolor="white", lw=0,
                     alpha=0.85 if arm == "alone" else 0.4, hatch="" if arm == "alone" else "////")  # fmt: skip
            error = draw.error_bars(bars)
            axis.errorbar(left, bars["mean"], error, fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5)
        axis.axhline(1 / len(layers), color=draw.GREY, ls="--", lw=0.9)
        step = max(1, len(layers) // 8)
        axis.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
        axis.set_xlabel("Hidden state (0 = embeddings)")
        axis.set_ylabel("Weight in the mixture (sums to 1)" if axis is axes[0] else "")
        axis.set_title(modality)
        axis.spines[["top", "right"]].set_visible(False)
    hatched: dict[str, Any] = {"fc": draw.GREY, "ec": "white", "hatch": "////", "alpha": 0.5, "lw": 0}
    marks = {
        "the modality alone": plt.Rectangle((0, 0), 1, 1, color=draw.GREY, alpha=0.85, lw=0),
        "with the other modalities": plt.Rectangle((0, 0), 1, 1, **hatched),
        "all layers alike (the start)": plt.Line2D([], [], color=draw.GREY, ls="--", lw=0.9),
    }
    columns = 1 if len(shown) == 1 else 3
    figure.legend(list(marks.values()), list(marks), loc="outside lower center", ncols=columns)
    return figure
