"""The Raw folder of CMU-MOSI: Video, Audio and Transcript, each with a folder Segmented.

Transcript/Segmented/<video>.annotprocessed has lines "<n>_DELIM_<words>", n from 1; media are named <video>_<n>. The
folder has no labels and no folds: both are given apart.
"""

from pathlib import Path

import pandas as pd

from msakit.data.corpus import Task
from msakit.data.importers.draft import Draft
from msakit.data.importers.manifest import ImporterError, Manifest
from msakit.data.importers.tables import Splits, media_index, read_table, read_text, split_column

AUDIO = (".wav", ".flac", ".mp3")
VIDEO = (".mp4", ".avi", ".mkv", ".mov", ".flv")


def read(source: Path, *, labels: str | Path, splits: Splits | None = None, name: str = "cmu-mosi") -> Draft:
    """`source` is the folder Raw (or the one above).

    Args:
        labels: a .csd file of opinion labels, or a csv with label and either segment_id or video_id and clip_id (and,
            without `splits`, split).
        splits: ids of the standard folds; see `tables.read_splits`.
    """
    manifest = Manifest("cmu-mosi" if name == "cmu-mosi" else None)
    texts = _transcripts(source, manifest)
    table = read_labels(Path(labels), name, manifest)
    table["split"] = split_column(table, splits, labels)
    audio, video = media_index(source, AUDIO, "segmented"), media_index(source, VIDEO, "segmented")
    table["text"] = [texts.get(segment, "") for segment in table["segment_id"]]
    table["audio"] = [str(audio.get(segment, "")) for segment in table["segment_id"]]
    table["video"] = [str(video.get(segment, "")) for segment in table["segment_id"]]
    manifest.found = len(set(texts) | set(table["segment_id"]))
    for segment in sorted(set(texts) - set(table["segment_id"])):
        manifest.drop(segment, "", "a transcript without a label")
    for segment, split in table.loc[~table["segment_id"].isin(texts), ["segment_id", "split"]].itertuples(index=False):
        manifest.drop(segment, split, "a label without a transcript")
    table = table[table["segment_id"].isin(texts)].reset_index(drop=True)
    return Draft(name, table, Task(), "Imported from the Raw folder of CMU-MOSI.", manifest)


def read_labels(path: Path, name: str, manifest: Manifest) -> pd.DataFrame:
    """segment_id, video_id, clip_id, label (and what else there is) from a .csd file or a csv."""
    if not path.is_file():
        raise ImporterError(
            f"no label file at {path}: give the .csd file of labels, or a csv with segment_id and label"
        )
    if path.suffix == ".csd":
        from msakit.data.importers.csd import label_table

        table, _ = label_table(path, name)
        return table.assign(start=table["start"].map(str), end=table["end"].map(str))
    table = read_table(path, ("label",), manifest)
    if "segment_id" not in table:
        if not {"video_id", "clip_id"} <= set(table):
            raise ImporterError(f"{path} names no segments: add segment_id, or video_id and clip_id")
        table["segment_id"] = table["video_id"] + "_" + table["clip_id"]
    parts = table["segment_id"].str.rpartition("_")
    for column, part in (("video_id", 0), ("clip_id", 2)):
        if column not in table:
            table[column] = parts[part]
    return table.drop(columns=[c for c in ("text", "audio", "video", "image") if c in table])


def _transcripts(source: Path, manifest: Manifest) -> dict[str, str]:
    files = [p for p in sorted(source.rglob("*.annotprocessed")) if not p.name.startswith("._")]
    files = [p for p in files if p.parent.name.lower() == "segmented"] or files
    if not files:
        raise ImporterError(f"{source} holds no Transcript/Segmented/*.annotprocessed: give the folder Raw of CMU-MOSI")
    texts = {}
    for path in files:
        for line, content in enumerate(read_text(path, manifest).splitlines(), start=1):
            if not content.strip():
                continue
            number, found, words = content.partition("_DELIM_")
            if not found:
                raise ImporterError(f"{path} line {line} is {content!r}: it should read '<n>_DELIM_<words>'")
            texts[f"{path.stem}_{number.strip()}"] = words
    return texts
