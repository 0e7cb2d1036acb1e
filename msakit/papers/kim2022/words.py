"""The words of a segment, and its audio and vision at each of them or in equal parts of its time.

Words are those of words.csv, else of the column `words` of segments.csv (a JSON list, as the import of MAG-BERT's
pickles writes it), else the text split at blanks. Audio and vision come from a feature store (frames with times), or
from an array of features.npz (:class:`Array`). Frames are averaged over each word by the times of words.csv; the soft
alignment of :mod:`msakit.models.layers.soft_alignment` needs no times and takes means over equal parts of the segment.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32
from pydantic import Field

from msakit.data.corpus import Corpus, CorpusError
from msakit.features import FeatureStore, average_over_words
from msakit.strict import Strict

Vectors = dict[str, Float32[np.ndarray, "_step _dim"]]  # by segment; a row a word, or a frame


class Array(Strict):
    """An array of the corpus's features.npz."""

    array: str
    # word: row i of a segment is its word i; frame: equally spaced, zeros behind the last one; utterance: one vector,
    # which every word gets
    level: Literal["word", "frame", "utterance"]
    seconds: float | None = Field(None, gt=0)  # spacing of frames, needed to lay them on words by their times


Source = FeatureStore | Array


def words_of(corpus: Corpus) -> dict[str, list[str]]:
    """segment -> its words.

    Raises:
        CorpusError: words.csv leaves out a segment that has a text, or a cell of the column `words` is no JSON list.
    """
    table = corpus.table()
    timed = corpus.words()
    if timed is not None:
        parts = timed.sort_values(["segment_id", "word_index"]).groupby("segment_id", sort=False)
        known = {str(segment): list(part["word"]) for segment, part in parts}
        texts = zip(table["segment_id"], table["text"], strict=True)
        missing = [segment for segment, text in texts if segment not in known and str(text).strip()]
        if missing:
            raise CorpusError(
                f"{corpus.folder / 'words.csv'} leaves out {len(missing)} segments that have a text, the first of them "
                f"{missing[0]!r}: add their words, or take the segments out of segments.csv"
            )
        return {segment: known.get(segment, []) for segment in table["segment_id"]}
    if "words" not in table:
        return {segment: text.split() for segment, text in zip(table["segment_id"], table["text"], strict=True)}
    try:
        return {
            segment: list(json.loads(cell)) for segment, cell in zip(table["segment_id"], table["words"], strict=True)
        }
    except (ValueError, TypeError) as error:
        raise CorpusError(
            f"{corpus.folder / 'segments.csv'}: a cell of the column words is no JSON list ({error}): "
            'write ["so", "it", "is"], or drop the column'
        ) from error


def on_words(corpus: Corpus, modality: str, source: Source, layer: int, words: Mapping[str, Sequence[str]]) -> Vectors:
    """One vector a word, zeros where nothing was recorded at it.

    layer: of a feature store.

    Raises:
        CorpusError: word times are needed and missing, or the array is not there or has too few rows.
    """
    if isinstance(source, FeatureStore):
        found = average_over_words(source, _timed(corpus, modality), layer)
        return {segment: found.get(segment, np.zeros((0, source.dim), np.float32)) for segment in words}
    values = _rows(corpus, source)
    if source.level == "utterance":
        return {segment: np.repeat(values[segment], len(listed), axis=0) for segment, listed in words.items()}
    if source.level == "word":
        short = [segment for segment, listed in words.items() if len(values[segment]) < len(listed)]
        if short:
            raise CorpusError(
                f"{corpus.folder}: segment {short[0]!r} has {len(words[short[0]])} words but {len(values[short[0]])} "
                f"rows of {source.array!r} in features.npz: row i must be the vector of word i"
            )
        return {segment: values[segment][: len(listed)] for segment, listed in words.items()}
    if not source.seconds:
        raise CorpusError(
            f"{corpus.folder}: frames of {source.array!r} meet words by their times: give `seconds`, the spacing of "
            "the frames, or choose arms with soft alignment"
        )
    timed = _timed(corpus, modality).sort_values(["segment_id", "word_index"])
    found = {str(s): _averaged(_used(values[str(s)]), part, source.seconds) for s, part in timed.groupby("segment_id")}
    return {segment: found.get(segment, values[segment][:0]) for segment in words}


