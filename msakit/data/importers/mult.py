"""The SDK's and MulT's pickles ({mosi_data,mosei_senti_data}[_noalign].pkl): arrays and labels, no transcript.

Each of train / valid / test holds text (word vectors), audio, vision [segment, time, dim], labels [segment, 1, 1 or
more] (the first number is the sentiment) and id: a name a segment, or rows of name, start, end (seconds). MOSI names
such as "video[3]" count from 0; they become video_4, the name of the same clip in the other preparations.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msakit.data.corpus import CorpusError, Task
from msakit.data.importers.draft import Draft, Manifest, add_transcripts, identified, number
from msakit.data.importers.mmsa import MODALITIES, SPLITS, joined, load_splits
from msakit.data.importers.safe_pickle import repaired

_COUNTED = re.compile(r"(.+)\[(\d+)\]")


def read(
    source: Path, *, name: str | None = None, transcripts: str | Path | None = None, max_bytes: int | None = None
) -> Draft:
    """`transcripts`: a csv with segment_id and text; the format has none. `name`: else guessed from the counts."""
    content = load_splits(source, max_bytes)
    counts = {split: len(content[split].get("labels", ())) for split in SPLITS if isinstance(content[split], dict)}
    name, known = identified(name, counts, ("cmu-mosi", "cmu-mosei"), source.stem)
    manifest = Manifest(known)
    rows, parts = [], {m: list[np.ndarray]() for m in MODALITIES}
    for split in SPLITS:
        part, where = content[split], f"{source} [{split!r}]"
        missing = [k for k in ("labels", *MODALITIES) if not isinstance(part, dict) or k not in part]
        if missing:
            raise CorpusError(f"{where} lacks {', '.join(missing)}: this is no pickle of the SDK or of MulT")
        labels = np.asarray(part["labels"])
        for modality in MODALITIES:
            values = np.asarray(part[modality])
            if values.ndim != 3 or len(values) != len(labels) or values.dtype.kind not in "fiu":
                raise CorpusError(
                    f"{where}: {modality} is {values.dtype} {values.shape}, not numbers [{len(labels)}, time, dim]"
                )
            parts[modality].append(values)
        if "id" not in part:
            manifest.videos_named = False
            manifest.note(f"{split}: the file names no segments; they are numbered, and each is its own video")
        if "id" in part and len(part["id"]) != len(labels):
            raise CorpusError(f"{where}: id has {len(part['id'])} rows for {len(labels)} labels: fetch the file again")
        ids = part.get("id", [f"{split}-{n:05d}" for n in range(len(labels))])
        named = [segment_names(i, name == "cmu-mosi") for i in ids]
        rows.append(pd.DataFrame(named).assign(split=split, label=[number(label) for label in labels]))
    table = add_transcripts(pd.concat(rows, ignore_index=True).fillna(""), transcripts, manifest)
    manifest.counts["array_shapes"] = {m: [list(p.shape) for p in arrays] for m, arrays in parts.items()}
    return Draft(
        name,
        table,
        Task(),
        "Imported from a pickle of the CMU SDK / MulT: ready features, no transcripts of its own.",
        manifest,
        {m: joined(arrays, f"{source}: {m}") for m, arrays in parts.items()},
    )


def segment_names(identity: Any, mosi: bool) -> dict[str, str]:
    """segment_id, video_id, clip_id, and start and end where the file gives them, from any of the known id forms."""
    cells = [repaired(c if isinstance(c, bytes) else str(c)) for c in np.asarray(identity, dtype=object).reshape(-1)]
    first = cells[0]
    times = {"start": cells[1], "end": cells[2]} if len(cells) >= 3 else {}
    counted = _COUNTED.fullmatch(first)
    if counted:
        video, clip = counted.group(1), int(counted.group(2))
        if mosi:
            return {"segment_id": f"{video}_{clip + 1}", "video_id": video, "clip_id": str(clip + 1), **times}
        return {"segment_id": first, "video_id": video, "clip_id": str(clip), **times}
    if times:
        clip_name = f"{times['start']}-{times['end']}"
        return {"segment_id": f"{first}_{clip_name}", "video_id": first, "clip_id": clip_name, **times}
    numbered = re.fullmatch(r"(.+)_(\d+)", first)
    video, clip_name = numbered.groups() if numbered else (first, "")
    return {"segment_id": first, "video_id": video, "clip_id": clip_name}
