"""An epoch of Kim & Kim 2022 at the size of BERT-base and the lengths of CMU-MOSI.

Random weights of bert-base-uncased's shape; lengths are log-normal with a mean of about 15 word pieces, at most 50; as
many segments as in CMU-MOSI. The reference is the plain loop: every batch padded to 50 tokens, every epoch scored on
valid and on test; all its batches cost the same, so it is timed on an eighth of the segments. Ours is the recipe's own
loop on batches of segments of similar length; it scores valid and, to show what choosing on test would do, test too.
The variants take turns, and the fastest turn of each counts, so that what else the machine does counts little.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from transformers import BertConfig

from benchmarks import Result
from msakit import process
from msakit.models.shifted_bert import ShiftedBert
from msakit.papers.kim2022.details import BestTestEpoch
from msakit.papers.kim2022.inputs import Inputs
from msakit.papers.kim2022.recipe import Arm, Settings, arms_of_paper, decayed_groups
from msakit.training.batching import TextBatches
from msakit.training.loop import fit, set_seed
from msakit.training.losses import mse, with_contrast

SIZES = {"train": 1284, "valid": 229, "test": 686}
REFERENCE_SHARE = 8  # of each split
WIDTHS = {"audio": 74, "vision": 47}
LONGEST, TURNS = 50, 2
SETTINGS = Settings(epochs=1)


def run() -> list[Result]:
    """Two results: the reference's seconds over ours (MAG), and CMS with CLR over MAG."""
    inputs = {split: _inputs(count, seed) for seed, (split, count) in enumerate(SIZES.items())}
    arms = arms_of_paper()
    part = {split: _inputs(count // REFERENCE_SHARE, seed) for seed, (split, count) in enumerate(SIZES.items())}
    variants: dict[str, Callable[[], float]] = {
        "reference": lambda: REFERENCE_SHARE * _reference(part, arms["mag"]),
        "mag": lambda: _ours(inputs, arms["mag"]),
        "cms_clr": lambda: _ours(inputs, arms["cms-clr"]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(TURNS):
        for name, measure in variants.items():
            seconds[name].append(measure())
    best = {name: min(values) for name, values in seconds.items()}
    detail = {f"{name}_seconds": [round(value, 2) for value in values] for name, values in seconds.items()}
    detail |= {"segments": SIZES, "mean_tokens": round(np.mean([len(ids) for ids in inputs["train"].token_ids]), 1)}
    detail |= {"reference_timed_on": f"1/{REFERENCE_SHARE} of the segments", "threads": torch.get_num_threads()}
    padded = f"a loop that pads every batch to {LONGEST} tokens and scores valid and test each epoch"
    return [
        Result("kim-epoch", best["reference"] / best["mag"], 2.0, "up", f"the speed of {padded}", detail),
        Result("kim-cms-clr", best["cms_clr"] / best["mag"], 1.15, "down", "the seconds of an epoch of MAG", detail),
    ]


def _inputs(count: int, seed: int) -> Inputs:
    """Random segments: one word a piece, as most words of MOSI are one."""
    random = np.random.default_rng(seed)
    pieces = np.clip(np.round(random.lognormal(np.log(12.5), 0.6, count)), 3, LONGEST).astype(int)
    words = [["word"] * int(length - 2) for length in pieces]
    return Inputs(
        [random.integers(1000, 30000, length).tolist() for length in pieces],
        [[None, *range(length - 2), None] for length in pieces],
        words,
        {name: [random.normal(size=(len(w), d)).astype(np.float32) for w in words] for name, d in WIDTHS.items()},
        {},
        random.uniform(-3, 3, count),
        0,
        0,
    )


def _model(arm: Arm) -> tuple[ShiftedBert, torch.optim.Optimizer]:
    config = BertConfig().to_dict()
    model = ShiftedBert(config, *WIDTHS.values(), shift=arm.shift, contrast=arm.contrast)
    groups = decayed_groups(model, SETTINGS.weight_decay)
    return model, torch.optim.AdamW(groups, lr=SETTINGS.learning_rate, fused=True)


def _ours(inputs: dict[str, Inputs], arm: Arm) -> float:
    process.configure(matmul="onednn")
    generator = set_seed(0)
    model, optimizer = _model(arm)
    train = inputs["train"].batches(SETTINGS.batch_size, generator=generator)
    valid, test = (inputs[split].batches(256) for split in ("valid", "test"))
    leaked = BestTestEpoch(test, inputs["test"].label)
    loss = with_contrast(mse, arm.contrastive, temperature=arm.temperature, smoothing=arm.smoothing)
    found = fit(model, train, valid, loss=loss, optimizer=optimizer, epochs=1, on_epoch=leaked, progress=False)
    return found.seconds


def _reference(inputs: dict[str, Inputs], arm: Arm) -> float:
    process.configure(keep_memory=False)
    set_seed(0)
    model, optimizer = _model(arm)
    batches = {split: list(_padded(ready)) for split, ready in inputs.items()}
    started = time.perf_counter()
    model.train()
    for batch in batches["train"]:
        optimizer.zero_grad()
        mse(model(batch), batch).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for split in ("valid", "test"):
            for batch in batches[split]:
                model(batch)
    return time.perf_counter() - started


def _padded(ready: Inputs) -> Iterator[dict[str, Any]]:
    """Made before the clock starts: making them is not what is compared."""
    yield from TextBatches(
        ready.token_ids, ready.label, SETTINGS.batch_size, per_token=ready.on_pieces(), pad_to=LONGEST
    )
