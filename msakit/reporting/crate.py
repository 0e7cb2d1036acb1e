"""``ro-crate-metadata.json``: what a results folder is, for archives and search engines (RO-Crate 1.1, JSON-LD).

Folders of runs, figures and heads are described as wholes, tables and claims file by file. Nothing in it depends on the
day or the machine: the date is the release's.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msakit.reporting.contract import Paper
from msakit.runs.store import Runs

FILE = "ro-crate-metadata.json"
RELEASED = "2026-11-20"  # of the version below, as in CITATION.cff
VERSION = "0.1.0"
FOLDERS = {
    "runs": "a paper's finished runs: a JSON record a line, and the predictions of all of them in one parquet file",
    "figures": "figures as pictures, a paper's in a folder, with the data that they show in data.json",
    "heads": "trained heads, each with its model card",
}
FORMATS = {"csv": "text/csv", "md": "text/markdown", "json": "application/json", "bib": "application/x-bibtex"}
FILES = {
    "claims.json": "the claims ledger as data",
    "claims.md": "the claims ledger as a page",
    "references.bib": "what the results rest on",
    "manifest.json": "what the results are, and the sha256 of every file",
}


def crate(results: Path, runs: Runs, papers: Mapping[str, Paper], profile: str, files: list[str]) -> str:
    """The metadata file. files: tables, claims and references that are or will be there, by relative path."""
    results = Path(results)
    parts: list[dict[str, Any]] = []
    for name, text in FOLDERS.items():
        if (results / name).is_dir():
            parts.append({"@id": f"{name}/", "@type": "Dataset", "name": name, "description": text})
    for name in sorted({*files, "manifest.json"}):
        ending = name.rpartition(".")[2]
        text = FILES.get(name, "a table, rebuilt from the runs")
        parts.append({"@id": name, "@type": "File", "name": name, "description": text,
                      "encodingFormat": FORMATS.get(ending, "application/octet-stream")})  # fmt: skip
    generated = {str(name): bool(part.any()) for name, part in runs.frame.groupby("corpus")["generated"]}
    data = ", ".join(f"{name} ({'generated' if drawn else 'real'})" for name, drawn in generated.items())
    present = [papers[name] for name in sorted(runs.frame["paper"].unique())]
    cited = [
        {"@id": f"#{paper.name}", "@type": "ScholarlyArticle", "name": paper.facts["title"],
         "author": paper.facts["authors"], "publisher": paper.facts["venue"]}
        for paper in present
    ]  # fmt: skip
    software = {"@id": "#msakit", "@type": "SoftwareApplication", "name": "msakit", "version": VERSION,
                "license": "https://spdx.org/licenses/MIT"}  # fmt: skip
    root = {
        "@id": "./", "@type": "Dataset", "name": f"msakit results, profile {profile}",
        "description": f"{len(runs)} training runs of {len(present)} papers on {data}: predictions, tables, figures "
        "and a ledger of claims, all rebuilt from the recorded predictions.",
        "datePublished": RELEASED, "license": {"@id": "https://spdx.org/licenses/MIT"},
        "hasPart": [{"@id": part["@id"]} for part in parts],
        "citation": [{"@id": item["@id"]} for item in cited],
        "creator": {"@id": "#msakit"},
    }  # fmt: skip
    licence = {"@id": "https://spdx.org/licenses/MIT", "@type": "CreativeWork", "name": "MIT License"}
    descriptor = {"@id": FILE, "@type": "CreativeWork", "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
                  "about": {"@id": "./"}}  # fmt: skip
    graph = [descriptor, root, *parts, *cited, software, licence]
    content = {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
