"""Tables, claims, references, model cards and crate metadata: rebuilt from the recorded runs, byte for byte.

What was typed, edited, or made by other code or from other runs shows as a difference to what is committed. Figures are
pictures and compared through the manifest's checksums alone.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path

from msakit.reporting import cards, claims_text, crate, references, tables
from msakit.reporting.claims import ledger
from msakit.reporting.contract import Paper
from msakit.reporting.manifest import BESIDE, FILE, hashes, read_manifest
from msakit.runs.store import Runs, read_runs

DIFF_LINES = 12


class CheckError(ValueError):
    """Committed results are not what the recorded runs give; the message lists each difference and the mend."""


def tables_of(runs: Runs, papers: Mapping[str, Paper]) -> dict[str, dict[str, tables.Table]]:
    """The tables of each paper that has runs, by paper and name. Raises ValueError for runs of an unknown paper."""
    names = sorted(runs.frame["paper"].unique())
    unknown = [name for name in names if name not in papers]
    if unknown:
        raise ValueError(f"runs of an unknown paper {unknown[0]!r}; there are: {', '.join(papers)}")
    return {name: papers[name].tables(runs.select(paper=name)) for name in names}


def rebuilt(results: Path, papers: Mapping[str, Paper], profile: str | None = None) -> dict[str, str]:
    """Text of all that is made from the runs of a results folder, by relative path.

    profile: by default the manifest's. Raises CheckError where no table can be made.
    """
    results = Path(results)
    runs = read_runs(results / "runs")
    profile = profile or claims_text.read_profile(results)
    texts = {
        f"tables/{paper}/{table.name}.{ending}": text
        for paper, of_paper in tables_of(runs, papers).items()
        for table in of_paper.values()
        for ending, text in tables.texts(table).items()
    }
    if not texts:
        raise CheckError(f"{results}: no table can be made from its runs; nothing was checked")
    texts |= claims_text.texts(ledger(runs, papers, profile), papers)
    texts[references.FILE] = references.bibliography(runs, papers)
    described = crate.crate(results, runs, papers, profile, list(texts))
    return texts | cards.cards(results, runs, papers) | {crate.FILE: described}


def check(results: Path, papers: Mapping[str, Paper]) -> str:
    """Compare a results folder with its runs. Returns one line of what was compared.

    Raises:
        CheckError: lists every difference: tables that differ, lack or have no runs behind them, and files that are
            not those of the manifest. RecordError: a bad run.
    """
    results = Path(results)
    expected = rebuilt(results, papers)
    # A table may lie beside hand-made files of other kinds.
    files = [path for path in results.glob("tables/**/*") if path.suffix in (".csv", ".md")]
    found = {path.relative_to(results).as_posix() for path in files}
    found |= {name for name in (*expected, *BESIDE) if (results / name).is_file()}
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
    if not (results / FILE).exists():
        return [f"{FILE}: missing"]
    listed, found = read_manifest(results)["files"], hashes(results)
    changed = [name for name in listed if name in found and found[name] != listed[name]]
    return [
        *(f"{name}: not in the manifest" for name in sorted(set(found) - set(listed))),
        *(f"{name}: in the manifest, but not there" for name in sorted(set(listed) - set(found))),
        *(f"{name}: sha256 is not the manifest's" for name in sorted(changed)),
    ]