def in_parts(corpus: Corpus, source: Source, layer: int, count: int) -> Vectors:
    """Each segment's frames averaged over `count` equal parts of its time; fewer frames than parts are repeated."""
    if isinstance(source, FeatureStore):
        segments = corpus.table()["segment_id"]
        raw = {str(segment): source.frames(str(segment), layer).astype(np.float32) for segment in segments}
    else:
        raw = _rows(corpus, source)
        if source.level != "utterance":
            raw = {segment: _used(values) for segment, values in raw.items()}
    return {segment: equal_parts(values, count) for segment, values in raw.items()}


def equal_parts(frames: Float[np.ndarray, "time dim"], count: int) -> Float32[np.ndarray, "_count dim"]:
    """Means over `count` stretches of (nearly) equal length; zeros if there is no frame."""
    if not len(frames):
        return np.zeros((count, frames.shape[1]), np.float32)
    edges = np.arange(count + 1) * len(frames) // count
    starts, ends = edges[:-1], np.maximum(edges[1:], edges[:-1] + 1)
    sums = np.concatenate([np.zeros((1, frames.shape[1])), np.cumsum(frames, axis=0, dtype=np.float64)])
    return ((sums[ends] - sums[starts]) / (ends - starts)[:, None]).astype(np.float32)


def _timed(corpus: Corpus, modality: str) -> pd.DataFrame:
    timed = corpus.words()
    if timed is None:
        raise CorpusError(
            f"{corpus.folder} has no words.csv: laying {modality} on words needs the times of the words; "
            "add segment_id, word_index, word, start, end (seconds), for example from a forced aligner, or choose arms "
            "with soft alignment"
        )
    return timed


def _rows(corpus: Corpus, source: Array) -> Vectors:
    """segment -> rows of an array; an utterance's vector is one row."""
    arrays = corpus.features() or {}
    if source.array not in arrays:
        choices = ", ".join(arrays) or "nothing"
        raise CorpusError(f"{corpus.folder}/features.npz has no array {source.array!r} (it has {choices}): name one")
    values = arrays[source.array]
    if values.ndim != (2 if source.level == "utterance" else 3):
        wanted = "[segment, dim]" if source.level == "utterance" else "[segment, step, dim]"
        raise CorpusError(
            f"{corpus.folder}/features.npz: {source.array!r} has shape {values.shape}, but level {source.level!r} "
            f"means {wanted}: give another level"
        )
    values = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    rows = values[:, None] if values.ndim == 2 else values
    return dict(zip(corpus.table()["segment_id"], rows, strict=True))


def _used(frames: Float32[np.ndarray, "time dim"]) -> Float32[np.ndarray, "_used dim"]:
    """Without the frames of zeros behind the last one that holds anything."""
    filled = np.flatnonzero(frames.any(axis=1))
    return frames[: filled[-1] + 1 if len(filled) else 0]


def _averaged(
    frames: Float32[np.ndarray, "time dim"], part: pd.DataFrame, seconds: float
) -> Float32[np.ndarray, "_word dim"]:
    """Mean of the frames whose middle lies in a word; without one, the frame at the word's middle; else zeros."""
    rows = np.zeros((len(part), frames.shape[1]), np.float32)
    for row, (start, end) in enumerate(part[["start", "end"]].to_numpy(float)):
        # Aligners may let a word begin a little before the segment.
        low, high = (max(0, int(np.ceil(edge / seconds - 0.5))) for edge in (start, end))
        inside = frames[low:high] if high > low else frames[max(0, int((start + end) / 2 / seconds)) :][:1]
        if len(inside):
            rows[row] = inside.mean(axis=0)
    return rows
