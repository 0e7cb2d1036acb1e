"""Figures of Toledo & Marcacini 2022: score against cost, little training data, what joint fine-tuning moves, trust.

`figures` draws all that the recorded runs allow; each plot function takes a tidy frame and returns a figure.
"""

import base64
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Bool, Float, UInt8
from matplotlib.figure import Figure
from PIL import Image

from msakit import papers
from msakit.evaluation import metrics
from msakit.papers.toledo2022 import tables
from msakit.reporting import figures as draw
from msakit.reporting.contract import Paper
from msakit.reporting.scores import arrays, estimates, main_metric
from msakit.runs.store import Runs

BINS = 10  # of the calibration curve
TITLE = 36  # characters on a line of an arm's title, so that the plot keeps the room
SHOWN = 3  # examples
AGREE = "text and image agree"


def figures(runs: Runs, folder: Path) -> list[Figure]:
    """Draw and save, for each corpus, all figures that its runs allow."""
    return draw.draw_all(runs, folder, _drawn)


def _drawn(runs: Runs, where: str) -> Iterator[tuple[str, str, Figure, pd.DataFrame]]:
    paper = papers.load(tables.PAPER)
    first, metric = main_metric(runs, paper), paper.facts["drawn_metric"][tables.task_of(runs)]
    if tables.main_arms(runs, paper):
        yield "arms", "", *draw.arm_figure(runs, paper, metric, tables.elsewhere(runs, paper))
    pictures, shown = example_rows(runs, paper)
    plots: tuple[tuple[str, pd.DataFrame, Callable[[pd.DataFrame], Figure], str], ...] = (
        ("cost", cost_points(runs, paper), partial(cost_frontier, metric=metric), ""),
        ("shares", tables.share_scores(runs, paper), partial(share_curves, metric=first), "Little training data"),
        ("protocols", tables.protocol_gaps(runs, paper), partial(gap_intervals, metric=first),
         "Joint fine-tuning under the published protocol"),
        ("embeddings", embedding_points(runs), embedding_stages, "Fused vectors of test segments"),
        ("agreement", agreement_scores(runs, paper), agreement, ""),
        ("calibration", confidences(runs, paper), calibration, ""),
        ("examples", shown, partial(examples, pictures), ""),
    )  # fmt: skip
    for name, frame, plot, title in plots:
        if len(frame):
            yield name, f"{title}, {where}" if title else "", plot(frame), frame


# --- score and cost -----------------------------------------------------------------------------------------------


def cost_points(runs: Runs, paper: Paper) -> pd.DataFrame:
    """title, cost (operations as a ratio to the arm `base`), base, mean, low, high of every measured arm."""
    frame = tables.costs(runs, paper)
    if frame.empty:
        return frame
    base = tables.cost_base(frame, paper)
    ratio = frame["flops_per_sample"].astype(float) / float(base["flops_per_sample"])
    return frame.assign(cost=ratio, base=base["title"])[["title", "cost", "base", "mean", "low", "high"]]


