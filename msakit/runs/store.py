"""Finished runs on disk, in two forms that read alike.

While runs are made (``build/``) each has files of its own, so that a kill loses one and processes do not meet:

    <root>/<paper>/<corpus>/<arm>/[fold-<k>.]seed-<s>.parquet             predictions
    <root>/<paper>/<corpus>/<arm>/[fold-<k>.]seed-<s>.<artifact>.parquet  what a figure needs besides
    <root>/<paper>/<corpus>/<arm>/[fold-<k>.]seed-<s>.runtime.json        how it ran
    <root>/<paper>/<corpus>/<arm>/[fold-<k>.]seed-<s>.json                a Record; written last: there, the run is
                                                                          finished

Published (``results/``) they are packed, a paper's runs together; corpus, arm, seed and fold say whose a row is:

    <root>/<paper>/records.jsonl, runtime.jsonl    a line a run, in the same order
    <root>/<paper>/predictions.parquet, <artifact>.parquet

A record holds a digest of each of its tables; a table that does not fit is refused when it is read. Numbers are kept in
single precision and read with the six significant digits that it holds.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype, is_numeric_dtype

from msakit.files import write_atomically
from msakit.runs.record import (
    IDENTITY,
    PREDICTIONS,
    Record,
    RecordError,
    Runtime,
    TableInfo,
    check_predictions,
    plain_json,
)
from msakit.strict import parse

log = logging.getLogger(__name__)

MEND = "delete it and run this arm and seed again"


@dataclass(frozen=True)
class Run:
    """A finished run."""

    record: Record
    runtime: Runtime | None
    where: str  # for messages
    _read: Callable[[str, list[str]], pd.DataFrame] = field(repr=False, compare=False)  # a table's columns, as kept

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """segment_id, video_id, split, label, `prediction` or `p_<class>`, ...; treat it as read-only.

        Raises:
            RecordError: the table is not the one that the record vouches for.
        """
        table = self._checked(PREDICTIONS, self.record.predictions)
        # Packed beside a regression, indices of classes are floating-point numbers.
        return table.astype({"label": int}) if self.record.corpus.task.kind == "classification" else table

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

    def tables(self) -> dict[str, pd.DataFrame]:
        """Predictions and artifacts. Raises RecordError if one is missing or not that of the record."""
        return {PREDICTIONS: self.predictions} | {name: self.artifact(name) for name in self.record.artifacts}

    def _checked(self, name: str, info: TableInfo) -> pd.DataFrame:
        table = self._read(name, info.columns)
        table = table.assign(**{column: _numbers(table[column]) for column in info.columns if column not in info.text})
        if _digest(table) != info.sha256:
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
        """One row a run: what it is, and what was selected; its columns are those of `FRAME`."""
        rows = [[value(run) for value in FRAME.values()] for run in self.runs]
        kinds: dict[str, Any] = {
            "fold": "Int64",
            "selection_epoch": "Int64",
            "selection_value": float,
            "seconds": float,
        }
        return pd.DataFrame(rows, columns=list(FRAME)).astype(kinds)

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


FRAME: dict[str, Callable[[Run], Any]] = {
    "paper": lambda run: run.record.paper,
    "corpus": lambda run: run.record.corpus.name,
    "arm": lambda run: run.record.arm,
    "seed": lambda run: run.record.seed,
    "fold": lambda run: run.record.fold and run.record.fold.index,
    "protocol": lambda run: run.record.definition.protocol.name,
    "reference": lambda run: run.record.reference,
    "task": lambda run: run.record.corpus.task.kind,
    "generated": lambda run: run.record.corpus.generated,
    "fingerprint": lambda run: run.record.corpus.fingerprint,
    "version": lambda run: run.record.version,
    "selection_metric": lambda run: run.record.selection and run.record.selection.metric,
    "selection_value": lambda run: run.record.selection and run.record.selection.value,
    "selection_epoch": lambda run: run.record.selection and run.record.selection.epoch,
    "epochs": lambda run: len(run.record.history),
    "seconds": lambda run: run.runtime and run.runtime.seconds,
}


def read_runs(root: Path | str, on_error: Literal["raise", "report"] = "raise") -> Runs:
    """Every finished run under a folder, in either form.

    on_error: "raise" stops at the first record that cannot be read; "report" leaves such runs out and lists them in
    `problems`. Tables without a record belong to a run that did not finish and are passed over.

    Raises:
        RecordError: no such folder, a record that is not in order, or two of one run.
    """
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
    found = sorted(runs, key=_order)
    for one, other in pairwise(found):
        if one.record.identity == other.record.identity:
            raise RecordError(f"{one.where} and {other.where} are the same run: delete one of the two")
    return tuple(found)


def _order(run: Run) -> tuple[Any, ...]:
    paper, corpus, arm, seed, fold = run.record.identity
    return paper, corpus, arm, -1 if fold is None else fold, seed


def _record(line: bytes, where: str) -> Record:
    try:
        return parse(Record, json.loads(line), "record")
    except ValueError as error:
        raise RecordError(f"{where}: not readable ({error}); {MEND}") from error


def _runtime(line: bytes) -> Runtime | None:
    """How a run ran; None where it cannot be read, for no number rests on it."""
    try:
        return Runtime.model_validate_json(line) if line.strip() else None
    except ValueError as error:
        log.warning("a runtime cannot be read and is left out: %s", " ".join(str(error).split()))
        return None


def as_json(model: Record | Runtime) -> bytes:
    """One line of JSON; the order of modalities, arguments and settings is kept."""
    always = {"schema_version": model.schema_version} if isinstance(model, Record) else {}
    values = plain_json(always | model.model_dump(exclude_defaults=True))
    return (json.dumps(values, allow_nan=False, ensure_ascii=False) + "\n").encode()


# --- tables -------------------------------------------------------------------------------------------------------


def _as_kept(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers with six significant digits, in single precision; text, missing where it is empty."""
    kept: dict[str, pd.Series] = {}
    for name, column in table.items():
        if is_float_dtype(column):
            kept[str(name)] = _six_digits(column).astype(np.float32)
        elif is_numeric_dtype(column):
            kept[str(name)] = column
        else:
            text = column.astype("str")
            kept[str(name)] = text.mask(text == "")
    return pd.DataFrame(kept)


