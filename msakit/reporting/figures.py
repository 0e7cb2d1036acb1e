"""Figures for print: each plot function takes axes and a tidy frame, draws, and returns the axes.

Colours are the Okabe–Ito palette, which colour-blind readers can tell apart; every series has a marker and a line
style of its own besides, so that a figure reads in grey. Sizes are for one column (3.4 inches) or two (7 inches).
`save` writes the picture and the numbers plotted.
"""

import itertools
import json
import shutil
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msakit.evaluation import metrics, statistics
from msakit.files import write_atomically
from msakit.reporting import describe
from msakit.reporting.contract import Paper
from msakit.reporting.scores import arms_in_order, by_corpus, kind_of_data, reference_value, scores
from msakit.runs.store import Runs

COLUMN, PAGE = 3.4, 7.0  # widths in inches
DPI = 180
LABEL = 44  # letters of an arm's label on one line
DATA = "data.json"  # the plotted data of all figures of a folder
# Okabe & Ito 2008, without yellow (too light for lines on white); the order of first use.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))  # fmt: skip
GREY = "#555555"
RC: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "msakit",
}


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures; make them, axes included, inside `with style():`."""
    with sns.axes_style("ticks"), plt.rc_context(RC):
        yield


def save(figure: Figure, data: pd.DataFrame, folder: Path, name: str) -> Path:
    """Write `<name>.png` (180 dpi) and put what it shows into the folder's `data.json`. Returns the picture's path.

    `data.json` holds the plotted data of all figures of the folder, by name: {"columns": [...], "data": [row, ...]},
    so that ``pd.DataFrame(**json.load(file)[name])`` is the frame, with six significant digits. The picture's only
    metadata are its title and its description in words, so equal figures are equal bytes. A folder is written by one
    process at a time; a stop leaves both files whole.
    """
    picture = BytesIO()
    with plt.rc_context(RC):
        words = {"Title": describe.title(figure), "Description": describe.describe(figure, data)}
        figure.savefig(picture, format="png", dpi=DPI, metadata={"Software": None, **words})
    path = Path(folder) / f"{name}.png"
    write_atomically(path, picture.getvalue())
    _write_data(Path(folder), {**_stored_data(Path(folder)), name: _plain(data)})
    return path


def read_data(folder: Path) -> dict[str, pd.DataFrame]:
    """The plotted data of a folder's figures, by name; empty where there are none."""
    return {name: pd.DataFrame(**content) for name, content in _stored_data(folder).items()}


def copy_figures(folder: Path, target: Path) -> None:
    """Copy the pictures of a folder with the data that they show; neither without the other."""
    stored = _stored_data(folder)
    data = {name: content for name, content in stored.items() if (folder / f"{name}.png").is_file()}
    if data:
        _write_data(target, data)
    for name in data:
        shutil.copy2(folder / f"{name}.png", target / f"{name}.png")


def _stored_data(folder: Path) -> dict[str, Any]:
    path = folder / DATA
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content


