"""Freshly built results replace a profile's committed ones, as a whole or not at all.

A results folder of one profile holds runs/<paper>/ (packed, see :mod:`msakit.runs.store`), figures/<paper>/,
heads/<paper>/<corpus>/<arm>/, and what is made here from the runs: tables/<paper>/, the claims ledger, references.bib,
the heads' model cards, ro-crate-metadata.json, and last manifest.json.

Where runs came out as before, everything comes out as before: how they ran stays as it was published, and so do the
weights of a head, whose last digits another machine may round otherwise.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from msakit.files import write_atomically
from msakit.reporting.cards import FOLDER as HEADS
from msakit.reporting.contract import Paper
from msakit.reporting.figures import copy_figures
from msakit.reporting.manifest import BESIDE, write_manifest
from msakit.reporting.rebuild import rebuilt
from msakit.runs.store import Runs, pack, read_runs

REPLACED = ("runs", "tables", "figures", "heads", "manifest.json", *BESIDE)


def publish(built: Path, results: Path, profile: str, papers: Mapping[str, Paper]) -> None:
    """Replace the results in `results` by those in `built`, in one swap, after verifying every run.

    `built` has runs/ in either form, and may have figures/ and heads/. Of a paper's heads on a corpus the one of most
    modalities is published. Other files of `results` stay. The new tree grows beside the old one as
    `<results>.partial`; a stop at any point leaves `results` whole, or as `<results>.old`, which the next call puts
    back first.

    Raises:
        RecordError: a bad run. ValueError: runs of an unknown paper, or that give no table.
    """
    built, results = Path(built), Path(results)
    partial, old = (results.with_name(results.name + end) for end in (".partial", ".old"))
    if old.exists() and not results.exists():
        os.replace(old, results)
    for leftover in (partial, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    runs = read_runs(built / "runs")
    before = read_runs(results / "runs", on_error="report") if (results / "runs").is_dir() else Runs((), results)
    partial.mkdir(parents=True)
    pack(runs, partial / "runs", before)
    for folder in sorted((built / "figures").glob("*/")):
        copy_figures(folder, partial / "figures" / folder.name)
    for folder in _fullest(built, runs):
        _copy_head(built, folder, results, partial, runs, before)
    for name, text in rebuilt(partial, papers, profile).items():
        write_atomically(partial / name, text.encode())
    write_manifest(partial, profile)
    if results.exists():
        for kept in results.iterdir():
            if kept.name not in REPLACED:
                (shutil.copytree if kept.is_dir() else shutil.copy2)(kept, partial / kept.name)
        os.replace(results, old)
    os.replace(partial, results)
    if old.exists():
        shutil.rmtree(old)


def _fullest(built: Path, runs: Runs) -> list[Path]:
    """Of the heads of each paper and corpus the one of most modalities, relative to `built`."""
    records = [run.record for run in runs]
    modalities: dict[tuple[str, ...], int] = {
        (each.paper, each.corpus.name, each.arm): len(each.modalities) for each in records
    }
    found: dict[tuple[str, ...], Path] = {}
    for config in sorted((built / HEADS).glob("*/*/*/config.json")):
        head = config.parent.relative_to(built)
        of_corpus = (found.get(head.parts[-3:-1], head), head)
        found[head.parts[-3:-1]] = max(of_corpus, key=lambda each: modalities.get(each.parts[-3:], 0))
    return list(found.values())


def _copy_head(built: Path, head: Path, results: Path, partial: Path, runs: Runs, before: Runs) -> None:
    """A head, as it was published where its arm's runs came out the same and all but the weights is the same."""
    paper, corpus, arm = head.parts[-3:]
    records = [[run.record for run in side.select(paper=paper, corpus=corpus, arm=arm)] for side in (runs, before)]
    same = records[0] == records[1] and _texts(built / head) == _texts(results / head)
    shutil.copytree(results / head if same else built / head, partial / head)


def _texts(head: Path) -> dict[str, bytes]:
    """The files of a head but its weights and its card."""
    apart = (".safetensors", ".md")
    return {path.name: path.read_bytes() for path in sorted(head.glob("*")) if path.suffix not in apart}
