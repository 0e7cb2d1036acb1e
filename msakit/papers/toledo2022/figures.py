"""Figures of Toledo & Marcacini 2022: score against cost, little training data, what joint fine-tuning moves, trust.

Each function takes tidy frames, as :mod:`msakit.papers.toledo2022.tables` reads them from the records; it returns a figure.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Bool, Float, UInt8
from matplotlib.figure import Figure

from msakit.evaluation import metrics
from msakit.reporting import figures as draw

BINS = 10  # of the calibration curve
TITLE = 36  # characters on a line of an arm's title, so that the plot keeps the room


def cost_frontier(points: pd.DataFrame, metric: str, cost: str) -> Figure:
    """Score against cost, one point an arm, with the frontier: arms that no other beats at the same or lower cost.

    points: title, cost (ratio to text only), mean, low, high (interval of the score over folds or seeds); cost: the
    axis label.
    """
    points = points.sort_values("cost", kind="stable").reset_index(drop=True)
    up = metrics.metric(metric).direction == "up"
    best = on_frontier(points["cost"].to_numpy(float), points["mean"].to_numpy(float) * (1 if up else -1))
    with draw.style():
        figure, axes = plt.subplots(figsize=(draw.PAGE, 3.4))
        edge = points[best]
        reach = [*edge["cost"], points["cost"].max()], [*edge["mean"], edge["mean"].iloc[-1]]
        axes.step(*reach, where="post", color=draw.GREY, ls="--", lw=1, label="frontier", zorder=1)
        for index, row in points.iterrows():
            place = int(str(index))
            spread = draw.error_bars(points.iloc[[place]])
            # As many markers as palette entries: past the last, both go round again, out of step.
            colour = draw.PALETTE[(place + 3 * (place // len(draw.MARKERS))) % len(draw.PALETTE)]
            marker, label = draw.MARKERS[place % len(draw.MARKERS)], draw.wrapped(str(row["title"]), TITLE)
            axes.errorbar(row["cost"], row["mean"], spread, color=colour, marker=marker, ls="", ms=6, capsize=2,
                          mfc=None if best[place] else "white", label=label)  # fmt: skip
        axes.set_xscale("symlog", linthresh=0.1)
        axes.set_xlabel(draw.wrapped(cost, TITLE))
        axes.set_ylabel(metrics.metric(metric).title)
        figure.legend(loc="outside right center", title="filled: on the frontier")
        sns.despine(ax=axes)
    return figure


def on_frontier(cost: Float[np.ndarray, " arms"], score: Float[np.ndarray, " arms"]) -> Bool[np.ndarray, " arms"]:
    """Which arms no other beats: none has a higher score at the same or a lower cost, or the same score at a lower."""
    dominated = [
        bool((((cost <= c) & (score > s)) | ((cost < c) & (score >= s))).any())
        for c, s in zip(cost, score, strict=True)
    ]
    return ~np.array(dominated, dtype=bool)


def share_means(frame: pd.DataFrame) -> pd.DataFrame:
    """arm, share, n, mean, sd, low, high of an accuracy by growing share, its interval cut at 0 and 1.

    frame: arm, share (per cent), seed, value.
    """
    rows = draw.over_seeds(frame.sort_values("share", kind="stable"), ["arm", "share"])
    return rows.assign(low=rows["low"].clip(lower=0), high=rows["high"].clip(upper=1))


def share_curves(frame: pd.DataFrame, titles: Mapping[str, str], metric: str) -> Figure:
    """Score over the share of the training data, one line an arm with its interval over seeds.

    frame: arm, share (per cent), seed, value.
    """
    means = share_means(frame)
    with draw.style():
        figure, axes = plt.subplots(figsize=(0.7 * draw.PAGE, 2.8))
        for index, arm in enumerate(arm for arm in titles if arm in set(frame["arm"])):
            rows = means[means["arm"] == arm]
            colour = draw.PALETTE[index % len(draw.PALETTE)]
            axes.plot(rows["share"], rows["mean"], color=colour, marker=draw.MARKERS[index], ls=draw.LINES[index],
                      label=titles[arm])  # fmt: skip
            axes.fill_between(rows["share"], rows["low"], rows["high"], color=colour, alpha=0.15, lw=0)
        shares = sorted(frame["share"].unique())
        axes.set_xscale("log")
        axes.set_xticks(shares, [f"{share:g}" for share in shares])
        axes.minorticks_off()
        axes.set_xlabel("Share of the training data (%), nested subsets")
        axes.set_ylabel(metrics.metric(metric).title)
        axes.legend()
        sns.despine(ax=axes)
    return figure


def embedding_stages(points: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Two principal components of the fused vectors before and after joint fine-tuning. points: stage,
    label (name of the class), x, y."""
    with draw.style():
        figure, axes = plt.subplots(1, 2, figsize=(0.85 * draw.PAGE, 2.9))
        for axis, stage in zip(axes, ("before", "after"), strict=True):
            part = points[points["stage"] == stage]
            for index, name in enumerate(classes):
                own = part[part["label"] == name]
                axis.scatter(own["x"], own["y"], s=10, color=draw.PALETTE[index], marker=draw.MARKERS[index], alpha=0.7,
                             lw=0, label=name)  # fmt: skip
            axis.set_title(f"{stage} joint fine-tuning")
            axis.set_xlabel("Principal component 1")
            axis.set_xticks([])
            axis.set_yticks([])
        axes[0].set_ylabel("Principal component 2")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(classes))
    return figure


