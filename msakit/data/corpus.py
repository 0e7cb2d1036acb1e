"""A corpus is a folder with one table: read it, check every row, with an exact message where it is wrong.

The interchange folder holds `segments.csv` (segment_id, video_id, clip_id, split, label, text; optional audio, video,
image as paths relative to the folder; further columns are kept) and, all optional, `words.csv` (segment_id,
word_index, word, start, end; seconds), `features.npz` (segment_id and one array a modality, first axis = segments),
`oracle.csv` (the generator's own posterior mean or class probabilities) and `corpus.json` (name, generated, task,
description, source, licence). Without `corpus.json` the name is the folder's and the task is regression in [-3, 3].

A broken structure (no table, a missing column, two rows with one id) and a bad row (label outside the range, a media
file that is not there, ...) are errors: nothing is dropped silently.
"""

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict, Features, Value
from pydantic import ConfigDict, model_validator

from msakit.files import sha256_of
from msakit.strict import Strict, parse

logger = logging.getLogger(__name__)

REQUIRED = ("segment_id", "video_id", "clip_id", "split", "label", "text")
MEDIA = ("audio", "video", "image")
SPLITS = ("train", "valid", "test", "pool")
WORD_COLUMNS = ("segment_id", "word_index", "word", "start", "end")
Problem = tuple[str, str]  # reason, mend
_CHUNK = 1 << 16  # bytes of a media file's head and tail that enter the fingerprint


class CorpusError(ValueError):
    """A corpus folder that cannot be used as it is; the message names the file, the row and the mend."""


class Task(Strict):
    """What is predicted: a number in [low, high], or one of the named classes (labels are then indices into them)."""

    kind: Literal["regression", "classification"] = "regression"
    low: float = -3.0
    high: float = 3.0
    classes: list[str] = []

    @model_validator(mode="after")
    def _possible(self) -> "Task":
        if self.kind == "classification" and (len(self.classes) < 2 or len(set(self.classes)) != len(self.classes)):
            raise ValueError(f"a classification task needs two or more different classes, not {self.classes}")
        if self.kind == "regression" and not self.low < self.high:
            raise ValueError(f"a regression task needs low < high, not {self.low} and {self.high}")
        return self


class _Description(Strict):
    """corpus.json; what else stands there is the corpus owner's own."""

    model_config = ConfigDict(extra="allow")

    name: str | None = None
    generated: bool = False
    task: Task = Task()


@dataclass(frozen=True)
class Corpus:
    """Checked segments by split, and the task.

    `splits` holds train / valid / test / pool as far as they occur; its "label" is a float (regression; NaN in pool)
    or a class index. `fingerprint` changes whenever a row, a word timing, a stored feature or a media file changes; it
    does not depend on where the folder lies.
    """

    name: str
    folder: Path
    splits: DatasetDict
    task: Task
    fingerprint: str
    generated: bool
    _table: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """All rows in the order of segments.csv; media columns are absolute paths or None."""
        return self._table.copy()

    def words(self) -> pd.DataFrame | None:
        """Word timings of the segments (start, end in seconds), or None if the folder has no words.csv."""
        path = self.folder / "words.csv"
        if not path.exists():
            return None
        words = _read_csv(path)
        require_columns(words, WORD_COLUMNS, path)
        words = words[words["segment_id"].isin(set(self._table["segment_id"]))].reset_index(drop=True)
        words = words.assign(
            word_index=_numbers(words, "word_index", path).astype(int),
            start=_numbers(words, "start", path),
            end=_numbers(words, "end", path),
        )
        backwards = words[words["end"] < words["start"]]
        if len(backwards):
            row = backwards.iloc[0]
            raise CorpusError(
                f"{path}: word {row['word_index']} of segment {row['segment_id']!r} ends at {row['end']:g} s, before "
                f"it begins at {row['start']:g} s: exchange them"
            )
        return words

    def oracle(self) -> pd.DataFrame | None:
        """The generator's best possible predictions for the segments, or None for a corpus of the real world."""
        path = self.folder / "oracle.csv"
        if not path.exists():
            return None
        oracle = _read_csv(path)
        require_columns(oracle, ("segment_id",), path)
        oracle = self._table[["segment_id"]].merge(oracle, on="segment_id", how="left")
        return oracle.assign(**{c: _numbers(oracle, c, path) for c in oracle.columns if c != "segment_id"})

    def features(self) -> dict[str, np.ndarray] | None:
        """Stored features by modality, row i belonging to row i of `table()`, or None if there is no features.npz."""
        path = self.folder / "features.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if "segment_id" not in arrays:
            raise CorpusError(
                f"{path} has no array 'segment_id': add one, naming the segment of each row of the others"
            )
        ids = [str(i) for i in arrays.pop("segment_id")]
        for name, array in arrays.items():
            if len(array) != len(ids):
                raise CorpusError(f"{path}: {name!r} has {len(array)} rows but 'segment_id' has {len(ids)}: align them")
        row_of = {segment: row for row, segment in enumerate(ids)}
        missing = [s for s in self._table["segment_id"] if s not in row_of]
        if missing:
            raise CorpusError(
                f"{path} lacks {len(missing)} segments of segments.csv (first: {missing[0]!r}): "
                "compute their features, or remove the rows from segments.csv"
            )
        order = [row_of[s] for s in self._table["segment_id"]]
        return {name: array[order] for name, array in arrays.items()}


