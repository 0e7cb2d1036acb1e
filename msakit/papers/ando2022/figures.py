"""Figures of Ando et al. 2022, from recorded runs alone: over layers, and of all arms beside one another.

`layer_figure` is the score of each layer, `weight_figure` what a mixture of layers learns. What the models of the
fullest arm do is in :mod:`msakit.papers.ando2022.inside`.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from msakit import papers
from msakit.evaluation import metrics
from msakit.papers.ando2022 import inside
from msakit.papers.ando2022.arms import MODALITIES
from msakit.papers.ando2022.inside import colour, in_order
from msakit.papers.ando2022.layers import best_layers, layer_runs, takes_best
from msakit.papers.ando2022.tables import PAPER, definitions, layer_scores, main_metric, resolved, single_layers
from msakit.reporting import figures as draw
from msakit.reporting.contract import Paper
from msakit.reporting.scores import by_corpus, kind_of_data
from msakit.runs.store import Runs


def figures(runs: Runs, folder: Path) -> list[Figure]:
    """Draw and save, for each corpus, every figure that its runs give."""
    paper, found = papers.load(PAPER), []
    for corpus, part in by_corpus(runs):
        where, metric = f"{corpus} ({kind_of_data(part)})", main_metric(part, paper)

        def keep(name: str, figure: Figure, data: pd.DataFrame, corpus: str = corpus) -> None:
            draw.save(figure, data, folder, f"{corpus}-{name}")
            found.append(figure)

        with draw.style():
            curve = layer_scores(part, metric, "test")
            if len(curve):
                keep("layers", layer_figure(part, curve, metric, f"Single layers on {where}, test"), curve)
            weights = layer_weights(part, paper)
            if len(weights):
                keep("weights", weight_figure(weights, f"Learnt layer weights on {where}"), weights)
            elsewhere, arms = single_layers(part, paper), definitions(part, paper)
            if set(arms) - elsewhere:
                titles = {arm: arms[arm].title + words for arm, words in resolved(part).items()}
                keep("arms", *draw.arm_figure(part, paper, metric, elsewhere, titles))
            arm = fullest(part, paper)
            if arm is not None:
                for name, figure, data in inside.of_arm(part, arm, where):
                    keep(name, figure, data)
    return found


def fullest(runs: Runs, paper: Paper) -> str | None:
    """The arm of best layers and gates with the most modalities."""
    arms = {arm: each for arm, each in definitions(runs, paper).items() if takes_best(each)}
    gated = [arm for arm, each in arms.items() if each.args.get("decoder", "gated") == "gated"]
    return max(gated, key=lambda arm: len(arms[arm].inputs), default=None)


def panels(count: int, height: float) -> tuple[Figure, np.ndarray]:
    """A row of panels: one column wide for a single one, the page's width for more."""
    width = draw.COLUMN if count == 1 else draw.PAGE
    figure, axes = plt.subplots(1, count, figsize=(width, height), squeeze=False)
    return figure, axes[0]


# --- over layers --------------------------------------------------------------------------------------------------


def layer_figure(runs: Runs, curve: pd.DataFrame, metric: str, title: str = "") -> Figure:
    """One panel an encoder, each with its own scale: their levels differ by more than their layers do.

    curve: encoder, layer, seed, value. In folds, where the choice differs, no layer is marked as chosen.
    """
    shown, best = list(curve["encoder"].unique()), best_layers(runs).get(-1, {})
    modality = layer_runs(runs).drop_duplicates("encoder").set_index("encoder")["modality"]
    figure, axes = panels(len(shown), 2.9 if len(shown) == 1 else 2.5)
    arrow = "↓" if metrics.metric(metric).direction == "down" else "↑"
    for axis, encoder in zip(axes, shown, strict=True):
        part = curve[curve["encoder"] == encoder].rename(columns={"encoder": "modality"})
        draw.layer_curve(axis, part, metric, best, first=MODALITIES.index(modality[encoder]))
        axis.get_legend().remove()
        axis.set_title(encoder)
        axis.set_ylabel(f"Test {metrics.metric(metric).label} {arrow}" if axis is axes[0] else "")
    marks = {
        "output layer": plt.Line2D([], [], ls="", marker="o", ms=8, mfc="none", mec=draw.GREY),
        "best on validation": plt.Line2D([], [], ls="", marker="*", ms=9, mfc="white", mec=draw.GREY),
        "95 % interval over runs": plt.Rectangle((0, 0), 1, 1, color=draw.GREY, alpha=0.15, lw=0),
    }
    if not best:
        del marks["best on validation"]
    columns = 1 if len(shown) == 1 else 3
    figure.legend(list(marks.values()), list(marks), loc="outside lower center", ncols=columns)
    draw.heading(figure, title)
    return figure


def layer_weights(runs: Runs, paper: Paper) -> pd.DataFrame:
    """What the mixtures learnt: modality, arm ("alone" or "together", the widest gated one), layer, seed, weight.

    Of several arms that mix a modality's layers alone, or together, the first one of the tables.
    """
    rows = []
    gated = [arm for arm, each in definitions(runs, paper).items() if each.args.get("decoder", "gated") == "gated"]
    mixed = [arm for arm in gated if "layer_weights" in runs.select(arm=arm).runs[0].record.measurements]
    sizes = {arm: len(runs.select(arm=arm).runs[0].record.features) for arm in mixed}
    widest = max(sizes.values(), default=0)
    seen: set[tuple[str, str]] = set()
    for arm in (arm for arm in mixed if sizes[arm] in (1, widest)):
        kind = "alone" if sizes[arm] == 1 else "together"
        records = [run.record for run in runs.select(arm=arm)]
        for modality in (name for name in records[0].measurements["layer_weights"] if (name, kind) not in seen):
            seen.add((modality, kind))
            for record in records:
                weights, layers = record.measurements["layer_weights"][modality], record.features[modality].layer
                numbers = layers if isinstance(layers, list) else range(len(weights))
                rows += [(modality, kind, k, record.seed, w) for k, w in zip(numbers, weights, strict=True)]
    frame = pd.DataFrame(rows, columns=["modality", "arm", "layer", "seed", "weight"])
    order = in_order(frame["modality"])
    frame = frame.sort_values(["arm", "layer", "seed"], kind="stable")
    return frame.sort_values("modality", key=lambda c: c.map(order.index), kind="stable").reset_index(drop=True)


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
        for number, arm in enumerate(arms):
            bars = points[points["arm"] == arm].set_index("layer").reindex(layers)
            left = np.arange(len(layers)) + (number - (len(arms) - 1) / 2) * width
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
    names = ["the modality alone", "with the other modalities", "all layers alike (the start)"]
    figure.legend(marks, names, loc="outside lower center", ncols=1 if len(shown) == 1 else 3)
    draw.heading(figure, title)
    return figure
