"""The papers: for each, its facts (``<paper>.yaml``), its recipe (``<paper>.py``) and its tables and figures.

A recipe trains arms and records runs; tables and figures are made from the records alone, by
``msakit.reporting.<paper>``.
"""

from pathlib import Path
from typing import Any

# paper -> the module whose tables(runs) rebuilds its tables from recorded runs
PAPERS = {
    "ando2022": "msakit.papers.ando2022.tables",
    "toledo2022": "msakit.papers.toledo2022.tables",
    "kim2022": "msakit.papers.kim2022.tables",
}


def facts(paper: str) -> dict[str, Any]:
    """What ``<paper>.yaml`` says: citation, arms, metrics.

    Raises:
        ValueError: no such paper; the choices are named.
    """
    import yaml

    if paper not in PAPERS:
        raise ValueError(f"no paper {paper!r}: choose one of {', '.join(PAPERS)}")
    return yaml.safe_load((Path(__file__).parent / paper / "paper.yaml").read_text())
