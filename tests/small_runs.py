"""Recorded runs written by hand, so that a test knows every number in them, and a paper to report them with.

root = tmp_path / "runs"
write(root, "mag", 0, regression(label, label + 0.5), group="Shift", settings={"epochs": 3})
write(root, "joint", 0, classes(label, probabilities, ["no", "yes"]), fold=(0, 10), paper="toledo2022")
runs = read_runs(root)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msakit.reporting.contract import PUBLISHED_COLUMNS, Paper
from msakit.reporting.scores import by_corpus
from msakit.reporting.tables import arm_table
from msakit.runs.arm import Arm
from msakit.runs.record import CorpusInfo, Feature, FoldInfo, Record, Runtime, Selection, TableInfo, TaskInfo
from msakit.runs.store import write_run
from msakit.strict import parse

DEFINITION = set(Arm.model_fields)


def write(
    root: Path,
    arm: str,
    seed: int,
    predictions: pd.DataFrame,
    *,
    paper: str = "kim2022",
    corpus: str = "mini-mosi",
    generated: bool = True,
    fingerprint: str = "f00d",
    fold: tuple[int, int] | None = None,
    layers: Mapping[str, Any] | None = None,
    artifacts: Mapping[str, pd.DataFrame] | None = None,
    runtime: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Store one run; returns the path of its record.

    layers: modality -> layer, for the arm's resolved inputs. fold: (index, count). changes: fields of the arm's
    definition (title, group, model, protocol, ...) and of the record (settings, history, measurements, selection,
    reference, same_as). The task is read off the predictions.
    """
    names = [name.removeprefix("p_") for name in predictions if name.startswith("p_")]
    task = TaskInfo(kind="classification", classes=names) if names else TaskInfo(kind="regression", low=-3.0, high=3.0)
    definition = {"title": arm, "model": "gated"} | {k: v for k, v in changes.items() if k in DEFINITION - {"settings"}}
    rest = {k: v for k, v in changes.items() if k not in DEFINITION or k == "settings"}
    counts = {str(split): int(n) for split, n in predictions["split"].value_counts().items()}
    if rest.get("selection") is not None:
        rest["selection"] = Selection(**rest["selection"])
    given: dict[str, Any] = {
        "measurements": {"segments": {"train": 4 * counts.get("test", 0), "valid": 0, "test": counts.get("test", 0)}},
    }
    record = Record(
        paper=paper,
        version=1,
        corpus=CorpusInfo(name=corpus, fingerprint=fingerprint, generated=generated, task=task, counts=counts),
        arm=arm,
        definition=parse(Arm, definition, arm),
        seed=seed,
        fold=None if fold is None else FoldInfo(index=fold[0], count=fold[1], kind=definition_folds(definition)),
        features={name: Feature(encoder=name, layer=layer) for name, layer in (layers or {}).items()},
        key=f"{arm}-{seed}-{fold}",
        predictions=TableInfo(sha256="", columns=[]),
        **(given | rest),
    )
    how = {"seconds": 1.0, "environment": ENVIRONMENT} | dict(runtime or {})
    return write_run(root, record, Runtime(**how), predictions, artifacts)


ENVIRONMENT = {"python": "3.11.7", "torch": "2.13.0", "platform": "Linux", "machine": "x86_64, 2 cores",
               "device": "cpu", "commit": "c0ffee", "dirty": False}  # fmt: skip


def definition_folds(definition: Mapping[str, Any]) -> str:
    return str(dict(definition.get("protocol") or {}).get("folds", "stratified"))


def regression(
    label: Any, prediction: Any, split: str = "test", ids: Sequence[str] | None = None, **columns: Any
) -> pd.DataFrame:
    """A table of predictions; each segment is a video of its own unless `video_id` is given."""
    return _table(label, split, ids, columns).assign(
        label=np.asarray(label, float), prediction=np.asarray(prediction, float)
    )


def classes(
    label: Any,
    probabilities: Any,
    names: Sequence[str],
    split: str = "test",
    ids: Sequence[str] | None = None,
    **columns: Any,
) -> pd.DataFrame:
    """A table of probabilities, one column a class."""
    given = {f"p_{name}": np.asarray(probabilities, float)[:, index] for index, name in enumerate(names)}
    return _table(label, split, ids, columns).assign(label=np.asarray(label, int), **given)


def _table(label: Any, split: str, ids: Sequence[str] | None, columns: Mapping[str, Any]) -> pd.DataFrame:
    ids = [f"s{index}" for index in range(len(label))] if ids is None else list(ids)
    table = pd.DataFrame({"segment_id": ids, "video_id": columns.get("video_id", ids), "split": split, "label": label})
    return table.assign(**{name: values for name, values in columns.items() if name != "video_id"})


def paper(name: str = "kim2022", values: pd.DataFrame | None = None, **facts: Any) -> Paper:
    """A paper whose only table a corpus is that of its arms, and which draws nothing; values: as published.csv."""
    known = {"authors": "A, B", "title": "Title", "venue": "V 2022", "metrics": METRICS} | facts
    empty = pd.DataFrame(columns=PUBLISHED_COLUMNS).astype({"value": float})

    def tables(runs: Any) -> dict[str, Any]:
        return {corpus: arm_table(part, made, f"Arms on {corpus}") for corpus, part in by_corpus(runs)}

    made = Paper(name, known, empty if values is None else values, tables, lambda runs, folder: [])
    return made


METRICS = {"regression": ["mae", "corr"], "classification": ["accuracy", "auroc"]}
