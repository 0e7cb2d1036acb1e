"""What is written beside the tables when results are published: claims, references, model cards, crate metadata.

All of it is text made from the recorded runs (and the names of the files that are there), so it is rebuilt and compared
byte for byte with what is committed.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from msakit.files import write_atomically
from msakit.reporting import cards, claims_text, crate, references
from msakit.reporting.claims import ledger
from msakit.reporting.contract import Paper
from msakit.runs.store import Runs

FILES = ("claims.json", "claims.md", references.FILE, crate.FILE)


def texts(
    results: Path, runs: Runs, papers: Mapping[str, Paper], profile: str, tables: Iterable[str]
) -> dict[str, str]:
    """Content of every such file by relative path. tables: relative paths of the tables' files."""
    found = claims_text.texts(ledger(runs, papers, profile), papers)
    found[references.FILE] = references.bibliography(runs, papers)
    listed = [*tables, *found]
    found |= cards.cards(results, runs, papers)
    found[crate.FILE] = crate.crate(results, runs, papers, profile, listed)
    return found


def write(results: Path, contents: Mapping[str, str]) -> None:
    """Write those files into the results folder; ones of an earlier time that no run gives any more are removed."""
    for name in FILES:
        if name not in contents:
            (Path(results) / name).unlink(missing_ok=True)
    for name, text in contents.items():
        write_atomically(Path(results) / name, text.encode())
