"""Tables in the README are copies of published ones, filled in by this module: none of them is typed.

A table stands between ``<!-- table: results/mini/tables/PAPER/mini-mosi.md -->`` and ``<!-- end -->``; what is in
between is replaced by that file, without its heading.
"""

import re
from pathlib import Path

from msakit.files import write_atomically

BLOCK = re.compile(r"(<!-- table: (?P<table>[^ ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, root: Path) -> str:
    """The text with every table filled from its file under ``root``.

    Raises:
        ValueError: a block names a table that is not there.
    """

    def fill(block: re.Match[str]) -> str:
        path = root / block["table"]
        if not path.is_file():
            raise ValueError(
                f"the README shows {block['table']}, which is not there: publish it, or take the block out"
            )
        return block[1] + path.read_text(encoding="utf-8").partition("\n")[2].strip() + "\n" + block[3]

    return BLOCK.sub(fill, text)


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
    tables = len(BLOCK.findall(text))
    if not tables:
        raise ValueError(f"{readme} has no table block to check")
    if filled(text, readme.parent) != text:
        raise ValueError(f"{readme}: a table is not the published one; run `msakit refresh-readme`")
    return f"{tables} tables, all as published"
