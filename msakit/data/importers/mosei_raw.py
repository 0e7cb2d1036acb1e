"""Raw CMU-MOSEI: transcripts with intervals, and media of whole videos.

Transcript/Segmented/Combined/<video>.txt has lines "<video>___<n>___<start>___<end>___<words>", n from 0. Labels come
apart: a csv by segment, or the SDK's .csd, whose intervals are matched to the transcript's by their overlap. Clips
named <video>_<n> are used where a folder Segmented has them. Whole videos are no segment's media, so they are not
referred to; `cut_audio` cuts each segment out of <video>.wav.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msakit.data.corpus import Task
from msakit.data.importers.draft import Draft
from msakit.data.importers.manifest import ImporterError, Manifest
from msakit.data.importers.mosi_raw import AUDIO, VIDEO, read_labels
from msakit.data.importers.tables import Splits, media_index, read_text, split_column

MIN_OVERLAP = 0.5  # intersection over union below which two intervals are not the same segment


def read(
    source: Path, *, labels: str | Path, splits: Splits | None = None, name: str = "cmu-mosei", cut_audio: bool = False
) -> Draft:
    """`source` is the folder Raw (or the one above); `labels` and `splits` as in `mosi_raw.read`."""
    manifest = Manifest("cmu-mosei" if name == "cmu-mosei" else None)
    transcripts = _transcripts(source, manifest)
    found = read_labels(Path(labels), name, manifest)
    if Path(labels).suffix == ".csd":
        table = _by_interval(transcripts, found, manifest)
    else:
        found = found.drop(columns=[c for c in ("start", "end", "video_id", "clip_id") if c in found])
        table = transcripts.merge(found, on="segment_id", how="inner")
        for segment in sorted(set(transcripts["segment_id"]) - set(found["segment_id"])):
            manifest.drop(segment, "", "a transcript without a label")
        for segment in sorted(set(found["segment_id"]) - set(transcripts["segment_id"])):
            manifest.drop(segment, "", "a label without a transcript")
    table["split"] = split_column(table, splits, labels)
    manifest.found = len(table) + len(manifest.dropped)
    for column, suffixes in (("audio", AUDIO), ("video", VIDEO)):
        clips = media_index(source, suffixes, "segmented")
        table[column] = [str(clips.get(segment, "")) for segment in table["segment_id"]]
    cuts: dict[str, tuple[Path, float, float]] = {}
    if cut_audio:
        whole = media_index(source, AUDIO, "full")
        spans = zip(table["segment_id"], table["video_id"], table["start"], table["end"], strict=True)
        cuts = {s: (whole[v], float(start), float(end)) for s, v, start, end in spans if v in whole}
        for segment, split in table.loc[~table["segment_id"].isin(cuts), ["segment_id", "split"]].itertuples(
            index=False
        ):
            manifest.drop(segment, split, "no audio of the whole video")
        table = table[table["segment_id"].isin(cuts)].drop(columns="audio").reset_index(drop=True)
    else:
        manifest.note("start and end are seconds of the whole video; cut_audio=True cuts the segments' audio out of it")
    return Draft(name, table, Task(), "Imported from raw CMU-MOSEI.", manifest, cuts=cuts)


def _transcripts(source: Path, manifest: Manifest) -> pd.DataFrame:
    files = [p for p in sorted(source.rglob("*.txt")) if p.parent.name.lower() == "combined" and p.name[:2] != "._"]
    files = [p for p in files if p.parent.parent.name.lower() == "segmented"]
    if not files:
        raise ImporterError(f"{source} holds no Transcript/Segmented/Combined/*.txt: give the folder Raw of CMU-MOSEI")
    rows: list[dict[str, Any]] = []
    for path in files:
        for line, content in enumerate(read_text(path, manifest).splitlines(), start=1):
            if not content.strip():
                continue
            try:
                rest, start, end, words = content.split("___", 4)[1:]
                span = float(start), float(end)
            except ValueError as error:
                raise ImporterError(
                    f"{path} line {line} is {content!r}: it should read '<video>___<n>___<start>___<end>___<words>'"
                ) from error
            rows.append({"segment_id": f"{path.stem}_{rest}", "video_id": path.stem, "clip_id": rest,
                         "text": words, "start": str(span[0]), "end": str(span[1])})  # fmt: skip
    return pd.DataFrame(rows)


def _by_interval(transcripts: pd.DataFrame, labels: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Each transcript with the label whose interval overlaps it most; every label is used once at most.

    The column sdk_id is the label's segment as the SDK counts them, by which its features are found.
    """
    by_video = {str(video): part for video, part in labels.groupby("video_id")}
    extra = [str(c) for c in labels if str(c).startswith("label")]
    rows: list[dict[str, Any]] = []
    for video, part in transcripts.groupby("video_id", sort=False):
        theirs = by_video.pop(str(video), labels.iloc[:0])
        overlap = _overlap(part[["start", "end"]].to_numpy(float), theirs[["start", "end"]].to_numpy(float))
        free = np.ones(len(theirs), bool)
        for row, shares in zip(part.to_dict("records"), overlap, strict=True):
            shares = np.where(free, shares, 0)
            best = int(shares.argmax()) if len(shares) else -1
            if best < 0 or shares[best] < MIN_OVERLAP:
                manifest.drop(str(row["segment_id"]), "", "a transcript without a label")
                continue
            free[best] = False
            match = theirs.iloc[best]
            rows.append(
                {**{str(k): v for k, v in row.items()}, **{c: match[c] for c in extra}, "sdk_id": match["segment_id"]}
            )
        for segment in theirs["segment_id"][free]:
            manifest.drop(str(segment), "", "a label without a transcript")
    for segment in (s for part in by_video.values() for s in part["segment_id"]):
        manifest.drop(str(segment), "", "a label without a transcript")
    if not rows:
        raise ImporterError("no label interval overlaps a transcript's: are the labels of another corpus?")
    return pd.DataFrame(rows)


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of all intervals a with all intervals b."""
    common = np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0])
    union = np.maximum(a[:, None, 1], b[None, :, 1]) - np.minimum(a[:, None, 0], b[None, :, 0])
    return np.clip(common, 0, None) / np.maximum(union, 1e-9)
