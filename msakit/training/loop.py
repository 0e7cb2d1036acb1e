"""One training loop for every model of the kit: step, average, validate, keep the best epoch, stop early.

The loop gets training and validation batches only; test segments are predicted afterwards with `predict`.  It runs
through accelerate, so a GPU, several processes, mixed precision or gradient accumulation need no other code (pass an
`Accelerator`, or start the program with `accelerate launch`).  Inside `checkpoint.resumable` it survives a kill.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, convert_to_fp32, send_to_device
from accelerate.utils import set_seed as seed_libraries
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from msakit.training.checkpoint import SECONDS_BETWEEN, Checkpoint, next_path, trained_state
from msakit.training.schedules import PerBatch

log = logging.getLogger(__name__)

Batches = Iterable[dict[str, Any]]
Loss = Callable[[dict[str, Tensor], dict[str, Any]], Tensor]

# What a checkpoint notes of the loop itself.
_NOTES = ("history", "best_epoch", "best_state", "waited", "seconds")


@dataclass(frozen=True)
class Fit:
    """What a training run did; the model it was given now holds the weights of `best_epoch`."""

    best_epoch: int  # counted from 1
    history: list[dict[str, float]]  # one row an epoch: epoch, train_loss, valid_loss, lr, seconds, and of on_epoch
    seconds: float  # wall clock of all epochs
    best: dict[str, float] = field(default_factory=dict)  # the row of history that was selected


@dataclass(frozen=True)
class Averaging:
    """The exponential moving average of the weights (torch.optim.swa_utils), from those after the first step on.

    decay: 0 to 1, a step.  role: "evaluated" (EMA evaluation): validation, selection and the returned weights are those
    of the average; "teacher" (momentum encoder): its outputs on each training batch (eval mode, no gradient) join the
    model's as "teacher_<name>" for the loss to use, and the trained weights themselves are validated and returned.
    """

    decay: float
    role: str = "evaluated"

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1 or self.role not in ("evaluated", "teacher"):
            raise ValueError(f"averaging wants a decay from 0 to 1 and the role 'evaluated' or 'teacher', not {self}")


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
    patience: int | None = None,
    ties: str = "first",
    averaging: Averaging | None = None,
    on_epoch: Callable[[nn.Module, int], Mapping[str, float]] | None = None,
    accelerator: Accelerator | None = None,
) -> Fit:
    """Train `model` and leave it with the weights of its best epoch by validation loss, in eval mode.

    loss(outputs, batch) -> scalar mean over the batch; over validation, the mean over samples.  scheduler: a torch
    scheduler, stepped once an epoch, or a `schedules.PerBatch`.  patience: stop after so many epochs without
    improvement.  ties: the "first" or the "last" of equally good epochs is kept (only the first counts against
    patience).  averaging: of the weights; None for none.  on_epoch(evaluated model, epoch) adds its numbers to the
    history and cannot influence the choice.

    With n processes and k accumulation steps (`Accelerator(gradient_accumulation_steps=k)`), one step of the optimizer
    takes the next n * k batches, each weighted by its samples: the same step as on one batch of them all, as far as
    the loss is a mean over samples.  Nothing is left out at the end of an epoch.  Every process needs batches and a
    model built with the same seed, and runs all of validation; the main process's numbers count.

    Raises ValueError for unknown options or a checkpoint of another fit, FloatingPointError once a loss is not finite.
    """
    if ties not in ("first", "last"):
        raise ValueError(f"ties is {ties!r}; choose from ('first', 'last')")
    accelerator = accelerator or Accelerator()
    scheduler, by_batch = (scheduler.scheduler, True) if isinstance(scheduler, PerBatch) else (scheduler, False)
    averaged = teacher = None
    if averaging is not None:
        # The copy is taken before accelerate wraps the model, so that it stays a plain module.
        averaged = AveragedModel(model, accelerator.device, multi_avg_fn=get_ema_multi_avg_fn(averaging.decay))
        teacher = averaged.module.eval() if averaging.role == "teacher" else None
    model, optimizer = accelerator.prepare(model, optimizer)
    bare = accelerator.unwrap_model(model)
    evaluated = averaged.module if averaged is not None and teacher is None else bare
    if accelerator.num_processes > 1:
        # Each process drops out other units.
        torch.manual_seed(torch.initial_seed() + accelerator.process_index)
    path = next_path()
    parts = {"model": bare, "optimizer": optimizer, "scheduler": scheduler, "average": averaged}
    parts |= {"scaler": accelerator.scaler, "train": train_batches, "valid": valid_batches}
    parts |= {"loss": loss, "on_epoch": on_epoch}
    checkpoint = Checkpoint(path, parts, accelerator) if path is not None else None
    history: list[dict[str, float]] = []
    best_epoch, best_state, waited, seconds = 0, dict[str, Tensor](), 0, 0.0
    notes = checkpoint.load() if checkpoint is not None else None
    if notes is not None:
        history, best_epoch, best_state, waited, seconds = (notes[each] for each in _NOTES)
    reported = time.perf_counter()
    for epoch in range(len(history) + 1, epochs + 1):
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
                        outputs = outputs | _teacher_outputs(teacher, batch, accelerator)
                    value = loss(outputs, batch)
                    # Gradients are averaged over processes, and accelerate divides by the accumulation steps.
                    taken = len(batch["label"]) * counts
                    accelerator.backward(value * (taken / samples * _batches_of_step(accelerator)))
                total, count = total + value.detach() * taken, count + taken
            optimizer.step()
            if averaged is not None:
                averaged.update_parameters(bare)
            if by_batch and not getattr(optimizer, "step_was_skipped", False):
                scheduler.step()
        if scheduler is not None and not by_batch:
            scheduler.step()
        if accelerator.num_processes > 1:
            total, count = accelerator.reduce(torch.stack([total, total.new_tensor(count)])).tolist()
        if not count:
            raise ValueError("no training batch: is the batch larger than the training split, with drop_last?")
        row = {"epoch": float(epoch), "train_loss": float(total) / count, "lr": rate}
        row["valid_loss"] = valid = _valid_loss(evaluated, valid_batches, loss, accelerator)
        row["seconds"] = time.perf_counter() - began
        if not (math.isfinite(row["train_loss"]) and math.isfinite(valid)):
            raise FloatingPointError(
                f"epoch {epoch}: training loss {row['train_loss']}, validation loss {valid}; "
                "lower the learning rate, and look for features that are not finite"
            )
        if on_epoch is not None:
            row |= {each: float(number) for each, number in on_epoch(evaluated, epoch).items()}
        history.append(row)
        lowest = history[best_epoch - 1]["valid_loss"] if best_epoch else math.inf
        if valid < lowest or (valid == lowest and ties == "last"):
            best_epoch = epoch
            best_state = {name: each.clone() for name, each in trained_state(evaluated).items()}
        waited = 0 if valid < lowest else waited + 1
        seconds += time.perf_counter() - began
        if broadcast_object_list([time.perf_counter() - reported > SECONDS_BETWEEN])[0]:
            log.info("epoch %d of %d: validation loss %.4f, best %.4f", epoch, epochs, valid, min(valid, lowest))
            if checkpoint is not None:
                checkpoint.save(dict(zip(_NOTES, (history, best_epoch, best_state, waited, seconds), strict=True)))
            reported = time.perf_counter()
    bare = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    # accelerate prepares a model once: without this, training it again would silently be in single precision.
    bare._is_accelerate_prepared = False
    bare.load_state_dict(best_state, strict=False)
    bare.eval()
    if checkpoint is not None:
        checkpoint.remove()
    best = history[best_epoch - 1]
    log.info("best epoch %d of %d: validation loss %.4f", best_epoch, len(history), best["valid_loss"])
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
def _valid_loss(model: nn.Module, batches: Batches, loss: Loss, accelerator: Accelerator) -> float:
    model.eval()
    values, sizes = [], []
    for batch in batches:
        batch = send_to_device(batch, accelerator.device)
        with accelerator.autocast():
            outputs = convert_to_fp32(model(batch))
        values.append(float(loss(outputs, batch)))
        sizes.append(len(batch["label"]))
    if not values:
        raise ValueError("no validation batch: an epoch can only be chosen on a validation split that is not empty")
    # Rounding may differ between processes, but all must choose the same epoch.
    means: list[float] = broadcast_object_list([float(np.average(values, weights=sizes))])
    return means[0]


@torch.no_grad()
def _teacher_outputs(teacher: nn.Module, batch: dict[str, Any], accelerator: Accelerator) -> dict[str, Tensor]:
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
