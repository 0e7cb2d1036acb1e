"""What the models of one arm of Ando et al. do, from its recorded runs: predictions, gates, embeddings, attention.

Scatter and confusion show the predictions; `gate_figure` what each modality adds, by label; `embedding_figure` where
segments lie; `attention_figure` which moments of a segment count.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from msakit.evaluation.metrics import rounded
from msakit.papers.ando2022.recipe import MODALITIES
from msakit.reporting import figures as draw
from msakit.runs.record import Run, Runs

UNIFORM = "every frame alike"


def in_order(names: Sequence[str] | pd.Series) -> list[str]:
    """Modalities in their order, whatever else there is behind them."""
    there = list(dict.fromkeys(map(str, names)))
    return [name for name in MODALITIES if name in there] + [name for name in there if name not in MODALITIES]


def colour(modality: str) -> tuple[str, str, str | tuple[int, tuple[int, ...]]]:
    """Colour, marker and line of a modality, the same in every figure."""
    place = MODALITIES.index(modality) if modality in MODALITIES else len(MODALITIES)
    return draw.PALETTE[place], draw.MARKERS[place], draw.LINES[place]


def of_arm(runs: Runs, arm: str, where: str) -> list[tuple[str, Figure, pd.DataFrame]]:
    """(name, figure, plotted data) of what one arm's runs hold: predictions of its first run, and what seed 0 kept."""
    chosen = runs.select(arm=arm)
    first = chosen.runs[0]
    test = test_rows(chosen, first)
    title = f"{arm}\n{where}"
    made = [
        ("scatter", scatter_figure(test, f"{title}, seed {first.record.seed}, test"), test[["label", "prediction"]]),
        ("confusion", *confusion_figure(chosen, f"{title}, test")),
    ]
    gates = gate_rows(chosen)
    if len(gates):
        made.append(("gates", gate_figure(gates, f"Gates of {title}, test"), gates))
    for run in chosen:
        if "embeddings" in run.record.artifacts:
            frame = chosen.artifact(run, "embeddings")
            shares = run.record.measurements["embedding_variance"]
            made.append(("embeddings", embedding_figure(frame, shares, f"Embeddings of {arm} on {where}, test"), frame[
                ["segment_id", "modality", "label", *(name for name in ("e0", "e1") if name in frame)]
            ]))  # fmt: skip
        if "attention" in run.record.artifacts:
            frame = chosen.artifact(run, "attention")
            figure = attention_figure(
                frame, test_rows(chosen, run), f"Attention of {arm} on {where}, seed {run.record.seed}"
            )
            made.append(("attention", figure, frame))
    return made


def test_rows(runs: Runs, run: Run) -> pd.DataFrame:
    """The test split of a run's predictions."""
    table = runs.predictions(run)
    return table[table["split"] == "test"].reset_index(drop=True)


def scatter_figure(test: pd.DataFrame, title: str) -> Figure:
    """Prediction against label, with the diagonal and the mean prediction of each whole label."""
    figure, axis = plt.subplots(figsize=(draw.COLUMN, 3.6))
    axis.axline((0, 0), slope=1, color=draw.GREY, ls="--", lw=1, label="prediction = label", zorder=1)
    axis.plot(test["label"], test["prediction"], ls="", marker="o", ms=2.6, mfc=draw.PALETTE[0], mec="none", alpha=0.4,
              label="segment", zorder=2)  # fmt: skip
    means = test.groupby(rounded(3)(test["label"].to_numpy(float)))["prediction"].mean()
    axis.plot(means.index, means, color=draw.PALETTE[1], marker="s", ms=5, lw=1.2, zorder=3,
              label="mean by label")  # fmt: skip
    axis.set_xlabel("Label (−3 negative to 3 positive)")
    axis.set_ylabel("Prediction (label units)")
    axis.set_xlim(-3.2, 3.2)
    axis.set_ylim(-3.2, 3.2)
    axis.set_aspect("equal")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, columnspacing=1)
    axis.spines[["top", "right"]].set_visible(False)
    draw.heading(figure, title)
    return figure


def confusion_figure(runs: Runs, title: str) -> tuple[Figure, pd.DataFrame]:
    """The seven classes (clipped to ±3 and rounded): each label's predictions in per cent, mean over seeds.

    Gives the figure and its data: label, predicted, share (of the label's segments), segments (of that label).
    """
    classes = np.arange(-3, 4)
    label, found = np.empty(0), []
    for run in runs:
        test = test_rows(runs, run)
        label, guess = (rounded(3)(test[name].to_numpy(float)) for name in ("label", "prediction"))
        found.append([[np.mean(guess[label == row] == column) if (label == row).any() else np.nan
                       for column in classes] for row in classes])  # fmt: skip
    share = np.mean(found, axis=0)
    counts = [int((label == row).sum()) for row in classes]
    figure, axis = plt.subplots(figsize=(draw.COLUMN, 2.9))
    picture = axis.imshow(share, cmap="Greys", vmin=0, vmax=1)
    for row, column in np.ndindex(share.shape):
        if np.isfinite(share[row, column]):
            axis.text(column, row, f"{100 * share[row, column]:.0f}", ha="center", va="center", fontsize=6.5,
                      color="white" if share[row, column] > 0.55 else "black")  # fmt: skip
    axis.set_xticks(range(7), [f"{value:+d}" if value else "0" for value in classes])
    told = [f"{value:+d}" if value else "0" for value in classes]
    axis.set_yticks(range(7), [f"{name}  (n = {count})" for name, count in zip(told, counts, strict=True)])
    axis.set_xlabel("Predicted class (rounded)")
    axis.set_ylabel("Label (rounded)")
    axis.tick_params(length=0)
    figure.colorbar(picture, ax=axis, shrink=0.75, label="Share of the label's segments (cells: %)")
    draw.heading(figure, title)
    grid = pd.DataFrame(
        [(row, column, share[i, j], counts[i]) for i, row in enumerate(classes) for j, column in enumerate(classes)],
        columns=["label", "predicted", "share", "segments"],
    )
    return figure, grid


