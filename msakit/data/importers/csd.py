"""CMU Multimodal SDK files (.csd, HDF5): labels with their intervals, features with theirs, words with theirs.

/<root>/data/<video>/{features, intervals}; the first root counts, whatever the file is called. A label interval is a
segment; a frame or word belongs to it if its middle does. CMU-MOSI segments are named video_1, video_2, ... in the
order of the labels, as the other preparations name them; others video[0], video[1], ..., as the SDK does.

`align="steps"`: frames are averaged over `step` seconds of a segment (COVAREP has 100 a second). `align="words"`:
over each word, as word-level methods need and the SDK's `align` does; the folder then has the layout by word that
`msakit.data.importers` describes. words.csv keeps the times of the words in both.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from jaxtyping import Float
from tqdm import tqdm

from msakit.data.corpus import CorpusError, Task
from msakit.data.importers.draft import NO_TRANSCRIPT, Draft, Manifest, add_transcripts, finite, number, padded
from msakit.data.importers.tables import Splits, split_column

logger = logging.getLogger(__name__)

LABEL_ROOTS = {"Opinion Segment Labels": "cmu-mosi", "All Labels": "cmu-mosei"}
# Content by a part of the file name; the first that fits decides.
_KINDS = {"wordvectors": "text", "glove": "text", "bert": "text", "timestampedwords": "words", "words": "words",
          "phones": "", "covarep": "audio", "opensmile": "audio", "facet": "vision", "openface": "vision"}  # fmt: skip


@contextmanager
def opened(path: Path) -> Iterator[tuple[str, Any]]:
    """Name of the first root of a computational sequence, and its group of videos, read one at a time by `rows_of`."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise CorpusError(f"{path} is not a readable .csd file ({error}): fetch it again") from error
    with file:
        roots = list(file.keys())
        if not roots or "data" not in file[roots[0]]:
            raise CorpusError(f"{path} has no /<root>/data (its roots: {roots}): it is no computational sequence")
        if len(roots) > 1:
            logger.warning("%s has the roots %s; the first is read", path, ", ".join(roots))
        yield str(roots[0]), file[roots[0]]["data"]


def rows_of(data: Any, video: str) -> tuple[np.ndarray, Float[np.ndarray, "row 2"]]:
    """(features [row, dim], intervals in seconds) of a video; bytes stay bytes."""
    entry, path = data[video], data.file.filename
    missing = [k for k in ("features", "intervals") if k not in entry]
    if missing:
        raise CorpusError(f"{path}: {video} has no {' and no '.join(missing)}: fetch the file again")
    features, intervals = entry["features"][()], np.asarray(entry["intervals"][()], np.float64)
    if features.ndim == 1:
        features = features[:, None]
    if intervals.shape != (len(features), 2):
        raise CorpusError(f"{path}: {video} has {len(features)} rows but intervals {intervals.shape}")
    return features, intervals


def read(
    source: Path,
    *,
    splits: Splits,
    labels: str | Path | None = None,
    features: Mapping[str, str | Path] | None = None,
    name: str | None = None,
    transcripts: str | Path | None = None,
    align: str = "steps",
    step: float | None = 0.1,
    max_frames: int = 600,
) -> Draft:
    """`source` is a folder of .csd files.

    Args:
        splits: ids of the standard folds; see `tables.read_splits`.
        labels: the label file, else the one whose root is "Opinion Segment Labels" or "All Labels".
        features: array name -> file, e.g. {"audio": "CMU_MOSI_COVAREP.csd"}, "words" for the timestamped words; else
            chosen by file names, of which only one may fit.
        transcripts: csv with segment_id and text, where there are no words.
        align: one vector a `step`, or one a word; then segments without a word are left out.
        step: seconds that one frame averages; None keeps the frames as they are.
        max_frames: longer segments are cut, and counted; the most words with `align="words"`.
    """
    if align not in ("steps", "words"):
        raise CorpusError(f"align is {align!r}: choose 'steps' or 'words'")
    label_path = _in(source, labels) if labels else _label_file(source)
    table, name = label_table(label_path, name)
    manifest = Manifest(name if name in LABEL_ROOTS.values() else None)
    table["split"] = split_column(table, splits, label_path)
    chosen = {k: _in(source, p) for k, p in features.items()} if features is not None else _by_name(source, label_path)
    manifest.found = len(table)
    table = manifest.without(table, table["split"] == "", "in no split")
    if table.empty:
        raise CorpusError(f"no video of {label_path} is in the splits: are they those of another corpus?")
    words = None
    if "words" in chosen:
        table, words = _with_words(table, chosen.pop("words"))
        without = table["text"] == ""
        if align == "words":
            table = _with_word_lists(manifest.without(table, without, "no word"), words)
        elif without.any():
            manifest.note(f"{int(without.sum())} segments have no word; their text is {NO_TRANSCRIPT!r}")
            table.loc[without, "text"] = NO_TRANSCRIPT
    elif align == "words":
        raise CorpusError(
            f"{source} has no file of timestamped words, which align='words' needs: "
            "add it (features={'words': FILE, ...})"
        )
    elif transcripts is not None:
        table = add_transcripts(table, transcripts, manifest)
    else:
        raise CorpusError(
            f"{source} has no file of timestamped words: add it (features={{'words': FILE, ...}}), "
            "or pass transcripts=, a csv with segment_id and text"
        )
    by_word = _intervals(table, words) if align == "words" and words is not None else None
    arrays = {n: _frames(table, path, n, step, by_word, max_frames, manifest) for n, path in chosen.items()}
    manifest.counts["files"] = {"labels": label_path.name, **{n: path.name for n, path in chosen.items()}}
    frames = f"; one frame averages {step} s." if step else "."
    description = "Imported from CMU SDK files" + ("; one vector a word." if align == "words" else frames)
    table = table.assign(start=table["start"].map(str), end=table["end"].map(str))
    return Draft(name, table, Task(), description, manifest, arrays, words)


