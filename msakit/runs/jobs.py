"""What every recipe does around its training: skip finished runs, time and stamp the others, store them whole.

The references that a table needs (the best possible score where it is known, the score of a constant) are recorded as
runs too, so that every table can be made from records alone.
"""

import logging
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from msakit.data.corpus import Corpus
from msakit.runs import record as records
from msakit.training.checkpoint import resumable
from msakit.training.loop import Fit

logger = logging.getLogger(__name__)

# Columns of a corpus that say what kind of segment it is, or what one modality alone says: reports split by them.
ANNOTATIONS = ("kind", "text_label", "image_label", "text_polarity", "image_polarity")


@dataclass(frozen=True)
class Job:
    """One run to be: an arm with a seed, its resolved settings, and the function that trains it."""

    arm: str
    seed: int
    config: dict[str, Any]
    train: Callable[[], "Outcome"]
    protocol: str = "corrected"


@dataclass(frozen=True)
class Outcome:
    """A trained run: how the fit went, which validation metric chose its epoch, predictions of valid and of test.

    measurements and artifacts are stored with the record as they are (:mod:`msakit.runs.record`).
    """

    fit: Fit | None  # None where nothing was trained
    metric: str
    predictions: list[pd.DataFrame]
    measurements: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, pd.DataFrame] = field(default_factory=dict)


def run_jobs(
    jobs: Sequence[Job], *, paper: str, corpus: Corpus, settings: Mapping[str, Any], code: str, root: Path
) -> records.Runs:
    """Train the jobs that are not yet recorded under `root` with the same settings, corpus and code.

    A kill loses at most about a minute: each run is stored as soon as it is trained, the one under way is checkpointed
    under ``checkpoints`` beside `root`, and a second call goes on. Runs of this paper and corpus that were made with
    other settings, another version of the corpus or other code, or of a job that has since been defined otherwise, are
    moved to `superseded` beside `root`: nothing is lost, and no table mixes them with the present ones.

    Args:
        settings: what all jobs share; part of each job's recorded configuration.
        code: fingerprint of the sources that the results depend on (:func:`msakit.sources.fingerprint`).
        root: folder of the runs.

    Returns:
        All present runs of this paper on this corpus.
    """
    shared = records.plain({**settings, "code": code})
    configs = [{**shared, **job.config} for job in jobs]
    keys = [records.run_key(config, corpus.fingerprint, code) for config in configs]
    wanted = {(job.arm, job.seed): key for job, key in zip(jobs, keys, strict=True)}
    _supersede(root, paper, corpus, shared, wanted)
    waiting = [
        (job, config, key)
        for job, config, key in zip(jobs, configs, keys, strict=True)
        if not records.finished(root, paper, corpus.name, job.arm, job.seed, key)
    ]
    logger.info("%s on %s: %d runs, %d of them stored already", paper, corpus.name, len(jobs), len(jobs) - len(waiting))
    title = f"{paper} on {corpus.name}"
    bar = tqdm(waiting, desc=title, unit="run", mininterval=2, file=sys.stderr, dynamic_ncols=True)
    for job, config, key in bar:
        bar.set_postfix_str(f"{job.arm}, seed {job.seed}")
        _run(job, config, key, paper, corpus, root)
    return records.read_all(root).select(paper=paper, corpus=corpus.name)


def _run(job: Job, config: dict[str, Any], key: str, paper: str, corpus: Corpus, root: Path) -> None:
    started = time.perf_counter()
    with resumable(root.parent / "checkpoints" / key[:16]):
        outcome = job.train()
    record = records.RunRecord(
        paper=paper,
        arm=job.arm,
        seed=job.seed,
        corpus={
            "name": corpus.name,
            "fingerprint": corpus.fingerprint,
            "generated": corpus.generated,
            "counts": {split: len(rows) for split, rows in corpus.splits.items()},
        },
        protocol=job.protocol,
        config=config,
        key=key,
        selection=_selection(outcome, str(config.get("stop", "valid"))),
        history=outcome.fit.history if outcome.fit else [],
        environment=records.environment(),
        seconds=round(time.perf_counter() - started, 3),
        # Of the process so far: an upper bound for the run.
        peak_memory_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        measurements=outcome.measurements,
    )
    records.write(root, record, pd.concat(outcome.predictions, ignore_index=True), outcome.artifacts)


