"""One training loop for every model of the kit: step, clip, average, validate, keep the best epoch, stop early.

The loop sees training and validation batches only; test segments are predicted afterwards with `predict`.  It runs
through accelerate, so a GPU, several processes, mixed precision or gradient accumulation need no other code (pass an
`Accelerator`, or start the program with `accelerate launch`).
Weight averaging is the exponential moving average of torch.optim.swa_utils: it starts from the weights after the
first step.  As "judge" (default) validation, selection and the returned weights are those of the average.  As
"teacher" it is a momentum encoder: its outputs on each training batch (eval mode, no gradient) join the model's as
"teacher_<name>" for the loss to use, and the trained weights themselves are validated and returned.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, convert_to_fp32, send_to_device
from accelerate.utils import set_seed as seed_libraries
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from msakit.training.checkpoint import SECONDS_BETWEEN, Checkpoint, next_place, trained_state

log = logging.getLogger(__name__)

Batches = Iterable[dict[str, Any]]
Loss = Callable[[dict[str, Tensor], dict[str, Any]], Tensor]
Metric = Callable[[np.ndarray, np.ndarray], float]

# What a checkpoint notes of the loop itself.
_NOTES = ("history", "best_epoch", "best_state", "waited", "seconds")


@dataclass(frozen=True)
class Fit:
    """What a training run did; the model it was given now holds the weights of `best_epoch`."""

    best_epoch: int  # counted from 1
    history: list[dict[str, float]]  # one row an epoch: epoch, train_loss, valid_loss, lr, seconds, metrics
    seconds: float  # wall clock of all epochs
    best: dict[str, float] = field(default_factory=dict)  # the row of history that was selected


def set_seed(seed: int) -> torch.Generator:
    """Seed python, numpy and torch (all devices), and return a CPU generator of the same seed for batch order and
    augmentation.  Call it before the model is built."""
    seed_libraries(seed)
    return torch.Generator().manual_seed(seed)


def fit(
    model: nn.Module,
    train_batches: Batches,
    valid_batches: Batches,
    *,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    scheduler: Any = None,
    scheduler_step: str = "epoch",
    patience: int | None = None,
    clip: float | None = None,
    average: float | None = None,
    average_as: str = "judge",
    select: tuple[str, str] = ("loss", "min"),
    ties: str = "first",
    metrics: Mapping[str, Metric] | None = None,
    valid_mean: str = "samples",
    on_epoch: Callable[[nn.Module, int], Mapping[str, float]] | None = None,
    accelerator: Accelerator | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 1,
    keep_checkpoint: bool = False,
    progress: bool = True,
) -> Fit:
    """Train `model` and leave it with the weights of its best epoch by validation, in eval mode.

    loss(outputs, batch) -> scalar mean over the batch.  scheduler_step: "epoch" or "batch" (optimizer's step).
    patience: stop after so many epochs without improvement.  clip: largest gradient norm.  average: decay of the moving
    average of weights, used as average_as says: "judge" or "teacher".
    select: ("loss", "min"), or a name in `metrics` with "min" or "max"; metrics[name](prediction, label) sees the whole
    validation split at once.  ties: the "first" or the "last" of equally good epochs is kept (only the first counts
    against patience).  valid_mean: "samples", or "batches" for the mean of batch means, in which a short last batch
    weighs too much (kept for runs that follow a publication to the letter).  on_epoch(model, epoch) adds its numbers
    to the history and cannot influence the choice.

    With n processes and k accumulation steps (`Accelerator(gradient_accumulation_steps=k)`), one step of the optimizer
    takes the next n * k batches, each weighted by its samples: the same step as on one batch of them all, as far as
    the loss is a mean over samples.  Nothing is left out at the end of an epoch.  Every process needs batches and a
    model made with the same seed, and runs all of validation; the main process's numbers count.

    checkpoint: a file, written every `checkpoint_every` epochs and removed at the end unless `keep_checkpoint`.  If it
    is there already, training goes on from it, with the result of an unbroken run; batches, and a loss or an on_epoch
    that is more than a function, must then have `state_dict` and `load_state_dict` (the batches of this package do).
    None: see `checkpoint.resumable`.

    Raises ValueError for unknown options or a checkpoint of another fit, FloatingPointError once a loss is not finite.
    """
    metrics = metrics or {}
    name, better = _check_options(select, metrics, ties, scheduler_step, valid_mean, average_as)
    key = "valid_loss" if name == "loss" else name
    accelerator = accelerator or Accelerator()
    # The copy is taken before accelerate wraps the model, so that it stays a plain module.
    averaged = (
        None
        if average is None
        else AveragedModel(model, accelerator.device, multi_avg_fn=get_ema_multi_avg_fn(average))
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    bare = accelerator.unwrap_model(model)
    teacher = averaged.module.eval() if averaged is not None and average_as == "teacher" else None
    judged = averaged.module if averaged is not None and teacher is None else bare
    if accelerator.num_processes > 1:
        # Each process drops out other units.
        torch.manual_seed(torch.initial_seed() + accelerator.process_index)
    place = checkpoint or next_place()
    parts = {"model": bare, "optimizer": optimizer, "scheduler": scheduler, "average": averaged}
    parts |= {"scaler": accelerator.scaler, "train": train_batches, "valid": valid_batches}
    parts |= {"loss": loss, "on_epoch": on_epoch}
    kept = Checkpoint(place, parts, accelerator) if place is not None else None
    history: list[dict[str, float]] = []
    best_epoch, best_state, waited, seconds = 0, dict[str, Tensor](), 0, 0.0
    notes = kept.load() if kept is not None else None
    if notes is not None:
        history, best_epoch, best_state, waited, seconds = (notes[each] for each in _NOTES)
    shown = progress and accelerator.is_main_process
    bar = tqdm(range(len(history) + 1, epochs + 1), desc="epochs", leave=False, disable=not shown)
    stored = time.perf_counter()
    for epoch in bar:
        if patience is not None and waited >= patience:
            break
        began, rate = time.perf_counter(), optimizer.param_groups[0]["lr"]
        model.train()
        total, count = torch.zeros((), device=accelerator.device), 0
        for group in _groups(train_batches, accelerator):
            samples = sum(len(batch["label"]) for batch in group)
            optimizer.zero_grad()
            for batch, counts, last in _share(group, accelerator):
                batch = send_to_device(batch, accelerator.device)
                with nullcontext() if last else accelerator.no_sync(model):
                    outputs = model(batch)
                    if teacher is not None:
                        outputs = outputs | _taught(teacher, batch, accelerator)
                    value = loss(outputs, batch)
                    # Gradients are averaged over processes, and accelerate divides by the accumulation steps.
                    taken = len(batch["label"]) * counts
                    accelerator.backward(value * (taken / samples * _batches_of_step(accelerator)))
                total, count = total + value.detach() * taken, count + taken
            if clip is not None:
                accelerator.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if averaged is not None:
                averaged.update_parameters(bare)
            if (
                scheduler is not None
                and scheduler_step == "batch"
                and not getattr(optimizer, "step_was_skipped", False)
            ):
                scheduler.step()
        if scheduler is not None and scheduler_step == "epoch":
            scheduler.step()
        if accelerator.num_processes > 1:
            total, count = accelerator.reduce(torch.stack([total, total.new_tensor(count)])).tolist()
        if not count:
            raise ValueError("no training batch: is the batch larger than the training split, with drop_last?")
        row = {"epoch": float(epoch), "train_loss": float(total) / count, "lr": rate}
        row |= _validate(judged, valid_batches, loss, metrics, valid_mean, accelerator)
        row["seconds"] = time.perf_counter() - began
        if not (math.isfinite(row["train_loss"]) and math.isfinite(row[key])):
            raise FloatingPointError(
                f"epoch {epoch}: training loss {row['train_loss']}, validation {name} {row[key]}; "
                "lower the learning rate or clip the gradient, and look for non-finite features"
            )
        if on_epoch is not None:
            row |= {each: float(value) for each, value in on_epoch(judged, epoch).items()}
        history.append(row)
        improved = not best_epoch or better(row[key], history[best_epoch - 1][key])
        if improved or (row[key] == history[best_epoch - 1][key] and ties == "last"):
            best_epoch = epoch
            best_state = {each: value.clone() for each, value in trained_state(judged).items()}
        waited = 0 if improved else waited + 1
        seconds += time.perf_counter() - began
        due = epoch % checkpoint_every == 0 if checkpoint else time.perf_counter() - stored > SECONDS_BETWEEN
        if kept is not None and broadcast_object_list([due])[0]:
            kept.save(dict(zip(_NOTES, (history, best_epoch, best_state, waited, seconds), strict=True)))
            stored = time.perf_counter()
    bare = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    # accelerate prepares a model once: without this, training it again would silently be in single precision.
    bare._is_accelerate_prepared = False
    bare.load_state_dict(best_state, strict=False)
    bare.eval()
    if kept is not None and not keep_checkpoint:
        kept.remove()
    best = history[best_epoch - 1]
    log.info("best epoch %d of %d: validation %s %.4f", best_epoch, len(history), name, best[key])
    return Fit(best_epoch, history, seconds, best)


@torch.no_grad()
def predict(model: nn.Module, batches: Batches, keys: tuple[str, ...] = ("prediction",)) -> dict[str, np.ndarray]:
    """Outputs `keys` of the model in eval mode over all batches, as arrays [segments, ...], with "label" if there is
    one.  Rows follow the batches' "index" when they carry it, so bucketed batches come back in the data's order."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    found: dict[str, list[Tensor]] = {}
    for batch in batches:
        batch = send_to_device(batch, device)
        outputs = model(batch)
        rows = {key: outputs[key] for key in keys} | {key: batch[key] for key in ("label", "index") if key in batch}
        for key, value in rows.items():
            found.setdefault(key, []).append(value.detach().cpu())
    model.train(was_training)
    arrays = {
        key: torch.cat(values).float().numpy() if values[0].is_floating_point() else torch.cat(values).numpy()
        for key, values in found.items()
    }
    if "index" in arrays:
        order = np.argsort(arrays["index"], kind="stable")
        arrays = {key: value[order] for key, value in arrays.items()}
    return arrays


@torch.no_grad()
def _validate(
    model: nn.Module, batches: Batches, loss: Loss, metrics: Mapping[str, Metric], mean: str, accelerator: Accelerator
) -> dict[str, float]:
    model.eval()
    values, sizes, predictions, labels = [], [], [], []
    for batch in batches:
        batch = send_to_device(batch, accelerator.device)
        with accelerator.autocast():
            outputs = convert_to_fp32(model(batch))
        values.append(float(loss(outputs, batch)))
        sizes.append(len(batch["label"]))
        if metrics:
            predictions.append(outputs["prediction"].cpu())
            labels.append(batch["label"].cpu())
    if not values:
        raise ValueError("no validation batch: an epoch can only be chosen on a validation split that is not empty")
    row = {"valid_loss": float(np.average(values, weights=sizes if mean == "samples" else None))}
    if metrics:
        prediction, label = torch.cat(predictions).numpy(), torch.cat(labels).numpy()
        row |= {name: float(metric(prediction, label)) for name, metric in metrics.items()}
    # Rounding may differ between processes, but all must choose the same epoch.
    rows: list[dict[str, float]] = broadcast_object_list([row])
    return rows[0]


@torch.no_grad()
def _taught(teacher: nn.Module, batch: dict[str, Any], accelerator: Accelerator) -> dict[str, Tensor]:
    with accelerator.autocast():
        outputs = convert_to_fp32(teacher(batch))
    return {f"teacher_{key}": value for key, value in outputs.items()}


def steps_of_epoch(batches: Sized, accelerator: Accelerator | None = None) -> int:
    """Steps of the optimizer in an epoch of `fit` with the same accelerator: what a schedule by batch counts in."""
    return -(-len(batches) // _batches_of_step(accelerator or Accelerator()))


def _batches_of_step(accelerator: Accelerator) -> int:
    return accelerator.num_processes * accelerator.gradient_accumulation_steps


def _groups(batches: Batches, accelerator: Accelerator) -> Iterator[list[dict[str, Any]]]:
    """The batches of one step of the optimizer, over all processes; the last group may have fewer."""
    source = iter(batches)
    while group := list(islice(source, _batches_of_step(accelerator))):
        yield group


def _share(group: list[dict[str, Any]], accelerator: Accelerator) -> Iterator[tuple[dict[str, Any], bool, bool]]:
    """This process's batches of a group, with: does it count, is it the last?  All processes must run as many, so one
    that is left without runs the group's first with weight zero, marked by "counts" for losses that look at others."""
    world, rank = accelerator.num_processes, accelerator.process_index
    for first in range(0, len(group), world):
        counts = first + rank < len(group)
        batch = group[first + rank] if counts else group[0] | {"counts": False}
        yield batch, counts, first + world >= len(group)


def _check_options(
    select: tuple[str, str], metrics: Mapping[str, Metric], ties: str, step: str, mean: str, average_as: str
) -> tuple[str, Callable[[float, float], bool]]:
    name, direction = select
    for value, choices, what in (
        (name, ("loss", *metrics), "select[0]"),
        (direction, ("min", "max"), "select[1]"),
        (ties, ("first", "last"), "ties"),
        (step, ("epoch", "batch"), "scheduler_step"),
        (mean, ("samples", "batches"), "valid_mean"),
        (average_as, ("judge", "teacher"), "average_as"),
    ):
        if value not in choices:
            raise ValueError(f"{what} is {value!r}; choose from {choices}")
    return name, (lambda new, old: new < old) if direction == "min" else (lambda new, old: new > old)
