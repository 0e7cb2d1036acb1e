"""A figure in words, for readers who cannot see it: what is drawn, along which axes, and what the numbers say.

The words are computed from the figure object and the plotted data, never typed, and travel inside the picture (the
PNG's own ``Title`` and ``Description`` fields), so that every place that shows the picture can offer them.
"""

from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The column that holds what is plotted, the first of these that is there; else the last column of numbers.
VALUES = ("value", "mean", "score", "effect", "weight", "share")
# Repetitions of the same thing, which are averaged; and columns that say how sure a value is.
REPEATS = ("seed", "fold", "segment_id", "word_index")
SPREAD = ("n", "sd", "low", "high", "std", "count", "n_seeds", "n_segments", "segments")
POSITIONS = ("x", "y", "e0", "e1")  # of points that a projection placed: only their numbers mean something
LISTED = 8  # so many values are listed one by one; of more, the extremes
SERIES = 40  # so many series are distinguished at most
STEPS = 25  # a series runs over so many values at most, or over whole numbers; others are measured, not chosen


def title(figure: Figure) -> str:
    """The figure's own title, or that of its one or two panels, on one line; empty where there is none."""
    above = figure.get_suptitle()
    panels = list(dict.fromkeys(filter(None, (axes.get_title() or axes.get_title(loc="left") for axes in figure.axes))))
    return " ".join((above or "; ".join(panels * (len(panels) <= 2))).split())


def describe(figure: Figure, data: pd.DataFrame) -> str:
    """Panels and axes of a drawn figure, then what its plotted data say (see `finding`)."""
    panels: dict[str, list[str]] = {}  # those that differ in their titles alone are described once
    for axes in figure.axes:
        if axes.axison and axes.has_data():
            panels.setdefault(drawn(axes), []).append(" ".join(axes.get_title().split()))
    many = sum(map(len, panels.values())) > 1
    parts = []
    for what, titles in panels.items():
        names = [name for name in titles if name]
        text = f"{'Panels' if len(names) > 1 else 'Panel'} {', '.join(names)}: {what}" if many and names else what
        parts.append(f"{text[0].upper()}{text[1:]}.")
    return " ".join([*parts, finding(data)]).strip()


def drawn(axes: Axes) -> str:
    """One panel: what its axes show, and which series its legend tells apart."""
    if axes.get_label() == "<colorbar>":
        return f"colours: {axes.get_ylabel() or axes.get_xlabel()}"
    phrases = []
    for name, label, ticks in (
        ("vertical", axes.get_ylabel(), axes.get_yticklabels()),
        ("horizontal", axes.get_xlabel(), axes.get_xticklabels()),
    ):
        named = [text.get_text() for text in ticks if text.get_text() and not _is_number(text.get_text())]
        parts = [
            " ".join(label.split()),
            f"{len(named)} {'positions' if len(named) > 1 else 'position'}, {_quoted(named)}" if named else "",
        ]
        if any(parts):
            phrases.append(f"{name} axis: {', '.join(filter(None, parts))}")
    labels = [label for label in axes.get_legend_handles_labels()[1] if label and not label.startswith("_")]
    if labels:
        phrases.append(f"series: {_quoted(list(dict.fromkeys(labels)))}")
    return "; ".join(phrases) or "a drawing without axes"


def finding(data: pd.DataFrame) -> str:
    """What plotted data say: each series' course and extremes, or the values in order, means over seeds.

    data: tidy, one row a plotted value, as `figures.save` writes it. Columns are distinguished by type: text columns
    name the series; a further column of numbers is what they run over, or what was measured besides the value.
    """
    numbers = [str(name) for name in data.columns if pd.api.types.is_numeric_dtype(data[name])]
    numbers = [name for name in numbers if name not in (*REPEATS, *SPREAD)]
    if not numbers or not len(data):
        return f"{len(data)} rows are plotted."
    value = next((name for name in VALUES if name in numbers), numbers[-1])
    over = [name for name in numbers if name != value and name not in VALUES]
    groups = _groups(data, [str(name) for name in data.columns if str(name) not in (*numbers, *REPEATS, *SPREAD)])
    seeds = data["seed"].nunique() if "seed" in data else 0
    mean = f"Means over {seeds} seeds: " if seeds > 1 else ""
    if set(POSITIONS) & set(numbers):
        return _counts(data, groups)
    if not over:
        text = _ranking(data.groupby(groups, sort=False)[value].mean().dropna()) if groups else _range(data[value])
        return f"{mean}{text}."
    series = list(data.groupby(groups, sort=False)) if groups else [((), data)]
    if _runs_over(data, over, series):
        phrases = [_course(_name(key), part.groupby(over[0])[value].mean(), over[0]) for key, part in series]
    elif len(over) == 2 and not groups and not data.duplicated(over).any() and value in VALUES:
        phrases = _peaks(data.dropna(subset=[value]), over, value)
    elif groups:
        mean = mean or ("Averages: " if len(data) > len(series) else "")
        phrases = [
            f"{_name(key)}: {', '.join(f'{name} {part[name].mean():.3g}' for name in [*over, value])}"
            for key, part in series
        ]
    else:
        phrases = [f"{len(data)} points", f"correlation of {over[0]} and {value} {data[over[0]].corr(data[value]):.2f}"]
    more = f"; {len(phrases) - LISTED} more" if len(phrases) > LISTED else ""
    return mean + "; ".join(phrases[:LISTED]) + more + "."


