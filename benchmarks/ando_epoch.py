"""Training epoch of Ando et al.'s model at CMU-MOSI size, against a loader like the authors' and bare products.

``ando-epoch-loader``: the reference does what the description of the authors' loader says: one float32 file
[24, time, 1024] a segment and modality, loaded whole, one layer sliced, SpecAugment on the segment, batches padded to
their longest segment, a torch DataLoader with its best number of workers; its model is the same, on padded batches, its
Adam torch's default.
Ours reads one layer of a memory-mapped store.  Both train one epoch at the published MOSI size, SpecAugment included,
in turns, each in a process of its own; the fastest turn of each counts.  The ratio with a cold cache (files dropped
from the page cache by posix_fadvise before one epoch of each, the first of its process) is in the detail.

``ando-epoch-products``: through the kit's own training loop at MOSEI's widths (E = 256, Z = 128), against the bare
matrix products of the same batches' valid frames, forward and backward: for the first layer the product and that of its
weights' gradient (features need no gradient), for each inner layer both gradients as well; no bias, norm, activation,
dropout, loss or optimizer.  The products of a batch are timed right after that batch has been loaded, when its frames
are in the cache, before its training step; of each batch the fastest of all epochs counts on both sides, so that
what else runs on the machine does not count.
"""

import logging
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from benchmarks import Result
from benchmarks._ando_corpus import DIM, LAYERS, MOSI_TRAIN, frames, labels, lengths
from msakit import process
from msakit.models.gated import GatedFusion
from msakit.training.batching import FeatureBatches
from msakit.training.loop import fit, set_seed
from msakit.training.losses import l1
from msakit.training.spec_augment import SpecAugment

log = logging.getLogger(__name__)

BATCH = 16
LAYER = 19  # any: the reference reads all, ours one
EPOCHS = 8  # of which the fastest time of each batch counts
TURNS = 3  # epochs of each side against the loader
SPARE_BYTES = 4 * 2**30  # what must stay free on disk and in memory


def run() -> list[Result]:
    """Two results: epochs a second against the loader, seconds against the bare products."""
    return [_against_products(), _against_loader()]


def _train_batches(features: dict[str, Any], count: int) -> tuple[FeatureBatches, torch.Generator]:
    generator = set_seed(0)
    given = FeatureBatches(features, labels(count), BATCH, generator=generator, drop_last=True, augment=SpecAugment())
    return given, generator


def _conditions() -> dict[str, Any]:
    """What else ran, and whether this process was put before it."""
    return {
        "load_average_at_end": round(os.getloadavg()[0], 1),
        "real_time_priority": os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR),
    }


def _adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)


# Against the bare products


def _against_products() -> Result:
    process.configure()
    sizes = lengths(MOSI_TRAIN)
    features = {name: (frames(int(size.sum()), seed), size) for seed, (name, size) in enumerate(sizes.items())}
    batches, generator = _train_batches(features, MOSI_TRAIN)
    model = GatedFusion(dict.fromkeys(sizes, DIM), width=256, embedding=128)
    watched = Stopwatch(batches, generator, _products(model))
    # The loop wants something to validate on: eight segments.
    few = {name: (values[: int(size[:8].sum())], size[:8]) for name, (values, size) in features.items()}
    valid = FeatureBatches(few, labels(MOSI_TRAIN)[:8], 8)
    fit(model, watched, valid, loss=l1, optimizer=_adam(model), epochs=EPOCHS)
    ours, bare = np.array(watched.steps), np.array(watched.products)
    epochs = ours.sum(1) / bare.sum(1)
    detail = {
        "epoch_seconds": round(float(ours.min(0).sum()), 3),
        "products_seconds": round(float(bare.min(0).sum()), 3),
        "ratio_of_single_epochs": [round(float(value), 3) for value in epochs],
        "ratio_median_over_all_steps": round(float(np.median(ours / bare)), 3),
        "segments": MOSI_TRAIN,
        "threads": torch.get_num_threads(),
        **_conditions(),
    }
    reference = "the bare forward and backward matrix products of the valid frames, E = 256"
    return Result("ando-epoch-products", ours.min(0).sum() / bare.min(0).sum(), 2.0, "down", reference, detail)


class Stopwatch:
    """Batches that time, each epoch in the same order, the training step of each and the products beside it."""

    def __init__(self, batches: FeatureBatches, generator: torch.Generator, products: Callable[[dict], None]) -> None:
        self.batches, self.generator, self.run_products = batches, generator, products
        self.steps: list[list[float]] = []  # seconds by epoch and batch: loading, and until the next batch is wanted
        self.products: list[list[float]] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.generator.manual_seed(0)
        self.steps.append([])
        self.products.append([])
        source, clock = iter(self.batches), time.perf_counter
        while True:
            wanted = clock()
            batch = next(source, None)
            if batch is None:
                return
            loaded = clock()
            self.run_products(batch)
            given = clock()
            yield batch
            self.steps[-1].append(loaded - wanted + clock() - given)
            self.products[-1].append(given - loaded)


