"""One training loop for every model of the kit: step, clip, average, validate, keep the best epoch, stop early.

The loop sees training and validation batches only; test segments are predicted afterwards with `predict`.  It runs
through accelerate, so a GPU, several processes or mixed precision need no other code (pass an `Accelerator`).
Weight averaging is the exponential moving average of torch.optim.swa_utils: it starts from the weights after the
first step.  As "judge" (default) validation, selection and the returned weights are those of the average.  As
"teacher" it is a momentum encoder: its outputs on each training batch (eval mode, no gradient) join the model's as
"teacher_<name>" for the loss to use, and the trained weights themselves are validated and returned.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import convert_to_fp32, send_to_device
from accelerate.utils import set_seed as seed_libraries
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

log = logging.getLogger(__name__)

Batches = Iterable[dict[str, Any]]
Loss = Callable[[dict[str, Tensor], dict[str, Any]], Tensor]
Metric = Callable[[np.ndarray, np.ndarray], float]


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
    progress: bool = True,
) -> Fit:
    """Train `model` and leave it with the weights of its best epoch by validation, in eval mode.

    loss(outputs, batch) -> scalar mean over the batch.  scheduler_step: "epoch" or "batch".  patience: stop after so
    many epochs without improvement.  clip: largest gradient norm.  average: decay of the moving average of weights,
    used as average_as says: "judge" or "teacher".
    select: ("loss", "min"), or a name in `metrics` with "min" or "max"; metrics[name](prediction, label) sees the whole
    validation split at once.  ties: the "first" or the "last" of equally good epochs is kept (only the first counts
    against patience).  valid_mean: "samples", or "batches" for the mean of batch means, in which a short last batch
    weighs too much (kept for runs that follow a publication to the letter).  on_epoch(model, epoch) adds its numbers
    to the history and cannot influence the choice.

    With several processes each takes every n-th training batch (a remainder is left out, as all must step together)
    and all of validation.  Raises ValueError for unknown options, FloatingPointError once a loss is not finite.
    """
    metrics = metrics or {}
    name, better = _check_options(select, metrics, ties, scheduler_step, valid_mean, average_as)
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
    history: list[dict[str, float]] = []
    best: dict[str, float] = {}
    best_state: dict[str, Tensor] = {}
    waited, start = 0, time.perf_counter()
    for epoch in tqdm(
        range(1, epochs + 1), desc="epochs", leave=False, disable=not (progress and accelerator.is_main_process)
    ):
        began, rate = time.perf_counter(), optimizer.param_groups[0]["lr"]
        model.train()
        total, count = torch.zeros((), device=accelerator.device), 0
        for batch in _share(train_batches, accelerator):
            batch = send_to_device(batch, accelerator.device)
            optimizer.zero_grad()
            outputs = model(batch)
            if teacher is not None:
                with torch.no_grad(), accelerator.autocast():
                    taught = convert_to_fp32(teacher(batch))
                outputs = outputs | {f"teacher_{key}": value for key, value in taught.items()}
            value = loss(outputs, batch)
            accelerator.backward(value)
            if clip is not None:
                accelerator.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if averaged is not None:
                averaged.update_parameters(bare)
            if scheduler is not None and scheduler_step == "batch":
                scheduler.step()
            total, count = total + value.detach() * len(batch["label"]), count + len(batch["label"])
        if scheduler is not None and scheduler_step == "epoch":
            scheduler.step()
        if not count:
            raise ValueError("no training batch: is the batch larger than the training split, with drop_last?")
        row = {"epoch": float(epoch), "train_loss": float(total) / count, "lr": rate}
        row |= _validate(judged, valid_batches, loss, metrics, valid_mean, accelerator)
        row["seconds"] = time.perf_counter() - began
        score = row["valid_loss" if name == "loss" else name]
        if not (math.isfinite(row["train_loss"]) and math.isfinite(score)):
            raise FloatingPointError(
                f"epoch {epoch}: training loss {row['train_loss']}, validation {name} {score}; "
                "lower the learning rate or clip the gradient, and look for non-finite features"
            )
        if on_epoch is not None:
            row |= on_epoch(judged, epoch)
        history.append(row)
        previous = best.get("valid_loss" if name == "loss" else name)
        improved = previous is None or better(score, previous)
        if improved or (score == previous and ties == "last"):
            best, best_state = row, _trained_state(judged)
        waited = 0 if improved else waited + 1
        if patience is not None and waited >= patience:
            break
    bare = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    bare.load_state_dict(best_state, strict=False)
    bare.eval()
    log.info(
        "best epoch %d of %d: validation %s %.4f",
        int(best["epoch"]),
        len(history),
        name,
        best["valid_loss" if name == "loss" else name],
    )
    return Fit(int(best["epoch"]), history, time.perf_counter() - start, best)


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
    return row


def _trained_state(model: nn.Module) -> dict[str, Tensor]:
    # Frozen parameters do not change: copying a frozen encoder at each improvement would be wasted memory.
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value.detach().clone() for name, value in model.state_dict().items() if name not in frozen}


def _share(batches: Batches, accelerator: Accelerator) -> Iterator[dict[str, Any]]:
    world, held = accelerator.num_processes, []
    for batch in batches:
        held.append(batch)
        if len(held) == world:
            yield held[accelerator.process_index]
            held = []


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
