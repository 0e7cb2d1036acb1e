"""Numbers in the README are copies of published ones, filled in by this module: none of them is typed.

A table stands between ``<!-- table: results/mini/tables/PAPER/mini-mosi.md -->`` and ``<!-- end -->``; what is in
between is replaced by that file, without its heading. A number within a sentence stands in the same way behind ::

    <!-- number: results/mini/manifest.json seconds .0f -->
    <!-- number: results/cmu-mosi/claims.json claims/id=joint-matches/comparisons/comparison=VisualBERT/effect +.3f -->
    <!-- number: results/mini/tables/PAPER/mini-mosi.csv arm=mag&metric=mae/mean -->

that is a JSON or csv file, the way to the value (keys, positions, or what an item of a list must hold), and a format.
"""

import csv
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from msakit.files import write_atomically

BLOCK = re.compile(r"(<!-- table: (?P<table>[^ ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
INLINE = re.compile(r"(<!-- number: (?P<file>\S+) (?P<way>\S+)(?: (?P<form>\S+))? -->).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, root: Path) -> str:
    """The text with every table and number filled from its file under ``root``.

    Raises:
        ValueError: a block names a table or a value that is not there.
    """

    def fill(block: re.Match[str]) -> str:
        path = root / block["table"]
        if not path.is_file():
            raise ValueError(
                f"the README shows {block['table']}, which is not there: publish it, or take the block out"
            )
        return block[1] + path.read_text(encoding="utf-8").partition("\n")[2].strip() + "\n" + block[3]

    return INLINE.sub(lambda found: found[1] + number(root, found["file"], found["way"], found["form"]) + found[5],
                      BLOCK.sub(fill, text))  # fmt: skip


def number(root: Path, file: str, way: str, form: str | None = None) -> str:
    """A value of a published JSON or csv file, formatted (three decimals by default).

    Raises:
        ValueError: no such file or value; the step that fails is named.
    """
    path = root / file
    if not path.is_file():
        raise ValueError(f"the README quotes {file}, which is not there: publish it, or take the number out")
    value = _content(path)
    for step in way.split("/"):
        value = _step(value, step, f"{file}, {way}")
    if isinstance(value, str):
        value = float(value)
    return format(value, form or (".3f" if isinstance(value, float) else "d"))


@cache
def _content(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines())) if path.suffix == ".csv" else json.loads(text)


def _step(value: Any, step: str, where: str) -> Any:
    if isinstance(value, list) and "=" in step:
        wanted = dict(part.split("=", 1) for part in step.split("&"))
        found = [item for item in value if all(str(item.get(name)) == text for name, text in wanted.items())]
        if len(found) == 1:
            return found[0]
        raise ValueError(f"{where}: {len(found)} items have {step}; one is wanted")
    key: Any = int(step) if isinstance(value, list) and step.isdigit() else step
    try:
        return value[key]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{where}: there is no {step!r}") from error


def refresh(readme: Path) -> None:
    """Fill the blocks of a README from the results beside it."""
    text = readme.read_text(encoding="utf-8")
    write_atomically(readme, filled(text, readme.parent).encode())


def check(readme: Path) -> str:
    """Compare the blocks with their files. Returns a line of what was compared.

    Raises:
        ValueError: a block differs from its file, or there is no block at all.
    """
    text = readme.read_text(encoding="utf-8")
    tables, numbers = len(BLOCK.findall(text)), len(INLINE.findall(text))
    if not tables:
        raise ValueError(f"{readme} has no table block to check")
    _content.cache_clear()
    if filled(text, readme.parent) != text:
        raise ValueError(f"{readme}: a table or number is not the published one; run `msakit refresh-readme`")
    return f"{tables} tables and {numbers} numbers in sentences, all as published"