def load_corpus(folder: str | Path) -> Corpus:
    """Read and check an interchange folder.

    Raises CorpusError for any broken structure, and for the first bad row, saying how many more there are.
    """
    folder = Path(folder).resolve()
    path = folder / "segments.csv"
    if not folder.is_dir():
        raise CorpusError(f"no corpus folder at {folder}: check the path")
    if not path.is_file():
        raise CorpusError(
            f"{folder} has no segments.csv: a corpus folder needs one, with the columns {', '.join(REQUIRED)}"
        )
    name, generated, task = _read_description(folder)
    table = _read_csv(path)
    require_columns(table, REQUIRED, path)
    table = table[(table != "").any(axis=1)]  # wholly blank lines; the index still knows each row's number
    if table.empty:
        raise CorpusError(f"{path} holds a header but no rows: add one row a segment")
    _require_unique_ids(table, path)

    rows = zip(table.index, table.to_dict("records"), strict=True)
    problems = {row: row_problem(fields, task) or _media_problem(fields, folder) for row, fields in rows}
    bad = {row: problem for row, problem in problems.items() if problem}
    if bad:
        row, (reason, mend) = next(iter(bad.items()))
        segment = table.at[row, "segment_id"]
        raise CorpusError(f"{path} row {row} (segment {segment!s}): {reason}: {mend}. {len(bad) - 1} more rows are bad")
    table = table.reset_index(drop=True)
    _warn_of_shared_videos(table, path)

    fingerprint = _fingerprint(table, folder)
    labels = [_label(text, task) for text in table["label"]]
    whole = task.kind == "classification" and not (table["split"] == "pool").any()
    table["label"] = pd.Series(labels, dtype="int64" if whole else "float64")
    for column in MEDIA:
        if column in table:
            paths = [str((folder / p).resolve()) if p else None for p in table[column]]
            table[column] = pd.Series(paths, dtype=object)
    splits = DatasetDict({s: _dataset(table[table["split"] == s], task) for s in SPLITS if (table["split"] == s).any()})
    return Corpus(name, folder, splits, task, fingerprint, generated, table)


