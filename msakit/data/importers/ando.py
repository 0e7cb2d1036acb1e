"""Feature folders of Ando et al. 2022: one .npy a clip, [layer, time, dim] or [time, dim], and label lists.

    feat/{video,audio,text}/<kind>/<clip>.npy        kind: pretrained, mmdatasdk_noalign, mmsa_noalign
    label/sentiment_regress/{train,valid,test}.txt   lines "<clip> <number>"

A corpus has one layer an array; `layers` chooses it. The authors' own loader passes over clips without features in
silence; here they are named.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from msakit.data.corpus import CorpusError, Task
from msakit.data.importers.draft import Draft, Manifest, add_transcripts, identified, padded
from msakit.data.importers.tables import read_lines

FOLDERS = {"text": "text", "audio": "audio", "vision": "video"}


def read(
    source: Path,
    *,
    kind: str = "pretrained",
    layers: int | Mapping[str, int] = -1,
    name: str | None = None,
    transcripts: str | Path | None = None,
) -> Draft:
    """`source` is the folder that holds feat/ and label/.

    Args:
        kind: folder of features, below feat/<modality>.
        layers: which layer (0 is the first stored one, -1 the last), one for all or by text / audio / vision.
        transcripts: csv with segment_id and text; the format has none.
    """
    manifest = Manifest()
    table = _labels(source, manifest)
    folders = {m: source / "feat" / theirs / kind for m, theirs in FOLDERS.items()}
    folders = {m: folder for m, folder in folders.items() if folder.is_dir()}
    if not folders:
        held = sorted({p.name for p in source.glob("feat/*/*") if p.is_dir()})
        raise CorpusError(f"{source}/feat has no folder {kind!r} for any modality (it has {held}): pass kind=")
    manifest.found = len(table)
    counts = {str(split): len(part) for split, part in table.groupby("split")}
    name, manifest.known = identified(name, counts, ("cmu-mosi", "cmu-mosei"), source.name)
    complete = []
    for segment, split in table[["segment_id", "split"]].itertuples(index=False):
        missing = [m for m, folder in folders.items() if not (folder / f"{segment}.npy").is_file()]
        if missing:
            manifest.drop(segment, split, f"no features for {' and '.join(missing)}")
        complete.append(not missing)
    table = table[complete].reset_index(drop=True)
    if table.empty:
        raise CorpusError(f"no clip of {source}/label has features in {', '.join(map(str, folders.values()))}")
    arrays = {}
    for modality, folder in folders.items():
        layer = layers if isinstance(layers, int) else layers.get(modality, -1)
        parts = [_features(folder / f"{s}.npy", layer) for s in tqdm(table["segment_id"], desc=modality, unit="clip")]
        arrays[modality] = padded(parts, str(folder))
        manifest.note(f"{modality}: layer {layer} of {folder.relative_to(source)}")
    return Draft(
        name,
        add_transcripts(table, transcripts, manifest),
        Task(),
        f"Imported from the feature folders of Ando et al. 2022, kind {kind}.",
        manifest,
        arrays,
    )


def _labels(source: Path, manifest: Manifest) -> pd.DataFrame:
    rows = []
    for split in ("train", "valid", "test"):
        path = source / "label" / "sentiment_regress" / f"{split}.txt"
        for where, text in read_lines(path, manifest):
            cells = text.split()
            if len(cells) != 2:
                raise CorpusError(f"{where} is {text!r}: it should read '<clip> <number>'")
            video, _, clip = cells[0].rpartition("_")
            rows.append({"segment_id": cells[0], "video_id": video or clip, "clip_id": clip if video else "",
                         "split": split, "label": cells[1]})  # fmt: skip
    return pd.DataFrame(rows, columns=["segment_id", "video_id", "clip_id", "split", "label"])


def _features(path: Path, layer: int) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise CorpusError(f"{path} is not a readable .npy of numbers ({error}): extract it again") from error
    if values.ndim == 3:
        if not -len(values) <= layer < len(values):
            raise CorpusError(f"{path} has layers 0 to {len(values) - 1}, not {layer}: choose with layers=")
        values = values[layer]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise CorpusError(f"{path} is {values.dtype} {values.shape}, not [time, dim] or [layer, time, dim]")
    return np.array(values, np.float32)