def label_table(path: Path, name: str | None = None) -> tuple[pd.DataFrame, str]:
    """(segment_id, video_id, clip_id, label, label_1 ..., start, end of each label interval; name of the corpus)."""
    rows: list[dict[str, Any]] = []
    with opened(path) as (root, data):
        name = name or LABEL_ROOTS.get(root, path.stem)
        for video in data:
            values, intervals = rows_of(data, video)
            for index, (value, (start, end)) in enumerate(zip(values, intervals, strict=True)):
                clip = index + 1 if name == "cmu-mosi" else index
                segment = f"{video}_{clip}" if name == "cmu-mosi" else f"{video}[{clip}]"
                row = {"segment_id": segment, "video_id": video, "clip_id": str(clip), "label": number(value[0])}
                more = {f"label_{k}": number(v) for k, v in enumerate(value) if k}
                rows.append({**row, **more, "start": float(start), "end": float(end)})
    if not rows:
        raise CorpusError(f"{path} holds no labels: fetch it again")
    return pd.DataFrame(rows).fillna(""), name


def _in(folder: Path, file: str | Path) -> Path:
    path = Path(file) if Path(file).is_absolute() else folder / file
    if not path.is_file():
        raise CorpusError(f"no file at {path}: check the path")
    return path


def _label_file(folder: Path) -> Path:
    files = sorted(folder.glob("*.csd")) if folder.is_dir() else []
    for path in files:
        with opened(path) as (root, _):
            if root in LABEL_ROOTS:
                return path
    raise CorpusError(
        f"{folder} has no .csd file with the root {' or '.join(map(repr, LABEL_ROOTS))}: pass labels=, the label file"
    )


def _by_name(folder: Path, labels: Path) -> dict[str, Path]:
    chosen: dict[str, Path] = {}
    for path in (p for p in sorted(folder.glob("*.csd")) if p != labels):
        kind = next((kind for word, kind in _KINDS.items() if word in path.stem.lower()), "")
        if kind and kind in chosen:
            raise CorpusError(
                f"{folder} has two files for {kind}, {chosen[kind].name} and {path.name}: "
                f"choose with features={{{kind!r}: FILE, ...}}"
            )
        if kind:
            chosen[kind] = path
        else:
            logger.warning("%s is not used: its name does not show what it holds; name it in features=", path)
    return chosen


