"""What every importer returns: rows, feature arrays, word timings, not yet checked and not yet written; and a manifest.

Published results on one corpus differ by a few segments, because each preparation lost others in silence. So
every importer counts, names each id that it leaves out with the reason, and holds the result against the known sizes.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32, Num

from msakit.data.catalogue import CATALOGUE
from msakit.data.corpus import CorpusError, Task
from msakit.files import sha256_of

logger = logging.getLogger(__name__)

# Stands where a format brings no transcript: the interchange folder wants a text in every row.
NO_TRANSCRIPT = "[no transcript]"


@dataclass
class Manifest:
    """What happened in one import, filled while it goes on.

    `known` names a corpus of the catalogue; `dropped` lists segment_id, split and reason; `replaced` counts NaN and
    infinite feature values by array (they became 0).
    """

    known: str | None = None
    found: int = 0
    dropped: list[dict[str, str]] = field(default_factory=list)
    replaced: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    videos_named: bool = True  # False where the source does not say which video a segment is from

    def drop(self, segment_id: str, split: str, reason: str) -> None:
        self.dropped.append({"segment_id": segment_id, "split": split, "reason": reason})

    def without(self, rows: pd.DataFrame, bad: "np.ndarray | pd.Series[bool]", reason: str) -> pd.DataFrame:
        """The rows that are not bad; the others are dropped for one reason."""
        for row in rows[bad].to_dict("records"):
            self.drop(row["segment_id"], row.get("split", ""), reason)
        return rows[~bad].reset_index(drop=True)

    def note(self, text: str) -> None:
        """Something a reader of results should know, and that is as it should be."""
        self.notes.append(text)

    def warn(self, text: str) -> None:
        """Something that may be wrong."""
        self.warnings.append(text)
        logger.warning("%s", text)

    def check(self, kept: Mapping[str, int], videos: Mapping[str, int]) -> None:
        """Warn, with both numbers, where a split is not of the known size."""
        if self.known is None:
            return
        sizes = {"segments": (kept, CATALOGUE[self.known].segments)}
        if self.videos_named:
            sizes["videos"] = videos, CATALOGUE[self.known].videos
        for what, (counts, expected) in sizes.items():
            for split, count in expected.items():
                if counts.get(split, 0) != count:
                    self.warn(f"{self.known} {split}: {counts.get(split, 0)} {what} kept, {count} expected")

    def as_json(self, importer: str, source: Path, ids: Mapping[str, list[str]]) -> dict[str, Any]:
        """The manifest; `ids` names the segments that stayed, by split. A file is identified by its sha256."""
        kept = {split: len(names) for split, names in ids.items()}
        reasons = Counter(entry["reason"] for entry in self.dropped)
        identity: dict[str, Any] = {"folder": source.name}
        if source.is_file():
            identity = {"file": source.name, "bytes": source.stat().st_size, "sha256": sha256_of(source)}
        return {
            "importer": importer,
            "source": identity,
            "expected": {
                "corpus": self.known,
                "segments": CATALOGUE[self.known].segments if self.known else None,
            },
            "found": self.found,
            "kept": {**kept, "total": sum(kept.values())},
            "dropped": {"total": len(self.dropped), "reasons": dict(reasons.most_common()), "segments": self.dropped},
            "replaced_by_zero": self.replaced,
            "counts": self.counts,
            "notes": self.notes,
            "warnings": self.warnings,
            "kept_segments": dict(ids),
        }


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


def identified(
    name: str | None, counts: Mapping[str, int], known: tuple[str, ...], other: str
) -> tuple[str, str | None]:
    """Name of a corpus, and the known corpus that it is: the one with these counts or, else, of this name.

    Counts are those of a known corpus if every split is within 2 % or 5 segments. Without a name, the known corpus
    gives it, else `other`.
    """
    found = None
    for candidate in reversed(known):
        sizes = CATALOGUE[candidate].segments
        if all(abs(counts.get(split, 0) - n) <= max(5, 0.02 * n) for split, n in sizes.items()):
            found = candidate
    name = name or found or other
    return name, found or (name if name in known else None)


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
    values[bad] = 0
    manifest.replaced[name] = manifest.replaced.get(name, 0) + int(bad.sum())
    return values


def padded(parts: Sequence[Num[np.ndarray, "_time _dim"]], what: str) -> Float32[np.ndarray, "segment time dim"]:
    """Sequences of different length in one array, zeros after the end of each; an empty one is a frame of zeros."""
    widths = {part.shape[1] for part in parts}
    if len(widths) != 1:
        raise CorpusError(f"{what} has vectors of different widths {sorted(widths)}: the file mixes feature versions")
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
