"""From draft to interchange folder: leave out what cannot be used, saying so, and write all of it or nothing."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from msakit.data.corpus import MEDIA, REQUIRED, SPLITS, row_problem
from msakit.data.importers.draft import Draft, finite, tidy
from msakit.data.importers.manifest import ImporterError
from msakit.files import new_folder


def check_paths(source: str | Path, out: str | Path, overwrite: bool) -> tuple[Path, Path]:
    """Both as absolute paths; raises before hours of reading where writing would fail."""
    source, out = Path(source).resolve(), Path(out).resolve()
    if not source.exists():
        raise ImporterError(f"nothing at {source}: check the path of the source")
    if out == source or out in source.parents:
        raise ImporterError(f"{out} holds the source: choose another folder to write to")
    if out.exists() and not overwrite:
        raise ImporterError(f"{out} exists already: choose another folder, or pass overwrite=True")
    if out.exists() and not (out / "manifest.json").is_file():
        raise ImporterError(f"{out} is no imported corpus and is not overwritten: choose another folder, or remove it")
    return source, out


def write(
    draft: Draft,
    importer: str,
    source: Path,
    out: Path,
    media: Literal["refer", "copy", "link"] = "refer",
    keep_without_media: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write segments.csv, corpus.json, manifest.json and what else the draft has; return the manifest.

    Everything is written into a folder beside `out`, which is renamed at the end. Raises ImporterError if no row can
    be kept.
    """
    manifest = draft.manifest
    rows = draft.rows.reset_index(drop=True)
    rows["text"] = [tidy(text) for text in rows["text"]]
    manifest.found = manifest.found or len(rows) + len(manifest.dropped)
    keep = _kept(rows, draft, keep_without_media)
    rows = rows[keep].reset_index(drop=True)
    if rows.empty:
        first = manifest.dropped[0]["reason"] if manifest.dropped else "it has no rows"
        raise ImporterError(f"no segment of {source} can be used; the first reason: {first}")
    kept = {split: int((rows["split"] == split).sum()) for split in SPLITS if (rows["split"] == split).any()}
    videos = {split: int(part["video_id"].nunique()) for split, part in rows.groupby("split")}
    manifest.check(kept, {str(split): n for split, n in videos.items()})

    old = out.with_name(f"{out.name}.{os.getpid()}.old")
    with new_folder(out) as partial:
        rows = _with_media(rows, draft, partial, media)
        first_columns = [*REQUIRED, *(c for c in MEDIA if c in rows)]
        rows = rows[[*first_columns, *(c for c in rows if c not in first_columns)]]
        rows.to_csv(partial / "segments.csv", index=False, lineterminator="\n")
        if draft.arrays:
            arrays = {name: finite(array[keep], name, manifest) for name, array in draft.arrays.items()}
            np.savez(partial / "features.npz", segment_id=np.array(rows["segment_id"], dtype=np.str_), **arrays)  # type: ignore[arg-type]
        if draft.words is not None:
            words = draft.words[draft.words["segment_id"].isin(set(rows["segment_id"]))]
            words.to_csv(partial / "words.csv", index=False, lineterminator="\n")
        _write_json(partial / "corpus.json", _description(draft))
        ids = {split: list(rows.loc[rows["split"] == split, "segment_id"]) for split in kept}
        content = manifest.as_json(importer, source, kept, ids)
        _write_json(partial / "manifest.json", content)
        if out.exists() and overwrite:  # the last step: the older folder steps aside
            out.rename(old)
    shutil.rmtree(old, ignore_errors=True)
    return content


def _kept(rows: pd.DataFrame, draft: Draft, keep_without_media: bool) -> np.ndarray:
    """Which rows can stay; the others enter the manifest, each with its reason."""
    media = [c for c in MEDIA if c in rows and (rows[c] != "").any()]
    for column in (c for c in MEDIA if c in rows and c not in media):
        draft.manifest.note(f"no {column} file was found for any segment: the column is left out")
        del rows[column]
    seen: set[str] = set()
    keep = np.ones(len(rows), bool)
    for position, row in enumerate(rows.to_dict("records")):
        problem = row_problem({str(k): v for k, v in row.items()}, draft.task)
        reason = None if problem is None else problem[0]
        lacking = [c for c in media if not row[c] or not Path(row[c]).is_file()]
        if reason is None and row["segment_id"] in seen:
            reason = "the segment_id is used by an earlier row"
        if reason is None and lacking:
            if keep_without_media:
                rows.loc[rows.index[position], lacking] = ""
                counts = draft.manifest.counts.setdefault("kept_without_media", {})
                counts |= {c: counts.get(c, 0) + 1 for c in lacking}
            else:
                reason = f"no {' and no '.join(lacking)} file"
        if reason is not None:
            keep[position] = False
            draft.manifest.drop(row["segment_id"], row["split"], reason)
        seen.add(row["segment_id"])
    return keep


def _with_media(rows: pd.DataFrame, draft: Draft, folder: Path, media: str) -> pd.DataFrame:
    """Absolute paths made relative to the folder, copied or linked into it; audio cut out of longer files."""
    rows = rows.copy()
    for column in (c for c in MEDIA if c in rows):
        rows[column] = [
            _placed(Path(path), folder, column, segment, media) if path else ""
            for path, segment in zip(rows[column], rows["segment_id"], strict=True)
        ]
    if draft.cuts:
        from tqdm import tqdm

        segments = list(rows["segment_id"])
        rows["audio"] = [
            _cut(*draft.cuts[s], folder, s) if s in draft.cuts else "" for s in tqdm(segments, desc="cutting audio")
        ]
    return rows


def _placed(path: Path, folder: Path, column: str, segment: str, media: str) -> str:
    path = path.resolve()
    if media == "refer":
        return Path(os.path.relpath(path, folder)).as_posix()
    inside = Path(column) / f"{_file_name(segment)}{path.suffix.lower()}"
    (folder / column).mkdir(exist_ok=True)
    if media == "copy":
        shutil.copyfile(path, folder / inside)
    else:
        (folder / inside).symlink_to(os.path.relpath(path, folder / column))
    return inside.as_posix()


def _cut(path: Path, start: float, end: float, folder: Path, segment: str) -> str:
    import soundfile

    inside = Path("audio") / f"{_file_name(segment)}.wav"
    (folder / "audio").mkdir(exist_ok=True)
    try:
        with soundfile.SoundFile(str(path)) as file:
            file.seek(min(round(start * file.samplerate), file.frames))
            samples = file.read(max(1, round((end - start) * file.samplerate)))
            soundfile.write(str(folder / inside), samples, file.samplerate, subtype="PCM_16")
    except soundfile.SoundFileError as error:
        raise ImporterError(f"cannot cut {path} ({error}): convert it anew to wav") from error
    return inside.as_posix()


def _file_name(segment: str) -> str:
    """A segment id as a file name; what a file system may refuse is written as its code, so that ids stay different."""
    return re.sub(r"[^\w.\-\[\]]|^\.", lambda found: f"%{ord(found.group()):02x}", segment)


def _description(draft: Draft) -> dict[str, Any]:
    regression = draft.task.kind == "regression"
    task = draft.task.model_dump(include={"kind", "low", "high"} if regression else {"kind", "classes"})
    return {"name": draft.name, "generated": False, "task": task, "description": draft.description}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
