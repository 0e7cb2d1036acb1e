"""Figures of Kim & Kim 2022 (reconstructed): which words are shifted, what contrast aligns, what averaging steadies.

Each function takes tidy frames, as :mod:`msakit.papers.kim2022.tables` reads them from the records, and returns a figure.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from msakit.reporting import figures as draw

# Panels of the joint space and of alignment show the modalities in this order.
MODALITIES = ("text", "audio", "vision")


def shift_strips(shifts: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """A heat strip a sentence and arm: how far each word's vector is moved by its voice and face.

    shifts: segment_id, heading, arm, word_index, word, shift (length of the shift over the length of the word's
    vector), marked (bool: the word that voice and face must settle); titles: arm -> label, in the order shown.
    """
    sentences = list(dict.fromkeys(shifts["segment_id"]))
    shown = [arm for arm in titles if arm in set(shifts["arm"])]
    widest = int(shifts["word_index"].max()) + 1
    top = float(shifts["shift"].max()) or 1.0
    with draw.style():
        figure, axes = plt.subplots(
            len(sentences), 1, figsize=(draw.PAGE, 0.55 + len(sentences) * (0.42 + 0.24 * len(shown))), squeeze=False
        )
        for axis, segment in zip(axes[:, 0], sentences, strict=True):
            part = shifts[shifts["segment_id"] == segment]
            values = part.pivot(index="arm", columns="word_index", values="shift").reindex(shown)
            words = part.drop_duplicates("word_index").set_index("word_index").loc[values.columns]
            axis.pcolormesh(values.to_numpy(), cmap="Blues", vmin=0, vmax=top, edgecolors="white", lw=1)
            for row in range(len(shown)):
                for column in range(values.shape[1]):
                    value = values.iat[row, column]
                    axis.text(column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=5.5,
                              color="white" if value > 0.6 * top else "black")  # fmt: skip
            axis.set_xlim(0, widest)
            axis.set_xticks(np.arange(len(words)) + 0.5, list(words["word"]))
            for label, marked in zip(axis.get_xticklabels(), words["marked"], strict=True):
                label.set_fontweight("bold" if marked else "normal")
                label.set_fontsize(6.5)
            axis.set_yticks(np.arange(len(shown)) + 0.5, [titles[arm] for arm in shown])
            axis.invert_yaxis()
            axis.tick_params(length=0)
            axis.set_title(str(part["heading"].iloc[0]), loc="left", fontsize=7.5)
            sns.despine(ax=axis, left=True, bottom=True)
        _bar(figure, axes[:, 0], "Blues", 0.0, top, "Length of the shift (lengths of the word's vector)")
    return figure


def joint_space(points: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """t-SNE of the projected modalities, one panel an arm: colour is the label, the marker the modality.

    points: arm, modality, label, x, y.
    """
    shown = [arm for arm in titles if arm in set(points["arm"])]
    with draw.style():
        figure, axes = plt.subplots(1, len(shown), figsize=(draw.PAGE, 2.75), squeeze=False)
        bound = float(points["label"].abs().max())
        for axis, arm in zip(axes[0], shown, strict=True):
            for index, modality in enumerate(MODALITIES):
                part = points[(points["arm"] == arm) & (points["modality"] == modality)]
                # Purple to orange through white stays readable for colour-blind readers; in grey the sign is lost.
                axis.scatter(part["x"], part["y"], c=part["label"], cmap="PuOr", vmin=-bound, vmax=bound, s=11,
                                     marker=draw.MARKERS[index], edgecolors=draw.GREY, linewidths=0.3)  # fmt: skip
            axis.set_title(draw.wrapped(titles[arm], 28), fontsize=7.5)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel("t-SNE 1")
        axes[0, 0].set_ylabel("t-SNE 2")
        marks = [
            plt.Line2D([], [], ls="", marker=draw.MARKERS[index], mfc="white", mec=draw.GREY, label=name)
            for index, name in enumerate(MODALITIES)
            if name in set(points["modality"])
        ]
        figure.legend(handles=marks, loc="outside lower center", ncols=3)
        _bar(figure, axes[0], "PuOr", -bound, bound, "Label (sentiment)")
    return figure


def _bar(figure: Figure, axes: np.ndarray, colours: str, low: float, high: float, label: str) -> None:
    scale = ScalarMappable(Normalize(low, high), colours)
    bar = figure.colorbar(scale, ax=list(axes), fraction=0.03, pad=0.01)
    bar.set_label(label)
    bar.outline.set_visible(False)


def coordinates(vectors: Float[np.ndarray, "points dim"], seed: int = 0) -> Float[np.ndarray, "points 2"]:
    """t-SNE with cosine distances, started from the principal components; the same each time on the same machine."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    return TSNE(metric="cosine", init="pca", perplexity=perplexity, random_state=seed).fit_transform(vectors)


