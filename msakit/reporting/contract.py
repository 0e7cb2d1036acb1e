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

import numpy as np
import pandas as pd

from msakit.evaluation import metrics
from msakit.runs.arm import Arm, read_arms
from msakit.runs.store import Runs
from msakit.suggestions import did_you_mean

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


def paper_of(papers: Mapping[str, Paper], name: str) -> Paper:
    """A paper by name. Raises ValueError that lists the choices."""
    if name not in papers:
        raise ValueError(
            f"runs of an unknown paper {name!r}; there are: {', '.join(papers)}.{did_you_mean(name, papers)}"
        )
    return papers[name]


def read_published(path: Path) -> pd.DataFrame:
    """The values that others printed, each with its source: `PUBLISHED_COLUMNS`, empty where there is no such file.

    corpus, row (the name by which facts speak of it), metric (of :mod:`msakit.evaluation.metrics`), value, source, tag
    (one of `TAGS`), note. Raises ValueError naming the line that is not in order.
    """
    if not path.exists():
        return pd.DataFrame(columns=PUBLISHED_COLUMNS).astype({"value": float})
    frame = pd.read_csv(path, keep_default_na=False, dtype=str)
    if list(frame.columns) != PUBLISHED_COLUMNS:
        raise ValueError(f"{path}: columns are {', '.join(frame.columns)}; wanted {', '.join(PUBLISHED_COLUMNS)}")
    values = pd.to_numeric(frame["value"], errors="coerce").to_numpy(float)
    for line, (row, value) in enumerate(zip(frame.itertuples(index=False), values, strict=True), start=2):
        where = f"{path}, line {line}"
        if row.tag not in TAGS:
            raise ValueError(f"{where}: tag {row.tag!r}; choose from {', '.join(TAGS)}")
        if not row.source:
            raise ValueError(f"{where}: a published value needs its source")
        if not np.isfinite(value):
            raise ValueError(f"{where}: value {row.value!r} is no number")
        metrics.metric(str(row.metric))
    return frame.assign(value=values)
