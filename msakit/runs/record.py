"""One finished run is one JSON file and the predictions it was scored from.

    <root>/<paper>/<corpus>/<arm>/seed-<k>.csv     segment_id, split, label, prediction | p_<class>…, further columns
    <root>/<paper>/<corpus>/<arm>/seed-<k>.<artifact>.csv    what a figure needs besides: attention, embeddings, …
    <root>/<paper>/<corpus>/<arm>/seed-<k>.json    a RunRecord; written last, so its presence means "finished"

The JSON holds the sha256 of every csv, and `read` refuses files that do not belong together. Metrics are never stored:
they are computed from the predictions whenever a table is made, so a new metric needs no new training. The key of a
run (settings + corpus + code) says whether it still stands for the present sources; `finished` compares it.
"""

import hashlib
import importlib.metadata
import json
import logging
import math
import os
import platform
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msakit.evaluation import metrics

log = logging.getLogger(__name__)

SCHEMA = 2
MEND = "delete it and run this arm and seed again"
# Whose version may move a number; msakit's own is that of the protocol too.
LIBRARIES = ("torch", "transformers", "numpy", "scipy", "scikit-learn", "accelerate", "tokenizers", "librosa", "av",
             "opencv-python-headless", "msakit")  # fmt: skip
NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
CORPUS_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class RecordError(ValueError):
    """A run's files are missing, torn or not of this schema; the message names the file and the mend."""


@dataclass(frozen=True)
class RunRecord:
    """Everything about a finished run except its predictions. All values are plain JSON."""

    paper: str  # e.g. "ando2022"
    arm: str  # [a-z0-9-_.] only: it is a folder name
    seed: int
    corpus: dict[str, Any]  # name, fingerprint, generated (bool), counts {split: segments}
    protocol: str  # "corrected", "as_published", …
    config: dict[str, Any]  # the fully resolved settings
    key: str  # run_key(config, corpus fingerprint, code fingerprint)
    selection: dict[str, Any] | None  # split, metric, value, epoch; None where nothing was selected
    history: list[dict[str, Any]]  # one dict an epoch
    environment: dict[str, Any]  # see environment()
    seconds: float | int  # wall clock of training and prediction
    peak_memory_mb: float | int | None = None
    predictions_sha256: str = ""  # filled in by write()
    measurements: dict[str, Any] = field(default_factory=dict)  # what was measured besides: parameters, FLOPs, …
    artifacts: dict[str, str] = field(default_factory=dict)  # name -> sha256 of seed-<k>.<name>.csv, by write()
    schema: int = SCHEMA


# name -> accepted types; bool is refused where a number is asked for
_TYPES: dict[str, tuple[type, ...]] = {
    "paper": (str,), "arm": (str,), "seed": (int,), "corpus": (dict,), "protocol": (str,), "config": (dict,),
    "key": (str,), "selection": (dict, type(None)), "history": (list,), "environment": (dict,),
    "seconds": (int, float), "peak_memory_mb": (int, float, type(None)), "predictions_sha256": (str,),
    "measurements": (dict,), "artifacts": (dict,), "schema": (int,),
}  # fmt: skip
_CORPUS = ("name", "fingerprint", "generated", "counts")
_SELECTION = ("split", "metric", "value", "epoch")
_ENVIRONMENT = ("python", "torch", "transformers", "platform", "machine", "device", "commit", "dirty")


def validate(values: Mapping[str, Any], where: str) -> RunRecord:
    """Check a record's fields and return it. Raises RecordError naming `where` and every fault found."""
    if values.get("schema") != SCHEMA:
        found = values.get("schema")
        raise RecordError(f"{where}: schema {found!r}, this version reads schema {SCHEMA}; {MEND}")
    faults = [f"field {name!r} is missing" for name in _TYPES if name not in values]
    faults += [f"field {name!r} is unknown" for name in values if name not in _TYPES]
    for name, types in _TYPES.items():
        value = values.get(name)
        if name in values and (not isinstance(value, types) or isinstance(value, bool)):
            wanted = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            faults.append(f"field {name!r} is {type(value).__name__}, wanted {wanted}")
    if not faults:
        for name, keys in (("corpus", _CORPUS), ("selection", _SELECTION), ("environment", _ENVIRONMENT)):
            missing = [key for key in keys if values[name] is not None and key not in values[name]]
            faults += [f"{name} lacks {key!r}" for key in missing]
    if not faults:
        faults = [f"artifact {name!r} cannot name a file" for name in values["artifacts"] if not NAME.fullmatch(name)]
    if not faults:
        faults = _name_faults(values["paper"], values["corpus"]["name"], values["arm"], values["seed"])
        selection = values["selection"]
        if selection is not None and selection["split"] == "test" and not values["protocol"].startswith("as_published"):
            faults.append("selected on the test split; only an 'as_published' protocol may do that")
    if faults:
        raise RecordError(f"{where}: {'; '.join(faults)}; {MEND}")
    return RunRecord(**values)


