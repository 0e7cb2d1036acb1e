"""A finished run: what it is and what came out (`Record`), and, apart from that, how it ran (`Runtime`).

A record is deterministic: the same definition, corpus and recipe give the same record on the same machine. Seconds,
memory, host and commit are in the runtime. Metrics are in neither: they are computed from the predictions whenever a
table is made, so that a new metric needs no new training.
"""

import hashlib
import json
import logging
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from msakit.runs.arm import NAME, Arm
from msakit.strict import Strict

log = logging.getLogger(__name__)

# Whose version may move a number; msakit's own is that of the protocol too.
LIBRARIES = ("torch", "transformers", "numpy", "scipy", "scikit-learn", "accelerate", "tokenizers", "librosa", "av",
             "opencv-python-headless", "msakit")  # fmt: skip
CORPUS_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
KEYS = ("segment_id", "video_id", "split", "label")  # columns of every table of predictions
PREDICTIONS = "predictions"  # what that table is called; no artifact's name
IDENTITY = ("corpus", "arm", "seed", "fold")  # columns that say whose a row is, where the runs of a paper are packed


class RecordError(ValueError):
    """A run's files are missing, torn or not of this schema; the message names the file and the mend."""


class TaskInfo(Strict):
    """The task of a corpus, as :class:`msakit.data.corpus.Task` has it."""

    kind: Literal["regression", "classification"]
    low: float | None = None
    high: float | None = None
    classes: list[str] = []


class CorpusInfo(Strict):
    """Which corpus, in which version."""

    name: str
    fingerprint: str
    generated: bool
    task: TaskInfo
    counts: dict[str, int]  # segments by split


class FoldInfo(Strict):
    """Which fold was tested."""

    index: int = Field(ge=0)
    count: int = Field(ge=2)
    kind: str


class Feature(Strict):
    """What one modality of a run was made of: an input of the arm, resolved."""

    encoder: str  # the experiment's name of it
    checkpoint: str = ""  # of an encoder inside the model: hub id, package or folder as it was given
    features: str = ""  # folder of the feature store; empty where the model encodes by itself
    weights: str | None = None  # digest of the encoder's weights
    layer: int | list[int] | Literal["all"] | None = None
    frozen: bool = True
    align: str | None = None
    shuffled: bool = False
    conventional: bool = False  # made without a pre-trained encoder


class Selection(Strict):
    """Which epoch was kept, and by what."""

    split: Literal["valid", "test"]
    metric: str
    value: float
    epoch: int


class TableInfo(Strict):
    """A table that belongs to a run."""

    sha256: str  # of its values, see `msakit.runs.store`
    columns: list[str]
    text: list[str] = []  # those of text: an id, a word or a class may read "007" or "NA"


class Record(Strict):
    """Everything about a finished run except its predictions and how it ran."""

    schema_version: Literal[3] = 3
    paper: str
    version: int  # of the recipe; raised by hand whenever its numbers move
    corpus: CorpusInfo
    arm: str
    definition: Arm
    reference: bool = False  # nothing is trained: an oracle, a constant
    same_as: str | None = None  # the arm of equal training that this run was taken over from
    seed: int = Field(ge=0)
    fold: FoldInfo | None = None
    features: dict[str, Feature] = {}  # by modality
    settings: dict[str, Any] = {}
    key: str
    selection: Selection | None = None  # None where nothing was selected
    history: list[dict[str, float | None]] = []  # one row an epoch
    measurements: dict[str, Any] = {}  # counted or computed besides: parameters, operations, alignment, ...
    predictions: TableInfo
    artifacts: dict[str, TableInfo] = {}  # what figures need besides: attention, embeddings, ...

    @model_validator(mode="after")
    def _consistent(self) -> "Record":
        for what, name, pattern in (
            ("paper", self.paper, NAME),
            ("arm", self.arm, NAME),
            ("corpus", self.corpus.name, CORPUS_NAME),
            *(("artifact", name, NAME) for name in self.artifacts),
        ):
            if not pattern.fullmatch(name) or name == PREDICTIONS:
                raise ValueError(f"{what} {name!r} cannot name a file or folder here")
        if self.selection is not None and self.selection.split == "test" and not self.definition.protocol.leaks:
            raise ValueError("selected on the test split; only a protocol that says so may do that")
        return self

    @property
    def title(self) -> str:
        """What tables call the arm."""
        return self.definition.title

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the arm reads, in the order of its definition."""
        return tuple(self.features)

    @property
    def identity(self) -> tuple[str, str, str, int, int | None]:
        """Paper, corpus, arm, seed and fold: what a run is called."""
        fold = None if self.fold is None else self.fold.index
        return self.paper, self.corpus.name, self.arm, self.seed, fold

    @property
    def stem(self) -> str:
        """The name of the run's files."""
        return f"seed-{self.seed}" if self.fold is None else f"fold-{self.fold.index}.seed-{self.seed}"


class Runtime(Strict):
    """How a run ran: nothing of it decides what came out."""

    seconds: float  # wall clock of training and prediction
    epoch_seconds: list[float] = []
    peak_memory_mb: float | None = None  # of the process during this run; None where the system does not tell
    timings: dict[str, Any] = {}  # measured times and memory besides
    environment: dict[str, Any] = {}  # see `environment`


def run_key(values: Mapping[str, Any]) -> str:
    """sha256 of what decides a run's outcome, as plain values; their order plays no part."""
    text = json.dumps(plain_json(values), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions of libraries, machine class (architecture, cores), device and the state of the sources, asked once."""
    commit, dirty = git_state()
    return {
        "python": platform.python_version(),
        **{name: next((each.version for each in distributions(name=name)), None) for name in LIBRARIES},
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


def plain_json(value: Any, digits: int | None = None) -> Any:
    """The same value in plain JSON types: numpy numbers, paths and tuples converted, nan and infinity become null.

    Args:
        digits: significant digits to round numbers to; None keeps them.

    Raises:
        ValueError: a value that JSON does not know.
    """
    if isinstance(value, Mapping):
        return {str(key): plain_json(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item, digits) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return plain_json(value.tolist(), digits)
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float):
        rounded = value if digits is None else float(f"{value:.{digits}g}")
        return rounded if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise ValueError(f"{value!r} ({type(value).__name__}) has no place in a record: use numbers, text, lists, dicts")


def check_predictions(predictions: pd.DataFrame, where: str) -> None:
    """Raises RecordError where a prediction is not finite."""
    bad = predictions["segment_id"][~np.isfinite(predictions[values_of(predictions)].to_numpy(float)).all(axis=1)]
    if len(bad):
        raise RecordError(f"{where}: segment {bad.iloc[0]!r} has no finite prediction; leave its row out")


def values_of(table: pd.DataFrame) -> list[str]:
    """The columns of a table of predictions that hold them: `prediction`, or `p_<class>`, one a class."""
    return [str(name) for name in table if name == "prediction" or str(name).startswith("p_")]
