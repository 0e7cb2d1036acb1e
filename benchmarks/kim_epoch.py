"""An epoch of Kim & Kim 2022 at the size of BERT-base and the lengths of CMU-MOSI.

Random weights of bert-base-uncased's shape; lengths are log-normal with a mean of about 15 word pieces, at most 50; as
many segments as in CMU-MOSI. The reference is the plain loop: every batch padded to 50 tokens, every epoch scored on
valid and on test; all its batches cost the same, so it is timed on an eighth of the segments. Ours is the recipe's own
loop on batches of segments of similar length; it scores valid and, to show what choosing on test would do, test too.
The variants take turns, and the fastest turn of each counts, so that what else the machine does counts little.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import BertConfig

from benchmarks import Result
from msakit import process
from msakit.models.shifted_bert import ShiftedBert
from msakit.papers import arms_of
from msakit.papers.kim2022.details import BestTestEpoch
from msakit.papers.kim2022.inputs import EVAL_BATCH_SIZE
from msakit.papers.kim2022.recipe import Settings, contrasted, decayed_groups
from msakit.runs.arm import Arm
from msakit.training.batching import TextBatches
from msakit.training.loop import fit, set_seed
from msakit.training.losses import Loss, mse, with_contrast

SIZES = {"train": 1284, "valid": 229, "test": 686}
REFERENCE_SHARE = 8  # of each split
WIDTHS = {"audio": 74, "vision": 47}
LONGEST, TURNS = 50, 2
SETTINGS = Settings(epochs=1)


def run() -> list[Result]:
    """Two results: the reference's seconds over ours (MAG), and CMS with CLR over MAG."""
    inputs = {split: _segments(count, seed) for seed, (split, count) in enumerate(SIZES.items())}
    arms = arms_of("kim2022")
    part = {split: _segments(count // REFERENCE_SHARE, seed) for seed, (split, count) in enumerate(SIZES.items())}
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
    detail |= {"segments": SIZES, "mean_tokens": round(np.mean([len(ids) for ids in inputs["train"]["token_ids"]]), 1)}
    detail |= {"reference_timed_on": f"1/{REFERENCE_SHARE} of the segments", "threads": torch.get_num_threads()}
    padded = f"a loop that pads every batch to {LONGEST} tokens and scores valid and test each epoch"
    return [
        Result("kim-epoch", best["reference"] / best["mag"], 2.0, "up", f"the speed of {padded}", detail),
        Result("kim-cms-clr", best["cms_clr"] / best["mag"], 1.15, "down", "the seconds of an epoch of MAG", detail),
    ]


def _segments(count: int, seed: int) -> dict[str, Any]:
    """Arguments of TextBatches for random segments, zeros on their special tokens."""
    random = np.random.default_rng(seed)
    pieces = np.clip(np.round(random.lognormal(np.log(12.5), 0.6, count)), 3, LONGEST).astype(int)
    token_ids = [random.integers(1000, 30000, length).tolist() for length in pieces]
    vectors = {
        name: [np.pad(random.normal(size=(length - 2, dim)).astype(np.float32), ((1, 1), (0, 0))) for length in pieces]
        for name, dim in WIDTHS.items()
    }
    return {"token_ids": token_ids, "label": random.uniform(-3, 3, count), "per_token": vectors}


def _model(arm: Arm) -> tuple[ShiftedBert, torch.optim.Optimizer]:
    dims: dict[str, Any] = {f"d_{name}": dim for name, dim in WIDTHS.items()}
    model = ShiftedBert(BertConfig().to_dict(), **dims, **arm.args, contrast=contrasted(arm))
    groups = decayed_groups(model, SETTINGS.weight_decay)
    return model, torch.optim.AdamW(groups, lr=SETTINGS.learning_rate, fused=True)


def _ours(segments: dict[str, dict[str, Any]], arm: Arm) -> float:
    process.configure(matmul="onednn")
    generator = set_seed(0)
    model, optimizer = _model(arm)
    train = TextBatches(**segments["train"], batch_size=SETTINGS.batch_size, bucket=True, generator=generator)
    valid, test = (
        TextBatches(**segments[split], batch_size=EVAL_BATCH_SIZE, bucket=True) for split in ("valid", "test")
    )
    loss: Loss = mse
    contrastive = arm.loss.contrastive
    if contrastive is not None:
        pairs = [(pair.split("-")[0], pair.split("-")[1]) for pair in contrastive.pairs]
        loss = with_contrast(mse, contrastive.weight, pairs, contrastive.temperature, contrastive.smoothing)
    kept = BestTestEpoch(test, segments["test"]["label"])
    started = time.perf_counter()
    fit(model, train, valid, loss=loss, optimizer=optimizer, epochs=1, on_epoch=kept)
    return time.perf_counter() - started


def _reference(segments: dict[str, dict[str, Any]], arm: Arm) -> float:
    process.configure(keep_memory=False)
    set_seed(0)
    model, optimizer = _model(arm)
    # Made before the clock starts: making them is not what is compared.
    batches = {
        split: list(TextBatches(**given, batch_size=SETTINGS.batch_size, pad_to=LONGEST))
        for split, given in segments.items()
    }
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
