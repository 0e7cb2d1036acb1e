"""MMSA pickles (CMU-MOSI, CMU-MOSEI, CH-SIMS; aligned_50, unaligned_50): splits of arrays with one row a segment.

Each of train / valid / test holds raw_text, id ("video$_$clip"), regression_labels, the arrays text, audio and vision,
in unaligned files audio_lengths and vision_lengths, and for CH-SIMS one label a modality (kept as label_T, label_A,
label_V). Sizes are read off the arrays: published configurations disagree with them. What lies behind a segment's
length, or behind the mask of text_bert, is set to zero, so that all padding is zero.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int, Num

from msakit.data.corpus import CorpusError, Task
from msakit.data.importers.draft import Draft, Manifest, identified, number
from msakit.data.importers.safe_pickle import UnsafePickleError, load, repaired

SPLITS = ("train", "valid", "test")
MODALITIES = ("text", "audio", "vision")
_NEEDED = ("raw_text", "id", "regression_labels")


def read(source: Path, *, name: str | None = None, max_bytes: int | None = None) -> Draft:
    """`name`: of the corpus; else guessed from the number of segments, or from the labels a modality of CH-SIMS."""
    content = load_splits(source, max_bytes)
    manifest = Manifest()
    parts: dict[str, list[np.ndarray]] = {}
    rows = []
    for split in SPLITS:
        part = _checked(content[split], f"{source} [{split!r}]")
        rows.append(_rows(part, split))
        for modality in (m for m in MODALITIES if m in part):
            values = np.asarray(part[modality])
            lengths = _lengths(part, modality, values, f"{source} [{split!r}]", manifest)
            parts.setdefault(modality, []).append(_cut(values, lengths))
    counts = {split: len(table) for split, table in zip(SPLITS, rows, strict=True)}
    sims = all("label_T" in table for table in rows)
    name = name or ("ch-sims" if sims else None)
    name, manifest.known = identified(name, counts, ("cmu-mosi", "cmu-mosei"), source.stem)
    manifest.counts["array_shapes"] = {m: [list(a.shape) for a in arrays] for m, arrays in parts.items()}
    return Draft(
        name,
        pd.concat(rows, ignore_index=True).fillna(""),
        Task(low=-1.0, high=1.0) if sims else Task(),
        "Imported from an MMSA pickle; features.npz holds its arrays, zeros behind each segment's end.",
        manifest,
        {modality: joined(arrays, f"{source}: {modality}") for modality, arrays in parts.items()},
    )


def load_splits(source: Path, max_bytes: int | None, names: tuple[str, ...] = SPLITS) -> dict[str, Any]:
    """The dictionary of splits in a pickle file; raises CorpusError for anything else."""
    try:
        content = load(source, max_bytes)
    except UnsafePickleError as error:
        raise CorpusError(str(error)) from error
    except OSError as error:
        raise CorpusError(f"cannot read {source} ({error.strerror}): give the path of the pickle file") from error
    missing = [n for n in names if n not in content] if isinstance(content, dict) else list(names)
    if missing:
        held = f"the keys {', '.join(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise CorpusError(f"{source} has no {', '.join(missing)} (it holds {held}): this is another format")
    return {str(key): value for key, value in content.items()}


def joined(arrays: list[np.ndarray], what: str) -> Num[np.ndarray, "segment *time dim"]:
    """Splits one after another; the time axis as long as the longest used one of all."""
    if len({a.shape[-1] for a in arrays}) != 1 or len({a.ndim for a in arrays}) != 1:
        raise CorpusError(
            f"{what}: the splits differ in width ({', '.join(str(a.shape) for a in arrays)}): fetch again"
        )
    if arrays[0].ndim == 2:
        return np.concatenate(arrays)
    whole = np.zeros(
        (sum(map(len, arrays)), max(1, max(a.shape[1] for a in arrays)), arrays[0].shape[2]), arrays[0].dtype
    )
    start = 0
    for a in arrays:
        whole[start : start + len(a), : a.shape[1]] = a
        start += len(a)
    return whole


def _checked(part: Any, where: str) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise CorpusError(f"{where} is a {type(part).__name__}: this is another format (see the list of importers)")
    missing = [key for key in _NEEDED if key not in part]
    if missing:
        raise CorpusError(
            f"{where} lacks {', '.join(missing)} (it has {', '.join(map(str, part))}): this is no MMSA pickle; "
            "without raw_text try the importer 'mult'"
        )
    size = len(part["id"])
    for key in (*_NEEDED, *MODALITIES):
        if key in part and len(part[key]) != size:
            raise CorpusError(f"{where}: {key} has {len(part[key])} rows but id has {size}: fetch the file again")
    for key in (m for m in MODALITIES if m in part):
        array = np.asarray(part[key])
        if array.ndim not in (2, 3) or array.dtype.kind not in "fiu":
            raise CorpusError(f"{where}: {key} is {array.dtype} {array.shape}, not numbers [segment, time, dim]")
    return part


def _rows(part: dict[str, Any], split: str) -> pd.DataFrame:
    ids = [repaired(i if isinstance(i, bytes) else str(i)) for i in part["id"]]
    pairs = [i.partition("$_$") if "$_$" in i else i.rpartition("_") for i in ids]
    rows = pd.DataFrame(
        {
            "segment_id": [i.replace("$_$", "_") for i in ids],
            "video_id": [video or clip for video, _, clip in pairs],
            "clip_id": [clip if video else "" for video, _, clip in pairs],
            "split": split,
            "label": [number(value) for value in np.asarray(part["regression_labels"])],
            "text": [repaired(t if isinstance(t, bytes) else str(t)) for t in part["raw_text"]],
        }
    )
    for modality in "TAV":
        if f"regression_labels_{modality}" in part:
            rows[f"label_{modality}"] = [number(v) for v in np.asarray(part[f"regression_labels_{modality}"])]
    return rows


def _lengths(
    part: dict[str, Any], modality: str, values: np.ndarray, where: str, manifest: Manifest
) -> Int[np.ndarray, " segment"] | None:
    """Frames that a segment really has, if the file has them."""
    if values.ndim != 3:
        return None
    if f"{modality}_lengths" in part:
        lengths = np.asarray(part[f"{modality}_lengths"]).reshape(-1).astype(np.int64)
    elif modality == "text" and "text_bert" in part:
        masks = np.asarray(part["text_bert"])
        if masks.ndim != 3 or masks.shape[1] != 3 or masks.shape[2] != values.shape[1]:
            return None
        lengths = (masks[:, 1] > 0).sum(axis=1)
    else:
        return None
    if len(lengths) != len(values):
        raise CorpusError(f"{where}: {modality}_lengths has {len(lengths)} entries for {len(values)} segments")
    wrong = (lengths < 1) | (lengths > values.shape[1])
    if wrong.any():
        manifest.warn(
            f"{where}: {int(wrong.sum())} lengths of {modality} lie outside 1 to {values.shape[1]} and were held there"
        )
    return np.clip(lengths, 1, values.shape[1])


def _cut(values: np.ndarray, lengths: Int[np.ndarray, " segment"] | None) -> np.ndarray:
    """Zeros behind each segment's end; frames that no segment uses are cut off."""
    if lengths is None:
        return values
    values = values[:, : int(lengths.max(initial=1))].copy()
    values[np.arange(values.shape[1])[None] >= lengths[:, None]] = 0
    return values
