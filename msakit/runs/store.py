"""Finished runs on disk, in two forms that read alike.

While runs are made (``build/``) each has files of its own, so that a kill loses one and processes do not meet:

    <root>/<paper>/<corpus>/<arm>/[fold-<k>.]seed-<s>.csv             predictions
    <root>/<paper>/<corpus>/<arm>/[fold-<k>.]seed-<s>.<artifact>.csv  what a figure needs besides
    <root>/<paper>/<corpus>/<arm>/[fold-<k>.]seed-<s>.runtime.json    how it ran
    <root>/<paper>/<corpus>/<arm>/[fold-<k>.]seed-<s>.json            a Record; written last: there, the run is finished

Published (``results/``) they are packed, a paper's runs together; corpus, arm, seed and fold say whose a row is:

    <root>/<paper>/records.jsonl, runtime.jsonl    a line a run, in the same order
    <root>/<paper>/predictions.parquet             float32
    <root>/<paper>/<artifact>.parquet

A record holds a digest of each of its tables; a table that does not fit is refused when it is read. Numbers have six
significant digits.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from msakit.files import write_atomically
from msakit.runs.record import (
    IDENTITY,
    PREDICTIONS,
    SCHEMA,
    Record,
    RecordError,
    Runtime,
    TableInfo,
    as_csv,
    as_read_from_csv,
    check_predictions,
    digest,
    floats,
    from_csv,
    plain_json,
    table_info,
    values_of,
)
from msakit.strict import parse

log = logging.getLogger(__name__)

MEND = "delete it and run this arm and seed again"


@runtime_checkable
class _Tables(Protocol):
    """Where the tables of a run are read from."""

    def read(self, name: str, info: TableInfo) -> pd.DataFrame:
        """The predictions, or an artifact by name."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    record: Record
    runtime: Runtime | None
    where: str  # for messages
    _tables: _Tables = field(repr=False, compare=False)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """segment_id, video_id, split, label, `prediction` or `p_<class>`, ...; treat it as read-only.

        Raises:
            RecordError: the table is not the one that the record vouches for.
        """
        table = self._checked(PREDICTIONS, self.record.predictions)
        kinds: dict[str, type] = dict.fromkeys(values_of(table), float)
        kinds["label"] = int if self.record.corpus.task.kind == "classification" else float
        for name, kind in kinds.items():
            if table[name].dtype != kind:
                table[name] = table[name].astype(kind)
        return table

    @cached_property
    def test(self) -> pd.DataFrame:
        """The test rows of the predictions."""
        return self.split("test")

    def split(self, name: str) -> pd.DataFrame:
        """The predictions of one split, which may have no rows."""
        return self.predictions[self.predictions["split"] == name].reset_index(drop=True)

    def artifact(self, name: str) -> pd.DataFrame:
        """A further table. Raises RecordError if the run has none of that name, or not the one of its record."""
        if name not in self.record.artifacts:
            choices = ", ".join(self.record.artifacts) or "none"
            raise RecordError(f"{self.where}: no artifact {name!r} (there are: {choices}); {MEND}")
        return self._checked(name, self.record.artifacts[name])

    def check(self) -> None:
        """Raises RecordError if a table is missing or not the one of its record."""
        for name, info in {PREDICTIONS: self.record.predictions, **self.record.artifacts}.items():
            self._checked(name, info)

    def _checked(self, name: str, info: TableInfo) -> pd.DataFrame:
        table = self._tables.read(name, info)
        if list(table) != info.columns or digest(table, info.text) != info.sha256:
            raise RecordError(f"{self.where}: its table {name!r} is not the one recorded (torn or edited); {MEND}")
        return table


