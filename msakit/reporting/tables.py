"""A table is made from recorded runs: raw numbers in csv, formatting in Markdown, the same bytes each time.

Every row says how many seeds or folds it rests on, under which protocol and where it comes from; every table says what
a reader must not overlook (generated data, protocols that leak, settings that differ between arms, values that are
undefined, the gap to what was published), without the caller having to remember it.

Bold is the arm of the best mean among the trained arms of one protocol in a column, if its difference from each other
arm has a p of at most 0.05 in the test of :mod:`msakit.evaluation.comparisons`, Holm-corrected for the number of those
differences. Rows of one training are one arm.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from msakit.evaluation import metrics, statistics
from msakit.evaluation.comparisons import Scored, compare
from msakit.files import write_atomically
from msakit.reporting.contract import TAGS, Paper
from msakit.reporting.scores import arms_in_order, labels, scored, scores
from msakit.runs.arm import Arm, Protocol
from msakit.runs.record import Record
from msakit.runs.store import Runs

# n, unit: how many "seeds" or "folds"; n_segments: scored by the metric, over all folds; published, tag, gap: the
# published value of the same row, whose it is (TAGS), and ours less theirs; best: may be bold.
COLUMNS = ["arm", "title", "metric", "direction", "n", "unit", "mean", "sd", "low", "high", "n_segments", "source",
           "protocol", "best", "published", "tag", "gap"]  # fmt: skip
OURS, REFERENCE = "runs", "reference"
SOUND = Protocol.model_validate({})  # the protocol that needs no word
EVIDENCE = "scored"  # the column of a table's frame that holds each row's Scored; in no file
RULE = (
    "Bold: the best trained arm of a column, where it beats every other of its protocol (test over seeds and videos, "
    "or folds; Holm-corrected p ≤ 0.05). Where nothing is bold, no arm stands out from all others."
)
ORACLE_NOTE = (
    "Oracle: the generator's own posterior (its mean, or its class probabilities) given what it drew for each segment: "
    "how far there is to go."
)


@dataclass(frozen=True)
class Table:
    """Numbers and the notes that belong to them.

    frame: either the columns COLUMNS (as `arm_table` makes them), one row an arm and metric (Markdown shows arms ×
    metrics as mean ± s.d.), or any other columns (Markdown shows them as they are, floats with three decimals; a
    column with the name of a metric is headed by its title).
    """

    name: str  # file name without ending
    title: str
    frame: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def is_long(self) -> bool:
        return set(COLUMNS) <= set(self.frame.columns)


# --- the table of arms --------------------------------------------------------------------------------------------


def arm_table(
    runs: Runs,
    paper: Paper,
    title: str,
    *,
    elsewhere: Collection[str] = (),
    titles: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Table:
    """Arms × metrics from a paper's runs on one corpus, named after the corpus.

    Rows: the arms of the paper's facts in their order, then every other recorded arm, each called by `labels` of its
    records; then the references, then the published rows of that corpus. The metrics are the paper's for the corpus's
    task.

    Args:
        elsewhere: arms that another table of the paper shows; no others may be missing here.
        titles: arm to what it is called here, in place of its label.
        notes: notes besides the standing ones.

    Raises:
        ValueError: runs of several papers, corpora or versions of a corpus.
    """
    corpus, task = _one_corpus(runs)
    wanted = paper.metrics(task)
    shown = [arm for arm in arms_in_order(runs, paper) if arm not in elsewhere]
    references = runs.select(reference=True).arms
    part = runs.select(arm=[*shown, *references])
    called = {arm: (titles or {}).get(arm, own) for arm, own in labels(part, [*shown, *references]).items()}
    records = {run.record.arm: run.record for run in part}
    found = scores(part, wanted)
    known = paper.published_on("" if part.frame["generated"].any() else corpus)
    beside = {
        (arm, each["metric"]): (each["value"], each["tag"])
        for arm, row in (paper.facts.get("published_beside") or {}).items()
        for each in known[known["row"] == row].to_dict("records")
    }
    rows: list[tuple[object, ...]] = []
    undefined = []
    for arm in (*shown, *references):
        record = records[arm]
        protocol = record.definition.protocol.name
        source = REFERENCE if record.reference else OURS
        source += "" if protocol == SOUND.name else f" ({protocol})"
        for metric in wanted:
            evidence = scored(part, arm, metric)
            got = statistics.over_seeds(evidence.values)
            if got.undefined:
                undefined.append(f"{metrics.metric(metric).label} of {called[arm]}: {got.undefined} of {got.n}")
            value, tag = beside.get((arm, metric), (None, ""))
            own = found[(found["arm"] == arm) & (found["metric"] == metric)]
            n_segments = int(own.groupby("fold", dropna=False)["n"].max().sum())
            unit = "seeds" if evidence.folds is None else "folds"
            rows.append((arm, called[arm], metric, metrics.metric(metric).direction, got.n, unit, got.mean, got.sd,
                         got.low, got.high, n_segments, source, protocol, "", value, tag,
                         None if value is None else got.mean - value, evidence))  # fmt: skip
    published, published_notes = _published_rows(known, paper, wanted)
    frame = pd.DataFrame([*rows, *published], columns=[*COLUMNS, EVIDENCE])
    frame = frame.astype({"n": "Int64", "n_segments": "Int64"})
    frame = frame.astype({column: float for column in ("mean", "sd", "low", "high", "published", "gap")})
    notes = [*_standing_notes(part, called, labels(runs)), *notes, *published_notes]
    if "oracle" in references:
        notes.append(ORACLE_NOTE)
    if undefined:
        notes.append(f"Undefined (–), for instance because a run predicts a constant: {'; '.join(undefined)} runs.")
    absent = [arm for name, arm in paper.arms.items() if name not in runs.arms and name not in elsewhere]
    if absent:
        notes.append(f"Not run in this profile: {_listed(absent)}.")
    return Table(corpus, title, frame, tuple(dict.fromkeys(notes)))


def _one_corpus(runs: Runs) -> tuple[str, str]:
    """Corpus and task."""
    for column in ("paper", "corpus", "fingerprint"):
        found = sorted(runs.frame[column].unique())
        if len(found) != 1:
            mend = "run the older ones again" if column == "fingerprint" else "select one first"
            raise ValueError(f"{runs.where}: a table would mix runs of {column} {', '.join(found) or 'none'}; {mend}")
    return str(runs.frame["corpus"].iloc[0]), str(runs.frame["task"].iloc[0])


# --- notes that every table needs ---------------------------------------------------------------------------------


def data_note(runs: Runs) -> str:
    """What kind of data a table rests on."""
    corpus = runs.frame["corpus"].iloc[0]
    if not runs.frame["generated"].any():
        return f"Real data ({corpus})."
    return (
        f"Generated data ({corpus}): evidence about the methods on this generator, not comparable with numbers "
        "published on other corpora."
    )


def _standing_notes(runs: Runs, titles: Mapping[str, str], others: Mapping[str, str]) -> list[str]:
    """The notes that those runs need: data, protocols, settings that differ, shared trainings, few seeds.

    titles: arm -> what the table calls it, in its order; others: labels of the arms that it does not show.
    """
    records = {run.record.arm: run.record for run in runs}
    trained = {arm: records[arm] for arm in titles if not records[arm].reference}
    notes = [data_note(runs), *_protocol_notes(trained, titles)]
    differing = _settings_note(trained.values(), titles)
    notes += [differing] if differing else []
    same = [
        f"{titles[arm]} = {titles.get(source) or others.get(source, source)}"
        for arm, record in trained.items()
        if (source := record.same_as) is not None
    ]
    if same:
        notes.append(f"Arms of equal inputs are one training, recorded under both names: {'; '.join(same)}.")
    counts = runs.select(reference=False).frame.groupby("arm")[["seed", "fold"]].nunique().max(axis=1)
    if (counts < 3).any():
        notes.append("An arm with fewer than three seeds or folds says little about its spread.")
    return notes


def _listed(arms: Iterable[Arm]) -> str:
    """Titles of arms, those of a group together: "Single layer (text, audio); Text only"."""
    groups: dict[str, list[str]] = {}
    for arm in arms:
        groups.setdefault(arm.group, []).append(arm.title)
    return "; ".join(f"{group} ({', '.join(names)})" if group else ", ".join(names) for group, names in groups.items())


def _protocol_notes(trained: Mapping[str, Record], titles: Mapping[str, str]) -> list[str]:
    """What sets each protocol apart from the sound one, and which arms follow it."""
    by_protocol: dict[Protocol, list[str]] = {}
    for arm, record in trained.items():
        by_protocol.setdefault(record.definition.protocol, []).append(titles[arm])
    notes = []
    for protocol, who in by_protocol.items():
        phrases = {
            "folds": "the corpus's own split, not folds" if protocol.folds == "none" else f"{protocol.folds} folds",
            "stop": f"the epoch is chosen on the {protocol.stop} split",
            "drop_last": "incomplete last batches are dropped, of the test split too",
            "threshold": f"0.5 is the threshold of {protocol.threshold}",
            "share": f"{protocol.share} % of the training split",
        }
        apart = [phrase for name, phrase in phrases.items() if getattr(protocol, name) != getattr(SOUND, name)]
        if apart:
            leaks = " (leaks)" if protocol.leaks else ""
            notes.append(f"Protocol {protocol.name}{leaks}: {'; '.join(apart)}: {', '.join(who)}.")
    return notes


def _settings_note(records: Iterable[Record], titles: Mapping[str, str]) -> str:
    """Settings of the training that differ between arms, such as "epochs 8 (A), 12 (all others)"; "" for none."""
    values: dict[str, dict[str, list[str]]] = {}
    for record in records:
        for name, value in record.settings.items():
            shown = value if isinstance(value, str) else json.dumps(value)
            values.setdefault(name, {}).setdefault(shown, []).append(titles[record.arm])
    differing = []
    for name, arms in values.items():
        if len(arms) > 1:
            ranked = sorted(arms.items(), key=lambda item: len(item[1]))
            groups = [f"{shown} ({', '.join(who)})" for shown, who in ranked]
            if len(ranked[-1][1]) > 2:
                groups[-1] = f"{ranked[-1][0]} (all others)"
            differing.append(f"{name} {', '.join(groups)}")
    return f"Settings that differ between arms: {'; '.join(differing)}." if differing else ""


# --- published values ---------------------------------------------------------------------------------------------


def _published_rows(
    known: pd.DataFrame, paper: Paper, wanted: Sequence[str]
) -> tuple[list[tuple[object, ...]], list[str]]:
    """The rows of the table for the published values of a corpus, and the notes on them.

    Raises:
        ValueError: the facts name a row that is not among those values.
    """
    rows: list[tuple[object, ...]] = []
    notes: list[str] = []
    if known.empty:
        return rows, notes
    for row, title in (paper.facts.get("published") or {}).items():
        part = known[known["row"] == row].to_dict("records")
        if not part:
            there = ", ".join(known["row"].unique())
            raise ValueError(f"{paper.name}: no published row {row!r} on {known['corpus'].iloc[0]}; there are: {there}")
        tag, source, note = (part[0][name] for name in ("tag", "source", "note"))
        notes.append(f"{title} [{tag}: {TAGS[tag]}]: {source}; {note}.")
        for each in part:
            if each["metric"] in wanted:
                direction = metrics.metric(each["metric"]).direction
                rows.append((row, f"{title} [{tag}]", each["metric"], direction, None, "", each["value"], None, None,
                             None, None, f"{source} [{tag}]", "", "", None, "", None, None))  # fmt: skip
    note = paper.facts.get("published_note")
    return rows, [*notes, note] if note else notes


# --- bold ---------------------------------------------------------------------------------------------------------


def _bold(frame: pd.DataFrame) -> pd.Series:
    """True at the rows (arm and metric) that are bold."""
    bold = pd.Series(False, index=frame.index)
    if EVIDENCE not in frame:
        return bold
    trained = frame[frame[EVIDENCE].map(lambda item: isinstance(item, Scored) and item.trained)]
    for (name, _), part in trained.groupby(["metric", "protocol"], sort=False):
        arms: dict[str, Scored] = {item.arm: item for item in part[EVIDENCE]}
        sign = 1 if metrics.metric(str(name)).direction == "up" else -1
        means = {arm: sign * float(item.values.mean()) for arm, item in arms.items()}
        if len(arms) < 2 or not np.isfinite(list(means.values())).all():
            continue
        best = arms.pop(max(means, key=lambda arm: means[arm]))
        try:
            p = [compare([(1, best), (-1, other)]).p for other in arms.values()]
        except ValueError:  # tested on different segments: no comparison, no bold
            continue
        if (statistics.holm(np.array(p)) <= statistics.ALPHA).all():
            bold[part.index[[item.arm == best.arm for item in part[EVIDENCE]]]] = True
    return bold


# --- files --------------------------------------------------------------------------------------------------------


def to_csv(table: Table) -> str:
    """Raw numbers, six significant digits, an empty field where there is none."""
    frame = table.frame
    if table.is_long:
        frame = frame.assign(best=np.where(_bold(frame), "yes", ""))[COLUMNS]
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def to_markdown(table: Table) -> str:
    """The title, the table and its notes."""
    head, rows, align, notes = cells(table)
    sides = ["left" if side == "l" else "right" for side in align]
    body = tabulate(rows, headers=head, tablefmt="pipe", disable_numparse=True, colalign=sides) if rows else "(empty)"
    listed = "".join(f"- {note}\n" for note in notes)
    return f"## {table.title}\n\n{body}\n" + (f"\n{listed}" if listed else "")


def cells(table: Table) -> tuple[list[str], list[list[str]], str, list[str]]:
    """Headings, cells and notes as they are shown, and how each column aligns ("l" or "r")."""
    head, rows = _long(table) if table.is_long else _as_is(table)
    align = "l" + "r" * (len(head) - 1)
    if table.is_long:
        align = align[:-2] + "ll"
    return head, rows, align, [*_reading(table), *table.notes]


def _long(table: Table) -> tuple[list[str], list[list[str]]]:
    frame = table.frame.assign(best=_bold(table.frame))
    shown = list(frame["metric"].unique())
    head = ["", _units(frame), *(metrics.metric(metric).title for metric in shown), "protocol", "from"]
    rows: list[list[str]] = []
    gaps: list[list[str]] = []
    for _, part in frame.groupby(["arm", "title", "source"], sort=False):
        found, first = part.set_index("metric").to_dict("index"), part.iloc[0]
        title, source = str(first["title"]), str(first["source"])
        values = [_cell(found[metric], source) if metric in found else "" for metric in shown]
        # A published source is spelt out in the notes, a protocol in its own column.
        short = source.partition(" ")[0] if source.startswith((OURS, REFERENCE)) else "published"
        n = "" if pd.isna(first["n"]) else str(first["n"])
        rows.append([title, n, *values, first["protocol"] if source.startswith(OURS) else "", short])
        if part["gap"].notna().any():
            beside = part.dropna(subset="gap").set_index("metric")
            values = [f"{beside['gap'][metric]:+.3f}" if metric in beside.index else "" for metric in shown]
            gaps.append([f"{title}: gap to published [{beside['tag'].iloc[0]}]", "", *values, "", "ours − published"])
    return head, rows + gaps


def _units(frame: pd.DataFrame) -> str:
    return " or ".join(sorted(unit for unit in frame["unit"].unique() if unit)) or "seeds"


def _cell(row: Mapping[Any, Any], source: str) -> str:
    if pd.isna(row["mean"]):
        return "–"
    if not source.startswith((OURS, REFERENCE)):
        return f"{row['mean']:.4g}"  # as precise as it was printed
    text = f"{row['mean']:.3f}" + ("" if pd.isna(row["sd"]) else f" ± {row['sd']:.3f}")
    return f"**{text}**" if row["best"] else text


def _as_is(table: Table) -> tuple[list[str], list[list[str]]]:
    head = [metrics.metric(name).title if name in metrics.METRICS else str(name) for name in table.frame.columns]
    missing = ["–" if pd.api.types.is_numeric_dtype(kind) else "" for kind in table.frame.dtypes]
    rows = [
        [
            absent if pd.isna(value) else f"{value:.3f}" if isinstance(value, float) else str(value)
            for value, absent in zip(row, missing, strict=True)
        ]
        for row in table.frame.itertuples(index=False, name=None)
    ]
    return head, rows


def _reading(table: Table) -> list[str]:
    if not table.is_long or table.frame.empty:
        return []
    ours = table.frame[table.frame["source"].str.startswith((OURS, REFERENCE))]
    sizes = ours.groupby("metric", sort=False)["n_segments"].max().dropna()
    units = _units(ours)
    notes = [f"Mean ± sample standard deviation over {units} (ddof 1); the arrow points to better values."]
    if len(sizes):
        most = int(sizes.max())
        fewer = [f"{metrics.metric(str(name)).label}: {size}" for name, size in sizes.items() if size != most]
        over = "" if units == "seeds" else ", over all folds"
        notes.append(f"Segments scored: {most}{over}" + (f" ({', '.join(fewer)})." if fewer else "."))
    if (ours["source"].str.startswith(OURS)).any():
        notes.append(RULE)
    if table.frame["gap"].notna().any():
        notes.append(
            "Gap: ours less the published value; other encoders, data versions or modalities may be behind it."
        )
    return notes


def texts(table: Table) -> dict[str, str]:
    """Content of a table's files by their endings."""
    return {"csv": to_csv(table), "md": to_markdown(table)}


def write(table: Table, folder: Path) -> None:
    """Write <name>.csv and <name>.md."""
    for ending, text in texts(table).items():
        write_atomically(folder / f"{table.name}.{ending}", text.encode())