def _products(model: GatedFusion) -> Callable[[dict[str, Any]], None]:
    """Runs the matrix products of one training step, forward and backward, of the unimodal encoders and the decoder."""
    weights = {name: value.detach().clone() for name, value in model.named_parameters() if value.dim() == 2}

    def linear(values: Tensor, name: str, inner: bool = True) -> Tensor:
        weight = weights[f"{name}.weight"]
        result = values @ weight.T
        result.T @ values  # gradient of the weight; the result stands in for its own gradient
        if inner:
            result @ weight  # gradient of the input
        return result

    def once(batch: dict[str, Any]) -> None:
        embedded = []
        for name in model.modalities:
            hidden = linear(batch[name].frames, f"encoders.{name}.project.0", inner=False)
            scores = linear(linear(hidden, f"encoders.{name}.pool.hidden"), f"encoders.{name}.pool.score")
            # Pooling costs the same products whether the frames are of one segment or of sixteen.
            pooled = scores.T @ hidden
            hidden @ pooled.T, scores @ pooled
            embedded.append(linear(pooled.flatten().expand(BATCH, -1), f"encoders.{name}.output"))
        linear(torch.cat(embedded, 1), "decoder.gates")
        linear(linear(embedded[0], "decoder.output.0"), "decoder.output.4")

    return once


# Against the loader


def _against_loader() -> Result:
    with tempfile.TemporaryDirectory(prefix="msakit bench ") as folder:
        root = Path(folder)
        count = _affordable(root)
        _write(root, lengths(count))
        given = (root, count)
        with _process() as kit, _process() as reference:
            tried: dict[int, float] = {}
            for workers in range(3):
                # All files and the store are in the page cache after this.
                tried[workers] = min(reference.submit(_reference_epoch, *given, workers).result() for _ in range(2))
            best = min(tried, key=lambda workers: tried[workers])
            kit.submit(_kit_epoch, *given).result()
            turns = [
                {
                    "kit": kit.submit(_kit_epoch, *given).result(),
                    "reference": reference.submit(_reference_epoch, *given, best).result(),
                }
                for _ in range(TURNS)
            ]
        # Only now, because a file that a process maps stays in the cache.
        _drop_from_cache(root)
        with _process() as kit, _process() as reference:
            cold = {
                "kit": kit.submit(_kit_epoch, *given).result(),
                "reference": reference.submit(_reference_epoch, *given, best).result(),
            }
    seconds = {name: min(turn[name] for turn in turns) for name in cold}
    detail = {
        "kit_epoch_seconds": round(seconds["kit"], 3),
        "reference_epoch_seconds": round(seconds["reference"], 3),
        "reference_workers_at_best": best,
        "reference_seconds_by_workers": {str(workers): round(value, 2) for workers, value in tried.items()},
        "ratios_of_single_turns": [round(turn["reference"] / turn["kit"], 2) for turn in turns],
        "cold_kit_epoch_seconds": round(cold["kit"], 3),
        "cold_reference_epoch_seconds": round(cold["reference"], 3),
        "cold_ratio": round(cold["reference"] / cold["kit"], 2),
        "segments": count,
        "segments_of_mosi": MOSI_TRAIN,
        "threads": torch.get_num_threads(),
        **_conditions(),
    }
    reference_is = "a loader of whole float32 files per segment, its files in the page cache (times faster)"
    return Result("ando-epoch-loader", seconds["reference"] / seconds["kit"], 6.0, "up", reference_is, detail)


def _process() -> ProcessPoolExecutor:
    """A process of its own: how the one side uses memory is not to help or hinder the other."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _affordable(root: Path) -> int:
    """Segments whose files fit on the disk and into the page cache: all of MOSI's, or fewer on a small machine."""
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(memory["MemAvailable"].split()[0]) * 1024
    room = min(shutil.disk_usage(root).free, free) - SPARE_BYTES
    segment = LAYERS * DIM * 4 * sum(size.mean() for size in lengths(MOSI_TRAIN).values())
    return int(min(MOSI_TRAIN, max(room / segment, 4 * BATCH)))


def _write(root: Path, sizes: dict[str, np.ndarray]) -> None:
    """The reference's files, and one layer of our store; each reaches the disk, so that the cache can be dropped."""
    for seed, (name, size) in enumerate(sizes.items()):
        values = frames(int(size.sum()), seed)
        (root / name).mkdir()
        _save(root / f"{name}.npy", values)
        starts = size.cumsum() - size
        for row, (start, length) in enumerate(zip(starts, size, strict=True)):
            layer = values[start : start + length].astype(np.float32)
            _save(root / name / f"{row}.npy", np.broadcast_to(layer, (LAYERS, *layer.shape)))


