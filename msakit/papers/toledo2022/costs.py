"""What an arm costs: what is counted, which is the same everywhere, apart from what is timed.

A sample's operations are those of a training batch, forward and backward; a prediction's forward alone, from text and
image on. Under frozen encoders training reads stored vectors, and so do its operations and times: to make the vectors
once takes about the operations of a prediction. VisualBERT's grid is stored in either case. Without training
(zero-shot) a sample is a prediction.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from msakit.papers.toledo2022.inputs import GRID, PIXELS, TOKENS, Inputs, Pixels
from msakit.runs.experiment import Case, Experiment
from msakit.training import cost
from msakit.training.batching import TensorBatches, TextBatches
from msakit.training.losses import Loss

Optimizer = Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]


def parameters(model: nn.Module) -> dict[str, int]:
    """Numbers in the weights: trainable_parameters, total_parameters."""
    sizes = [(each.numel(), each.requires_grad) for each in model.parameters()]
    trainable = sum(size for size, trained in sizes if trained)
    return {"trainable_parameters": trainable, "total_parameters": sum(size for size, _ in sizes)}


def measure(
    experiment: Experiment, inputs: Inputs, case: Case, model: nn.Module, loss: Loss, optimizer: Optimizer | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Counted: flops_per_sample, flops_per_prediction. Timed: seconds_per_epoch, epoch_peak_memory_mb, that of the
    tensors (:mod:`msakit.training.cost`). optimizer: None where nothing is trained, which is not timed.
    """
    arm, rows, size = case.arm, case.rows["train"], experiment.settings_of(case.arm).batch_size
    generator = torch.Generator().manual_seed(0)
    batches = inputs.batches(arm, experiment.label, rows, size, generator=generator)
    stored = not set(inputs.reads(arm).values()) <= {TOKENS, PIXELS, GRID}

    def batch(raw: bool) -> dict[str, Any]:
        return _raw(experiment, inputs, case, size, generator) if raw else next(iter(batches))

    with torch.no_grad():
        counted = {"flops_per_prediction": cost.flops_per_sample(model, batch(stored), loss)}
    with torch.set_grad_enabled(optimizer is not None):
        counted["flops_per_sample"] = cost.flops_per_sample(model, batch(optimizer is None), loss)
    if optimizer is None:
        return counted, {}
    seconds, peak = cost.epoch(model, batches, loss=loss, optimizer=optimizer)
    return counted, {"seconds_per_epoch": seconds, "epoch_peak_memory_mb": peak}


def _raw(experiment: Experiment, inputs: Inputs, case: Case, size: int, generator: torch.Generator) -> dict[str, Any]:
    """A training batch as frozen encoders would read it; pixels are zeros, whose values play no part in a count."""
    rows, label = case.rows["train"], experiment.label[case.rows["train"]]
    batches: TextBatches | TensorBatches = TensorBatches({}, label, size, generator=generator)
    if "text" in case.arm.inputs:
        tokens = inputs.tokens(case.arm)
        ids = [tokens.ids[row] for row in rows]
        batches = TextBatches(ids, label, size, pad_id=tokens.pad_id, bucket=True, generator=generator)
    batch = next(iter(batches))
    if "image" in case.arm.inputs:
        shape = Pixels(inputs.spec(case.arm.inputs["image"].encoder).path).shape
        batch["pixel_values"] = torch.zeros(len(batch["label"]), *shape)
    return batch
