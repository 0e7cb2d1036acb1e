"""Figures of Kim & Kim 2022 (reconstructed): which words are shifted, what is aligned, what averaging does.

Drawn from recorded runs alone; which arms each figure shows is in ``paper.yaml``, and arms that it does not know are
shown after those.
"""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from msakit import papers
from msakit.data.synthetic.lexicon import WORDS
from msakit.evaluation import metrics
from msakit.papers.kim2022 import tables
from msakit.reporting import figures as draw
from msakit.reporting.contract import Paper
from msakit.reporting.scores import arms_in_order, labels, main_metric
from msakit.runs.record import Record
from msakit.runs.store import Runs

# Panels of the joint space and of alignment show the modalities in this order.
MODALITIES = ("text", "audio", "vision")
SENTENCES = 3  # in the figure of the shifts
LOSSES = {"mse": "Validation MSE ↓ (label units²)", "cross_entropy": "Validation cross entropy ↓ (nats)"}


def figures(runs: Runs, folder: Path) -> list[Figure]:
    """Draw and save all figures that the runs of each corpus allow."""
    return draw.draw_all(runs, folder, _drawn)


def _drawn(runs: Runs, where: str) -> Iterator[tuple[str, str, Figure, pd.DataFrame]]:
    paper = papers.load(tables.PAPER)
    metric, titles = main_metric(runs, paper), labels(runs)
    yield "arms", "", *draw.arm_figure(runs, paper, metric, tables.sweep_points(runs, paper))
    if len(curves := validation_curves(runs, paper)):
        loss = str(runs.select(arm=list(paper.facts["drawn"]["convergence"])).frame["selection_metric"].iloc[0])
        yield "convergence", "", convergence(curves, loss, f"Full method on {where}"), curves
    if len(shifts := chosen_shifts(runs, paper)):
        yield "shifts", f"How far each word is shifted, {where}, seed 0", shift_strips(shifts, titles), shifts
    if len(points := embedding_points(runs, paper)):
        classes = next(iter(runs)).record.corpus.task.classes
        yield "space", f"Test split in the joint space, {where}, seed 0", joint_space(points, titles, classes), points
    measured = drawn_arms(runs, paper, "alignment", lambda record: "alignment" in record.measurements)
    if len(both := tables.space(runs, measured)):
        yield "alignment", f"Test split of {where}", alignment_and_uniformity(both, titles), both
    if len(swept := tables.sweep_scores(runs, paper)):
        names = {name: sweep["label"] for name, sweep in paper.facts["sweeps"].items()}
        yield "sweep", where, sweeps(swept, names, f"Test {metrics.metric(metric).title}"), swept
    if len(kinds := tables.kind_scores(runs, paper)):
        # Without what stands in brackets: the three fit on one line.
        short = {arm: titles[arm].partition(" (")[0] for arm in tables.ladder(runs, paper)}
        over = "folds" if tables.unit(runs) == "folds" else "seeds and test videos"
        yield "kinds", f"{where}, test, 95 % intervals over {over}", kind_bars(kinds, metric, short), kinds


def drawn_arms(runs: Runs, paper: Paper, figure: str, has: Callable[[Record], bool]) -> list[str]:
    """The arms that a figure shows: those that the facts list, then those that the facts do not know, as far as they
    have what it shows and there are markers to tell them apart."""
    able = {run.record.arm for run in runs if has(run.record)}
    listed = paper.facts["drawn"][figure]
    own = [arm for arm in arms_in_order(runs, paper) if arm not in paper.arms]
    return [arm for arm in (*listed, *own) if arm in able][: len(draw.MARKERS)]


def _artifacts(runs: Runs, paper: Paper, figure: str, name: str) -> dict[str, pd.DataFrame]:
    """Of each arm that the figure shows, the artifact of that name; the arm in a column of it."""
    arms = drawn_arms(runs, paper, figure, lambda record: name in record.artifacts)
    kept = [run for arm in arms for run in runs.select(arm=arm) if name in run.record.artifacts]
    return {run.record.arm: run.artifact(name).assign(arm=run.record.arm) for run in kept}


def chosen_shifts(runs: Runs, paper: Paper) -> pd.DataFrame:
    """Shifts of the words of a few test sentences: the first ambiguous ones of seed 0, the ambiguous words marked."""
    found = _artifacts(runs, paper, "shifts", "shifts")
    if not found:
        return pd.DataFrame()
    shifts = pd.concat(found.values(), ignore_index=True)
    (first, *_) = runs.select(arm=next(iter(found)), seed=0)
    about = first.test.set_index("segment_id")
    order = list(dict.fromkeys(shifts["segment_id"]))
    kinds = about["kind"].reindex(order) if "kind" in about else pd.Series("", index=order)
    segments = [*kinds.index[kinds == "ambiguous"], *kinds.index[kinds != "ambiguous"]][:SENTENCES]
    heading = {
        name: f"{name}: label {about.loc[name, 'label']:+.1f}" + (f", {kinds[name]}" if kinds[name] else "")
        for name in segments
    }
    shifts = shifts[shifts["segment_id"].isin(segments)].copy()
    # The generator's own list; on other corpora no word is marked.
    shifts["marked"] = shifts["word"].isin(WORDS["ambiguous"]) & shifts["segment_id"].map(kinds).eq("ambiguous")
    return shifts.assign(heading=shifts["segment_id"].map(heading))


