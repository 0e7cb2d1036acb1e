"""What the models of one arm of Ando et al. do, from its recorded runs: predictions, gates, embeddings, attention.

Scatter (of numbers) and confusion show the predictions; `gate_figure` what each modality adds, by label;
`embedding_figure` where segments lie; `attention_figure` which moments of a segment count.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Int
from matplotlib.figure import Figure

from msakit.papers.ando2022.arms import MODALITIES
from msakit.reporting import figures as draw
from msakit.runs.record import TaskInfo
from msakit.runs.store import Runs

UNIFORM = "every frame alike"


def in_order(names: Sequence[str] | pd.Series) -> list[str]:
    """Modalities in their order, whatever else there is behind them."""
    there = list(dict.fromkeys(map(str, names)))
    return [name for name in MODALITIES if name in there] + [name for name in there if name not in MODALITIES]


def look(modality: str) -> dict[str, Any]:
    """Colour, marker and line of a modality, the same in every figure."""
    return draw.look(MODALITIES.index(modality) if modality in MODALITIES else len(MODALITIES))


def of_arm(runs: Runs, arm: str, where: str) -> Iterator[tuple[str, str, Figure, pd.DataFrame]]:
    """(name, title, figure, plotted data) of what one arm's runs hold: predictions of its first run, and what seed 0
    kept."""
    chosen = runs.select(arm=arm)
    first, task = chosen.runs[0], chosen.runs[0].record.corpus.task
    about = f"{first.record.title}\n{first.record.definition.group}\n{where}"
    if task.kind == "regression":
        data = first.test[["label", "prediction"]]
        yield "scatter", f"{about}, seed {first.record.seed}, test", scatter_figure(data, task), data
    yield "confusion", f"{about}, test", *confusion_figure(chosen)
    gates = gate_rows(chosen)
    if len(gates):
        yield "gates", f"Gates of {about}, test", gate_figure(gates, task), gates
    for run in chosen:
        if "embeddings" in run.record.artifacts:
            frame, shares = run.artifact("embeddings"), run.record.measurements["embedding_variance"]
            data = frame[["segment_id", "modality", "label", *(name for name in ("e0", "e1") if name in frame)]]
            yield "embeddings", f"Embeddings of {about}, test", embedding_figure(data, shares, task), data
        if "attention" in run.record.artifacts:
            frame = run.artifact("attention")
            title = f"Attention of {about}, seed {run.record.seed}"
            yield "attention", title, attention_figure(frame, run.test, task), frame


def bins(task: TaskInfo, test: pd.DataFrame, column: str) -> Int[np.ndarray, " segments"]:
    """Which of `bin_names` each segment's label, or prediction, is: the class, or the whole number next to it.

    Halves are rounded to the even number, as published scripts do.
    """
    if task.kind == "regression":
        low, high = float(task.low or 0), float(task.high or 0)
        return np.round(np.clip(test[column].to_numpy(float), low, high)).astype(int) - int(np.round(low))
    if column == "label":
        return test["label"].to_numpy(int)
    return test[[f"p_{name}" for name in task.classes]].to_numpy(float).argmax(axis=1)


def bin_names(task: TaskInfo) -> list[str]:
    """The classes, or all whole numbers of the task's range."""
    if task.kind == "classification":
        return list(task.classes)
    whole = range(int(np.round(float(task.low or 0))), int(np.round(float(task.high or 0))) + 1)
    return [f"{value:+d}" if value else "0" for value in whole]


def label_words(task: TaskInfo) -> str:
    """The name of an axis of labels."""
    return "Label" if task.kind == "classification" else f"Label ({task.low:g} to {task.high:g})"