def _six_digits(column: pd.Series) -> pd.Series:
    """The numbers rounded to six significant digits; single precision has no six below 1e-30, which is zero."""
    rounded = [0.0 if abs(value) < 1e-30 else float(f"{value:.6g}") for value in column.tolist()]
    return pd.Series(rounded, column.index, dtype=float)


def _numbers(column: pd.Series) -> pd.Series:
    """A column of numbers as it was before it was kept, in double precision; packed beside text they are text."""
    values = column if is_numeric_dtype(column) else pd.to_numeric(column, errors="coerce")
    return _six_digits(values) if is_float_dtype(values) else values


def _digest(table: pd.DataFrame) -> str:
    """sha256 of a table's values, column by column: texts, and numbers in single precision."""
    found = hashlib.sha256()
    for name, column in table.items():
        texts = [] if is_numeric_dtype(column) else column.fillna("").tolist()
        found.update(json.dumps([name, texts]).encode())
        if is_numeric_dtype(column):
            found.update(column.to_numpy("<f4").tobytes())
    return found.hexdigest()


def _info(table: pd.DataFrame) -> TableInfo:
    columns = list(map(str, table))
    text = [name for name in columns if not is_numeric_dtype(table[name])]
    return TableInfo(sha256=_digest(table), columns=columns, text=text)


def _parquet(tables: Sequence[pd.DataFrame]) -> bytes:
    """The tables below one another; a column that one of them lacks is empty there, one of text anywhere is text."""
    from pyarrow import Table, concat_tables, parquet, types

    text = {name for table in tables for name in table if not is_numeric_dtype(table[name])}
    single = {name for table in tables for name in table if is_float_dtype(table[name])}
    kinds: dict[Any, Any] = dict.fromkeys(single, np.float32) | dict.fromkeys(text, "str")
    parts = []
    for table in tables:
        table = table.astype({name: kinds[name] for name in table if name in kinds})
        parts.append(Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None))
    joined = concat_tables(parts, promote_options="permissive")
    content = BytesIO()
    # Bytes of equal weight together make numbers a third smaller.
    numbers = [field.name for field in joined.schema if types.is_floating(field.type)]
    rest = [name for name in joined.column_names if name not in numbers]
    parquet.write_table(joined, content, compression="zstd", compression_level=9, use_dictionary=rest,
                        use_byte_stream_split=numbers)  # fmt: skip
    return content.getvalue()


# --- a run's own files --------------------------------------------------------------------------------------------

RUNTIME = ".runtime.json"


def run_path(root: Path, record: Record) -> Path:
    """Where the JSON of a run lies."""
    return Path(root) / record.paper / record.corpus.name / record.arm / f"{record.stem}.json"