def embedding_points(runs: Runs, paper: Paper) -> pd.DataFrame:
    """The projected vectors of seed 0 by t-SNE, each arm on its own: segment_id, modality, label, arm, x, y.

    With cosine distances, started from the principal components: the same each time on the same machine.
    """
    from sklearn.manifold import TSNE

    parts = []
    for table in _artifacts(runs, paper, "space", "embeddings").values():
        vectors = table.filter(regex=r"^e\d+$").to_numpy(np.float32)
        perplexity = min(30.0, (len(vectors) - 1) / 3)
        x, y = TSNE(metric="cosine", init="pca", perplexity=perplexity, random_state=0).fit_transform(vectors).T
        parts.append(table[["segment_id", "modality", "label", "arm"]].assign(x=x, y=y))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def validation_curves(runs: Runs, paper: Paper) -> pd.DataFrame:
    """Validation loss by epoch of the full method without and with weight averaging: epoch, seed, series, value."""
    series = paper.facts["drawn"]["convergence"]
    rows = [
        (row["epoch"], run.record.stem, series[run.record.arm], row["valid_loss"])
        for arm in series
        for run in runs.select(arm=arm)
        for row in run.record.history
    ]
    return pd.DataFrame(rows, columns=["epoch", "seed", "series", "value"])


def convergence(curves: pd.DataFrame, loss: str, title: str) -> Figure:
    """One thin line a run and, as far as all of them go, their mean, one colour a series.

    curves: as `validation_curves` gives them.
    """
    figure, axes = plt.subplots(figsize=(draw.COLUMN, 2.4))
    for index, (series, part) in enumerate(curves.groupby("series", sort=False)):
        look = draw.look(index) | {"marker": ""}
        wide = part.pivot(index="epoch", columns="seed", values="value").sort_index()
        axes.plot(wide.index, wide.to_numpy(), color=look["color"], lw=0.5, alpha=0.4)
        mean = wide.dropna().mean(axis=1)
        axes.plot(mean.index, mean, **look, lw=1.8, label=str(series))
    axes.set_xlabel("Epoch")
    axes.set_ylabel(LOSSES.get(loss, f"Validation {loss} ↓"))
    axes.set_title(title)
    axes.legend()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    sns.despine(ax=axes)
    return figure


def kind_bars(frame: pd.DataFrame, metric: str, titles: Mapping[str, str]) -> Figure:
    """The metric on each kind of segment, one bar an arm, with its interval; below, how many segments there are.

    frame: as `kind_scores` gives it, so that intervals count seeds and test videos; titles: arm -> label, in the order
    shown.
    """
    hatches = ("", "///", "...", "\\\\\\", "xxx", "---", "+++")
    kinds = list(dict.fromkeys(frame["group"]))
    shown = [arm for arm in titles if arm in set(frame["arm"])]
    width = 0.8 / len(shown)
    figure, axes = plt.subplots(figsize=(0.75 * draw.PAGE, 2.6))
    for index, arm in enumerate(shown):
        part = frame[frame["arm"] == arm].set_index("group").reindex(kinds)
        x = np.arange(len(kinds)) + (index - (len(shown) - 1) / 2) * width
        axes.bar(x, part["mean"], width * 0.92, label=titles[arm], color=draw.look(index)["color"], alpha=0.85,
                 hatch=hatches[index % len(hatches)], edgecolor="white", lw=0)  # fmt: skip
        axes.errorbar(x, part["mean"], draw.error_bars(part), fmt="none", ecolor="black", elinewidth=0.8, capsize=2)
    sizes = frame.groupby("group")["n_segments"].max()
    axes.set_xticks(range(len(kinds)), [f"{kind}\n(n = {sizes[kind]})" for kind in kinds])
    axes.set_xlabel("Kind of segment")
    axes.set_ylabel(metrics.metric(metric).title)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(3, len(shown)))
    axes.tick_params(axis="x", length=0)
    sns.despine(ax=axes)
    return figure