def scatter_figure(test: pd.DataFrame, task: TaskInfo) -> Figure:
    """Prediction against label, with the diagonal and the mean prediction of each whole label."""
    figure, axis = plt.subplots(figsize=(draw.COLUMN, 3.6))
    axis.axline((0, 0), slope=1, color=draw.GREY, ls="--", lw=1, label="prediction = label", zorder=1)
    axis.plot(test["label"], test["prediction"], ls="", marker="o", ms=2.6, mfc=draw.PALETTE[0], mec="none", alpha=0.4,
              label="segment", zorder=2)  # fmt: skip
    low, high = float(task.low or 0), float(task.high or 0)
    means = test.groupby(bins(task, test, "label"))["prediction"].mean()
    axis.plot(means.index + int(np.round(low)), means, color=draw.PALETTE[1], marker="s", ms=5, lw=1.2, zorder=3,
              label="mean by label")  # fmt: skip
    axis.set_xlabel(label_words(task))
    axis.set_ylabel("Prediction (label units)")
    margin = (high - low) / 30
    limits = low - margin, high + margin
    axis.set(xlim=limits, ylim=limits, aspect="equal")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, columnspacing=1)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def confusion_figure(runs: Runs) -> tuple[Figure, pd.DataFrame]:
    """Classes, or numbers rounded to whole ones: each label's predictions in per cent, over all runs.

    Gives the figure and its data: label, predicted, share (of the label's segments), segments (of that label, of all
    folds).
    """
    task = runs.runs[0].record.corpus.task
    names = bin_names(task)
    counts = np.zeros((len(names), len(names)))
    for run in runs:
        np.add.at(counts, (bins(task, run.test, "label"), bins(task, run.test, "prediction")), 1)
    total = counts.sum(1, keepdims=True)
    share = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
    sizes = (total[:, 0] / runs.frame["seed"].nunique()).astype(int)
    figure, axis = plt.subplots(figsize=(draw.COLUMN, 2.9))
    picture = axis.imshow(share, cmap="Greys", vmin=0, vmax=1)
    for row, column in np.ndindex(share.shape):
        if np.isfinite(share[row, column]):
            axis.text(column, row, f"{100 * share[row, column]:.0f}", ha="center", va="center", fontsize=6.5,
                      color="white" if share[row, column] > 0.55 else "black")  # fmt: skip
    rounded = " (rounded)" if task.kind == "regression" else ""
    axis.set_xticks(range(len(names)), names, rotation=0 if rounded else 30)
    axis.set_yticks(range(len(names)), [f"{name}  (n = {size})" for name, size in zip(names, sizes, strict=True)])
    axis.set_xlabel(f"Predicted class{rounded}")
    axis.set_ylabel(f"Label{rounded}")
    axis.tick_params(length=0)
    figure.colorbar(picture, ax=axis, shrink=0.75, label="Share of the label's segments (cells: %)")
    rows = [(names[i], names[j], share[i, j], sizes[i]) for i, j in np.ndindex(share.shape)]
    return figure, pd.DataFrame(rows, columns=["label", "predicted", "share", "segments"])


def gate_rows(runs: Runs) -> pd.DataFrame:
    """Mean gate of each modality by label: modality, label (of `bin_names`), seed, fold, value (0 to 1), segments."""
    rows = []
    for run in runs:
        record, test = run.record, run.test
        names, of = bin_names(record.corpus.task), bins(record.corpus.task, test, "label")
        fold = None if record.fold is None else record.fold.index
        for modality in (name for name in record.modalities if f"gate_{name}" in test):
            gates = test[f"gate_{modality}"].to_numpy(float)
            rows += [
                (modality, names[k], record.seed, fold, gates[of == k].mean(), int((of == k).sum()))
                for k in np.unique(of)
            ]
    columns = ["modality", "label", "seed", "fold", "value", "segments"]
    return pd.DataFrame(rows, columns=columns).astype({"fold": "Int64"})