def _table_path(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.parquet" if name == PREDICTIONS else f"{path.stem}.{name}.parquet")


def read_run(path: Path) -> Run:
    """The run whose JSON is at `path`. Raises RecordError for one that is not there or not in order."""
    if not path.is_file():
        raise RecordError(f"{path}: no such record; run this arm and seed")
    record = _record(path.read_bytes(), str(path))
    if path.parts[-4:] != run_path(Path(), record).parts:
        raise RecordError(f"{path}: its record says {run_path(Path(), record)}; move it back, or {MEND}")
    runtime = path.with_name(path.stem + RUNTIME)

    def read(name: str, columns: list[str]) -> pd.DataFrame:
        try:
            return pd.read_parquet(_table_path(path, name))[columns]
        except (OSError, ValueError, KeyError) as error:
            raise RecordError(f"{path}: its table {name!r} is not readable as parquet ({error}); {MEND}") from error

    return Run(record, _runtime(runtime.read_bytes()) if runtime.is_file() else None, str(path), read)


def find_run(root: Path, record: Record) -> Run | None:
    """The run stored under the name of a record, if it is there and whole."""
    path = run_path(root, record)
    if not path.is_file():
        return None
    try:
        run = read_run(path)
        run.tables()
        return run
    except RecordError as error:
        log.warning("%s (counted as not finished)", error)
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
    check_predictions(predictions, str(path))
    tables = {name: _as_kept(table) for name, table in {PREDICTIONS: predictions, **(artifacts or {})}.items()}
    infos = {name: _info(table) for name, table in tables.items()}
    record = record.model_copy(update={"predictions": infos.pop(PREDICTIONS), "artifacts": infos})
    line = as_json(record)
    _record(line, str(path))  # what could not be read is not written
    path.unlink(missing_ok=True)  # the old record must not vouch for the new predictions
    for name, table in tables.items():
        write_atomically(_table_path(path, name), _parquet([table]))
    how = path.with_name(path.stem + RUNTIME)
    if runtime is None:
        how.unlink(missing_ok=True)
    else:
        write_atomically(how, as_json(runtime))
    write_atomically(path, line)
    return path


def set_aside(run: Run, root: Path, folder: Path) -> None:
    """Move the files of a run to the same place under another folder, with its key in their names."""
    path = run_path(root, run.record)
    target = folder / path.relative_to(root).parent
    target.mkdir(parents=True, exist_ok=True)
    # The record first: without it the rest counts for nothing.
    for file in sorted(path.parent.glob(f"{path.stem}.*"), key=lambda file: file != path):
        file.replace(target / f"{path.stem}.{run.record.key[:12]}{file.name.removeprefix(path.stem)}")


# --- packed -------------------------------------------------------------------------------------------------------


class _Packed:
    """The parquet files of one paper, each read when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tables: dict[str, tuple[Any, dict[Any, Any]]] = {}  # the table, and which rows are a run's

    def read(self, identity: tuple[Any, ...], name: str, columns: list[str]) -> pd.DataFrame:
        """The rows of one run, which may be none. Raises RecordError where the file is not in order."""
        from pyarrow import ArrowException, parquet

        path = self.folder / f"{name}.parquet"
        try:
            if name not in self._tables:
                table = parquet.read_table(path)
                owner = table.select(list(IDENTITY)).to_pandas().fillna({"fold": -1})
                self._tables[name] = table, owner.groupby(list(IDENTITY)).indices
            table, rows = self._tables[name]
            *others, fold = identity
            own = rows.get((*others, -1 if fold is None else fold), np.array([], int))
            part = table.select(columns)
            # The rows of a run lie together as they are packed, and a slice copies none of the others'.
            together = len(own) > 0 and own[-1] - own[0] == len(own) - 1
            frame: pd.DataFrame = (part.slice(own[0], len(own)) if together else part.take(own)).to_pandas()
        except (OSError, KeyError, ArrowException) as error:
            raise RecordError(f"{path}: not readable as parquet ({error}); publish the results again") from error
        return frame


def _packed_readers(path: Path) -> list[Callable[[], Run]]:
    """What reads the runs of one paper, a line each."""
    lines = path.read_bytes().splitlines()  # of bytes: text would be divided at further characters
    runtime = path.with_name("runtime.jsonl")
    how = runtime.read_bytes().splitlines() if runtime.is_file() else []
    if len(how) != len(lines):
        log.warning("%s has %d lines for %d records: how the runs ran is left out", runtime, len(how), len(lines))
        how = [b""] * len(lines)
    packed = _Packed(path.parent)

    def read(number: int) -> Run:
        where = f"{path}, line {number + 1}"
        record = _record(lines[number], where)
        return Run(record, _runtime(how[number]), where, partial(packed.read, record.identity[1:]))

    return [partial(read, number) for number in range(len(lines))]


def pack(runs: Runs, folder: Path, previous: Runs | None = None) -> None:
    """Write the packed form of the runs, paper by paper, into an empty folder.

    previous: runs published before, packed. Where one of them came out the same (an equal record), how it ran is kept
    as it was then; where all of a paper did, its files are kept, which another version of a library might write
    otherwise. So a reproduction in which no number moved changes no file.

    Raises:
        RecordError: a run's tables are not those of its record.
    """
    before = {run.record.identity: run for run in previous or ()}
    for paper in dict.fromkeys(run.record.paper for run in runs):
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
            for name, table in run.tables().items():
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
            run.tables()
    except RecordError as error:
        log.warning("%s: packed anew", error)
        return False
    return True


def _owned(record: Record, table: pd.DataFrame) -> pd.DataFrame:
    """A run's table with the columns that say whose rows they are."""
    fold = pd.array([None if record.fold is None else record.fold.index] * len(table), dtype="Int16")
    identity = {"corpus": record.corpus.name, "arm": record.arm, "seed": record.seed, "fold": fold}
    return pd.concat([pd.DataFrame(identity, index=table.index), table], axis=1)