def _name_faults(paper: str, corpus: str, arm: str, seed: int) -> list[str]:
    faults = []
    for what, name, pattern in (("paper", paper, NAME), ("arm", arm, NAME), ("corpus", corpus, CORPUS_NAME)):
        if not pattern.fullmatch(name):
            letters = "a-z A-Z 0-9 - _ ." if pattern is CORPUS_NAME else "a-z 0-9 - _ ."
            faults.append(f"{what} {name!r} cannot name a folder (only {letters}, no leading dot or dash)")
    if seed < 0:
        faults.append(f"seed {seed} is negative")
    return faults


# --- keys and the environment -------------------------------------------------------------------------------------


def run_key(config: Mapping[str, Any], corpus_fingerprint: str, code: str) -> str:
    """sha256 of settings, corpus fingerprint and code fingerprint (:func:`msakit.sources.fingerprint`).

    The order of the settings plays no part.
    """
    text = json.dumps([plain(config), corpus_fingerprint, code], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions of libraries and metrics, machine class (architecture, cores), device and the state of the sources."""
    commit, dirty = git_state()
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in LIBRARIES},
        "metrics_version": metrics.VERSION,
        "platform": platform.system(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": device,
        "commit": commit,
        "dirty": dirty,
    }


def git_state(folder: Path | None = None) -> tuple[str | None, bool | None]:
    """Commit and whether tracked sources differ from it; (None, None) outside a checkout of the sources.

    `results/` does not count: writing results must not make the sources that made them look changed.
    """
    folder = Path(__file__).parent if folder is None else folder

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout

    try:
        # An installed copy may lie in somebody else's repository, whose commit would say nothing about it.
        git("ls-files", "--error-unmatch", "__init__.py")
        commit = git("rev-parse", "HEAD").strip()
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results")
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("no git state for %s: %s", folder, error)
        return None, None
    return commit, bool(changed.strip())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def plain(value: Any) -> Any:
    """The same value in plain JSON types: numpy numbers, paths and tuples converted, nan and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist())
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    raise ValueError(
        f"{value!r} ({type(value).__name__}) cannot be stored in a record; use numbers, text, lists, dicts"
    )


# --- files --------------------------------------------------------------------------------------------------------


def run_path(root: Path, paper: str, corpus: str, arm: str, seed: int) -> Path:
    """Where that run's JSON lies. Raises RecordError for a name that cannot be a folder."""
    faults = _name_faults(paper, corpus, arm, seed)
    if faults:
        raise RecordError(f"{root}: {'; '.join(faults)}; rename it")
    return Path(root) / paper / corpus / arm / f"seed-{seed}.json"