def shift_strips(shifts: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """A heat strip a sentence and arm: how far each word's vector is moved by its voice and face.

    shifts: segment_id, heading, arm, word_index, word, shift (length of the shift over the length of the word's
    vector), marked (bool: the word that voice and face must settle); titles: arm -> label.
    """
    sentences = list(dict.fromkeys(shifts["segment_id"]))
    shown = list(dict.fromkeys(shifts["arm"]))
    widest = int(shifts["word_index"].max()) + 1
    top = float(shifts["shift"].max()) or 1.0
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


def joint_space(points: pd.DataFrame, titles: Mapping[str, str], classes: Sequence[str] = ()) -> Figure:
    """t-SNE of the projected modalities, one panel an arm: colour is the label, the marker the modality.

    points: arm, modality, label, x, y; classes: their names, if labels are classes.
    """
    shown = list(dict.fromkeys(points["arm"]))
    # Purple to orange through white stays readable for colour-blind readers; in grey the sign is lost.
    bound = float(points["label"].abs().max())
    colours, low, high = ("cividis", 0.0, len(classes) - 1.0) if classes else ("PuOr", -bound, bound)
    figure, axes = plt.subplots(1, len(shown), figsize=(draw.PAGE, 2.75), squeeze=False)
    for axis, arm in zip(axes[0], shown, strict=True):
        for index, modality in enumerate(MODALITIES):
            part = points[(points["arm"] == arm) & (points["modality"] == modality)]
            axis.scatter(part["x"], part["y"], c=part["label"], cmap=colours, vmin=low, vmax=high, s=11,
                         marker=draw.MARKERS[index], edgecolors=draw.GREY, linewidths=0.3)  # fmt: skip
        axis.set_title(textwrap.fill(titles[arm], 28), fontsize=7.5)
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
    _bar(figure, axes[0], colours, low, high, f"Label ({' to '.join(classes)})" if classes else "Label (sentiment)")
    return figure


def _bar(figure: Figure, axes: np.ndarray, colours: str, low: float, high: float, label: str) -> None:
    scale = ScalarMappable(Normalize(low, high), colours)
    bar = figure.colorbar(scale, ax=list(axes), fraction=0.03, pad=0.01)
    bar.set_label(label)
    bar.outline.set_visible(False)


def alignment_and_uniformity(frame: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Before and after training, one line an arm with its interval over seeds: pairs of modalities, then modalities.

    frame: arm, quantity ("alignment" of a pair, "uniformity" of a modality), of, stage ("before", "after"), seed,
    value. Lower is better for both (Wang & Isola, ICML 2020).
    """
    panels = list(dict.fromkeys(zip(frame["quantity"], frame["of"], strict=True)))
    figure, axes = plt.subplots(1, len(panels), figsize=(draw.PAGE, 2.3), squeeze=False)
    for axis, (quantity, of) in zip(axes[0], panels, strict=True):
        part = frame[(frame["quantity"] == quantity) & (frame["of"] == of)]
        for index, arm in enumerate(dict.fromkeys(part["arm"])):
            rows = draw.over_seeds(part[part["arm"] == arm], ["stage"]).set_index("stage").loc[["before", "after"]]
            axis.errorbar(np.arange(2) + 0.06 * index, rows["mean"], draw.error_bars(rows), **draw.look(index),
                          capsize=2, label=titles[arm])  # fmt: skip
        axis.set_title(f"{quantity}\n{of}", fontsize=7.5)
        axis.set_xticks([0, 1], ["before", "after"])
        axis.set_xlim(-0.3, 1.5)
        sns.despine(ax=axis)
    axes[0, 0].set_ylabel("Value ↓ (no unit)")
    draw.legend_below(figure, axes[0, 0], 2)
    return figure


def sweeps(frame: pd.DataFrame, names: Mapping[str, str], label: str) -> Figure:
    """One panel a swept setting: mean and interval over seeds at each value, the arm's own value marked.

    frame: sweep, at, own (bool), value, a row a run; names: sweep -> axis label.
    """
    shown = list(dict.fromkeys(frame["sweep"]))
    figure, axes = plt.subplots(1, len(shown), figsize=(draw.PAGE, 2.3), sharey=True, squeeze=False)
    for index, (axis, sweep) in enumerate(zip(axes[0], shown, strict=True)):
        rows = draw.over_seeds(frame[frame["sweep"] == sweep].sort_values("at", kind="stable"), ["at", "own"])
        x = np.arange(len(rows))
        axis.errorbar(x, rows["mean"], draw.error_bars(rows), **draw.look(index), capsize=2)
        own = rows["own"].to_numpy(bool)
        axis.plot(x[own], rows["mean"][own], ls="", marker="o", ms=9, mfc="none", mec=draw.GREY)
        axis.set_xticks(x, [f"{value:g}" for value in rows["at"]])
        axis.set_xlabel(names[sweep])
        sns.despine(ax=axis)
    axes[0, 0].set_ylabel(label)
    ring = plt.Line2D([], [], ls="", marker="o", ms=8, mfc="none", mec=draw.GREY, label="the arm's own value")
    figure.legend(handles=[ring], loc="outside lower center")
    return figure