def _with_words(table: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Texts, and times of the words from the start of their segment; "sp" (a pause) is no word."""
    texts: dict[int, str] = {}
    rows: list[dict[str, Any]] = []
    with opened(path) as (_, data):
        for video, part in table.groupby("video_id", sort=False):
            raw, times = rows_of(data, str(video)) if video in data else (np.empty((0, 1), object), np.empty((0, 2)))
            words = [w.decode("utf-8", "replace") if isinstance(w, bytes) else str(w) for w in raw[:, 0]]
            middles = times.mean(axis=1)
            for row, segment, start, end in part[["segment_id", "start", "end"]].itertuples():
                inside = [i for i in np.flatnonzero((middles >= start) & (middles < end)) if words[i] not in ("sp", "")]
                texts[row] = " ".join(words[i] for i in inside)
                for index, i in enumerate(inside):
                    low, high = np.clip(times[i] - start, 0, end - start)
                    rows.append({"segment_id": segment, "word_index": index, "word": words[i],
                                 "start": round(float(low), 4), "end": round(float(high), 4)})  # fmt: skip
    columns = ["segment_id", "word_index", "word", "start", "end"]
    return table.assign(text=[texts[row] for row in table.index]), pd.DataFrame(rows, columns=columns)


def _with_word_lists(table: pd.DataFrame, words: pd.DataFrame) -> pd.DataFrame:
    """The columns words and n_words, for features that are aligned by word."""
    lists = {str(segment): list(part["word"]) for segment, part in words.groupby("segment_id", sort=False)}
    held = [lists[segment] for segment in table["segment_id"]]
    texts = [json.dumps(some, ensure_ascii=False) for some in held]
    return table.assign(words=texts, n_words=[str(len(some)) for some in held])


def _intervals(table: pd.DataFrame, words: pd.DataFrame) -> dict[str, Float[np.ndarray, "word 2"]]:
    """segment -> start and end of its words, in seconds of the video."""
    starts = dict(zip(table["segment_id"], table["start"], strict=True))
    return {
        str(segment): part[["start", "end"]].to_numpy(float) + starts[segment]
        for segment, part in words.groupby("segment_id", sort=False)
    }


def _frames(
    table: pd.DataFrame,
    path: Path,
    name: str,
    step: float | None,
    by_word: dict[str, Float[np.ndarray, "word 2"]] | None,
    max_frames: int,
    manifest: Manifest,
) -> Float[np.ndarray, "segment time dim"]:
    parts: dict[int, np.ndarray] = {}
    width, cut, blank, silent = 0, 0, [], 0
    with opened(path) as (_, data):
        for video, part in tqdm(table.groupby("video_id", sort=False), desc=f"reading {path.name}", unit="video"):
            known = video in data
            if known:
                values, times = rows_of(data, str(video))
                if values.dtype.kind not in "fiu":
                    raise CorpusError(f"{path} holds {values.dtype}, not numbers: name it 'words' in features=")
                values, width = finite(values, name, manifest), values.shape[1]
                middles = times.mean(axis=1)
            for row, segment, start, end in part[["segment_id", "start", "end"]].itertuples():
                inside = (middles >= start) & (middles < end) if known else np.zeros(0, bool)
                if not inside.any():
                    blank.append(segment)
                    continue
                frames = values[inside]
                if by_word is not None:
                    frames, without = _over_words(frames, middles[inside], by_word[segment])
                    silent += without
                elif step:
                    frames = _averaged(frames, ((middles[inside] - start) / step).astype(np.int64))
                cut += len(frames) > max_frames
                parts[row] = frames[:max_frames]
    if not parts:
        raise CorpusError(f"{path} has no frame inside any label interval: is it of another corpus?")
    if blank:
        manifest.warn(f"{name}: {len(blank)} segments have no frame in {path.name} and are zeros (first: {blank[0]})")
        manifest.counts[f"{name}_blank"] = blank
    if silent:
        manifest.note(f"{name}: {silent} words have no frame in {path.name}; their vectors are zeros")
    if cut:
        manifest.warn(f"{name}: {cut} segments were cut to max_frames={max_frames}")
    empty = np.zeros((1, width), np.float32)
    return padded([parts.get(row, empty) for row in table.index], str(path))


def _over_words(
    frames: np.ndarray, middles: Float[np.ndarray, " frame"], words: Float[np.ndarray, "word 2"]
) -> tuple[Float[np.ndarray, "word dim"], int]:
    """Mean of the frames whose middle lies in each word, zeros for a word without one, and how many of those."""
    means = np.zeros((len(words), frames.shape[1]), np.float32)
    inside = [(middles >= start) & (middles < end) for start, end in words]
    for row, some in enumerate(inside):
        if some.any():
            means[row] = frames[some].mean(axis=0)
    return means, sum(not some.any() for some in inside)


def _averaged(frames: np.ndarray, bins: np.ndarray) -> Float[np.ndarray, "bin dim"]:
    """Mean frame of each bin; a bin without a frame repeats the one before it (the first: the next)."""
    sums = np.zeros((bins.max() + 1, frames.shape[1]), np.float64)
    np.add.at(sums, bins, frames)
    counts = np.bincount(bins, minlength=len(sums))
    filled = np.maximum.accumulate(np.where(counts > 0, np.arange(len(sums)), -1))
    filled[filled < 0] = np.flatnonzero(counts)[0]
    return (sums[filled] / counts[filled, None]).astype(np.float32)
