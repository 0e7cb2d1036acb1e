"""Tables, claims and exports are rebuilt from the recorded runs and must equal the committed ones, byte for byte.

A table or claim that was typed, edited, or made by other code or from other runs shows as a difference. Figures are
pictures and compared through the manifest's checksums alone.
"""

import difflib
import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msakit import papers
from msakit.reporting import exports, tables
from msakit.reporting.claims_text import read_profile
from msakit.reporting.manifest import FILE, hashes
from msakit.runs.record import Runs, read_all

DIFF_LINES = 12


class CheckError(ValueError):
    """Committed results are not what the recorded runs give; the message lists each difference and the mend."""


def tables_of(paper: str, runs: Runs, modules: Mapping[str, str] | None = None) -> dict[str, tables.Table]:
    """A paper's tables from its runs: calls `tables(runs)` of its module ("module", or "module:function")."""
    modules = papers.PAPERS if modules is None else modules
    if paper not in modules:
        raise CheckError(f"{runs.root}: runs of an unknown paper {paper!r}; there are: {', '.join(modules)}")
    module, _, function = modules[paper].partition(":")
    make: Callable[[Runs], dict[str, tables.Table]] = getattr(importlib.import_module(module), function or "tables")
    return make(runs.select(paper=paper))


def rebuilt(results: Path, modules: Mapping[str, str] | None = None, profile: str | None = None) -> dict[str, str]:
    """Text of every table, claim and export of a results folder, by relative path ("tables/<paper>/<name>.csv", …).

    profile: by default the manifest's.
    """
    results = Path(results)
    runs = read_all(results / "runs")
    texts = {}
    for paper in sorted(runs.frame["paper"].unique()):
        for table in tables_of(paper, runs, modules).values():
            for ending, text in tables.texts(table).items():
                texts[f"tables/{paper}/{table.name}.{ending}"] = text
    if not texts:
        raise CheckError(f"{results}: no table can be made from its runs; nothing was checked")
    return texts | exports.texts(results, runs, profile or read_profile(results), texts)


def check(results: Path, modules: Mapping[str, str] | None = None, made: dict[str, str] | None = None) -> str:
    """Compare a results folder with its runs. Returns one line of what was compared.

    made: what `rebuilt` gives, where it was just called.

    Raises CheckError listing every difference: tables that differ, lack or have no runs behind them, and files that
    are not those of the manifest. Raises RecordError for a bad run.
    """
    results = Path(results)
    made = rebuilt(results, modules) if made is None else made
    # A table may lie beside hand-made files of other kinds.
    there = {
        path.relative_to(results).as_posix() for end in tables.ENDINGS for path in results.glob(f"tables/**/*.{end}")
    }
    there |= {name for name in made if (results / name).is_file()}
    there |= {name for name in exports.FILES if (results / name).is_file()}
    faults = [f"{name}: missing" for name in sorted(set(made) - there)]
    faults += [f"{name}: no run gives this" for name in sorted(there - set(made))]
    for name in sorted(there & set(made)):
        committed = (results / name).read_bytes()
        if committed != made[name].encode():
            faults.append(f"{name}: differs\n{_difference(committed, made[name])}")
    faults += _manifest_faults(results)
    if faults:
        listed = "\n".join(faults)
        raise CheckError(f"{results}: {len(faults)} differences; publish the results again\n{listed}")
    return f"{len(made)} files rebuilt from their runs, all as committed"


def _difference(committed: bytes, made: str) -> str:
    lines = difflib.unified_diff(
        committed.decode(errors="replace").splitlines(), made.splitlines(), "committed", "rebuilt", lineterm="", n=0
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


def write_tables(results: Path, modules: Mapping[str, str] | None = None) -> list[Path]:
    """Write every table that the runs of a results folder give. Returns the paths."""
    results = Path(results)
    runs = read_all(results / "runs")
    return [
        path
        for paper in sorted(runs.frame["paper"].unique())
        for table in tables_of(paper, runs, modules).values()
        for path in tables.write(table, results / "tables" / paper)
    ]