def _write_data(folder: Path, data: Mapping[str, Any]) -> None:
    """A figure a line, in alphabetical order."""
    options: dict[str, Any] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    lines = [f"{json.dumps(name)}: {json.dumps(data[name], **options)}" for name in sorted(data)]
    write_atomically(folder / DATA, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def _plain(frame: pd.DataFrame) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if pd.isna(value):
            return None
        value = value.item() if isinstance(value, np.generic) else value
        return float(f"{value:.6g}") if isinstance(value, float) else value

    rows = [[plain(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    return {"columns": [str(name) for name in frame.columns], "data": rows}


def over_seeds(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Columns `by`, n, mean, sd, low, high of the column `value`, groups in the order they come."""
    rows = []
    for group, part in frame.groupby(list(by), sort=False):
        got = statistics.over_seeds(part["value"].to_numpy(float))
        rows.append((*group, got.n, got.mean, got.sd, got.low, got.high))
    return pd.DataFrame(rows, columns=[*by, "n", "mean", "sd", "low", "high"])


def error_bars(rows: pd.DataFrame) -> Float[np.ndarray, "two rows"]:
    """What errorbar wants of `over_seeds`: the way from mean to low and to high; 0 where a single seed has none."""
    return np.nan_to_num(np.stack([rows["mean"] - rows["low"], rows["high"] - rows["mean"]]))


def heading(figure: Figure, title: str) -> None:
    """The title of a whole figure, as large as those of its axes."""
    figure.suptitle(title, fontsize=RC["axes.titlesize"])


def look(number: int) -> dict[str, Any]:
    """Colour, marker and line of the series of that number; past the last they go round again."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "marker": MARKERS[number % len(MARKERS)],
        "ls": LINES[number % len(LINES)],
    }


def legend_below(figure: Figure, axes: Axes, ncols: int) -> None:
    """One legend for all panels, of the series of one of them."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=ncols)


def draw_all(
    runs: Runs, folder: Path, drawn: Callable[[Runs, str], Iterator[tuple[str, str, Figure, pd.DataFrame]]]
) -> list[Figure]:
    """Save the figures of each corpus as `<corpus>-<name>`.

    drawn: from the runs of a corpus and what to call it, such as "mini-mosi (generated data)", the name of each figure,
    its title ("" for none), the figure, and its data.
    """
    figures = []
    for corpus, part in by_corpus(runs):
        with style():
            for name, title, figure, data in drawn(part, f"{corpus} ({kind_of_data(part)})"):
                if title:
                    heading(figure, title)
                save(figure, data, folder, f"{corpus}-{name}")
                figures.append(figure)
    return figures


def arm_points(
    ax: Axes, frame: pd.DataFrame, metric: str, titles: Mapping[str, str], lines: Mapping[str, float] | None = None
) -> Axes:
    """Arms from top to bottom: the mean with its t-interval over runs, and one small point a run beside it.

    frame: arm, value, a row a seed or fold; titles: arm -> label, in the order shown. lines: label -> score, drawn as
    vertical lines, such as the best score that the data allow and that of a constant prediction.
    """
    shown = [arm for arm in titles if arm in set(frame["arm"])]
    rows = over_seeds(frame[frame["arm"].isin(shown)], ["arm"]).set_index("arm")
    for y, arm in enumerate(shown):
        row, values = rows.loc[arm], frame.loc[frame["arm"] == arm, "value"]
        ax.plot(values, np.full(len(values), y + 0.26), ls="", marker="o", ms=2.6, mfc="white", mec=GREY, mew=0.7,
                zorder=2)  # fmt: skip
        if np.isfinite(row["low"]):
            ax.plot([row["low"], row["high"]], [y, y], color=PALETTE[0], lw=1.6, zorder=3)
        ax.plot(row["mean"], y, marker="o", ms=5, color=PALETTE[0], ls="", zorder=4)
    for (label, value), style in zip((lines or {}).items(), itertools.cycle(("--", ":", "-."))):
        ax.axvline(value, color=GREY, ls=style, lw=1, zorder=1)
        ax.annotate(label, (value, 1), xycoords=("data", "axes fraction"), xytext=(0, 2), ha="center", va="bottom",
                    textcoords="offset points", fontsize=6.5, color=GREY)  # fmt: skip
    ax.set_yticks(range(len(shown)), [titles[arm] for arm in shown])
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.grid(axis="y", color="#EEEEEE", lw=0.7)
    ax.set_axisbelow(True)
    arrow = {"up": "→ better", "down": "← better"}[metrics.metric(metric).direction]
    ax.set_xlabel(f"{metrics.metric(metric).label} ({arrow})")
    ax.tick_params(axis="y", length=0)
    sns.despine(ax=ax, left=True)
    return ax


def arm_figure(
    runs: Runs, paper: Paper, metric: str, elsewhere: Collection[str] = (), titles: Mapping[str, str] | None = None
) -> tuple[Figure, pd.DataFrame]:
    """All trained arms of a paper on one corpus as points with intervals, a panel a group, and the plotted data.

    The arms are those of `msakit.reporting.tables.arm_table`, in its order; vertical lines are the oracle and the
    constant. Data: arm, seed, fold (where there are folds), value.

    Args:
        elsewhere: arms that another figure of the paper shows.
        titles: arm to what it is called here, in place of its recorded title.
    """
    shown = [arm for arm in arms_in_order(runs, paper) if arm not in elsewhere]
    records = {run.record.arm: run.record for run in runs}
    groups: dict[str, dict[str, str]] = {}
    for arm in shown:
        called = (titles or {}).get(arm, records[arm].title)
        groups.setdefault(records[arm].definition.group, {})[arm] = textwrap.fill(called, LABEL)
    data = scores(runs.select(arm=shown), metric)[["arm", "seed", "fold", "value"]].dropna(axis=1, how="all")
    found = {name: reference_value(runs, name, metric) for name in ("oracle", "constant")}
    lines = {name: value for name, value in found.items() if value is not None}
    height = 0.75 + 0.24 * len(shown) + 0.3 * (len(groups) - 1)
    with style():
        figure, axes = plt.subplots(
            len(groups), 1, figsize=(0.85 * PAGE, height), squeeze=False, sharex=True,
            height_ratios=[len(arms) + 0.5 for arms in groups.values()],
        )  # fmt: skip
        for ax, (group, arms) in zip(axes[:, 0], groups.items(), strict=True):
            arm_points(ax, data, metric, arms, lines)
            title = ax.set_title(group, loc="left", fontsize=7.5, pad=12 if ax is axes[0, 0] else 3)
            title.set_in_layout(False)  # a long one takes no room from the axes
            if ax is not axes[0, 0]:
                for label in list(ax.texts):
                    label.remove()
            if ax is not axes[-1, 0]:
                ax.set_xlabel("")
        corpus = runs.frame["corpus"].iloc[0]
        heading(figure, f"Arms on {corpus} ({kind_of_data(runs)}), test")
    return figure, data
