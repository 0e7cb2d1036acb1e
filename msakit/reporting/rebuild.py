"""Tables, claims and exports are rebuilt from the recorded runs and must equal the committed ones, byte for byte.

A table or claim that was typed, edited, or made by other code or from other runs shows as a difference. Figures are
pictures and compared through the manifest's checksums alone.
"""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msakit.reporting import exports, tables
from msakit.reporting.claims_text import read_profile
from msakit.reporting.contract import Paper, paper_of
from msakit.reporting.manifest import FILE, hashes
from msakit.runs.store import Runs, read_runs

DIFF_LINES = 12


class CheckError(ValueError):
    """Committed results are not what the recorded runs give; the message lists each difference and the mend."""


def tables_of(runs: Runs, papers: Mapping[str, Paper]) -> dict[str, dict[str, tables.Table]]:
    """The tables of each paper that has runs, by paper and name. Raises ValueError for runs of an unknown paper."""
    names = sorted(runs.frame["paper"].unique())
    return {name: paper_of(papers, name).tables(runs.select(paper=name)) for name in names}


def table_texts(runs: Runs, papers: Mapping[str, Paper]) -> dict[str, str]:
    """Text of every table by path relative to the results folder ("tables/<paper>/<name>.csv", …)."""
    return {
        f"tables/{paper}/{table.name}.{ending}": text
        for paper, of_paper in tables_of(runs, papers).items()
        for table in of_paper.values()
        for ending, text in tables.texts(table).items()
    }


def rebuilt(results: Path, papers: Mapping[str, Paper], profile: str | None = None) -> dict[str, str]:
    """Text of every table, claim and export of a results folder, by relative path.

    profile: by default the manifest's. Raises CheckError where no table can be made.
    """
    results = Path(results)
    runs = read_runs(results / "runs")
    texts = table_texts(runs, papers)
    if not texts:
        raise CheckError(f"{results}: no table can be made from its runs; nothing was checked")
    return texts | exports.texts(results, runs, papers, profile or read_profile(results), texts)


def check(results: Path, papers: Mapping[str, Paper]) -> str:
    """Compare a results folder with its runs. Returns one line of what was compared.

    Raises:
        CheckError: lists every difference: tables that differ, lack or have no runs behind them, and files that are
            not those of the manifest. RecordError: a bad run.
    """
    results = Path(results)
    expected = rebuilt(results, papers)
    # A table may lie beside hand-made files of other kinds.
    files = [path for ending in tables.ENDINGS for path in results.glob(f"tables/**/*.{ending}")]
    found = {path.relative_to(results).as_posix() for path in files}
    found |= {name for name in (*expected, *exports.FILES) if (results / name).is_file()}
    faults = [f"{name}: missing" for name in sorted(set(expected) - found)]
    faults += [f"{name}: no run gives this" for name in sorted(found - set(expected))]
    for name in sorted(found & set(expected)):
        committed = (results / name).read_bytes()
        if committed != expected[name].encode():
            faults.append(f"{name}: differs\n{_difference(committed, expected[name])}")
    faults += _manifest_faults(results)
    if faults:
        listed = "\n".join(faults)
        raise CheckError(f"{results}: {len(faults)} differences; publish the results again\n{listed}")
    return f"{len(expected)} files rebuilt from their runs, all as committed"


def _difference(committed: bytes, text: str) -> str:
    lines = difflib.unified_diff(
        committed.decode(errors="replace").splitlines(), text.splitlines(), "committed", "rebuilt", lineterm="", n=0
    )
    shown = list(lines)
    more = [f"… {len(shown) - DIFF_LINES} more lines"] if len(shown) > DIFF_LINES else []
    # Equal lines and unequal bytes: only line ends differ.
    return "\n".join(f"  {line}" for line in [*shown[:DIFF_LINES], *more]) or "  (line ends)"


def _manifest_faults(results: Path) -> list[str]:
    path = results / FILE
    if not path.exists():
        return [f"{FILE}: missing"]
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    listed, found = content["files"], hashes(results)
    changed = [name for name in listed if name in found and found[name] != listed[name]]
    return [
        *(f"{name}: not in the manifest" for name in sorted(set(found) - set(listed))),
        *(f"{name}: in the manifest, but not there" for name in sorted(set(listed) - set(found))),
        *(f"{name}: sha256 is not the manifest's" for name in sorted(changed)),
    ]
