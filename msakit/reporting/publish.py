"""Freshly built results replace a profile's committed ones, as a whole or not at all.

A results folder of one profile holds runs/, tables/<paper>/, figures/<paper>/, heads/, and what is made here from the
runs: the claims ledger, references.bib, the heads' model cards, ro-crate-metadata.json, and last manifest.json.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from msakit.reporting import exports
from msakit.reporting.manifest import write_manifest
from msakit.reporting.rebuild import CheckError, check, rebuilt
from msakit.runs.record import read_all

REPLACED = ("runs", "tables", "figures", "heads", *exports.FILES)


def publish(built: Path, results: Path, profile: str, modules: Mapping[str, str] | None = None) -> None:
    """Replace the results in `results` by those in `built`, in one swap, after verifying every run.

    runs/, tables/, figures/ and heads/ are taken from `built` alone, the rest is made anew; other files that `built`
    lacks stay. The new tree grows beside the old one as `<results>.partial`; a stop at any point leaves `results`
    whole, or as `<results>.old`, which the next call puts back first. Raises RecordError for a bad run,
    CheckError where the tables are not those of the runs (`modules` as for `rebuild.check`).
    """
    built, results = Path(built), Path(results)
    read_all(built / "runs")
    partial, old = (results.with_name(results.name + end) for end in (".partial", ".old"))
    if old.exists() and not results.exists():
        os.replace(old, results)
    for leftover in (partial, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    results.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(built, partial, ignore=shutil.ignore_patterns("*.partial", "superseded", "checkpoints"))
    if results.exists():
        for kept in results.iterdir():
            if kept.name in REPLACED or (partial / kept.name).exists():
                continue
            if kept.is_dir():
                shutil.copytree(kept, partial / kept.name)
            else:
                shutil.copy2(kept, partial / kept.name)
    made = rebuilt(partial, modules, profile)
    exports.write(partial, {name: text for name, text in made.items() if not name.startswith("tables/")})
    write_manifest(partial, profile)
    try:
        check(partial, modules, made)
    except CheckError as error:
        # Runs were lost or replaced since the tables were made, for instance by a notebook run into the same folder.
        raise CheckError(f"{error}\nNothing was published. Delete {built.parent}/*.done and run again.") from error
    if results.exists():
        os.replace(results, old)
    os.replace(partial, results)
    if old.exists():
        shutil.rmtree(old)