# --- between modalities -------------------------------------------------------------------------------------------


def gate_rows(runs: Runs) -> pd.DataFrame:
    """Mean gate of each modality by rounded label: modality, label, seed, value (0 to 1), segments."""
    parts = []
    for run in runs:
        test = test_rows(runs, run)
        bins = rounded(3)(test["label"].to_numpy(float))
        for modality in MODALITIES:
            if f"gate_{modality}" in test:
                grouped = test.groupby(bins)[f"gate_{modality}"].agg(["mean", "count"]).reset_index(names="label")
                grouped = grouped.rename(columns={"mean": "value", "count": "segments"})
                parts.append(grouped.assign(modality=modality, seed=run.record.seed))
    columns = ["modality", "label", "seed", "value", "segments"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def gate_figure(gates: pd.DataFrame, title: str) -> Figure:
    """The mean gate of each modality over the labels, with the interval over seeds."""
    figure, axis = plt.subplots(figsize=(draw.COLUMN, 2.8))
    for place, modality in enumerate(in_order(gates["modality"])):
        tint, marker, line = colour(modality)
        points = draw.over_seeds(gates[gates["modality"] == modality], ["label"]).sort_values("label")
        # A little apart, so that no interval hides another.
        at = points["label"] + 0.09 * (place - 1)
        error = draw.error_bars(points)
        axis.errorbar(at, points["mean"], error, color=tint, elinewidth=0.7, capsize=1.5, lw=1.3, ls=line,
                      marker=marker, label=modality)  # fmt: skip
    axis.set_ylim(0, 1)
    axis.set_xlabel("Label, rounded (−3 negative to 3 positive)")
    axis.set_ylabel("Gate (0 shut, 1 open)")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3)
    axis.spines[["top", "right"]].set_visible(False)
    draw.heading(figure, title)
    return figure


def embedding_figure(frame: pd.DataFrame, shares: Mapping[str, Sequence[float]], title: str) -> Figure:
    """The two leading principal components of each embedding; the label is the shade, its sign the marker."""
    shown = in_order(frame["modality"])
    columns = 2
    height = 2.5 * -(-len(shown) // columns)
    figure, axes = plt.subplots(-(-len(shown) // columns), columns, figsize=(draw.PAGE * 0.85, height), squeeze=False)
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    picture = None
    for axis, modality in zip(axes.flat, shown, strict=False):
        part = frame[frame["modality"] == modality]
        second = part["e1"] if "e1" in part else pd.Series(0.0, index=part.index)
        for sign, marker in ((part["label"] < 0, "v"), (part["label"] == 0, "o"), (part["label"] > 0, "^")):
            shade = part["label"][sign]
            picture = axis.scatter(part["e0"][sign], second[sign], c=shade, cmap="cividis", vmin=-3, vmax=3, s=9, lw=0,
                                   marker=marker)  # fmt: skip
        first, other = (100 * share for share in [*shares[modality], 0.0][:2])
        axis.set_title("fused by the decoder" if modality == "fused" else modality)
        axis.set_xlabel(f"First component ({first:.0f} % of variance)")
        axis.set_ylabel(f"Second ({other:.0f} %)")
        axis.set_xticks([])
        axis.set_yticks([])
    if picture is not None:
        figure.colorbar(picture, ax=axes, shrink=0.6, label="Label")
    marks = [plt.Line2D([], [], ls="", marker=marker, color=draw.GREY) for marker in ("v", "o", "^")]
    figure.legend(marks, ["negative", "zero", "positive"], loc="outside lower center", ncols=3)
    draw.heading(figure, title)
    return figure


# --- in time ------------------------------------------------------------------------------------------------------


def attention_figure(attention: pd.DataFrame, test: pd.DataFrame, title: str) -> Figure:
    """One row a segment: each frame's attention against that of a frame among equals, over time or over positions.

    Text is drawn at the middle of its words where word timings are known, with the words; elsewhere every modality
    runs from the first of its frames to the last.
    """
    segments = list(dict.fromkeys(attention["segment_id"]))
    timed = bool(attention.loc[attention["modality"] == "text", "seconds"].notna().any())
    figure, axes = plt.subplots(len(segments), 1, figsize=(draw.PAGE, 1.9 * len(segments) + 0.6), squeeze=False)
    known = test.set_index("segment_id")
    for axis, segment in zip(axes[:, 0], segments, strict=True):
        part = attention[attention["segment_id"] == segment]
        for modality in in_order(part["modality"]):
            frames = part[part["modality"] == modality]
            if len(frames) < 2:
                continue  # one vector a segment: there is nothing to attend to
            height = frames["weight"] * len(frames)
            place = frames["seconds"] if timed else (frames["position"] + 0.5) / len(frames)
            there = place.notna()
            tint, marker, line = colour(modality)
            axis.plot(place[there], height[there], color=tint, marker=marker, ls=line, lw=1, ms=3.2, label=modality)
        axis.axhline(1, color=draw.GREY, lw=0.8, ls="--", zorder=1)
        row = known.loc[segment]
        axis.set_title(f"{segment}: label {row['label']:+.1f}, prediction {row['prediction']:+.1f}", loc="left",
                       fontsize=7.5, pad=4)  # fmt: skip
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
    draw.heading(figure, title)
    return figure
