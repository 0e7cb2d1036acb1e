"""A table is made from recorded runs: raw numbers in csv, formatting in Markdown and LaTeX, the same bytes each time.

Every row says how many seeds it rests on, under which protocol and where it comes from; every table says what a reader
must not overlook (generated data, protocols that leak, values that are undefined, the gap to what was published),
without the caller having to remember it. Bold follows :mod:`msakit.reporting.marking`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Real
from tabulate import tabulate

from msakit import papers
from msakit.evaluation import metrics, statistics
from msakit.evaluation.contrasts import scored
from msakit.reporting import latex
from msakit.reporting.marking import EVIDENCE, RULE, best_rows
from msakit.runs.record import Runs, write_atomically

log = logging.getLogger(__name__)

# published, tag, gap: the published value of the same row, whose it is (TAGS), and ours less theirs; best: may be bold.
COLUMNS = ["arm", "title", "metric", "direction", "n_seeds", "mean", "sd", "low", "high", "n_segments", "source",
           "protocol", "best", "published", "tag", "gap"]  # fmt: skip
OURS = "runs"
ENDINGS = ("csv", "md", "tex")
PUBLISHED = Path(__file__).parents[2] / "results" / "published.csv"
PUBLISHED_COLUMNS = ["paper", "corpus", "row", "metric", "value", "source", "tag", "note"]
TAGS = {
    "P": "the paper's own text",
    "C": "the authors' code or repository",
    "S": "a secondary source",
    "I": "inferred",
}


@dataclass(frozen=True)
class Table:
    """Numbers and what must be said with them.

    frame: either the columns COLUMNS (as `summarise` makes them; frames of several calls may be put together), one row
    an arm and metric (Markdown shows arms × metrics as mean ± s.d.), or any other columns (Markdown shows them as they
    are, floats with three decimals).
    """

    name: str  # file name without ending
    title: str
    frame: pd.DataFrame
    notes: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()

    @property
    def is_long(self) -> bool:
        return set(COLUMNS) <= set(self.frame.columns)


@dataclass(frozen=True)
class Row:
    """A row that no run made: an oracle, a constant, a published value. `scores` by metric name."""

    arm: str
    title: str
    scores: Mapping[str, metrics.Score]
    source: str
    note: str = ""  # printed under the table
    n_seeds: int | None = None  # as the source states it


def reference_row(
    arm: str,
    title: str,
    prediction: Real[np.ndarray, "segments *classes"],
    label: Real[np.ndarray, " segments"],
    metric_names: str | Sequence[str],
    note: str = "",
) -> Row:
    """A row scored from predictions that need no training, such as the generator's posterior mean or a constant."""
    return Row(arm, title, metrics.score(metric_names, prediction, label), source="reference", note=note)


