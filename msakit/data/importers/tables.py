"""Small files of the formats: texts in whatever encoding, csv tables as text, label lists, splits."""

import ast
import codecs
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from msakit.data.corpus import CorpusError, require_columns
from msakit.data.importers.draft import Manifest
from msakit.files import sha256_of

_SPLIT_NAMES = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "dev": "valid",
                "validation": "valid", "test": "test"}  # fmt: skip

Splits = str | Path | Mapping[str, Sequence[str]]


def decode(data: bytes) -> tuple[str, str]:
    """(text, encoding): as a byte order mark says, UTF-8 if it is, else Windows-1252, else Latin-1, which reads all."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace"), "utf-16"
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding), encoding.removesuffix("-sig")
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1"), "latin-1"


def read_text(path: Path, manifest: Manifest) -> str:
    """A file's text; files that are not UTF-8 are counted in the manifest."""
    try:
        text, encoding = decode(path.read_bytes())
    except OSError as error:
        raise CorpusError(f"cannot read {path} ({error.strerror}): check the path") from error
    if encoding != "utf-8":
        encodings = manifest.counts.setdefault("files_not_utf8", {})
        encodings[encoding] = encodings.get(encoding, 0) + 1
    return text


def read_lines(path: Path, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """The lines of a text that are not blank, each after its place in the file, for messages."""
    for number, line in enumerate(re.split(r"\r?\n", read_text(path, manifest)), start=1):
        if line.strip():
            yield f"{path} line {number}", line


def read_table(path: Path, columns: tuple[str, ...], manifest: Manifest) -> pd.DataFrame:
    """A csv with everything as text (an id may be '0001', a word 'null'), checked for the columns it must have."""
    text = read_text(path, manifest)
    try:
        table = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise CorpusError(f"{path} is not a readable csv ({str(error).strip()}): fetch it again") from error
    table = table.rename(columns=lambda name: str(name).strip()).fillna("")
    require_columns(table, columns, path)
    return table


def split_name(name: str, where: str) -> str:
    if name.strip().lower() not in _SPLIT_NAMES:
        raise CorpusError(f"{where}: unknown split {name!r}: use train, valid or test")
    return _SPLIT_NAMES[name.strip().lower()]


def read_splits(splits: Splits) -> dict[str, str]:
    """video or segment id -> split.

    From a mapping split -> ids; a .json file of one; a .csv with split and video_id or segment_id; a Python file that
    assigns lists such as standard_train_fold (read as text, never run); or a folder of train.txt,
    valid.txt and test.txt.
    """
    if isinstance(splits, Mapping):
        return _by_id(splits, "splits")
    path = Path(splits)
    if path.is_dir():
        files = [p for p in sorted(path.glob("*.txt")) if p.stem.lower() in _SPLIT_NAMES]
        if not files:
            raise CorpusError(f"{path} holds no train.txt, valid.txt or test.txt: put one id a line into them")
        return _by_id({p.stem: p.read_text("utf-8-sig").split() for p in files}, str(path))
    if not path.is_file():
        raise CorpusError(f"no split file at {path}: check the path")
    if path.suffix == ".csv":
        table = read_table(path, ("split",), Manifest())
        column = "segment_id" if "segment_id" in table else "video_id"
        if column not in table:
            raise CorpusError(f"{path} has neither segment_id nor video_id: add one of the two columns")
        return _by_id({str(name): list(part[column]) for name, part in table.groupby("split")}, str(path))
    try:
        if path.suffix == ".py":
            return _by_id(_folds(path), str(path))
        return _by_id(dict(json.loads(path.read_text("utf-8-sig"))), str(path))
    except (ValueError, SyntaxError, TypeError) as error:
        if isinstance(error, CorpusError):
            raise
        raise CorpusError(
            f'{path} is not a usable split file ({error}): write {{"train": [ids], "valid": [ids], "test": [ids]}}'
        ) from error


def _folds(path: Path) -> dict[str, list[str]]:
    """Lists assigned to names such as standard_train_fold in a Python file."""
    found = {}
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = re.search(r"train|valid|val|dev|test", node.targets[0].id.lower())
            if name:
                found[name.group()] = list(ast.literal_eval(node.value))
    return found


def _by_id(splits: Mapping[str, Sequence[str]], where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, ids in splits.items():
        for i in ids:
            split = split_name(name, where)
            if found.setdefault(str(i), split) != split:
                raise CorpusError(f"{where}: {i!r} is in {found[str(i)]} and in {split}: leave it in one")
    if not found:
        raise CorpusError(f"{where} names no ids: give lists for train, valid and test")
    return found


def split_column(table: pd.DataFrame, splits: Splits | None, labels: str | Path) -> list[str]:
    """The split of each row by its segment or its video; "" where it is in none."""
    if splits is None:
        if "split" not in table:
            raise CorpusError(f"no splits: pass splits= (the standard folds), or add a column split to {labels}")
        return list(table["split"])
    split_of = read_splits(splits)
    return [split_of.get(s, split_of.get(v, "")) for s, v in zip(table["segment_id"], table["video_id"], strict=True)]


def random_splits(
    rows: pd.DataFrame, fractions: Sequence[float], seed: int, manifest: Manifest, groups: str = "video_id"
) -> list[str]:
    """train / valid / test in the given shares of each label, rows of one group together."""
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions are {tuple(fractions)}: give the shares of train, valid and test, adding up to 1")
    random = np.random.default_rng(seed)
    firsts = rows.drop_duplicates(groups)
    found: dict[str, str] = {}
    for _, part in firsts.groupby("label", sort=True):
        ids = random.permutation(part[groups].to_numpy(dtype=str))
        first, second = round(fractions[0] * len(ids)), round((fractions[0] + fractions[1]) * len(ids))
        found |= {str(i): "train" if k < first else "valid" if k < second else "test" for k, i in enumerate(ids)}
    shares = ", ".join(f"{100 * share:g} %" for share in fractions)
    manifest.note(f"no published split: train, valid and test ({shares}) drawn within each label with seed {seed}")
    return [found[group] for group in rows[groups]]


def same_files(names: Sequence[str], paths: Sequence[str]) -> list[str]:
    """For each name the first one whose file has the same bytes: its own where there is none before, or no file."""
    first: dict[str, str] = {}
    return [
        first.setdefault(sha256_of(path), name) if Path(path).is_file() else name
        for name, path in zip(names, tqdm(paths, desc="comparing files", unit="file"), strict=True)
    ]


def find_one(folder: Path, patterns: Sequence[str], what: str) -> Path:
    """The one file under a folder that fits the first pattern that fits any."""
    if not folder.is_dir():
        raise CorpusError(f"no folder at {folder}: check the path")
    for pattern in patterns:
        found = [p for p in sorted(folder.rglob(pattern)) if p.is_file() and not p.name.startswith("._")]
        if len(found) == 1:
            return found[0]
        if found:
            raise CorpusError(f"{folder} holds several {what} ({found[0]}, {found[1]}, ...): keep one, or point at it")
    raise CorpusError(f"{folder} holds no {what} ({' or '.join(patterns)}): check the path")


def inside(folder: Path, *parts: str) -> Path:
    """A path below a folder, from names that a table gives; a table that leads elsewhere is refused."""
    path = Path(os.path.normpath(folder.joinpath(*parts)))
    if not path.is_relative_to(folder):
        raise CorpusError(
            f"a table of {folder} names {'/'.join(parts)!r}, which is outside that folder: mend the table"
        )
    return path


def media_index(folder: Path, suffixes: Sequence[str], within: str = "") -> dict[str, Path]:
    """file stem -> path of the media files under a folder; `within`: a folder (any case) they must be in."""
    index: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        folders = [part.lower() for part in path.relative_to(folder).parts[:-1]]
        fits = path.suffix.lower() in suffixes and not path.name.startswith("._") and path.is_file()
        if fits and (not within or within.lower() in folders):
            index.setdefault(path.stem, path)
    return index
