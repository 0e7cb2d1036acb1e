"""Hateful Memes: JSON lines (id, img, text, label) beside a folder img/.

By default train is train, dev_seen is valid, and test is test_seen if it is labelled, else dev_unseen without the memes
that dev_seen has too. `merged` pools train and dev_seen, as Toledo & Marcacini do, and draws the splits anew; they are
the column split of segments.csv, which another import takes as `splits`.

Some memes have the same image under another text: the first's id is the video_id of all whose image has the same bytes.

With `hub` the files are first laid into `source` from a dataset of the Hugging Face hub, or a folder that `datasets`
loads: its images are either in the rows or, named by them, already in `source`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from msakit.data.corpus import CorpusError, Task
from msakit.data.importers.draft import Draft, Manifest, tidy
from msakit.data.importers.tables import Splits, inside, random_splits, read_lines, read_splits, same_files
from msakit.files import write_atomically

CLASSES = ("harmless", "hateful")  # label 0 and 1
# Names of splits on the hub -> the published files.
HUB_SPLITS = {
    "train": "train", "validation": "dev_seen", "dev": "dev_seen", "dev_seen": "dev_seen", "dev_unseen": "dev_unseen",
    "test": "test_seen", "test_seen": "test_seen", "test_unseen": "test_unseen",
}  # fmt: skip


def read(
    source: Path,
    *,
    merged: bool = False,
    files: Mapping[str, str] | None = None,
    splits: Splits | None = None,
    hub: str | None = None,
    revision: str | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Draft:
    """`source` holds the .jsonl files and img/, or will hold them (`hub`).

    Args:
        merged: train and dev_seen as one set, split in the shares `fractions` with `seed`.
        files: split -> name of the JSONL file without its ending, instead of the default.
        splits: with `merged`, ids a split, or a file of them, such as an earlier import's segments.csv.
        hub, revision: dataset id, or folder, and its version; what lies in `source` already is not fetched again.
    """
    if merged and files:
        raise CorpusError("merged and files exclude each other: choose one")
    if splits is not None and not merged:
        raise CorpusError("splits goes with merged: else the files are the splits")
    manifest = Manifest()
    if hub is not None:
        fetch(source, hub, revision, manifest)
    if merged:
        table = pd.concat([_lines(source, n, manifest) for n in ("train", "dev_seen")], ignore_index=True)
        table["split"] = "train"
        manifest.note("train.jsonl and dev_seen.jsonl are merged")
    else:
        parts = files or _default_files(source, manifest)
        table = pd.concat([_lines(source, n, manifest).assign(split=s) for s, n in parts.items()], ignore_index=True)
        manifest.counts["files"] = dict(parts)
    manifest.found = len(table)
    table = manifest.without(table, table["segment_id"].duplicated(), "the meme is in an earlier file")
    table["video_id"] = same_files(list(table["segment_id"]), list(table["image"]))
    if splits is not None:
        split_of = read_splits(splits)
        table["split"] = [split_of.get(segment, "") for segment in table["segment_id"]]
    elif merged:
        table["split"] = random_splits(table, fractions, seed, manifest)
    return Draft(
        "hateful-memes-merged" if merged else "hateful-memes",
        table,
        Task(kind="classification", classes=list(CLASSES)),
        "Imported from the Hateful Memes files.",
        manifest,
    )


def fetch(source: Path, hub: str, revision: str | None, manifest: Manifest) -> None:
    """Lay a dataset of the hub into `source` as the published files: a JSONL file a split, and img/.

    Raises CorpusError where the dataset has another form, or cannot be had.
    """
    from datasets import Image, load_dataset

    try:
        found = load_dataset(hub, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise CorpusError(f"{hub} cannot be loaded from the hub ({error}): check its name and the network") from error
    for part, rows in found.items():
        if str(part) not in HUB_SPLITS:
            raise CorpusError(f"{hub} has a split {part!r}: known are {', '.join(HUB_SPLITS)}")
        path = source / f"{HUB_SPLITS[str(part)]}.jsonl"
        if path.is_file():
            manifest.note(f"{path.name} was there already and is not fetched from {hub}")
            continue
        column = next((name for name in ("image", "img") if name in rows.column_names), None)
        if column is None or not {"id", "text"} <= set(rows.column_names):
            raise CorpusError(f"{hub} has the columns {', '.join(rows.column_names)}: id, text and image are needed")
        inline = isinstance(rows.features[column], Image)
        lines = []
        for row in tqdm(rows.cast_column(column, Image(decode=False)) if inline else rows, desc=f"{hub} {part}"):
            image = _laid(source, str(row["id"]), row[column]) if inline else str(row[column])
            label = {"label": int(row["label"])} if row.get("label") in (0, 1) else {}
            lines.append(json.dumps({"id": row["id"], "img": image, "text": row["text"], **label}))
        write_atomically(path, ("\n".join(lines) + "\n").encode())
    manifest.note(f"fetched from {hub}, revision {revision or 'not given'}")


def _laid(source: Path, meme: str, image: Mapping[str, Any]) -> str:
    """One image of the dataset as a file; its path relative to `source`."""
    name = str(inside(Path("img"), f"{meme}{Path(image['path'] or '.png').suffix}"))
    (source / "img").mkdir(exist_ok=True)
    (source / name).write_bytes(image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes())
    return name


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
        raise CorpusError(f"no file at {path}: give the folder of the .jsonl files, or name them with files=")
    rows: list[dict[str, Any]] = []
    for where, line in read_lines(path, manifest):
        try:
            meme = json.loads(line)
            segment, image, text = str(meme["id"]), str(meme["img"]), tidy(str(meme["text"]))
            label = CLASSES[int(meme["label"])] if meme.get("label") in (0, 1) else ""
        except (ValueError, KeyError, TypeError) as error:
            raise CorpusError(
                f"{where} is not a meme ({type(error).__name__}: {error}): "
                "it needs id, img and text, and label where it is known"
            ) from error
        rows.append({"segment_id": segment, "clip_id": segment, "label": label, "text": text,
                     "image": str(inside(source, image))})  # fmt: skip
    if not rows:
        raise CorpusError(f"{path} is empty: fetch it again")
    return pd.DataFrame(rows)
