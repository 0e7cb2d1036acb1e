"""What every arm costs, measured one after another in one pass on one machine, and as ratios to text only.

An epoch is one pass over the training part: data, forward, backward, step; FLOPs a sample are its forward and
backward.  Under frozen encoders both are of the head over stored vectors, as the training is; to make the vectors once
takes about the FLOPs of a prediction, which is forward alone, from text and image on.  VisualBERT's grid is stored too.
Late fusion is the sum of its parts.  Without training (zero-shot) an epoch is a forward pass.
"""

import logging
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import torch

from msakit.papers import facts
from msakit.papers.toledo2022.learners import build
from msakit.papers.toledo2022.protocol import CORRECTED, Arm
from msakit.papers.toledo2022.study import PAPER, Study
from msakit.training import cost
from msakit.training.loop import set_seed
from msakit.training.losses import classification

logger = logging.getLogger(__name__)

BASE = "text-only"
QUANTITIES = (
    "trainable_parameters",
    "flops_per_sample",
    "seconds_per_epoch",
    "epoch_peak_memory_mb",
    "flops_per_prediction",
)
SUMMED = ("trainable_parameters", "total_parameters", "flops_per_sample", "flops_per_prediction", "seconds_per_epoch")


def measure(study: Study, arms: Collection[str]) -> dict[str, dict[str, Any]]:
    """By arm of ``toledo2022.yaml``: QUANTITIES, "total_parameters" and "relative_to_text_only", the QUANTITIES as
    ratios.  Text only is measured in any case."""
    known = facts(PAPER)["arms"]
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys([BASE, *(part for arm in arms for part in known[arm].get("mean_of", [arm]))]):
        found[name] = _measure(study, known[name])
        logger.info("%s costs %.2f s an epoch", name, found[name]["seconds_per_epoch"])
    for name in arms:
        if "mean_of" in known[name]:
            found[name] = _together([found[part] for part in known[name]["mean_of"]])
    for costs in found.values():
        ratios = {quantity: costs[quantity] / found[BASE][quantity] for quantity in QUANTITIES}
        costs["relative_to_text_only"] = ratios
    return found


def _measure(study: Study, arm: Mapping[str, Any]) -> dict[str, Any]:
    settings, label, classes = study.settings, study.label, len(study.corpus.task.classes)
    rows = study.view(Arm("", ""), 0).rows["train"]
    # The way from text and image to a prediction, whatever is trained.
    generator = set_seed(0)
    whole = build({**arm, "frozen": False}, study.inputs, label, classes, CORRECTED, settings)
    whole.model.to(study.inputs.device).requires_grad_(False)
    served = whole.batches(rows, batch_size=settings.batch_size, generator=generator)
    forward = cost.flops_per_sample(whole.model, next(iter(served)), classification)
    learner = whole if arm.get("zero_shot") else build(arm, study.inputs, label, classes, CORRECTED, settings)
    learner.model.to(study.inputs.device)
    batches = learner.batches(rows, batch_size=settings.batch_size, generator=generator)
    sizes = cost.parameters(learner.model)
    make = partial(torch.optim.AdamW, lr=learner.rate, weight_decay=settings.weight_decay, fused=True)
    epoch = cost.epoch(learner.model, batches, loss=classification, optimizer=make)
    return {
        "trainable_parameters": sizes.trainable,
        "total_parameters": sizes.total,
        "flops_per_sample": cost.flops_per_sample(learner.model, next(iter(batches)), classification),
        "flops_per_prediction": forward,
        "seconds_per_epoch": epoch.seconds,
        "epoch_peak_memory_mb": epoch.peak_memory_mb,
    }


def _together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Trained one after another: all adds up but the memory."""
    summed = {name: sum(part[name] for part in parts) for name in SUMMED}
    return {**summed, "epoch_peak_memory_mb": max(part["epoch_peak_memory_mb"] for part in parts)}
