"""CH-SIMS: label.csv and clips Raw/<video_id>/<clip_id>.mp4; the same table is the input of MMSA's feature extractor.

Columns video_id, clip_id, text, label, label_T, label_A, label_V, annotation, mode. Ids are texts ("0001"), labels lie
in [-1, 1]; those of one modality are kept as columns.
"""

from pathlib import Path

import pandas as pd

from msakit.data.corpus import Task
from msakit.data.importers.cmu_raw import VIDEO
from msakit.data.importers.draft import Draft, Manifest
from msakit.data.importers.tables import find_one, inside, read_table, split_name

_COLUMNS = ("video_id", "clip_id", "text", "label", "mode")


def read(source: Path, *, name: str = "ch-sims", low: float = -1.0, high: float = 1.0) -> Draft:
    """`source` holds label.csv and Raw/; `name`, `low` and `high` are for other corpora in the same layout."""
    manifest = Manifest()
    path = source if source.is_file() else find_one(source, ("label.csv",), "label.csv")
    table = read_table(path, _COLUMNS, manifest)
    raw = next((p for p in (path.parent / "Raw", path.parent / "raw", path.parent) if p.is_dir()), path.parent)
    clips = [_clip(raw, v, c) for v, c in zip(table["video_id"], table["clip_id"], strict=True)]
    used = {"video_id", "clip_id", "text", "label", "mode", "video", "audio", "image", "split", "segment_id"}
    rows = pd.DataFrame(
        {
            "segment_id": table["video_id"] + "_" + table["clip_id"],
            "video_id": table["video_id"],
            "clip_id": table["clip_id"],
            "split": [split_name(mode, f"{path} row {row}") for row, mode in enumerate(table["mode"], start=2)],
            "label": table["label"].str.strip(),
            "text": table["text"],
            "video": clips,
            **{c: table[c] for c in table if c not in used},
        }
    )
    return Draft(name, rows, Task(low=low, high=high), "Imported from label.csv and Raw clips.", manifest)


def _clip(raw: Path, video: str, clip: str) -> str:
    return next((str(p) for suffix in VIDEO if (p := inside(raw, video, f"{clip}{suffix}")).is_file()), "")
