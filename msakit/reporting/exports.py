"""What is written beside the tables when results are published: claims, references, model cards, crate metadata.

All of it is text made from the recorded runs (and the names of the files that are there), so it is rebuilt and compared
byte for byte with what is committed.
"""

from collections.abc import Iterable
from pathlib import Path

from msakit.reporting import cards, claims_text, crate, references
from msakit.runs.record import Runs, write_atomically

FILES = ("claims.json", "claims.md", references.FILE, crate.FILE)


def texts(results: Path, runs: Runs, profile: str, tables: Iterable[str]) -> dict[str, str]:
    """Content of every such file by relative path. tables: relative paths of the tables' files."""
    made = claims_text.texts(runs, profile)
    made[references.FILE] = references.bibliography(runs)
    listed = [*tables, *made]
    made |= cards.cards(results, runs)
    made[crate.FILE] = crate.crate(results, runs, profile, listed)
    return made


def write(results: Path, made: dict[str, str]) -> None:
    """Write those files into the results folder; ones of an earlier time that no run gives any more are removed."""
    for name in FILES:
        if name not in made:
            (Path(results) / name).unlink(missing_ok=True)
    for name, text in made.items():
        write_atomically(Path(results) / name, text.encode())
