"""The Raw folders of CMU-MOSI and CMU-MOSEI; they have no labels and no folds: both are given apart.

CMU-MOSI has Video, Audio and Transcript, each with a folder Segmented. Transcript/Segmented/<video>.annotprocessed has
lines "<n>_DELIM_<words>", n from 1; media are named <video>_<n>.

CMU-MOSEI has transcripts with intervals, and media of whole videos. Transcript/Segmented/Combined/<video>.txt has lines
"<video>___<n>___<start>___<end>___<words>", n from 0. Labels come as a csv by segment, or as the SDK's .csd, whose
intervals are matched to the transcript's by their overlap. Clips named <video>_<n> are used where a folder Segmented
has them. Whole videos are no segment's media, so they are not referred to; `cut_audio` cuts each segment out of
<video>.wav.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msakit.data.corpus import CorpusError, Task
from msakit.data.importers.csd import label_table
from msakit.data.importers.draft import Draft, Manifest
from msakit.data.importers.tables import Splits, media_index, read_lines, read_table, split_column

AUDIO = (".wav", ".flac", ".mp3")
VIDEO = (".mp4", ".avi", ".mkv", ".mov", ".flv")
MIN_OVERLAP = 0.5  # intersection over union below which two intervals are not the same segment
NO_LABEL, NO_TEXT = "a transcript without a label", "a label without a transcript"


def read_mosi(source: Path, *, labels: str | Path, splits: Splits | None = None, name: str = "cmu-mosi") -> Draft:
    """`source` is the folder Raw (or the one above).

    Args:
        labels: a .csd file of opinion labels, or a csv with label and either segment_id or video_id and clip_id (and,
            without `splits`, split).
        splits: ids of the standard folds; see `tables.read_splits`.
    """
    manifest = Manifest("cmu-mosi" if name == "cmu-mosi" else None)
    texts = _mosi_transcripts(source, manifest)
    table = _labels(Path(labels), name, manifest)
    table["split"] = split_column(table, splits, labels)
    table["text"] = [texts.get(segment, "") for segment in table["segment_id"]]
    table = _with_clips(table, source)
    manifest.found = len(set(texts) | set(table["segment_id"]))
    for segment in sorted(set(texts) - set(table["segment_id"])):
        manifest.drop(segment, "", NO_LABEL)
    table = manifest.without(table, ~table["segment_id"].isin(texts), NO_TEXT)
    return Draft(name, table, Task(), "Imported from the Raw folder of CMU-MOSI.", manifest)


def read_mosei(
    source: Path, *, labels: str | Path, splits: Splits | None = None, name: str = "cmu-mosei", cut_audio: bool = False
) -> Draft:
    """`source` is the folder Raw (or the one above); `labels` and `splits` as in `read_mosi`."""
    manifest = Manifest("cmu-mosei" if name == "cmu-mosei" else None)
    transcripts = _mosei_transcripts(source, manifest)
    found = _labels(Path(labels), name, manifest)
    if Path(labels).suffix == ".csd":
        table = _by_interval(transcripts, found, manifest)
    else:
        found = found.drop(columns=[c for c in ("start", "end", "video_id", "clip_id") if c in found])
        table = transcripts.merge(found, on="segment_id", how="inner")
        for segment in sorted(set(transcripts["segment_id"]) - set(found["segment_id"])):
            manifest.drop(segment, "", NO_LABEL)
        for segment in sorted(set(found["segment_id"]) - set(transcripts["segment_id"])):
            manifest.drop(segment, "", NO_TEXT)
    table["split"] = split_column(table, splits, labels)
    manifest.found = len(table) + len(manifest.dropped)
    table = _with_clips(table, source)
    cuts: dict[str, tuple[Path, float, float]] = {}
    if cut_audio:
        whole = media_index(source, AUDIO, "full")
        spans = zip(table["segment_id"], table["video_id"], table["start"], table["end"], strict=True)
        cuts = {s: (whole[v], float(start), float(end)) for s, v, start, end in spans if v in whole}
        table = manifest.without(table, ~table["segment_id"].isin(cuts), "no audio of the whole video")
        table = table.drop(columns="audio")
    else:
        manifest.note("start and end are seconds of the whole video; cut_audio=True cuts the segments' audio out of it")
    return Draft(name, table, Task(), "Imported from raw CMU-MOSEI.", manifest, cuts=cuts)


def _with_clips(table: pd.DataFrame, source: Path) -> pd.DataFrame:
    """The columns audio and video: paths, "" where there is none."""
    for column, suffixes in (("audio", AUDIO), ("video", VIDEO)):
        clips = media_index(source, suffixes, "segmented")
        table[column] = [str(clips.get(segment, "")) for segment in table["segment_id"]]
    return table


def _labels(path: Path, name: str, manifest: Manifest) -> pd.DataFrame:
    """segment_id, video_id, clip_id, label (and what else there is) from a .csd file or a csv."""
    if not path.is_file():
        raise CorpusError(f"no label file at {path}: give the .csd file of labels, or a csv with segment_id and label")
    if path.suffix == ".csd":
        table, _ = label_table(path, name)
        return table.assign(start=table["start"].map(str), end=table["end"].map(str))
    table = read_table(path, ("label",), manifest)
    if "segment_id" not in table:
        if not {"video_id", "clip_id"} <= set(table):
            raise CorpusError(f"{path} names no segments: add segment_id, or video_id and clip_id")
        table["segment_id"] = table["video_id"] + "_" + table["clip_id"]
    parts = table["segment_id"].str.rpartition("_")
    for column, part in (("video_id", 0), ("clip_id", 2)):
        if column not in table:
            table[column] = parts[part]
    return table.drop(columns=[c for c in ("text", "audio", "video", "image") if c in table])


def _mosi_transcripts(source: Path, manifest: Manifest) -> dict[str, str]:
    files = [p for p in sorted(source.rglob("*.annotprocessed")) if not p.name.startswith("._")]
    files = [p for p in files if p.parent.name.lower() == "segmented"] or files
    if not files:
        raise CorpusError(f"{source} holds no Transcript/Segmented/*.annotprocessed: give the folder Raw of CMU-MOSI")
    texts = {}
    for path in files:
        for where, content in read_lines(path, manifest):
            number, found, words = content.partition("_DELIM_")
            if not found:
                raise CorpusError(f"{where} is {content!r}: it should read '<n>_DELIM_<words>'")
            texts[f"{path.stem}_{number.strip()}"] = words
    return texts


def _mosei_transcripts(source: Path, manifest: Manifest) -> pd.DataFrame:
    files = [p for p in sorted(source.rglob("*.txt")) if p.parent.name.lower() == "combined" and p.name[:2] != "._"]
    files = [p for p in files if p.parent.parent.name.lower() == "segmented"]
    if not files:
        raise CorpusError(f"{source} holds no Transcript/Segmented/Combined/*.txt: give the folder Raw of CMU-MOSEI")
    rows: list[dict[str, Any]] = []
    for path in files:
        for where, content in read_lines(path, manifest):
            try:
                rest, start, end, words = content.split("___", 4)[1:]
                span = float(start), float(end)
            except ValueError as error:
                form = "<video>___<n>___<start>___<end>___<words>"
                raise CorpusError(f"{where} is {content!r}: it should read {form!r}") from error
            rows.append({"segment_id": f"{path.stem}_{rest}", "video_id": path.stem, "clip_id": rest,
                         "text": words, "start": str(span[0]), "end": str(span[1])})  # fmt: skip
    return pd.DataFrame(rows)


def _by_interval(transcripts: pd.DataFrame, labels: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Each transcript with the label whose interval overlaps it most; every label is used once at most.

    The column sdk_id is the label's segment as the SDK counts them, by which its features are found.
    """
    by_video = {str(video): part for video, part in labels.groupby("video_id")}
    extra = [str(c) for c in labels if str(c).startswith("label")]
    rows: list[dict[Any, Any]] = []
    for video, part in transcripts.groupby("video_id", sort=False):
        theirs = by_video.pop(str(video), labels.iloc[:0])
        overlap = _overlap(part[["start", "end"]].to_numpy(float), theirs[["start", "end"]].to_numpy(float))
        free = np.ones(len(theirs), bool)
        for row, shares in zip(part.to_dict("records"), overlap, strict=True):
            shares = np.where(free, shares, 0)
            best = int(shares.argmax()) if len(shares) else -1
            if best < 0 or shares[best] < MIN_OVERLAP:
                manifest.drop(str(row["segment_id"]), "", NO_LABEL)
                continue
            free[best] = False
            match = theirs.iloc[best]
            rows.append({**row, **{c: match[c] for c in extra}, "sdk_id": match["segment_id"]})
        for segment in theirs["segment_id"][free]:
            manifest.drop(str(segment), "", NO_TEXT)
    for segment in (s for part in by_video.values() for s in part["segment_id"]):
        manifest.drop(str(segment), "", NO_TEXT)
    if not rows:
        raise CorpusError("no label interval overlaps a transcript's: are the labels of another corpus?")
    return pd.DataFrame(rows)


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of all intervals a with all intervals b."""
    common = np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0])
    union = np.maximum(a[:, None, 1], b[None, :, 1]) - np.minimum(a[:, None, 0], b[None, :, 0])
    return np.clip(common, 0, None) / np.maximum(union, 1e-9)