def _runs_over(data: pd.DataFrame, over: Sequence[str], series: Sequence[tuple[Hashable, pd.DataFrame]]) -> bool:
    """Whether a column was chosen, as layers, epochs and shares are, rather than measured: its values come again."""
    if len(over) != 1 or (len(series) > 1 and data[over[0]].is_unique):
        return False
    if data[over[0]].nunique() > STEPS and not pd.api.types.is_integer_dtype(data[over[0]]):
        return False
    return all(part[over[0]].nunique() > 1 for _, part in series)


def _peaks(data: pd.DataFrame, over: Sequence[str], value: str) -> list[str]:
    extremes = {"highest": int(data[value].argmax()), "lowest": int(data[value].argmin())}
    rows = data[[*over, value]].to_dict("records")
    return [
        f"{word} {rows[index][value]:.3g} at {', '.join(f'{name} {rows[index][name]:g}' for name in over)}"
        for word, index in extremes.items()
    ]


def _groups(data: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The columns that distinguish series; the most detailed are passed over until there are few enough."""
    kept = sorted((name for name in names if data[name].nunique() > 1), key=lambda name: data[name].nunique())
    while kept and data[kept].drop_duplicates().shape[0] > SERIES:
        kept.pop()
    return [name for name in names if name in kept]


def _range(values: pd.Series) -> str:
    low, middle, high = values.quantile([0, 0.5, 1])
    return f"{len(values)} values, from {low:.3g} to {high:.3g}, median {middle:.3g}"


def _course(name: str, line: pd.Series, over: str) -> str:
    line = line.dropna()
    if line.empty:
        return f"{name} has no value"
    at, values = list(line.index), line.to_numpy(float)
    text = f"from {values[0]:.3g} at {over} {at[0]:g} to {values[-1]:.3g} at {at[-1]:g}"
    for word, index in (("lowest", int(values.argmin())), ("highest", int(values.argmax()))):
        text += f", {word} {values[index]:.3g} at {at[index]:g}" if 0 < index < len(at) - 1 else ""
    return f"{name}, {text}" if name else text


def _ranking(means: pd.Series) -> str:
    phrases = [f"{_name(key)} {value:.3g}" for key, value in means.items()]
    if len(phrases) <= LISTED:
        return "; ".join(phrases)
    order = np.argsort(means.to_numpy())
    lowest, highest = (", ".join(phrases[index] for index in indices) for indices in (order[:3], order[::-1][:3]))
    return f"lowest {lowest}; highest {highest}, of {len(phrases)}"


def _counts(data: pd.DataFrame, groups: Sequence[str]) -> str:
    counts = [f"{_name(key)} {len(part)}" for key, part in data.groupby(list(groups), sort=False)] if groups else []
    more = f" and {len(counts) - LISTED} more" if len(counts) > LISTED else ""
    return f"{len(data)} points{': ' if counts else ''}{', '.join(counts[:LISTED])}{more}."


def _name(key: Hashable) -> str:
    return ", ".join(str(part) for part in key) if isinstance(key, tuple) else str(key)


def _quoted(texts: Sequence[str]) -> str:
    flat = [f"“{' '.join(text.split())}”" for text in texts]
    return ", ".join(flat) if len(flat) <= LISTED else f"{flat[0]} to {flat[-1]}"


def _is_number(text: str) -> bool:
    if text.startswith("$\\mathdefault"):  # a power of ten on a logarithmic axis
        return True
    try:
        float(text.replace("−", "-").replace("%", ""))
    except ValueError:
        return False
    return True


def of_picture(picture: Path) -> tuple[str, str]:
    """Title and description inside the PNG of a published figure; its name and "" where it has none."""
    from PIL import Image

    with Image.open(picture) as image:
        words = dict(image.info)
    return str(words.get("Title") or picture.stem.replace("-", " ")), str(words.get("Description") or "")