def _supersede(
    root: Path, paper: str, corpus: Corpus, shared: Mapping[str, Any], wanted: Mapping[tuple[str, int], str]
) -> None:
    """wanted: the key that the run of an arm and seed should have."""
    if not root.is_dir():
        return
    for run in records.read_all(root, on_error="report").select(paper=paper, corpus=corpus.name):
        same = all(run.record.config.get(name) == value for name, value in shared.items())
        record = run.record
        other = wanted.get((record.arm, record.seed), record.key) != record.key
        if same and not other and record.corpus["fingerprint"] == corpus.fingerprint:
            continue
        place = root.parent / "superseded" / run.path.relative_to(root).parent
        place.mkdir(parents=True, exist_ok=True)
        logger.info("%s was made with other settings, data or code: moved to %s", run.path, place)
        tables = [records.artifact_path(run.path, name) for name in run.record.artifacts]
        # The record first: without it the rest counts for nothing.
        for file in (run.path, run.path.with_suffix(".csv"), *tables):
            file.replace(place / f"{run.path.stem}.{run.record.key[:12]}{file.name.removeprefix(run.path.stem)}")


def _selection(outcome: Outcome, split: str) -> dict[str, Any] | None:
    if outcome.fit is None:
        return None
    value, epoch = outcome.fit.best["valid_loss"], outcome.fit.best_epoch
    return {"split": split, "metric": outcome.metric, "value": value, "epoch": epoch}


def reference_jobs(corpus: Corpus) -> list[Job]:
    """Runs that train nothing: ``constant`` (median or class shares of train) and, for a generated corpus, ``oracle``.

    The oracle is the generator's posterior mean, or its posterior probabilities: given everything that the generator
    drew, the best possible predictor in expected squared error. ``oracle-<modality>`` is given that modality alone.
    """
    regression = corpus.task.kind == "regression"
    train = np.asarray(corpus.splits["train"]["label"])
    if regression:
        constant: np.ndarray = np.array([np.median(train)])
    else:
        constant = np.bincount(train, minlength=len(corpus.task.classes))[None] / len(train)
    sizes = {split: len(corpus.splits[split]) for split in ("valid", "test")}
    values = {"constant": {split: np.repeat(constant, size, axis=0) for split, size in sizes.items()}}
    oracle = corpus.oracle()
    if oracle is not None:
        oracle = oracle.set_index("segment_id")
        rows = {split: oracle.loc[list(corpus.splits[split]["segment_id"])] for split in sizes}
        if regression:
            for name in map(str, oracle.columns):
                arm = name.replace("prediction", "oracle").replace("_", "-")
                values[arm] = {split: part[name].to_numpy() for split, part in rows.items()}
        else:
            classes = [f"p_{name}" for name in corpus.task.classes]
            values["oracle"] = {split: part[classes].to_numpy() for split, part in rows.items()}
    return [
        Job(arm, 0, {"reference": arm}, partial(_reference, corpus, predictions)) for arm, predictions in values.items()
    ]


def _reference(corpus: Corpus, predictions: dict[str, np.ndarray]) -> Outcome:
    return Outcome(None, "", [prediction_table(corpus, split, values) for split, values in predictions.items()])


def prediction_table(corpus: Corpus, split: str, values: np.ndarray) -> pd.DataFrame:
    """Predictions of one split, beside ids, labels and what of ANNOTATIONS there is, in the columns that records store.

    Args:
        values: ``[segments]`` for regression, ``[segments, classes]`` probabilities for classification, in the order
            of the split's rows.
    """
    rows = corpus.splits[split]
    table = pd.DataFrame({"segment_id": rows["segment_id"], "split": split, "label": rows["label"]})
    table = table.assign(**{name: rows[name] for name in ANNOTATIONS if name in rows.column_names})
    if corpus.task.kind == "regression":
        return table.assign(prediction=values)
    return table.assign(**{f"p_{name}": values[:, index] for index, name in enumerate(corpus.task.classes)})