def alignment_and_uniformity(frame: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Before and after training, one line an arm with its interval over seeds: pairs of modalities, then modalities.

    frame: arm, quantity ("alignment" of a pair, "uniformity" of a modality), of, stage ("before", "after"), seed,
    value. Lower is better for both (Wang & Isola, ICML 2020).
    """
    panels = list(dict.fromkeys(zip(frame["quantity"], frame["of"], strict=True)))
    with draw.style():
        figure, axes = plt.subplots(1, len(panels), figsize=(draw.PAGE, 2.3), squeeze=False)
        for axis, (quantity, of) in zip(axes[0], panels, strict=True):
            part = frame[(frame["quantity"] == quantity) & (frame["of"] == of)]
            for index, arm in enumerate(arm for arm in titles if arm in set(part["arm"])):
                rows = draw.over_seeds(part[part["arm"] == arm], ["stage"]).set_index("stage").loc[["before", "after"]]
                spread = draw.error_bars(rows)
                axis.errorbar(np.arange(2) + 0.06 * index, rows["mean"], spread, color=draw.PALETTE[index], capsize=2,
                              marker=draw.MARKERS[index], ls=draw.LINES[index], label=titles[arm])  # fmt: skip
            axis.set_title(f"{quantity}\n{of}", fontsize=7.5)
            axis.set_xticks([0, 1], ["before", "after"])
            axis.set_xlim(-0.3, 1.5)
            sns.despine(ax=axis)
        axes[0, 0].set_ylabel("Value ↓ (no unit)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def sweeps(frame: pd.DataFrame, names: Mapping[str, str], label: str) -> Figure:
    """One panel a swept setting: mean and interval over seeds at each value, the arm's own value marked.

    frame: setting, value, own (bool), seed, score; names: setting -> axis label, in the order shown.
    """
    shown = [name for name in names if name in set(frame["setting"])]
    with draw.style():
        figure, axes = plt.subplots(1, len(shown), figsize=(draw.PAGE, 2.3), sharey=True, squeeze=False)
        for index, (axis, setting) in enumerate(zip(axes[0], shown, strict=True)):
            part = frame[frame["setting"] == setting].rename(columns={"score": "value", "value": "at"})
            rows = draw.over_seeds(part.sort_values("at"), ["at", "own"])
            spread = draw.error_bars(rows)
            place = np.arange(len(rows))
            axis.errorbar(place, rows["mean"], spread, color=draw.PALETTE[index], marker=draw.MARKERS[index],
                          ls=draw.LINES[index], capsize=2)  # fmt: skip
            own = rows["own"].to_numpy(bool)
            axis.plot(place[own], rows["mean"][own], ls="", marker="o", ms=9, mfc="none", mec=draw.GREY)
            axis.set_xticks(place, [f"{value:g}" for value in rows["at"]])
            axis.set_xlabel(names[setting])
            sns.despine(ax=axis)
        axes[0, 0].set_ylabel(label)
        ring = plt.Line2D([], [], ls="", marker="o", ms=8, mfc="none", mec=draw.GREY, label="the arm's own value")
        figure.legend(handles=[ring], loc="outside lower center")
    return figure


def kinds_of_segments(frame: pd.DataFrame, titles: Mapping[str, str], metric: str, order: Sequence[str]) -> Figure:
    """Bars by kind of segment (plain, ambiguous, sarcastic), one an arm. frame: group, arm, seed, value."""
    frame = frame.assign(place=frame["group"].map(list(order).index)).sort_values("place", kind="stable")
    with draw.style():
        figure, axes = plt.subplots(figsize=(0.75 * draw.PAGE, 2.6))
        draw.group_bars(axes, frame, metric, titles)
        axes.set_xlabel("Kind of segment")
    return figure
