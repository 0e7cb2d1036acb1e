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
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, convert_to_fp32, send_to_device
from accelerate.utils import set_seed as seed_libraries
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from msakit.training.checkpoint import SECONDS_BETWEEN, Checkpoint, next_path, trained_state
from msakit.training.losses import Loss
from msakit.training.schedules import PerBatch

log = logging.getLogger(__name__)

Batches = Iterable[dict[str, Any]]


@dataclass(frozen=True)
class Fit:
    """What a training run did; the model it was given now holds the weights of `best_epoch`."""

    best_epoch: int  # counted from 1
    history: list[dict[str, float]]  # one row an epoch: epoch, train_loss, valid_loss, lr, seconds, and of on_epoch

    @property
    def best(self) -> dict[str, float]:
        """The row of history that was selected."""
        return self.history[self.best_epoch - 1]


@dataclass(frozen=True)
class Averaging:
    """The exponential moving average of the weights (torch.optim.swa_utils), from those after the first step on.

    decay: 0 to 1, a step.  role: "evaluated" (EMA evaluation): validation, selection and the returned weights are those
    of the average; "teacher" (momentum encoder): its outputs on each training batch (eval mode, no gradient) join the
    model's as "teacher_<name>" for the loss to use, and the trained weights themselves are validated and returned.
    """

    decay: float
    role: Literal["evaluated", "teacher"] = "evaluated"


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
    ties: Literal["first", "last"] = "first",
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

    Raises ValueError without any batch, or for a checkpoint of another fit; FloatingPointError once a loss is not
    finite.
    """
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
    notes = checkpoint.load() if checkpoint is not None else None
    history, best_state = (notes["history"], notes["best_state"]) if notes is not None else ([], {})
    reported = time.perf_counter()
    for epoch in range(len(history) + 1, epochs + 1):
        if patience is not None and history and len(history) - _best_epochs(history)[0] >= patience:
            break
        began, rate = time.perf_counter(), optimizer.param_groups[0]["lr"]
        model.train()
        total, count = torch.zeros((), device=accelerator.device), 0
        source = iter(train_batches)
        # The batches of one step of the optimizer, over all processes; the last group may have fewer.
        while group := list(islice(source, _batches_of_step(accelerator))):
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
        best = _best_epochs(history)
        if epoch == best[0 if ties == "first" else -1]:
            best_state = {name: each.clone() for name, each in trained_state(evaluated).items()}
        if broadcast_object_list([time.perf_counter() - reported > SECONDS_BETWEEN])[0]:
            lowest = history[best[0] - 1]["valid_loss"]
            log.info("epoch %d of %d: validation loss %.4f, best %.4f", epoch, epochs, valid, lowest)
            if checkpoint is not None:
                checkpoint.save({"history": history, "best_state": best_state})
            reported = time.perf_counter()
    bare = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    # accelerate prepares a model once: without this, training it again would silently be in single precision.
    bare._is_accelerate_prepared = False
    bare.load_state_dict(best_state, strict=False)
    bare.eval()
    if checkpoint is not None:
        checkpoint.remove()
    done = Fit(_best_epochs(history)[0 if ties == "first" else -1], history)
    log.info("best epoch %d of %d: validation loss %.4f", done.best_epoch, len(history), done.best["valid_loss"])
    return done


def _best_epochs(history: list[dict[str, float]]) -> list[int]:
    """The epochs of lowest validation loss, counted from 1."""
    lowest = min(row["valid_loss"] for row in history)
    return [epoch for epoch, row in enumerate(history, 1) if row["valid_loss"] == lowest]


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


def _share(group: list[dict[str, Any]], accelerator: Accelerator) -> Iterator[tuple[dict[str, Any], bool, bool]]:
    """This process's batches of a group, with: does it count, is it the last?  All processes must run as many, so one
    that is left without runs the group's first with weight zero, marked by "counts" for losses that look at others."""
    world, rank = accelerator.num_processes, accelerator.process_index
    for first in range(0, len(group), world):
        counts = first + rank < len(group)
        batch = group[first + rank] if counts else group[0] | {"counts": False}
        yield batch, counts, first + world >= len(group)