@dataclass(frozen=True)
class Runs:
    """Finished runs, ordered by paper, corpus, arm, fold and seed."""

    runs: tuple[Run, ...]
    where: Path
    problems: tuple[RecordError, ...] = ()  # what could not be read, where the reader was told to go on

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a run: what it is, and what was selected."""
        rows = []
        for run in self.runs:
            record, chosen = run.record, run.record.selection
            rows.append(
                {
                    "paper": record.paper,
                    "corpus": record.corpus.name,
                    "arm": record.arm,
                    "title": record.title,
                    "group": record.definition.group,
                    "model": record.definition.model,
                    "modalities": "+".join(record.modalities),
                    "seed": record.seed,
                    "fold": None if record.fold is None else record.fold.index,
                    "share": record.definition.protocol.share,
                    "protocol": record.definition.protocol.name,
                    "leaks": record.definition.protocol.leaks,
                    "reference": record.reference,
                    "task": record.corpus.task.kind,
                    "generated": record.corpus.generated,
                    "fingerprint": record.corpus.fingerprint,
                    "version": record.version,
                    "key": record.key,
                    "selection_split": chosen and chosen.split,
                    "selection_metric": chosen and chosen.metric,
                    "selection_value": chosen and chosen.value,
                    "selection_epoch": chosen and chosen.epoch,
                    "epochs": len(record.history),
                    "seconds": run.runtime and run.runtime.seconds,
                }
            )
        kinds: dict[str, Any] = {
            "fold": "Int64",
            "selection_epoch": "Int64",
            "selection_value": float,
            "seconds": float,
        }
        return pd.DataFrame(rows, columns=FRAME).astype(kinds)

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, references among them, in the order of the runs."""
        return tuple(dict.fromkeys(run.record.arm for run in self.runs))

    def select(self, **wanted: Any) -> "Runs":
        """The runs whose columns of `frame` have the wanted values, each a value or several; may be empty.

        Raises:
            ValueError: no such column.
        """
        unknown = sorted(set(wanted) - set(FRAME))
        if unknown:
            raise ValueError(f"runs cannot be selected by {unknown[0]!r}: choose from {', '.join(FRAME)}")
        chosen = np.ones(len(self.runs), dtype=bool)
        for name, value in wanted.items():
            if value is not None:
                several = isinstance(value, Iterable) and not isinstance(value, str)
                chosen &= self.frame[name].isin(list(value) if several else [value]).to_numpy()
        return replace(self, runs=tuple(run for run, kept in zip(self.runs, chosen, strict=True) if kept))


FRAME = ["paper", "corpus", "arm", "title", "group", "model", "modalities", "seed", "fold", "share", "protocol",
         "leaks", "reference", "task", "generated", "fingerprint", "version", "key", "selection_split",
         "selection_metric", "selection_value", "selection_epoch", "epochs", "seconds"]  # fmt: skip


def read_runs(root: Path | str, on_error: str = "raise") -> Runs:
    """Every finished run under a folder, in either form.

    on_error: "raise" stops at the first record that cannot be read; "report" leaves such runs out and lists them in
    `problems`. Tables without a record belong to a run that did not finish and are passed over.

    Raises:
        RecordError: no such folder, a record that is not in order, or two of one run.
    """
    if on_error not in ("raise", "report"):
        raise ValueError(f"on_error is {on_error!r}; choose raise or report")
    root = Path(root)
    if not root.is_dir():
        raise RecordError(f"{root}: no such folder of runs; run an experiment first")
    found: list[Run] = []
    problems: list[RecordError] = []
    readers = [reader for path in sorted(root.glob("*/records.jsonl")) for reader in _packed_readers(path)]
    # A name with a leading dot is of a file that was being written when its process was stopped.
    records = (path for path in sorted(root.glob("*/*/*/[!.]*.json")) if not path.name.endswith(RUNTIME))
    readers += [partial(read_run, path) for path in records]
    for read in readers:
        try:
            found.append(read())
        except RecordError as error:
            if on_error == "raise":
                raise
            log.warning("%s", error)
            problems.append(error)
    return Runs(ordered(found), root, tuple(problems))


def ordered(runs: Iterable[Run]) -> tuple[Run, ...]:
    """The runs by paper, corpus, arm, fold and seed.

    Raises:
        RecordError: a run occurs twice.
    """
    found = sorted(runs, key=lambda run: _order(run.record))
    for one, other in pairwise(found):
        if one.record.identity == other.record.identity:
            raise RecordError(f"{one.where} and {other.where} are the same run: delete one of the two")
    return tuple(found)