def summarise(
    runs: Runs,
    name: str,
    title: str,
    arms: Mapping[str, str],
    metric_names: str | Sequence[str],
    references: Mapping[str, str] | None = None,
    extra: Sequence[Row] = (),
    notes: Sequence[str] = (),
    split: str = "test",
    level: float = statistics.LEVEL,
) -> Table:
    """Arms × metrics over seeds, from runs of one paper on one corpus.

    arms: arm -> title, in the table's order; references: arms recorded as runs that are no competitors (an oracle, a
    constant), shown below; extra: rows from elsewhere, shown last. Arms without runs are named in a note. The published
    value beside an arm is that of `published_beside`.
    Raises ValueError where runs mix papers, corpora or versions of a corpus.
    """
    wanted = metrics.names(metric_names)
    references = references or {}
    titles = {**arms, **references}
    runs = runs.select(arm=list(titles))
    _one_corpus(runs)
    scores = runs.scores(wanted, split)
    protocols = runs.frame.drop_duplicates("arm").set_index("arm")["protocol"]
    beside = {arm: published_beside(runs, arm) for arm in arms if arm in protocols.index}
    rows: list[tuple[object, ...]] = []
    undefined = []
    for arm, arm_title in titles.items():
        for metric in wanted if arm in protocols.index else ():
            found = scores[(scores["arm"] == arm) & (scores["metric"] == metric)]
            got = statistics.over_seeds(found["value"].to_numpy(float), level)
            if got.undefined:
                undefined.append(f"{metrics.metric(metric).label} of {arm_title}: {got.undefined} of {got.n} seeds")
            source = "reference" if arm in references else OURS
            if protocols[arm] != "corrected":
                source += f" ({protocols[arm]})"
            theirs = beside.get(arm, {}).get(metric, (None, ""))
            gap = None if theirs[0] is None else got.mean - theirs[0]
            evidence = scored(runs, arm, metric, split, trained=arm not in references)
            rows.append((arm, arm_title, metric, metrics.metric(metric).direction, got.n, got.mean, got.sd,
                         got.low, got.high, int(found["n"].max()), source, protocols[arm], "", *theirs, gap,
                         evidence))  # fmt: skip
    for row in extra:
        for metric in (metric for metric in wanted if metric in row.scores):
            value, n = row.scores[metric]
            rows.append((row.arm, row.title, metric, metrics.metric(metric).direction, row.n_seeds, value, None, None,
                         None, n or None, row.source, "", "", None, "", None, None))  # fmt: skip
    frame = pd.DataFrame(rows, columns=[*COLUMNS, EVIDENCE]).astype({"n_seeds": "Int64", "n_segments": "Int64"})
    frame = frame.astype({column: float for column in ("mean", "sd", "low", "high", "published", "gap")})
    said = [*_standing_notes(runs, titles, arms, split), *notes, *(row.note for row in extra if row.note)]
    if undefined:
        said.append(f"Undefined (–), for instance because a run predicts a constant: {'; '.join(undefined)}.")
    absent = [arm_title for arm, arm_title in titles.items() if arm not in protocols.index]
    if absent:
        said.append(f"Not run in this profile: {', '.join(absent)}.")
    return Table(name, title, frame, tuple(dict.fromkeys(said)), wanted)


def _one_corpus(runs: Runs) -> None:
    for column in ("paper", "corpus", "fingerprint"):
        found = sorted(runs.frame[column].unique())
        if len(found) > 1:
            mend = "run the older ones again" if column == "fingerprint" else "select one first"
            raise ValueError(f"{runs.root}: a table would mix runs of {column} {', '.join(found)}; {mend}")


def _standing_notes(runs: Runs, titles: Mapping[str, str], arms: Mapping[str, str], split: str) -> list[str]:
    """What is said whether or not the caller thinks of it."""
    notes, frame = [], runs.frame
    if frame.empty:
        return ["No runs."]
    if frame["generated"].any():
        corpus = frame["corpus"].iloc[0]
        notes.append(
            f"Generated data ({corpus}): evidence about the methods on this generator, not comparable with numbers "
            "published on other corpora."
        )
    for protocol, part in frame[frame["protocol"].str.startswith("as_published")].groupby("protocol"):
        who = ", ".join(titles[arm] for arm in titles if arm in set(part["arm"]))
        leaks = part["selection_split"].eq("test").any()
        how = "as published (leaks): the epoch is chosen on the test split" if leaks else "as published"
        notes.append(f"Protocol {protocol}, {how}: {who}.")
    seeds = frame[frame["arm"].isin(list(arms))].groupby("arm")["seed"].nunique()
    if split != "test":
        notes.append(f"Scored on the {split} split.")
    if (seeds < 3).any():
        notes.append("An arm with fewer than three seeds says little about its spread.")
    return notes


# --- published values ---------------------------------------------------------------------------------------------