def _save(path: Path, values: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, values)
        file.flush()
        os.fdatasync(file.fileno())


def _drop_from_cache(root: Path) -> None:
    for path in root.rglob("*.npy"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _kit_epoch(root: Path, count: int) -> float:
    process.configure()
    features = _mapped(root, count)
    batches, _ = _train_batches(features, count)
    model = GatedFusion(dict.fromkeys(features, DIM))
    optimizer = _adam(model)
    # The second epoch: in the first one the memory of a training is taken for the first time.
    return [_epoch_seconds(model, optimizer, batches, lambda out: out["prediction"]) for _ in range(2)][-1]


@cache
def _mapped(root: Path, count: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {name: (np.load(root / f"{name}.npy", mmap_mode="r"), size) for name, size in lengths(count).items()}


def _reference_epoch(root: Path, count: int, workers: int) -> float:
    torch.manual_seed(0)
    loader: DataLoader = DataLoader(
        SegmentFiles(root, count),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        collate_fn=_padded_batch,
        multiprocessing_context="fork" if workers else None,
    )
    model = PaddedFusion()
    return _epoch_seconds(model, torch.optim.Adam(model.parameters(), lr=1e-4), loader, lambda out: out)


def _epoch_seconds(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Any, prediction: Callable[[Any], Tensor]
) -> float:
    """One epoch of the same plain loop for both sides; start of the workers included, as in every epoch of theirs."""
    model.train()
    started = time.perf_counter()
    for batch in batches:
        optimizer.zero_grad()
        nn.functional.l1_loss(prediction(model(batch)), batch["label"]).backward()
        optimizer.step()
    return time.perf_counter() - started


class SegmentFiles(Dataset):
    """One float32 file [layer, time, dim] a segment and modality, loaded whole; one layer is kept and masked."""

    def __init__(self, root: Path, count: int) -> None:
        self.root, self.label = root, labels(count)

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, row: int) -> tuple[dict[str, Tensor], float]:
        whole = {name: np.load(self.root / name / f"{row}.npy") for name in ("text", "audio", "vision")}
        masked = {name: torch.from_numpy(_masked(values[LAYER])) for name, values in whole.items()}
        return masked, float(self.label[row])


def _masked(values: np.ndarray) -> np.ndarray:
    """SpecAugment with the published settings on one segment, "time dim"."""
    values, mean = values.copy(), values.mean()
    for axis, masks, fraction in ((1, 10, 0.02), (0, 2, 0.2)):
        limit = int(fraction * values.shape[axis])
        for _ in range(masks if limit else 0):
            width = int(torch.randint(limit, ()))
            start = int(torch.randint(values.shape[axis] - width, ()))
            where = (slice(start, start + width), slice(None))
            values[where if axis == 0 else where[::-1]] = mean
    return values


def _padded_batch(rows: list[tuple[dict[str, Tensor], float]]) -> dict[str, Any]:
    features, label = zip(*rows, strict=True)
    batch: dict[str, Any] = {"label": torch.tensor(label)}
    for name in features[0]:
        sequences = [row[name] for row in features]
        batch[name] = pad_sequence(sequences, batch_first=True), torch.tensor([len(values) for values in sequences])
    return batch


class PaddedFusion(nn.Module):
    """The same model on padded batches, as plain torch: E = 128, Z = 64, 4 heads."""

    def __init__(self, width: int = 128, embedding: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: PaddedEncoder(width, embedding, heads) for name in lengths(1)})
        self.gates = nn.Linear(3 * embedding, 3)
        self.output = nn.Sequential(
            nn.Linear(embedding, embedding),
            nn.LayerNorm(embedding),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(embedding, 1),
        )

    def forward(self, batch: dict[str, Any]) -> Tensor:
        stacked = torch.stack([encoder(*batch[name]) for name, encoder in self.encoders.items()], 1)
        gates = self.gates(stacked.flatten(1)).sigmoid()
        return self.output((gates[..., None] * stacked).sum(1)).squeeze(-1)


class PaddedEncoder(nn.Module):
    def __init__(self, width: int, embedding: int, heads: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(DIM, width), nn.LayerNorm(width), nn.ReLU(), nn.Dropout(0.2))
        self.score = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, heads, bias=False))
        self.output = nn.Linear(heads * width, embedding)

    def forward(self, padded: Tensor, sizes: Tensor) -> Tensor:
        hidden = self.project(padded)
        outside = torch.arange(padded.shape[1]) >= sizes[:, None]
        attention = self.score(hidden).masked_fill(outside[..., None], float("-inf")).softmax(1)
        return self.output((attention.transpose(1, 2) @ hidden).flatten(1))