def file_sha256(path: Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers, and a machine that stops, see the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def format_predictions(predictions: pd.DataFrame, where: str = "predictions") -> bytes:
    """Predictions as csv bytes that depend on their values alone (six significant digits)."""
    columns = list(predictions.columns)
    missing = [name for name in ("segment_id", "split", "label") if name not in columns]
    if missing:
        raise RecordError(
            f"{where}: column {', '.join(missing)} is missing (there are: {', '.join(map(str, columns))})"
        )
    if ("prediction" in columns) == any(str(name).startswith("p_") for name in columns):
        raise RecordError(f"{where}: wants either a column 'prediction' or columns 'p_<class>', one a class")
    twice = predictions["segment_id"][predictions.duplicated(["segment_id", "split"])]
    if len(twice):
        raise RecordError(f"{where}: segment {twice.iloc[0]!r} occurs twice in its split; keep one row a segment")
    return predictions.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()


def write(
    root: Path, record: RunRecord, predictions: pd.DataFrame, artifacts: Mapping[str, pd.DataFrame] | None = None
) -> Path:
    """Store a finished run: its tables first, then the record that vouches for them. Returns the JSON's path.

    artifacts: further tables by name, which ``Runs.artifact`` gives back.

    Processes may write different runs at the same time. A run of the same name is replaced; a stop in between
    leaves it unfinished, never mixed. Raises RecordError for a record or predictions that `read` would refuse.
    """
    path = run_path(root, record.paper, str(record.corpus.get("name", "")), record.arm, record.seed)
    content = format_predictions(predictions, str(path.with_suffix(".csv")))
    extra = {
        name: table.to_csv(index=False, float_format="%.4g", lineterminator="\n").encode()
        for name, table in (artifacts or {}).items()
    }
    record = replace(
        record,
        predictions_sha256=hashlib.sha256(content).hexdigest(),
        artifacts={name: hashlib.sha256(table).hexdigest() for name, table in extra.items()},
    )
    values = plain(asdict(record))
    validate(values, str(path))
    path.unlink(missing_ok=True)  # the old record must not vouch for the new predictions
    write_atomically(path.with_suffix(".csv"), content)
    for name, table in extra.items():
        write_atomically(artifact_path(path, name), table)
    write_atomically(path, (json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    return path


def artifact_path(path: Path, name: str) -> Path:
    """Where an artifact of the run whose JSON is at `path` lies."""
    return path.with_name(f"{path.stem}.{name}.csv")


def read(path: Path) -> RunRecord:
    """Read a run's JSON and verify it and its tables. Raises RecordError naming the file and the mend."""
    path = Path(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path}: no such record; run this arm and seed") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not readable as JSON ({error}); {MEND}") from error
    if not isinstance(values, dict):
        raise RecordError(f"{path}: holds a {type(values).__name__}, wanted a record; {MEND}")
    record = validate(values, str(path))
    promised = {path.with_suffix(".csv"): record.predictions_sha256}
    promised |= {artifact_path(path, name): digest for name, digest in record.artifacts.items()}
    for table, digest in promised.items():
        if not table.exists():
            raise RecordError(f"{path}: its {table.name} is missing; delete the record and run again")
        found = file_sha256(table)
        if found != digest:
            raise RecordError(
                f"{table}: sha256 {found[:12]}… is not the {digest[:12]}… that {path.name} vouches for "
                f"(torn or edited); {MEND}"
            )
    expected = (record.paper, str(record.corpus["name"]), record.arm, f"seed-{record.seed}")
    if (*path.parts[-4:-1], path.stem) != expected:
        raise RecordError(f"{path}: its record says {'/'.join(expected)}; move it back, or {MEND}")
    return record


def read_predictions(path: Path) -> pd.DataFrame:
    """Predictions of the run whose JSON is at `path`; segment_id and split are text, labels float or class index."""
    table = Path(path).with_suffix(".csv")
    # An id may read "NA" or "007".
    frame = pd.read_csv(table, dtype={"segment_id": str, "split": str}, keep_default_na=False, na_values=[""])
    if "prediction" in frame:
        frame = frame.astype({"label": float, "prediction": float})
    return frame


def finished(root: Path, paper: str, corpus: str, arm: str, seed: int, key: str) -> bool:
    """Whether that run is stored, whole, and made by the same settings, corpus and code."""
    path = run_path(root, paper, corpus, arm, seed)
    if not path.exists():
        return False
    try:
        return read(path).key == key
    except RecordError as error:
        log.warning("%s (counted as not finished)", error)
        return False


# --- many runs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A stored run: its record and where it lies."""

    path: Path
    record: RunRecord


@dataclass(frozen=True)
class Runs:
    """Stored runs in the order paper, corpus, arm, seed. Iterate over it, or use the frames."""

    runs: tuple[Run, ...]
    root: Path
    problems: tuple[RecordError, ...] = ()  # what read_all left out under on_error="report"
    _cache: dict[Path, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a run: its names, protocol, selection, epochs, cost, sources."""
        columns = ["paper", "corpus", "arm", "seed", "protocol", "generated", "fingerprint", "key", "selection_split",
                   "selection_metric", "selection_value", "selection_epoch", "epochs", "seconds", "peak_memory_mb",
                   "device", "commit", "dirty", "path"]  # fmt: skip
        rows = []
        for path, record in ((run.path, run.record) for run in self.runs):
            chosen = record.selection or dict.fromkeys(_SELECTION)
            rows.append([record.paper, record.corpus["name"], record.arm, record.seed, record.protocol,
                         record.corpus["generated"], record.corpus["fingerprint"], record.key,
                         *(chosen[name] for name in _SELECTION), len(record.history), record.seconds,
                         record.peak_memory_mb, *(record.environment[name] for name in ("device", "commit", "dirty")),
                         path.relative_to(self.root).as_posix()])  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def predictions(self, run: Run) -> pd.DataFrame:
        """That run's predictions (read once; treat them as read-only)."""
        if run.path not in self._cache:
            self._cache[run.path] = read_predictions(run.path)
        return self._cache[run.path]

    def artifact(self, run: Run, name: str) -> pd.DataFrame:
        """A further table of that run. Raises RecordError if it has none of that name."""
        if name not in run.record.artifacts:
            there = ", ".join(run.record.artifacts) or "none"
            raise RecordError(f"{run.path}: no artifact {name!r} (there are: {there}); {MEND}")
        return pd.read_csv(artifact_path(run.path, name), dtype={"segment_id": str}, keep_default_na=False,
                           na_values=[""])  # fmt: skip

    def scores(self, metric_names: str | Sequence[str], split: str = "test") -> pd.DataFrame:
        """Long frame paper, corpus, arm, seed, metric, value, n over one split.

        Takes metric names or a profile's name. Raises RecordError for a run without that split, ValueError for a
        metric that does not fit the predictions.
        """
        wanted = metrics.names(metric_names)
        rows = []
        for run in self.runs:
            prediction, label = arrays(self.predictions(run), split, run.path)
            for name, (value, n) in metrics.score(wanted, prediction, label).items():
                record = run.record
                rows.append((record.paper, record.corpus["name"], record.arm, record.seed, name, value, n))
        return pd.DataFrame(rows, columns=["paper", "corpus", "arm", "seed", "metric", "value", "n"])

    def select(
        self,
        paper: str | Sequence[str] | None = None,
        corpus: str | Sequence[str] | None = None,
        arm: str | Sequence[str] | None = None,
        seed: int | Sequence[int] | None = None,
        protocol: str | Sequence[str] | None = None,
    ) -> "Runs":
        """The runs that match all that is given (a value or several); may be empty."""
        wanted = {"paper": paper, "corpus": corpus, "arm": arm, "seed": seed, "protocol": protocol}
        kept = self.runs
        for name, value in wanted.items():
            if value is not None:
                choices = {value} if isinstance(value, (str, int)) else set(value)
                kept = tuple(run for run in kept if _named(run.record, name) in choices)
        return replace(self, runs=kept)


def _named(record: RunRecord, name: str) -> Any:
    return record.corpus["name"] if name == "corpus" else getattr(record, name)


def arrays(predictions: pd.DataFrame, split: str, where: Path | str = "predictions") -> tuple[np.ndarray, np.ndarray]:
    """Predictions `[segments]` or probabilities `[segments, classes]`, and labels, of one split."""
    part = predictions[predictions["split"] == split]
    if part.empty:
        splits = ", ".join(sorted(predictions["split"].unique()))
        raise RecordError(f"{where}: no prediction for split {split!r} (there are: {splits})")
    if "prediction" in part:
        return part["prediction"].to_numpy(float), part["label"].to_numpy(float)
    classes = [name for name in part.columns if name.startswith("p_")]
    return part[classes].to_numpy(float), part["label"].to_numpy()


def read_all(root: Path, on_error: str = "raise") -> Runs:
    """Every finished run under `root`, verified.

    on_error "raise" stops at the first bad record; "report" leaves bad ones out and lists them in `.problems`.
    Predictions without a record belong to a run that did not finish and are passed over.
    """
    if on_error not in ("raise", "report"):
        raise ValueError(f"on_error is {on_error!r}; choose raise or report")
    root = Path(root)
    if not root.is_dir():
        raise RecordError(f"{root}: no such folder of runs; run an experiment first")
    runs, problems = [], []
    for path in sorted(root.glob("*/*/*/seed-*.json")):
        try:
            runs.append(Run(path, read(path)))
        except RecordError as error:
            if on_error == "raise":
                raise
            log.warning("%s", error)
            problems.append(error)
    runs.sort(key=lambda run: (run.record.paper, run.record.corpus["name"], run.record.arm, run.record.seed))
    return Runs(tuple(runs), root, tuple(problems))