def read_published(path: Path = PUBLISHED) -> pd.DataFrame:
    """The values others printed, each with its source. Raises ValueError naming the row that is not in order."""
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such table of published values; run from a checkout, or pass its path")
    frame = pd.read_csv(path, keep_default_na=False, dtype=str)
    if list(frame.columns) != PUBLISHED_COLUMNS:
        raise ValueError(f"{path}: columns are {', '.join(frame.columns)}; wanted {', '.join(PUBLISHED_COLUMNS)}")
    for line, row in enumerate(frame.itertuples(index=False), start=2):
        where = f"{path}, line {line}"
        if row.tag not in TAGS:
            raise ValueError(f"{where}: tag {row.tag!r}; choose from {', '.join(TAGS)}")
        if not row.source:
            raise ValueError(f"{where}: a published value needs its source")
        if not _is_number(str(row.value)):
            raise ValueError(f"{where}: value {row.value!r} is no number")
        metrics.names([str(row.metric)])
    return frame.astype({"value": float})


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def published_beside(runs: Runs, arm: str) -> dict[str, tuple[float, str]]:
    """By metric, the published value that belongs beside that arm, and its tag; nothing on generated data.

    ``published_beside`` of ``<paper>.yaml`` names a published row for an arm, or for a family's arms of two modalities
    or more (``best: layerbest``).
    """
    frame = runs.frame
    if frame.empty or frame["generated"].any() or frame["paper"].iloc[0] not in papers.PAPERS:
        return {}
    paper, corpus = str(frame["paper"].iloc[0]), str(frame["corpus"].iloc[0]).replace("_", "-")
    family = arm.partition("-")[0] if arm.count("-") > 1 and "." not in arm else ""
    rows = papers.facts(paper).get("published_beside") or {}
    row = rows.get(arm, rows.get(family))
    if row is None or not PUBLISHED.exists():
        return {}
    known = read_published()
    found = known[(known["paper"] == paper) & (known["corpus"] == corpus) & (known["row"] == row)]
    return {
        str(metric): (float(value), str(tag))
        for metric, value, tag in zip(found["metric"], found["value"], found["tag"], strict=True)
    }


def published_rows(published: pd.DataFrame, paper: str, corpus: str, titles: Mapping[str, str]) -> list[Row]:
    """Rows of one paper on one corpus: row name -> title, in that order. Raises ValueError for a row not there."""
    rows = []
    found = published[(published["paper"] == paper) & (published["corpus"] == corpus)]
    for name, title in titles.items():
        part = found[found["row"] == name]
        if part.empty:
            raise ValueError(f"no published row {name!r} of {paper} on {corpus}; there are: "
                             f"{', '.join(found['row'].unique()) or 'none'}")  # fmt: skip
        scores = {str(m): metrics.Score(float(v), 0) for m, v in zip(part["metric"], part["value"], strict=True)}
        first = part.iloc[0]
        note = f"{title} [{first['tag']}: {TAGS[first['tag']]}], on {corpus}: {first['source']}; {first['note']}."
        rows.append(Row(name, f"{title} [{first['tag']}]", scores, f"{first['source']} [{first['tag']}]", note))
    return rows


# --- files --------------------------------------------------------------------------------------------------------


def to_csv(table: Table) -> str:
    """Raw numbers, six significant digits, an empty field where there is none."""
    frame = table.frame
    if table.is_long:
        frame = frame.assign(best=np.where(_bold(frame), "yes", ""))[COLUMNS]
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def to_markdown(table: Table) -> str:
    """The title, the table and its notes."""
    head, rows, align, notes = _cells(table)
    sides = ["left" if side == "l" else "right" for side in align]
    body = tabulate(rows, headers=head, tablefmt="pipe", disable_numparse=True, colalign=sides) if rows else "(empty)"
    said = "".join(f"- {note}\n" for note in notes)
    return f"## {table.title}\n\n{body}\n" + (f"\n{said}" if said else "")


def to_latex(table: Table) -> str:
    """The same as a LaTeX table with booktabs rules."""
    head, rows, align, notes = _cells(table)
    return latex.table(table.title, head, rows, align, notes, table.name)


def _cells(table: Table) -> tuple[list[str], list[list[str]], str, list[str]]:
    """Headings, cells and notes as they are shown, and how the columns align."""
    head, rows = _long(table) if table.is_long else _as_is(table)
    align = "l" + "r" * (len(head) - 1)
    if table.is_long:
        align = align[:-2] + "ll"
    return head, rows, align, [*_reading(table), *table.notes]