def _order(record: Record) -> tuple[Any, ...]:
    paper, corpus, arm, seed, fold = record.identity
    return paper, corpus, arm, -1 if fold is None else fold, seed


def _record(line: str | bytes, where: str) -> Record:
    try:
        values = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{where}: not readable as JSON ({error}); {MEND}") from error
    if not isinstance(values, dict):
        raise RecordError(f"{where}: holds a {type(values).__name__}, wanted a record; {MEND}")
    if (schema := values.get("schema_version")) != SCHEMA:
        raise RecordError(f"{where}: schema {schema!r}, this version reads schema {SCHEMA}; {MEND}")
    try:
        return parse(Record, values, where)
    except ValueError as error:
        raise RecordError(f"{error}; {MEND}") from error


# --- a run's own files --------------------------------------------------------------------------------------------

RUNTIME = ".runtime.json"


@dataclass(frozen=True)
class _Files:
    """The csv files beside a record."""

    path: Path

    def read(self, name: str, info: TableInfo) -> pd.DataFrame:
        file = _table_path(self.path, name)
        if not file.is_file():
            raise RecordError(f"{self.path}: its {file.name} is missing; delete the record and run again")
        try:
            return from_csv(file.read_bytes(), info.text)
        except ValueError as error:
            raise RecordError(f"{file}: not readable as csv ({error}); {MEND}") from error


def run_path(root: Path, record: Record) -> Path:
    """Where the JSON of a run lies."""
    return Path(root) / record.paper / record.corpus.name / record.arm / f"{record.stem}.json"


def _table_path(path: Path, name: str) -> Path:
    return path.with_suffix(".csv") if name == PREDICTIONS else path.with_name(f"{path.stem}.{name}.csv")


def read_run(path: Path) -> Run:
    """The run whose JSON is at `path`. Raises RecordError for one that is not there or not in order."""
    if not path.is_file():
        raise RecordError(f"{path}: no such record; run this arm and seed")
    record = _record(path.read_bytes(), str(path))
    if path.parts[-4:] != run_path(Path(), record).parts:
        raise RecordError(f"{path}: its record says {run_path(Path(), record)}; move it back, or {MEND}")
    missing = [name for name in (PREDICTIONS, *record.artifacts) if not _table_path(path, name).is_file()]
    if missing:
        raise RecordError(f"{path}: its {_table_path(path, missing[0]).name} is missing; {MEND}")
    runtime = path.with_name(path.stem + RUNTIME)
    return Run(record, _runtime(runtime.read_bytes()) if runtime.is_file() else None, str(path), _Files(path))


def _runtime(line: str | bytes) -> Runtime | None:
    """How a run ran; None where it cannot be read, for no number rests on it."""
    try:
        return Runtime.model_validate_json(line) if line.strip() else None
    except ValueError as error:
        log.warning("a runtime cannot be read and is left out: %s", " ".join(str(error).split()))
        return None


def write_run(
    root: Path,
    record: Record,
    runtime: Runtime | None,
    predictions: pd.DataFrame,
    artifacts: Mapping[str, pd.DataFrame] | None = None,
) -> Path:
    """Store a finished run: its tables first, then the record that vouches for them. Returns the path of its JSON.

    Processes may write different runs at the same time. A run of the same name is replaced; a stop in between leaves it
    unfinished, never mixed. The digests in the record are filled in here.

    Raises:
        RecordError: predictions without a needed column, or with a segment twice.
    """
    path = run_path(root, record)
    check_predictions(predictions, str(_table_path(path, PREDICTIONS)))
    tables = {PREDICTIONS: predictions, **(artifacts or {})}
    contents = {name: as_csv(table) for name, table in tables.items()}
    infos = {name: table_info(table, contents[name]) for name, table in tables.items()}
    record = record.model_copy(update={"predictions": infos.pop(PREDICTIONS), "artifacts": infos})
    line = as_json(record)
    _record(line, str(path))  # what could not be read is not written
    path.unlink(missing_ok=True)  # the old record must not vouch for the new predictions
    for name, content in contents.items():
        write_atomically(_table_path(path, name), content)
    how = path.with_name(path.stem + RUNTIME)
    if runtime is None:
        how.unlink(missing_ok=True)
    else:
        write_atomically(how, as_json(runtime))
    write_atomically(path, line)
    return path