def cost_frontier(points: pd.DataFrame, metric: str) -> Figure:
    """Score against cost, one point an arm, with the frontier: arms that no other beats at the same or lower cost.

    points: as `cost_points` gives them.
    """
    points = points.sort_values("cost", kind="stable").reset_index(drop=True)
    up = metrics.metric(metric).direction == "up"
    score = points["mean"].to_numpy(float)
    best = on_frontier(points["cost"].to_numpy(float), score if up else -score)
    figure, axes = plt.subplots(figsize=(draw.PAGE, 3.4))
    edge = points[best]
    reach = [*edge["cost"], points["cost"].max()], [*edge["mean"], edge["mean"].iloc[-1]]
    axes.step(*reach, where="post", color=draw.GREY, ls="--", lw=1, label="frontier", zorder=1)
    for index, row in points.iterrows():
        place = int(str(index))
        # As many markers as palette entries: past the last, both go round again, out of step.
        colour = draw.look(place + 3 * (place // len(draw.MARKERS)))["color"]
        look = draw.look(place) | {"color": colour, "ls": "", "mfc": None if best[place] else "white"}
        axes.errorbar(row["cost"], row["mean"], draw.error_bars(points.iloc[[place]]), **look, ms=6, capsize=2,
                      label=textwrap.fill(str(row["title"]), TITLE))  # fmt: skip
    axes.set_xscale("symlog", linthresh=0.1)
    label = f"Training operations a sample (ratio to: {points['base'].iloc[0]})"
    axes.set_xlabel(textwrap.fill(label, TITLE))
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


# --- training data and protocols ----------------------------------------------------------------------------------


def share_curves(frame: pd.DataFrame, metric: str) -> Figure:
    """Score over the share of the training data, one line an arm with its interval over seeds.

    frame: as :func:`msakit.papers.toledo2022.tables.share_scores` gives it.
    """
    means = tables.share_means(frame, metric)
    figure, axes = plt.subplots(figsize=(0.7 * draw.PAGE, 2.8))
    for index, (_, rows) in enumerate(means.groupby("arm", sort=False)):
        look = draw.look(index)
        axes.plot(rows["share"], rows["mean"], **look, label=rows["title"].iloc[0])
        axes.fill_between(rows["share"], rows["low"], rows["high"], color=look["color"], alpha=0.15, lw=0)
    shares = sorted(means["share"].unique())
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{share:g}" for share in shares])
    axes.minorticks_off()
    axes.set_xlabel("Share of the training data (%), nested subsets")
    axes.set_ylabel(metrics.metric(metric).title)
    axes.legend()
    sns.despine(ax=axes)
    return figure


def gap_intervals(frame: pd.DataFrame, metric: str) -> Figure:
    """What each difference of the published protocol is worth: the gap and its interval.

    frame: protocol, mean, low, high, in the order shown.
    """
    figure, axes = plt.subplots(figsize=(0.8 * draw.PAGE, 0.9 + 0.26 * len(frame)))
    place = np.arange(len(frame))
    axes.errorbar(frame["mean"], place, xerr=draw.error_bars(frame), **draw.look(0) | {"ls": ""}, capsize=2)
    axes.axvline(0, color=draw.GREY, lw=1, ls=":")
    axes.set_yticks(place, list(frame["protocol"]))
    axes.set_ylim(len(frame) - 0.5, -0.5)
    axes.set_xlabel(f"{metrics.metric(metric).label}: as published minus corrected")
    sns.despine(ax=axes, left=True)
    axes.tick_params(axis="y", length=0)
    return figure


# --- what joint fine-tuning moves ---------------------------------------------------------------------------------


def embedding_points(runs: Runs) -> pd.DataFrame:
    """segment_id, stage, label, x, y: principal components of the vectors that a run kept, each stage on its own."""
    run = next((run for run in runs if "embeddings" in run.record.artifacts), None)
    if run is None:
        return pd.DataFrame()
    table, classes = run.artifact("embeddings"), run.record.corpus.task.classes
    order = {name: index for index, name in enumerate(classes or ("negative", "neutral", "positive"))}
    if not classes:
        table = table.assign(label=np.array(list(order))[np.sign(table["label"]).astype(int) + 1])
    parts = []
    for _, part in table.groupby("stage", sort=False):
        vectors = part.filter(regex=r"^e\d+$").to_numpy(float)
        # The two leading directions of the centred vectors.
        left, sizes, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
        x, y = (left[:, :2] * sizes[:2]).T
        parts.append(part[["segment_id", "stage", "label"]].assign(x=x, y=y))
    points = pd.concat(parts, ignore_index=True)
    return points.sort_values("label", key=lambda label: label.map(order), kind="stable", ignore_index=True)


def embedding_stages(points: pd.DataFrame) -> Figure:
    """Two principal components of the fused vectors before and after joint fine-tuning.

    points: stage ("before", "after"), label (name of the class), x, y, in the order of the labels.
    """
    figure, axes = plt.subplots(1, 2, figsize=(0.85 * draw.PAGE, 2.9))
    labels = list(dict.fromkeys(points["label"]))
    for axis, stage in zip(axes, ("before", "after"), strict=True):
        part = points[points["stage"] == stage]
        for index, name in enumerate(labels):
            own = part[part["label"] == name]
            look = draw.look(index)
            axis.scatter(
                own["x"], own["y"], s=10, color=look["color"], marker=look["marker"], alpha=0.7, lw=0, label=name
            )
        axis.set_title(f"{stage} joint fine-tuning")
        axis.set_xlabel("Principal component 1")
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0].set_ylabel("Principal component 2")
    draw.legend_below(figure, axes[0], len(labels))
    return figure


# --- single predictions -------------------------------------------------------------------------------------------


def agreement_scores(runs: Runs, paper: Paper) -> pd.DataFrame:
    """Accuracy by who is right where text and image differ, as `estimates` gives it, with title; empty where the corpus
    does not say what text and image say alone."""
    called = tables.main_arms(runs, paper)
    regression = tables.task_of(runs) == "regression"
    if regression or any("text_label" not in run.test for run in runs.select(arm=list(called))):
        return pd.DataFrame()

    def right(table: pd.DataFrame, modality: str) -> pd.Series:
        classes = [name.removeprefix("p_") for name in map(str, table) if name.startswith("p_")]
        truth = np.array(classes)[table["label"].to_numpy(int)]
        return (table["text_label"] != table["image_label"]) & (table[f"{modality}_label"] == truth)

    subsets: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
        AGREE: lambda table: table["text_label"] == table["image_label"],
        "differ, the text is right": lambda table: right(table, "text"),
        "differ, the image is right": lambda table: right(table, "image"),
    }
    found = estimates(runs, list(called), "accuracy", subsets)
    return found.assign(title=found["arm"].map(called))


