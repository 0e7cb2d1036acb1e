"""Hateful Memes: JSON lines (id, img, text, label) beside a folder img/.

By default train is train, dev_seen is valid, and test is test_seen if it is labelled, else dev_unseen without the memes
that dev_seen has too. `merged` pools train and dev_seen, as Toledo & Marcacini do, and draws the splits anew.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from msakit.data.corpus import Task
from msakit.data.importers.draft import Draft, tidy
from msakit.data.importers.manifest import ImporterError, Manifest
from msakit.data.importers.tables import inside, random_splits, read_text

CLASSES = ("harmless", "hateful")  # label 0 and 1


def read(
    source: Path,
    *,
    merged: bool = False,
    files: Mapping[str, str] | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Draft:
    """`source` holds the .jsonl files and img/.

    Args:
        merged: train and dev_seen as one set, split in the shares `fractions` with `seed`.
        files: split -> name of the JSONL file without its ending, instead of the default.
    """
    if merged and files:
        raise ImporterError("merged and files exclude each other: choose one")
    manifest = Manifest()
    if merged:
        table = pd.concat([_lines(source, n, manifest) for n in ("train", "dev_seen")], ignore_index=True)
        table["split"] = "train"
        manifest.note("train.jsonl and dev_seen.jsonl are merged")
    else:
        parts = files or _default_files(source, manifest)
        table = pd.concat([_lines(source, n, manifest).assign(split=s) for s, n in parts.items()], ignore_index=True)
        manifest.counts["files"] = dict(parts)
    manifest.found = len(table)
    again = table["segment_id"].duplicated()
    for segment, split in table.loc[again, ["segment_id", "split"]].itertuples(index=False):
        manifest.drop(segment, split, "the meme is in an earlier file")
    table = table[~again].reset_index(drop=True)
    if merged:
        table["split"] = random_splits(table, fractions, seed, manifest)
    return Draft(
        "hateful-memes-merged" if merged else "hateful-memes",
        table,
        Task("classification", classes=CLASSES),
        "Imported from the Hateful Memes files.",
        manifest,
    )


def _default_files(source: Path, manifest: Manifest) -> dict[str, str]:
    test = "dev_unseen"
    if (source / "test_seen.jsonl").is_file():
        if (_lines(source, "test_seen", Manifest())["label"] != "").all():
            test = "test_seen"
        else:
            manifest.note("test_seen.jsonl has no labels; dev_unseen.jsonl is the test split")
    return {"train": "train", "valid": "dev_seen", "test": test}


def _lines(source: Path, name: str, manifest: Manifest) -> pd.DataFrame:
    path = source / f"{name}.jsonl"
    if not path.is_file():
        raise ImporterError(f"no file at {path}: give the folder of the .jsonl files, or name them with files=")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(read_text(path, manifest).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            meme = json.loads(line)
            segment, image, text = str(meme["id"]), str(meme["img"]), tidy(str(meme["text"]))
            label = CLASSES[int(meme["label"])] if meme.get("label") in (0, 1) else ""
        except (ValueError, KeyError, TypeError) as error:
            raise ImporterError(
                f"{path} line {number} is not a meme ({type(error).__name__}: {error}): "
                "it needs id, img and text, and label where it is known"
            ) from error
        rows.append({"segment_id": segment, "video_id": segment, "clip_id": segment, "label": label, "text": text,
                     "image": str(inside(source, image))})  # fmt: skip
    if not rows:
        raise ImporterError(f"{path} is empty: fetch it again")
    return pd.DataFrame(rows)