def as_json(model: Record | Runtime) -> bytes:
    """One line of JSON; the order of modalities, arguments and settings is kept."""
    always = {"schema_version": model.schema_version} if isinstance(model, Record) else {}
    values = plain_json(always | model.model_dump(exclude_defaults=True))
    return (json.dumps(values, allow_nan=False, ensure_ascii=False) + "\n").encode()


def finished(root: Path, record: Record) -> bool:
    """Whether a run of this name and key is stored whole."""
    path = run_path(root, record)
    if not path.is_file():
        return False
    try:
        run = read_run(path)
        run.check()
        return run.record.key == record.key
    except RecordError as error:
        log.warning("%s (counted as not finished)", error)
        return False


def set_aside(run: Run, root: Path, folder: Path) -> None:
    """Move the files of a run to the same place under another folder, with its key in their names."""
    path = run_path(root, run.record)
    target = folder / path.relative_to(root).parent
    target.mkdir(parents=True, exist_ok=True)
    tables = [_table_path(path, name) for name in (PREDICTIONS, *run.record.artifacts)]
    # The record first: without it the rest counts for nothing.
    for file in (path, path.with_name(path.stem + RUNTIME), *tables):
        if file.is_file():
            file.replace(target / f"{path.stem}.{run.record.key[:12]}{file.name.removeprefix(path.stem)}")


# --- packed -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Packed:
    """The rows of one run in the packed tables of its paper."""

    shared: "_PackedTables"
    identity: tuple[Any, ...]

    def read(self, name: str, info: TableInfo) -> pd.DataFrame:
        table = self.shared.rows(name, self.identity, info.columns)
        numbers = [column for column in info.columns if column not in info.text]
        return table.assign(**{column: as_read_from_csv(table[column]) for column in numbers})