def _bold(frame: pd.DataFrame) -> pd.Series:
    return best_rows(frame) if EVIDENCE in frame else pd.Series(False, index=frame.index)


def _long(table: Table) -> tuple[list[str], list[list[str]]]:
    shown = table.metrics or tuple(table.frame["metric"].unique())
    head = ["", "seeds", *(metrics.metric(metric).title for metric in shown), "protocol", "from"]
    rows = []
    frame = table.frame.assign(best=_bold(table.frame))
    for (_, title, source), part in frame.groupby(["arm", "title", "source"], sort=False):
        cells = {str(cell["metric"]): cell for cell in part.to_dict("records")}
        seeds = part["n_seeds"].iloc[0]
        values = [_cell(cells[metric]) if metric in cells else "" for metric in shown]
        protocol = str(part["protocol"].iloc[0]) if str(source).startswith(OURS) else ""
        rows.append([str(title), "" if pd.isna(seeds) else str(seeds), *values, protocol, _short(str(source))])
    for (_, title, _), part in frame[frame["gap"].notna()].groupby(["arm", "title", "source"], sort=False):
        gaps = dict(zip(part["metric"], part["gap"], strict=True))
        values = [f"{gaps[metric]:+.3f}" if metric in gaps else "" for metric in shown]
        rows.append([f"{title}: gap to published [{part['tag'].iloc[0]}]", "", *values, "", "ours − published"])
    return head, rows


def _short(source: str) -> str:
    """A published source is spelt out in the notes, a protocol in its own column."""
    return source.partition(" ")[0] if source.startswith((OURS, "reference")) else "published"


def _cell(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["mean"]):
        return "–"
    if not str(row["source"]).startswith((OURS, "reference")):
        return f"{row['mean']:.4g}"  # as precise as it was printed
    text = f"{row['mean']:.3f}" + ("" if pd.isna(row["sd"]) else f" ± {row['sd']:.3f}")
    return f"**{text}**" if row["best"] else text


def _as_is(table: Table) -> tuple[list[str], list[list[str]]]:
    head = [metrics.metric(name).title if name in metrics.METRICS else str(name) for name in table.frame.columns]
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in table.frame.dtypes]
    rows = [
        [_text(value, number) for value, number in zip(row, numeric, strict=True)]
        for row in table.frame.itertuples(index=False, name=None)
    ]
    return head, rows


def _text(value: Any, numeric: bool) -> str:
    if pd.isna(value):
        return "–" if numeric else ""
    return f"{value:.3f}" if isinstance(value, (float, np.floating)) else str(value)


def _reading(table: Table) -> list[str]:
    if not table.is_long or table.frame.empty:
        return []
    ours = table.frame[table.frame["source"].str.startswith((OURS, "reference"))]
    sizes = ours.groupby("metric", sort=False)["n_segments"].max().dropna()
    notes = ["Mean ± sample standard deviation over seeds (ddof 1); the arrow points to better values."]
    if len(sizes):
        most = int(sizes.max())
        fewer = [f"{metrics.metric(str(name)).label}: {size}" for name, size in sizes.items() if size != most]
        notes.append(f"Segments scored: {most}" + (f" ({', '.join(fewer)})." if fewer else "."))
    if (ours["source"].str.startswith(OURS)).any():
        notes.append(RULE)
    if table.frame["gap"].notna().any():
        notes.append(
            "Gap: ours less the published value; other encoders, data versions or modalities may be behind it."
        )
    return notes


def write(table: Table, folder: Path) -> tuple[Path, ...]:
    """Write <name>.csv, <name>.md and <name>.tex; returns the paths."""
    paths = []
    for ending, text in texts(table).items():
        paths.append(Path(folder) / f"{table.name}.{ending}")
        write_atomically(paths[-1], text.encode())
    return tuple(paths)


def texts(table: Table) -> dict[str, str]:
    """Content of a table's files by their endings."""
    return dict(zip(ENDINGS, (to_csv(table), to_markdown(table), to_latex(table)), strict=True))