def _read_csv(path: Path) -> pd.DataFrame:
    """Everything as text (an id may be '007', a transcript 'null'); the index is the row as an editor counts it."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig")
    except pd.errors.EmptyDataError as error:
        raise CorpusError(f"{path} is empty: its first row must name the columns") from error
    except pd.errors.ParserError as error:
        raise CorpusError(
            f"{path} is not a readable csv ({error}): put double quotes around texts with commas"
        ) from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 ({error}): save it as 'CSV UTF-8'") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise CorpusError(f"{path}: rows have more cells than the header: put double quotes around texts with commas")
    table = table.fillna("")  # a short or blank row
    table.index = pd.RangeIndex(2, len(table) + 2)
    return table


def require_columns(table: pd.DataFrame, columns: tuple[str, ...], path: Path) -> None:
    missing = [c for c in columns if c not in table]
    if missing:
        raise CorpusError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} "
            f"(it has {', '.join(table.columns)}): add or rename it in the header"
        )


def _require_unique_ids(table: pd.DataFrame, path: Path) -> None:
    empty = table.index[table["segment_id"] == ""]
    if len(empty):
        raise CorpusError(
            f"{path} row {empty[0]}: empty segment_id ({len(empty) - 1} more like it): give each row a name"
        )
    again = table["segment_id"].duplicated(keep="first")
    if again.any():
        row = table.index[again][0]
        segment = table.at[row, "segment_id"]
        first = table.index[table["segment_id"] == segment][0]
        raise CorpusError(
            f"{path} row {row}: segment_id {segment!r} is already used in row {first} ({int(again.sum()) - 1} more "
            "duplicates): give each row its own id, or delete one of the two"
        )


def row_problem(row: Mapping[Any, str], task: Task) -> Problem | None:
    """The first thing wrong with a row, whatever its media files."""
    if row["split"] not in SPLITS:
        reason = f"unknown split {row['split']!r}" if row["split"] else "in no split"
        return reason, f"use one of {', '.join(SPLITS)}"
    if row["video_id"].strip() == "":
        return "the video_id is empty", "name the video or speaker that it is from, or repeat the segment_id"
    if row["text"].strip() == "":
        return "the text is empty", "fill in the transcript, or remove the row"
    if row["split"] == "pool":
        if row["label"].strip():
            return f"label {row['label']!r} in the unlabelled split pool", "empty the label, or change the split"
    elif task.kind == "classification":
        if row["label"] not in task.classes:
            return f"label {row['label']!r} is not a class", f"use one of {', '.join(task.classes)}"
    else:
        try:
            value = float(row["label"])
        except ValueError:
            value = math.nan
        if math.isnan(value):
            return f"label {row['label']!r} is not a number", "write a number, or use the split pool"
        if not task.low <= value <= task.high:
            mend = "mend the label, or state the range as task low and high in corpus.json"
            return f"label {row['label']} is outside [{task.low:g}, {task.high:g}]", mend
    return None


def _media_problem(row: Mapping[Any, str], folder: Path) -> Problem | None:
    for column in MEDIA:
        if row.get(column) and not (folder / row[column]).is_file():
            mend = f"put the file at {folder / row[column]}, or empty the cell"
            return f"{column} file {row[column]!r} is missing", mend
    return None


def _warn_of_shared_videos(table: pd.DataFrame, path: Path) -> None:
    splits = table.groupby("video_id")["split"].unique()
    shared = splits[splits.map(len) > 1]
    if len(shared):
        logger.warning(
            "%s: %d video_id(s) occur in more than one split, first %r in %s: test scores may rest on known speakers",
            path, len(shared), shared.index[0], " and ".join(shared.iloc[0]),
        )  # fmt: skip


def _label(text: str, task: Task) -> float | int:
    if text.strip() == "":
        return math.nan
    return task.classes.index(text) if task.kind == "classification" else float(text)


def _dataset(rows: pd.DataFrame, task: Task) -> Dataset:
    rows = rows.reset_index(drop=True)
    if task.kind == "classification" and rows["label"].notna().all():
        rows = rows.assign(label=rows["label"].astype("int64"))
    columns: dict[str, list[Any]] = {str(c): rows[c].tolist() for c in rows.columns}
    kinds = {c: "string" for c in columns} | {"label": "int64" if rows["label"].dtype == "int64" else "float64"}
    return Dataset.from_dict(columns, features=Features({c: Value(k) for c, k in kinds.items()}))


def _numbers(table: pd.DataFrame, column: str, path: Path) -> pd.Series:
    values = pd.to_numeric(table[column], errors="coerce")
    if values.isna().any():
        where = table.index[values.isna()][0]
        raise CorpusError(
            f"{path}: {column} of segment {table.at[where, 'segment_id']!r} is {table.at[where, column]!r}: "
            "write a number"
        )
    return values


def _read_description(folder: Path) -> tuple[str, bool, Task]:
    path = folder / "corpus.json"
    if not path.exists():
        return folder.name, False, Task()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
        found = parse(_Description, content, "corpus.json")
    except ValueError as error:
        raise CorpusError(
            f'{path} is not usable ({error}): it should read like {{"name": "...", "generated": false, '
            '"task": {"kind": "regression", "low": -3, "high": 3}}'
        ) from error
    return found.name or folder.name, found.generated, found.task


def _fingerprint(table: pd.DataFrame, folder: Path) -> str:
    """sha256 over the kept rows and side tables, and size, head and tail of each media file."""
    digest = hashlib.sha256(table.to_csv(index=False).encode())
    files = [folder / n for n in ("words.csv", "features.npz")]
    for path in (p for p in files if p.exists()):
        digest.update(path.name.encode() + bytes.fromhex(sha256_of(path)))
    for column in (c for c in MEDIA if c in table):
        for relative in (p for p in table[column] if p):
            with open(folder / relative, "rb") as media:
                size = media.seek(0, 2)
                media.seek(0)
                digest.update(f"{size}".encode() + media.read(_CHUNK))
                media.seek(max(0, size - _CHUNK))
                digest.update(media.read(_CHUNK))
    return digest.hexdigest()