class _PackedTables:
    """The parquet files of one paper, each read when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tables: dict[str, tuple[Any, dict[tuple[Any, ...], tuple[int, int]]]] = {}

    def rows(self, name: str, identity: tuple[Any, ...], columns: list[str]) -> pd.DataFrame:
        """The rows of one run, which may be none. Raises RecordError where a column is missing."""
        path = self.folder / f"{name}.parquet"
        if name not in self._tables:
            self._tables[name] = self._open(path)
        table, spans = self._tables[name]
        start, stop = spans.get(identity, (0, 0))
        missing = [column for column in columns if column not in table.column_names]
        if missing:
            raise RecordError(f"{path} has no column {missing[0]!r}; publish the results again")
        frame: pd.DataFrame = table.slice(start, stop - start).select(columns).to_pandas()
        return frame

    @staticmethod
    def _open(path: Path) -> tuple[Any, dict[tuple[Any, ...], tuple[int, int]]]:
        from pyarrow import ArrowException, parquet

        try:
            table = parquet.read_table(path)
            owner = table.select(list(IDENTITY)).to_pandas().fillna({"fold": -1})
        except (OSError, KeyError, ArrowException) as error:
            raise RecordError(f"{path}: not readable as parquet ({error}); publish the results again") from error
        starts = np.flatnonzero((owner != owner.shift()).any(axis=1)).tolist()
        spans: dict[tuple[Any, ...], tuple[int, int]] = {}
        for start, stop in zip(starts, [*starts[1:], len(owner)], strict=True):
            corpus, arm, seed, fold = owner.iloc[start]
            identity = (str(corpus), str(arm), int(seed), int(fold) if fold >= 0 else None)
            if identity in spans:
                raise RecordError(f"{path}: the rows of {identity} are not together; publish the results again")
            spans[identity] = start, stop
        return table.drop_columns(list(IDENTITY)), spans


def _packed_readers(path: Path) -> list[Callable[[], Run]]:
    """What reads the runs of one paper, a line each."""
    lines = path.read_bytes().splitlines()  # of bytes: text would be divided at further characters
    runtime = path.with_name("runtime.jsonl")
    how = runtime.read_bytes().splitlines() if runtime.is_file() else []
    if len(how) != len(lines):
        log.warning("%s has %d lines for %d records: how the runs ran is left out", runtime, len(how), len(lines))
        how = [b""] * len(lines)
    shared = _PackedTables(path.parent)

    def read(number: int) -> Run:
        where = f"{path}, line {number + 1}"
        record = _record(lines[number], where)
        return Run(record, _runtime(how[number]), where, _Packed(shared, record.identity[1:]))

    return [partial(read, number) for number in range(len(lines))]


def pack(runs: Runs, folder: Path, previous: Runs | None = None) -> None:
    """Write the packed form of the runs, paper by paper, into an empty folder.

    previous: runs published before. Where one of them came out the same (an equal record), how it ran is kept as it was
    then; where all of a paper did, its files are kept, which another version of a library might write otherwise. So a
    reproduction in which no number moved changes no file.

    Raises:
        RecordError: a run's tables are not those of its record.
    """
    before = {run.record.identity: run for run in previous or ()}
    papers = dict.fromkeys(run.record.paper for run in runs)
    for paper in papers:
        part = [run for run in runs if run.record.paper == paper]
        if previous is not None and _published_alike(part, previous.select(paper=paper)):
            shutil.copytree(previous.where / paper, folder / paper)
            continue
        records, runtimes, tables = [], [], dict[str, list[pd.DataFrame]]()
        for run in part:
            same = before.get(run.record.identity)
            kept = same.runtime if same is not None and same.record == run.record else None
            kept = kept or run.runtime
            records.append(as_json(run.record))
            runtimes.append(b"\n" if kept is None else as_json(kept))
            own = {PREDICTIONS: run.predictions} | {name: run.artifact(name) for name in run.record.artifacts}
            for name, table in own.items():
                tables.setdefault(name, []).append(_owned(run.record, table))
        write_atomically(folder / paper / "records.jsonl", b"".join(records))
        write_atomically(folder / paper / "runtime.jsonl", b"".join(runtimes))
        for name, each in tables.items():
            write_atomically(folder / paper / f"{name}.parquet", _parquet(each))


def _published_alike(runs: Sequence[Run], previous: Runs) -> bool:
    """Whether files published before hold just these runs, and whole."""
    if [run.record for run in runs] != [run.record for run in previous]:
        return False
    try:
        for run in previous:
            if not isinstance(run._tables, _Packed):
                return False
            run.check()
    except RecordError as error:
        log.warning("%s: packed anew", error)
        return False
    return True


def _owned(record: Record, table: pd.DataFrame) -> pd.DataFrame:
    """A run's table with the columns that say whose rows they are."""
    fold = pd.array([None if record.fold is None else record.fold.index] * len(table), dtype="Int16")
    identity = {"corpus": record.corpus.name, "arm": record.arm, "seed": record.seed, "fold": fold}
    return pd.concat([pd.DataFrame(identity, index=table.index), table], axis=1)


def _parquet(tables: Sequence[pd.DataFrame]) -> bytes:
    """The tables below one another; a column that one of them lacks is empty there, one of text anywhere is text."""
    from pyarrow import Table, concat_tables, parquet, types

    numeric = pd.api.types.is_numeric_dtype
    text = {str(name) for table in tables for name in table if not numeric(table[name])}
    single = {name for table in tables for name in floats(table)}
    parts = []
    for table in tables:
        numbers = [str(name) for name in table if numeric(table[name])]
        kinds: dict[str, Any] = {name: np.float32 for name in numbers if name in single}
        table = table.astype(kinds)
        if mixed := [name for name in numbers if name in text]:
            table = table.assign(**from_csv(as_csv(table[mixed]), mixed))
        parts.append(Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None))
    joined = concat_tables(parts, promote_options="permissive")
    content = BytesIO()
    # Bytes of equal weight together make numbers a third smaller.
    numbers = [field.name for field in joined.schema if types.is_floating(field.type)]
    rest = [name for name in joined.column_names if name not in numbers]
    parquet.write_table(joined, content, compression="zstd", compression_level=9, use_dictionary=rest,
                        use_byte_stream_split=numbers)  # fmt: skip
    return content.getvalue()
