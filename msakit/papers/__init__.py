"""The papers, each a folder that holds all that is special to it.

``paper.yaml`` (citation, facts, arms, claims), ``published.csv`` (values that others printed, with their sources),
``recipe.py`` (trains arms and records runs), and ``tables.py`` and ``figures.py``, made from recorded runs alone.
"""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from msakit.reporting.contract import Paper
from msakit.runs.arm import Arm, read_arms
from msakit.suggestions import did_you_mean

PAPERS = ("ando2022", "toledo2022", "kim2022")


@cache
def facts(paper: str) -> dict[str, Any]:
    """What ``<paper>/paper.yaml`` says; treat it as read-only.

    Raises:
        ValueError: no such paper; the choices are named.
    """
    import yaml

    if paper not in PAPERS:
        raise ValueError(f"no paper {paper!r}: choose one of {', '.join(PAPERS)}.{did_you_mean(paper, PAPERS)}")
    content: dict[str, Any] = yaml.safe_load((_folder(paper) / "paper.yaml").read_text(encoding="utf-8"))
    return content


def arms_of(paper: str) -> dict[str, Arm]:
    """The arms that ``paper.yaml`` defines, by name, in its order."""
    return read_arms(facts(paper)["arms"], where=f"{paper}/paper.yaml")


def load(paper: str) -> Paper:
    """A paper as reports want it; its recipe is not imported.

    Raises:
        ValueError: no such paper; the choices are named.
    """
    content = facts(paper)
    tables, figures = (import_module(f"{__name__}.{paper}.{part}") for part in ("tables", "figures"))
    return Paper(paper, content, _folder(paper) / "published.csv", tables.tables, figures.figures)


def load_all() -> dict[str, Paper]:
    """Every paper, by name."""
    return {paper: load(paper) for paper in PAPERS}


def _folder(paper: str) -> Path:
    return Path(__file__).parent / paper