def agreement(frame: pd.DataFrame) -> Figure:
    """Accuracy where text and image say the same and where they differ: a row an arm, a marker a group, with its
    interval and, in the legend, the segments of the group. frame: as `agreement_scores` gives it."""
    titles = dict(zip(frame["arm"], frame["title"], strict=True))
    groups = list(dict.fromkeys(frame["group"]))
    figure, axes = plt.subplots(figsize=(draw.PAGE, 0.9 + 0.42 * len(titles)))
    for index, group in enumerate(groups):
        rows = frame[frame["group"] == group]
        y = np.array([list(titles).index(arm) for arm in rows["arm"]]) + 0.24 * (index - (len(groups) - 1) / 2)
        label = f"{group} (n = {rows['n_segments'].max()})"
        axes.errorbar(rows["mean"], y, xerr=draw.error_bars(rows), **draw.look(index) | {"ls": ""}, ms=5, capsize=2,
                      label=label)  # fmt: skip
    for line in range(1, len(titles)):
        axes.axhline(line - 0.5, color=draw.GREY, lw=0.3)
    axes.set_yticks(range(len(titles)), [textwrap.fill(title, TITLE) for title in titles.values()])
    axes.set_ylim(len(titles) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel(metrics.metric("accuracy").title.replace("↑", "(→ better)"))
    axes.tick_params(axis="y", length=0)
    sns.despine(ax=axes, left=True)
    figure.legend(loc="outside upper center", ncols=len(groups))
    return figure


def confidences(runs: Runs, paper: Paper) -> pd.DataFrame:
    """Every test prediction of the arms that the facts name, and of those that they do not know: title, confidence,
    correct."""
    called, named = tables.main_arms(runs, paper), paper.facts["drawn"]["calibration"]
    if tables.task_of(runs) == "regression":
        return pd.DataFrame()
    parts = []
    for arm in (arm for arm in called if arm in named or arm not in paper.arms):
        for run in runs.select(arm=arm):
            values, label = arrays(run)
            columns = {"confidence": values.max(axis=1), "correct": values.argmax(axis=1) == label}
            parts.append(pd.DataFrame({"title": called[arm], **columns}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def calibration(frame: pd.DataFrame) -> Figure:
    """Share correct against stated confidence, in ten bins of equal width; below, how many predictions are in each.

    frame: title, confidence (of the predicted class, 0 to 1), correct (bool). Bins with fewer than ten predictions are
    not drawn above.
    """
    edges = np.linspace(0, 1, BINS + 1)
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(draw.COLUMN + 0.9, 3.6), sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color=draw.GREY, ls=":", lw=1, label="perfectly calibrated")
    for index, (title, part) in enumerate(frame.groupby("title", sort=False)):
        bins = np.clip(np.digitize(part["confidence"], edges) - 1, 0, BINS - 1)
        binned = part.assign(bin=bins).groupby("bin")
        groups = binned.agg(at=("confidence", "mean"), right=("correct", "mean"), n=("correct", "size"))
        enough = groups[groups["n"] >= 10]
        upper.plot(enough["at"], enough["right"], **draw.look(index), label=str(title))
        lower.plot(groups["at"], groups["n"], **draw.look(index) | {"marker": ""})
    upper.set_ylabel("Share correct")
    lower.set_ylabel("Predictions")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("Confidence (probability of the predicted class)")
    upper.legend(fontsize=6)
    for axis in (upper, lower):
        sns.despine(ax=axis)
    return figure


def example_rows(runs: Runs, paper: Paper) -> tuple[list[UInt8[np.ndarray, "height width 3"]], pd.DataFrame]:
    """Pictures of a few stored segments, those that the arms differ on most, and what each arm says of them in the run
    of the same seed and fold: segment_id, text, label (name of the class), arm (its title), a column a class."""
    run = next((run for run in runs if "examples" in run.record.artifacts), None)
    if run is None or tables.task_of(runs) == "regression":
        return [], pd.DataFrame()
    stored, called = run.artifact("examples").set_index("segment_id"), tables.main_arms(runs, paper)
    given: dict[str, pd.DataFrame] = {}
    for other in runs.select(arm=list(called), seed=run.record.seed, fold=run.record.fold and run.record.fold.index):
        table = other.test.set_index("segment_id")
        given[other.record.arm] = table.loc[table.index.isin(stored.index)].filter(regex="^p_")
    common = [name for name in stored.index if all(name in table.index for table in given.values())]
    spread = np.stack([table.loc[common].to_numpy(float) for table in given.values()]).std(axis=0).sum(axis=1)
    chosen = [common[index] for index in np.argsort(-spread, kind="stable")[:SHOWN]]
    classes, label = run.record.corpus.task.classes, run.test.set_index("segment_id")["label"]
    rows = []
    for name in chosen:
        about = {"segment_id": name, "text": stored["text"][name], "label": classes[label[name]]}
        for arm in (arm for arm in called if arm in given):
            rows.append({**about, "arm": called[arm], **dict(zip(classes, given[arm].loc[name], strict=True))})
    encoded = [base64.b64decode(stored["image"][name]) for name in chosen]
    return [np.asarray(Image.open(BytesIO(image)).convert("RGB")) for image in encoded], pd.DataFrame(rows)


def examples(pictures: Sequence[UInt8[np.ndarray, "height width 3"]], data: pd.DataFrame) -> Figure:
    """Segments side by side: the image, the text, and the probability that each arm gives each class.

    data: as `example_rows` gives it, a picture a segment.
    """
    n = len(pictures)
    figure, axes = plt.subplots(2, n, figsize=(draw.PAGE, 4.0), height_ratios=[1.1, 1], squeeze=False)
    for column, (name, rows) in enumerate(data.groupby("segment_id", sort=False)):
        upper, axis = axes[:, column]
        upper.imshow(pictures[column], interpolation="nearest")
        upper.set_xticks([])
        upper.set_yticks([])
        upper.set_title(f"{name}\nlabel: {rows['label'].iloc[0]}", fontsize=7)
        upper.set_xlabel(textwrap.fill(f"“{rows['text'].iloc[0]}”", 30), fontsize=6.5)
        table = rows.set_index("arm").drop(columns=["segment_id", "text", "label"])
        left = np.zeros(len(table))
        for index, each in enumerate(table.columns):
            axis.barh(np.arange(len(table)), table[each], left=left, color=draw.look(index)["color"], height=0.75,
                      hatch=("", "///", "...")[index % 3], edgecolor="white", lw=0, label=str(each))  # fmt: skip
            left += table[each].to_numpy()
        axis.set_xlim(0, 1)
        axis.set_yticks(range(len(table)), list(table.index) if column == 0 else [""] * len(table), fontsize=6.5)
        axis.invert_yaxis()
        axis.set_xlabel("Probability")
        axis.tick_params(axis="y", length=0)
        sns.despine(ax=axis, left=True)
    draw.legend_below(figure, axes[1, 0], len(table.columns))
    return figure
