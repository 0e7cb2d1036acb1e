"""What every importer returns: rows, feature arrays and word timings, not yet checked and not yet written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32, Num

from msakit.data.corpus import Task
from msakit.data.importers.manifest import ImporterError, Manifest

# Stands where a format brings no transcript: the interchange folder wants a text in every row.
NO_TRANSCRIPT = "[no transcript]"


@dataclass
class Draft:
    """An imported corpus on its way to the writer.

    rows: segment_id, video_id, clip_id, split, label (number as text, or class name), text, further columns; audio,
        video and image hold absolute paths, "" for none.
    arrays: one array a modality, [segment, dim] or [segment, time, dim] (zeros after the last frame), in rows' order.
    words: segment_id, word_index, word, start, end (seconds from the start of the segment).
    cuts: segment_id -> (wav file, start, end in seconds): audio to be cut out and written into the folder.
    """

    name: str
    rows: pd.DataFrame
    task: Task
    description: str
    manifest: Manifest
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    words: pd.DataFrame | None = None
    cuts: dict[str, tuple[Path, float, float]] = field(default_factory=dict)


def number(value: Any) -> str:
    """A label as the shortest text that gives it back; 2.4 stored in single precision is 2.4, not 2.4000000954."""
    value = float(np.asarray(value).reshape(-1)[0])
    single = np.float32(value)
    return str(single) if np.isfinite(value) and float(single) == value else str(value)


def tidy(text: str) -> str:
    """One line: runs of white space become one blank, NUL characters go."""
    whole = text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair becomes "?"
    return " ".join(whole.split())


def finite(values: Num[np.ndarray, "*axes"], name: str, manifest: Manifest) -> Float32[np.ndarray, "*axes"]:
    """float32 with NaN, infinities and what overflows replaced by 0 and counted."""
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    bad = ~np.isfinite(values)
    count = int(bad.sum())
    if count:
        values[bad] = 0
    manifest.replaced[name] = manifest.replaced.get(name, 0) + count
    return values


def padded(parts: Sequence[Num[np.ndarray, "_time _dim"]], what: str) -> Float32[np.ndarray, "segment time dim"]:
    """Sequences of different length in one array, zeros after the end of each; an empty one is a frame of zeros."""
    widths = {part.shape[1] for part in parts}
    if len(widths) != 1:
        raise ImporterError(f"{what} has vectors of different widths {sorted(widths)}: the file mixes feature versions")
    whole = np.zeros((len(parts), max(1, max(len(part) for part in parts)), widths.pop()), np.float32)
    for row, part in enumerate(parts):
        whole[row, : len(part)] = part
    return whole


def add_transcripts(rows: pd.DataFrame, transcripts: str | Path | None, manifest: Manifest) -> pd.DataFrame:
    """The text column from a csv with segment_id and text (another import's segments.csv does), for formats without."""
    texts: dict[str, str] = {}
    if transcripts is not None:
        from msakit.data.importers.tables import read_table

        table = read_table(Path(transcripts), ("segment_id", "text"), manifest)
        texts = dict(zip(table["segment_id"], table["text"], strict=True))
    text = [texts.get(segment) or NO_TRANSCRIPT for segment in rows["segment_id"]]
    without = sum(t == NO_TRANSCRIPT for t in text)
    if without:
        manifest.note(
            f"{without} segments have no transcript; their text is {NO_TRANSCRIPT!r}: text encoders see nothing there "
            "(option transcripts takes a csv with segment_id and text)"
        )
    return rows.assign(text=text)