def gate_figure(gates: pd.DataFrame, task: TaskInfo) -> Figure:
    """The mean gate of each modality over the labels, with the interval over runs."""
    figure, axis = plt.subplots(figsize=(draw.COLUMN, 2.8))
    names = bin_names(task)
    for number, modality in enumerate(in_order(gates["modality"])):
        points = draw.over_seeds(gates[gates["modality"] == modality], ["label"])
        points = points.sort_values("label", key=lambda column: column.map(names.index))
        # A little apart, so that no interval hides another.
        at = points["label"].map(names.index) + 0.09 * (number - 1)
        axis.errorbar(at, points["mean"], draw.error_bars(points), **look(modality), elinewidth=0.7, capsize=1.5,
                      lw=1.3, label=modality)  # fmt: skip
    axis.set_xticks(range(len(names)), names, rotation=0 if task.kind == "regression" else 30)
    axis.set_ylim(0, 1)
    axis.set_xlabel(label_words(task) + (", rounded" if task.kind == "regression" else ""))
    axis.set_ylabel("Gate (0 shut, 1 open)")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def embedding_figure(frame: pd.DataFrame, shares: Mapping[str, Sequence[float]], task: TaskInfo) -> Figure:
    """The two leading principal components of each embedding.

    Of numbers the label is the shade, and the marker says on which side of the middle it lies; classes have a colour
    and a marker each.
    """
    shown = in_order(frame["modality"])
    columns = 2
    lines = -(-len(shown) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(draw.PAGE * 0.85, 2.5 * lines), squeeze=False)
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    regression = task.kind == "regression"
    middle = (float(task.low or 0) + float(task.high or 0)) / 2
    names = [f"below {middle:g}", f"{middle:g}", f"above {middle:g}"] if regression else task.classes
    looks = [draw.look(k) | {"ls": ""} for k in range(len(names))]
    if regression:
        looks = [{"color": draw.GREY, "marker": marker, "ls": ""} for marker in "vo^"]
    picture = None
    for axis, modality in zip(axes.flat, shown, strict=False):
        part = frame[frame["modality"] == modality]
        second = part["e1"] if "e1" in part else pd.Series(0.0, index=part.index)
        sides = np.sign(part["label"] - middle) + 1 if regression else part["label"]
        for k, each in enumerate(looks):
            of = sides == k
            shade = {"c": part["label"][of], "cmap": "cividis", "vmin": task.low, "vmax": task.high}
            picture = axis.scatter(part["e0"][of], second[of], s=9, lw=0, marker=each["marker"],
                                   **(shade if regression else {"color": each["color"]}))  # fmt: skip
        first, other = (100 * share for share in [*shares[modality], 0.0][:2])
        axis.set_title("fused by the decoder" if modality == "fused" else modality)
        axis.set_xlabel(f"First component ({first:.0f} % of variance)")
        axis.set_ylabel(f"Second ({other:.0f} %)")
        axis.set_xticks([])
        axis.set_yticks([])
    if picture is not None and regression:
        figure.colorbar(picture, ax=axes, shrink=0.6, label="Label")
    figure.legend([plt.Line2D([], [], **each) for each in looks], names, loc="outside lower center", ncols=3)
    return figure


def attention_figure(attention: pd.DataFrame, test: pd.DataFrame, task: TaskInfo) -> Figure:
    """One row a segment: each frame's attention against that of a frame among equals, over time or over positions.

    Text is drawn at the middle of its words where word timings are known, with the words; elsewhere every modality
    runs from the first of its frames to the last.
    """
    segments = list(dict.fromkeys(attention["segment_id"]))
    timed = bool(attention.loc[attention["modality"] == "text", "seconds"].notna().any())
    figure, axes = plt.subplots(len(segments), 1, figsize=(draw.PAGE, 1.9 * len(segments) + 0.6), squeeze=False)
    for axis, segment in zip(axes[:, 0], segments, strict=True):
        part = attention[attention["segment_id"] == segment]
        for modality in in_order(part["modality"]):
            frames = part[part["modality"] == modality]
            if len(frames) < 2:
                continue  # one vector a segment: there is nothing to attend to
            height = frames["weight"] * len(frames)
            at = frames["seconds"] if timed else (frames["position"] + 0.5) / len(frames)
            known = at.notna()
            axis.plot(at[known], height[known], **look(modality), lw=1, ms=3.2, label=modality)
        axis.axhline(1, color=draw.GREY, lw=0.8, ls="--", zorder=1)
        axis.set_title(f"{segment}: {_outcome(test[test['segment_id'] == segment], task)}", loc="left", fontsize=7.5,
                       pad=4)  # fmt: skip
        words = part.dropna(subset=["word", "seconds"]).drop_duplicates("seconds")
        if len(words):
            above = axis.secondary_xaxis("top")
            above.set_xticks(words["seconds"], words["word"], fontsize=6.5, rotation=30, ha="left")
            above.tick_params(length=2, pad=1)
            above.spines["top"].set_visible(False)
        axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
        if not timed:
            axis.set_xlim(0, 1)
        axis.set_ylabel("Attention ÷\nuniform attention")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel(
        "Time from the segment's start (s)" if timed else "Place in the segment (0 first, 1 last frame)"
    )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    handles.append(plt.Line2D([], [], color=draw.GREY, lw=0.8, ls="--"))
    figure.legend(handles, [*labels, UNIFORM], loc="outside lower center", ncols=4)
    return figure


def _outcome(row: pd.DataFrame, task: TaskInfo) -> str:
    if task.kind == "regression":
        return f"label {row['label'].iloc[0]:+.1f}, prediction {row['prediction'].iloc[0]:+.1f}"
    names = [bin_names(task)[int(bins(task, row, column)[0])] for column in ("label", "prediction")]
    return f"label {names[0]}, predicted {names[1]}"
