"""From draft to interchange folder: leave out what cannot be used, saying so, and write all of it or nothing."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from msakit.data.corpus import MEDIA, REQUIRED, SPLITS, CorpusError, row_problem
from msakit.data.importers.draft import Draft, finite, tidy
from msakit.files import new_folder


def check_paths(source: str | Path, out: str | Path) -> tuple[Path, Path]:
    """Both as absolute paths; raises before hours of reading where writing would fail."""
    source, out = Path(source).resolve(), Path(out).resolve()
    if not source.exists():
        raise CorpusError(f"nothing at {source}: check the path of the source")
    if out.exists():
        raise CorpusError(f"{out} exists already: choose another folder, or remove it")
    return source, out


def write(draft: Draft, importer: str, source: Path, out: Path) -> dict[str, Any]:
    """Write segments.csv, corpus.json, manifest.json and what else the draft has; return the manifest.

    Everything is written into a folder beside `out`, which is renamed at the end. Raises CorpusError if no row can
    be kept.
    """
    manifest = draft.manifest
    rows = draft.rows.reset_index(drop=True)
    rows["text"] = [tidy(text) for text in rows["text"]]
    manifest.found = manifest.found or len(rows) + len(manifest.dropped)
    keep = _kept(rows, draft)
    rows = rows[keep].reset_index(drop=True)
    if rows.empty:
        first = manifest.dropped[0]["reason"] if manifest.dropped else "it has no rows"
        raise CorpusError(f"no segment of {source} can be used; the first reason: {first}")
    by_split = {split: rows[rows["split"] == split] for split in SPLITS if (rows["split"] == split).any()}
    ids = {split: list(part["segment_id"]) for split, part in by_split.items()}
    videos = {split: part["video_id"].nunique() for split, part in by_split.items()}
    manifest.check({split: len(names) for split, names in ids.items()}, videos)

    with new_folder(out) as partial:
        rows = _with_media(rows, draft, partial)
        first_columns = [*REQUIRED, *(c for c in MEDIA if c in rows)]
        rows = rows[[*first_columns, *(c for c in rows if c not in first_columns)]]
        rows.to_csv(partial / "segments.csv", index=False, lineterminator="\n")
        if draft.arrays:
            arrays = {name: finite(array[keep], name, manifest) for name, array in draft.arrays.items()}
            np.savez(partial / "features.npz", segment_id=np.array(rows["segment_id"], dtype=np.str_), **arrays)  # type: ignore[arg-type]
        if draft.words is not None:
            words = draft.words[draft.words["segment_id"].isin(set(rows["segment_id"]))]
            words.to_csv(partial / "words.csv", index=False, lineterminator="\n")
        fields = {"kind", "low", "high"} if draft.task.kind == "regression" else {"kind", "classes"}
        task = draft.task.model_dump(include=fields)
        description = {"name": draft.name, "generated": False, "task": task, "description": draft.description}
        content = manifest.as_json(importer, source, ids)
        for name, values in (("corpus", description), ("manifest", content)):
            text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
            (partial / f"{name}.json").write_text(text, encoding="utf-8")
    return content


def _kept(rows: pd.DataFrame, draft: Draft) -> np.ndarray:
    """Which rows can stay; the others enter the manifest, each with its reason."""
    media = [c for c in MEDIA if c in rows and (rows[c] != "").any()]
    for column in (c for c in MEDIA if c in rows and c not in media):
        draft.manifest.note(f"no {column} file was found for any segment: the column is left out")
        del rows[column]
    seen: set[str] = set()
    keep = np.ones(len(rows), bool)
    for position, row in enumerate(rows.to_dict("records")):
        lacking = [c for c in media if not Path(row[c]).is_file()]
        reason = None
        if problem := row_problem(row, draft.task):
            reason = problem[0]
        elif row["segment_id"] in seen:
            reason = "the segment_id is used by an earlier row"
        elif lacking:
            reason = f"no {' and no '.join(lacking)} file"
        if reason is not None:
            keep[position] = False
            draft.manifest.drop(row["segment_id"], row["split"], reason)
        seen.add(row["segment_id"])
    return keep


def _with_media(rows: pd.DataFrame, draft: Draft, folder: Path) -> pd.DataFrame:
    """Absolute paths made relative to the folder; audio cut out of longer files and written into it."""
    rows = rows.copy()
    for column in (c for c in MEDIA if c in rows):
        rows[column] = [Path(os.path.relpath(Path(path).resolve(), folder)).as_posix() for path in rows[column]]
    if draft.cuts:
        (folder / "audio").mkdir()
        rows["audio"] = [_cut(*draft.cuts[s], folder, s) for s in tqdm(rows["segment_id"], desc="cutting audio")]
    return rows


def _cut(path: Path, start: float, end: float, folder: Path, segment: str) -> str:
    import soundfile

    # What a file system may refuse is written as its code, so that ids stay different.
    name = re.sub(r"[^\w.\-\[\]]|^\.", lambda found: f"%{ord(found.group()):02x}", segment)
    try:
        with soundfile.SoundFile(str(path)) as file:
            file.seek(min(round(start * file.samplerate), file.frames))
            samples = file.read(max(1, round((end - start) * file.samplerate)))
            soundfile.write(str(folder / f"audio/{name}.wav"), samples, file.samplerate, subtype="PCM_16")
    except soundfile.SoundFileError as error:
        raise CorpusError(f"cannot cut {path} ({error}): convert it anew to wav") from error
    return f"audio/{name}.wav"
