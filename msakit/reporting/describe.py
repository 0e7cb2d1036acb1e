"""A figure in words, for readers who cannot see it: what is drawn, along which axes, and what the numbers say.

The words are computed from the figure object and the plotted data, never typed, and travel inside the picture (the
PNG's own ``Title`` and ``Description`` fields), so that every place that shows the picture can offer them.
"""

from collections.abc import Hashable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The column that holds what is plotted, the first of these that is there; else the last column of numbers.
VALUES = ("value", "mean", "score", "effect", "weight")
# Repetitions of the same thing, which are averaged; and columns that say how sure a value is.
REPEATS = ("seed", "fold", "segment_id", "word_index")
SPREAD = ("n", "sd", "low", "high", "std", "count", "n_seeds", "n_segments")
LISTED = 8  # so many values are told one by one; of more, the extremes


def title(figure: Figure) -> str:
    """The figure's own title, or those of its panels, on one line; empty where there is none."""
    above = figure.get_suptitle()
    panels = [axes.get_title() or axes.get_title(loc="left") for axes in figure.axes]
    return " ".join((above or "; ".join(dict.fromkeys(filter(None, panels)))).split())


def describe(figure: Figure, data: pd.DataFrame) -> str:
    """Panels and axes of a drawn figure, then what its plotted data say (see `finding`)."""
    panels = [(axes, drawn(axes)) for axes in figure.axes if axes.axison and axes.has_data()]
    parts = []
    # Panels that differ in their titles alone are told once.
    for what, alike in groupby(panels, key=lambda panel: panel[1]):
        names = [name for axes, _ in alike if (name := " ".join(axes.get_title().split()))]
        many = len(panels) > 1 and names
        parts.append(f"{'Panels' if len(names) > 1 else 'Panel'} {', '.join(names)}: {what}" if many else f"{what}")
    return " ".join([f"{part[0].upper()}{part[1:]}." for part in parts] + [finding(data)]).strip()


def drawn(axes: Axes) -> str:
    """One panel: what its axes show, and which series its legend tells apart."""
    said = []
    for name, label, ticks in (
        ("vertical", axes.get_ylabel(), axes.get_yticklabels()),
        ("horizontal", axes.get_xlabel(), axes.get_xticklabels()),
    ):
        texts = [text.get_text() for text in ticks if text.get_text()]
        named = [text for text in texts if not _is_number(text)]
        if label:
            said.append(f"{name} axis: {' '.join(label.split())}")
        elif named:
            said.append(f"{name} axis: {len(named)} rows, {_quoted(named)}")
    labels = [label for label in axes.get_legend_handles_labels()[1] if label and not label.startswith("_")]
    if labels:
        said.append(f"series: {_quoted(list(dict.fromkeys(labels)))}")
    return "; ".join(said) or "a drawing without axes"


def finding(data: pd.DataFrame) -> str:
    """What plotted data say: each series' course and extremes, or the values in order, means over seeds.

    data: tidy, one row a plotted value, as `figures.save` writes it. Columns are told apart by type: text columns name
    the series, a further column of numbers is what it runs over.
    """
    numbers = [str(name) for name in data.columns if pd.api.types.is_numeric_dtype(data[name])]
    numbers = [name for name in numbers if name not in (*REPEATS, *SPREAD)]
    named = [name for name in VALUES if name in numbers]
    if not numbers or not len(data):
        return f"{len(data)} rows are plotted."
    value = named[0] if named else numbers[-1]
    over = [name for name in numbers if name != value and name not in VALUES]
    texts = [str(name) for name in data.columns if not pd.api.types.is_numeric_dtype(data[name])]
    groups = [name for name in texts if name not in REPEATS and 1 < data[name].nunique() <= 40]
    # What several series run over comes once a series; coordinates of points hardly ever come twice.
    if len(over) > 1 or (over and data[over[0]].is_unique and (groups or len(data) > 40)):
        return _cloud(data, groups)
    seeds = data["seed"].nunique() if "seed" in data else 0
    mean = f"Means over {seeds} seeds: " if seeds > 1 else ""
    if over and data[over[0]].nunique() > 1:
        parts = data.groupby(groups, sort=False) if groups else [((), data)]
        courses = [_course(_name(key), part.groupby(over[0])[value].mean(), over[0]) for key, part in parts]
        return mean + "; ".join(courses[:LISTED]) + (f"; {len(courses) - LISTED} more" * (len(courses) > LISTED)) + "."
    if not groups:
        low, middle, high = data[value].quantile([0, 0.5, 1])
        return f"{len(data)} values, from {low:.3g} to {high:.3g}, median {middle:.3g}."
    return mean + _ranking(data.groupby(groups, sort=False)[value].mean().dropna()) + "."


def _course(name: str, line: pd.Series, over: str) -> str:
    line = line.dropna()
    if line.empty:
        return f"{name} has no value"
    places, values = list(line.index), line.to_numpy(float)
    told = f"from {values[0]:.3g} at {over} {places[0]:g} to {values[-1]:.3g} at {places[-1]:g}"
    for word, place in (("lowest", int(values.argmin())), ("highest", int(values.argmax()))):
        told += f", {word} {values[place]:.3g} at {places[place]:g}" if 0 < place < len(places) - 1 else ""
    return f"{name}, {told}" if name else told


def _ranking(means: pd.Series) -> str:
    told = [f"{_name(key)} {value:.3g}" for key, value in means.items()]
    if len(told) <= LISTED:
        return "; ".join(told)
    order = np.argsort(means.to_numpy())
    lowest, highest = (", ".join(told[place] for place in places) for places in (order[:3], order[::-1][:3]))
    return f"lowest {lowest}; highest {highest}, of {len(told)}"


def _cloud(data: pd.DataFrame, groups: Sequence[str]) -> str:
    if not groups:
        return f"{len(data)} points."
    counts = [f"{_name(key)} {len(part)}" for key, part in data.groupby(list(groups), sort=False)]
    more = f" and {len(counts) - LISTED} more" if len(counts) > LISTED else ""
    return f"{len(data)} points: {', '.join(counts[:LISTED])}{more}."


def _name(key: Hashable) -> str:
    return ", ".join(str(part) for part in key) if isinstance(key, tuple) else str(key)


def _quoted(texts: Sequence[str]) -> str:
    flat = [f"“{' '.join(text.split())}”" for text in texts]
    return ", ".join(flat) if len(flat) <= LISTED else f"{flat[0]} to {flat[-1]}"


def _is_number(text: str) -> bool:
    try:
        float(text.replace("−", "-").replace("%", ""))
    except ValueError:
        return False
    return True


def of_picture(picture: Path) -> tuple[str, str]:
    """Title and description of a published figure: those inside the PNG, or, without them, from the csv beside it."""
    from PIL import Image

    with Image.open(picture) as image:
        told = dict(image.info)
    name = str(told.get("Title") or picture.stem.replace("-", " "))
    data = picture.with_suffix(".csv")
    text = told.get("Description") or (finding(pd.read_csv(data)) if data.exists() else "")
    return name, str(text)