def calibration(frame: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Share correct against stated confidence, in ten bins of equal width; below, how many predictions are in each.

    frame: arm, confidence (of the predicted class, 0 to 1), correct (bool). Bins with fewer than ten predictions are
    not drawn above.
    """
    edges = np.linspace(0, 1, BINS + 1)
    with draw.style():
        figure, (upper, lower) = plt.subplots(2, 1, figsize=(draw.COLUMN + 0.9, 3.6), sharex=True, height_ratios=[3, 1])
        upper.plot([0, 1], [0, 1], color=draw.GREY, ls=":", lw=1, label="perfectly calibrated")
        for index, arm in enumerate(arm for arm in titles if arm in set(frame["arm"])):
            part = frame[frame["arm"] == arm]
            bins = np.clip(np.digitize(part["confidence"], edges) - 1, 0, BINS - 1)
            groups = part.assign(bin=bins).groupby("bin").agg(at=("confidence", "mean"), right=("correct", "mean"),
                                                              n=("correct", "size"))  # fmt: skip
            colour, line = draw.PALETTE[index % len(draw.PALETTE)], draw.LINES[index % len(draw.LINES)]
            enough = groups[groups["n"] >= 10]
            upper.plot(enough["at"], enough["right"], color=colour, ls=line, marker=draw.MARKERS[index],
                       label=titles[arm])  # fmt: skip
            lower.plot(groups["at"], groups["n"], color=colour, ls=line)
        upper.set_ylabel("Share correct")
        lower.set_ylabel("Predictions")
        lower.set_ylim(bottom=0)
        lower.set_xlabel("Confidence (probability of the predicted class)")
        upper.legend(fontsize=6)
        for axis in (upper, lower):
            sns.despine(ax=axis)
    return figure


def agreement(frame: pd.DataFrame, titles: Mapping[str, str], order: Sequence[str]) -> Figure:
    """Accuracy where text and image say the same and where they differ: a row an arm, a marker a group, with its
    interval over the runs.

    frame: group, arm, seed, value (accuracy).  order: the groups as they are told apart in the legend.
    """
    arms = [arm for arm in titles if arm in set(frame["arm"])]
    with draw.style():
        figure, axes = plt.subplots(figsize=(draw.PAGE, 0.9 + 0.42 * len(arms)))
        for index, group in enumerate(order):
            rows = draw.over_seeds(frame[frame["group"] == group], ["arm"]).set_index("arm")
            rows = rows.loc[[arm for arm in arms if arm in rows.index]]
            place = np.array([arms.index(arm) for arm in rows.index]) + 0.24 * (index - (len(order) - 1) / 2)
            spread = draw.error_bars(rows)
            axes.errorbar(rows["mean"], place, xerr=spread, ls="", marker=draw.MARKERS[index], ms=5, capsize=2,
                          color=draw.PALETTE[index], label=group)  # fmt: skip
        for line in range(1, len(arms)):
            axes.axhline(line - 0.5, color=draw.GREY, lw=0.3)
        axes.set_yticks(range(len(arms)), [draw.wrapped(titles[arm], TITLE) for arm in arms])
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel(metrics.metric("accuracy").title.replace("↑", "(→ better)"))
        axes.tick_params(axis="y", length=0)
        sns.despine(ax=axes, left=True)
        figure.legend(loc="outside upper center", ncols=len(order))
    return figure


def protocol_gaps(frame: pd.DataFrame, metric: str) -> Figure:
    """What each difference of the published protocol is worth: mean and interval of the gap over folds.

    frame: title, mean, low, high, in the order shown.
    """
    with draw.style():
        figure, axes = plt.subplots(figsize=(0.8 * draw.PAGE, 0.9 + 0.26 * len(frame)))
        place = np.arange(len(frame))
        spread = draw.error_bars(frame)
        axes.errorbar(frame["mean"], place, xerr=spread, ls="", marker="o", color=draw.PALETTE[0], capsize=2)
        axes.axvline(0, color=draw.GREY, lw=1, ls=":")
        axes.set_yticks(place, list(frame["title"]))
        axes.set_ylim(len(frame) - 0.5, -0.5)
        axes.set_xlabel(f"{metrics.metric(metric).label}: as published minus corrected")
        sns.despine(ax=axes, left=True)
        axes.tick_params(axis="y", length=0)
    return figure


def examples(
    pictures: Sequence[UInt8[np.ndarray, "height width 3"]],
    texts: Sequence[str],
    headings: Sequence[str],
    probabilities: Sequence[pd.DataFrame],
) -> Figure:
    """Segments side by side: the image, the text, and the probability that each arm gives each class.

    probabilities: one frame a segment, index arm title, columns classes.
    """
    n = len(pictures)
    with draw.style():
        figure, axes = plt.subplots(2, n, figsize=(draw.PAGE, 4.0), height_ratios=[1.1, 1], squeeze=False)
        for column in range(n):
            axes[0, column].imshow(pictures[column], interpolation="nearest")
            axes[0, column].set_xticks([])
            axes[0, column].set_yticks([])
            axes[0, column].set_title(headings[column], fontsize=7)
            axes[0, column].set_xlabel(draw.wrapped(f"“{texts[column]}”", 30), fontsize=6.5)
            table = probabilities[column]
            axis = axes[1, column]
            left = np.zeros(len(table))
            for index, name in enumerate(table.columns):
                axis.barh(np.arange(len(table)), table[name], left=left, color=draw.PALETTE[index], height=0.75,
                          hatch=("", "///", "...")[index % 3], edgecolor="white", lw=0, label=str(name))  # fmt: skip
                left += table[name].to_numpy()
            axis.set_xlim(0, 1)
            axis.set_yticks(range(len(table)), list(table.index) if column == 0 else [""] * len(table), fontsize=6.5)
            axis.invert_yaxis()
            axis.set_xlabel("Probability")
            axis.tick_params(axis="y", length=0)
            sns.despine(ax=axis, left=True)
        handles, labels = axes[1, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure
