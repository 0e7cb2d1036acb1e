"""What reporting is handed of a paper: its facts, its published numbers, its tables and its figures.

Reporting knows no paper. Whoever needs papers takes a mapping from name to :class:`Paper`. Tables, figures and claims
are made from recorded runs (:class:`msakit.runs.store.Runs`) and these facts alone, and never from an arm's name: what
an arm is stands in its records.

Facts (``papers/<paper>/paper.yaml``) that reporting reads:

    authors, title, venue, code, status   citation; `status: reconstructed` where the equations are not public
    arms          name -> definition (:mod:`msakit.runs.arm`); their order is that of tables and figures
    metrics       {regression: [name, ...], classification: [name, ...]}, the columns of the tables of arms
    published         row of published.csv -> title, in the order that tables show them
    published_note    a note on those rows
    published_beside  arm -> the published row that stands beside it
    references    BibTeX entries (key, type, author, title, year, ...) that results of this paper rest on
    left_out      {what: why} that no results of this paper can show
    claims        see :mod:`msakit.reporting.claim_facts`
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from msakit.evaluation import metrics
from msakit.runs.arm import Arm, read_arms
from msakit.runs.store import Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from msakit.reporting.tables import Table

PUBLISHED_COLUMNS = ["corpus", "row", "metric", "value", "source", "tag", "note"]
TAGS = {
    "P": "the paper's own text",
    "C": "the authors' code or repository",
    "S": "a secondary source",
    "I": "inferred",
}


@dataclass(frozen=True, eq=False)
class Paper:
    """One paper.

    `tables(runs)` gives the tables of its runs by name (the name of their files); `figures(runs, folder)` draws its
    figures and writes them into the folder by :func:`msakit.reporting.figures.save`. Both are given runs of this paper
    alone, of any corpora, and import neither torch nor transformers.
    """

    name: str
    facts: Mapping[str, Any]
    published: pd.DataFrame  # see `read_published`
    tables: Callable[[Runs], "dict[str, Table]"]
    figures: Callable[[Runs, Path], "list[Figure]"]

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """The arms of the facts, in their order."""
        return read_arms(self.facts.get("arms") or {}, where=f"{self.name}/paper.yaml, arms")

    def metrics(self, task: str) -> tuple[str, ...]:
        """The metrics of its tables for a corpus of that task ("regression" or "classification").

        Raises:
            ValueError: the facts name none for it.
        """
        known = self.facts.get("metrics") or {}
        if task not in known:
            raise ValueError(
                f"{self.name}/paper.yaml: metrics has no entry {task}; it has {', '.join(known) or 'none'}"
            )
        return metrics.names(known[task])

    def published_on(self, corpus: str) -> pd.DataFrame:
        """The published numbers on a corpus; `cmu_mosi` is `cmu-mosi`."""
        return self.published[self.published["corpus"] == corpus.lower().replace("_", "-")]


def read_published(path: Path) -> pd.DataFrame:
    """The values that others printed, each with its source: `PUBLISHED_COLUMNS`, empty where there is no such file.

    corpus, row (the name by which facts speak of it), metric (of :mod:`msakit.evaluation.metrics`), value, source, tag
    (one of `TAGS`), note.
    """
    if not path.exists():
        return pd.DataFrame(columns=PUBLISHED_COLUMNS).astype({"value": float})
    frame = pd.read_csv(path, keep_default_na=False, dtype=str)
    return frame.assign(value=frame["value"].astype(float))
