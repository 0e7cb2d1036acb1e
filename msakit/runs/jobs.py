"""Jobs become recorded runs: finished ones are skipped, the others trained, timed and stored whole."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import PartialState
from tqdm import tqdm

from msakit import process
from msakit.files import write_atomically
from msakit.runs.record import Record, Runtime, Selection, environment, plain_json
from msakit.runs.store import Runs, as_json, find_run, ordered, read_run, run_path, set_aside, write_run
from msakit.training.checkpoint import resumable
from msakit.training.loop import Fit

logger = logging.getLogger(__name__)

DIGITS = 6  # significant, of what is recorded besides the predictions


@dataclass(frozen=True)
class Outcome:
    """A trained run.

    fit: how the training went; None where nothing was trained. metric: the validation metric that chose the epoch.
    predictions: tables of the scored splits. measurements: deterministic, recorded with what came out. timings:
    measured times and memory, recorded with how it ran. artifacts: further tables, for figures.
    """

    fit: Fit | None
    metric: str
    predictions: Sequence[pd.DataFrame]
    measurements: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One run to be: its record as far as it is known before, and the function that trains it.

    train: None where the run is taken over from that of the arm `record.same_as`, an earlier job of equal training.
    """

    record: Record
    train: Callable[[], Outcome] | None


def run_jobs(jobs: Sequence[Job], root: Path) -> Runs:
    """Train the jobs that are not yet recorded under `root` with the same key; gives back their runs.

    A kill loses at most about a minute: each run is stored as soon as it is trained, the one under way is checkpointed
    under ``checkpoints`` beside `root`, and a second call goes on. A run of the same name with another key is moved to
    ``superseded`` beside `root` before it is made anew; runs of other names stay as they are.
    """
    root = Path(root)
    waiting = [job for job in jobs if not _reused(job.record, root)]
    names = f"{jobs[0].record.paper} on {jobs[0].record.corpus.name}" if jobs else "nothing"
    logger.info("%s: %d runs, %d of them stored already", names, len(jobs), len(jobs) - len(waiting))
    bar = tqdm(waiting, desc=names, unit="run", mininterval=2, file=sys.stderr, dynamic_ncols=True)
    for job in bar:
        bar.set_postfix_str(f"{job.record.arm}, {job.record.stem}")
        _run(job, root)
    # Only these: processes beside this one may be writing others.
    return Runs(ordered(read_run(run_path(root, job.record)) for job in jobs), root)


def _reused(record: Record, root: Path) -> bool:
    """Whether the run is stored already. What does not decide its outcome (title, group) is brought up to date."""
    stored = find_run(root, record)
    if stored is None or stored.record.key != record.key:
        return False
    shown = {"definition": record.definition, "same_as": record.same_as, "features": record.features}
    if any(getattr(stored.record, name) != value for name, value in shown.items()):
        write_atomically(run_path(root, record), as_json(stored.record.model_copy(update=shown)))
    return True


def _run(job: Job, root: Path) -> None:
    if (old := find_run(root, job.record)) is not None:
        folder = root.parent / "superseded"
        logger.info("%s was made otherwise: moved to %s", old.where, folder)
        set_aside(old, root, folder)
    if job.train is None:
        _take_over(job.record, root)
        return
    process.reset_peak_memory()
    started = time.perf_counter()
    with resumable(root.parent / "checkpoints" / job.record.key[:16]):
        outcome = job.train()
    history = [dict(row) for row in outcome.fit.history] if outcome.fit else []
    runtime = Runtime(
        seconds=round(time.perf_counter() - started, 3),
        epoch_seconds=[round(row.pop("seconds"), 4) for row in history if "seconds" in row],
        peak_memory_mb=process.peak_memory_mb(),
        timings=plain_json(outcome.timings),
        environment=environment(PartialState().device.type),
    )
    update = {
        "selection": _selection(outcome, job.record.definition.protocol.stop),
        # Another processor may round the last digits otherwise, though no prediction moves.
        "history": plain_json(history, DIGITS),
        "measurements": plain_json(outcome.measurements, DIGITS),
    }
    predictions = pd.concat(outcome.predictions, ignore_index=True)
    write_run(root, job.record.model_copy(update=update), runtime, predictions, outcome.artifacts)
    process.release_memory()


def _take_over(record: Record, root: Path) -> None:
    """Record what the run of equal training has on record, under another name."""
    source = read_run(run_path(root, record.model_copy(update={"arm": record.same_as})))
    same = {name: getattr(source.record, name) for name in ("selection", "history", "measurements")}
    write_run(root, record.model_copy(update=same), source.runtime, source.predictions)


def _selection(outcome: Outcome, split: Any) -> Selection | None:
    if outcome.fit is None:
        return None
    value, epoch = outcome.fit.best["valid_loss"], outcome.fit.best_epoch
    return Selection(split=split, metric=outcome.metric, value=float(f"{value:.{DIGITS}g}"), epoch=epoch)
