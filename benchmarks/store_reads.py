"""Bytes of the feature store: what is really read from disk for one layer, and how large the store is.

A store of 24 layers is extracted with the kit from generated features, dropped from the page cache, and one epoch of
batches of one layer is drawn from it in random order. What the kernel then holds of the file (mincore, counted in a
fresh mapping) is what was read: neither the memory map nor read-ahead can hide bytes from it.

`store-reads`: those bytes, times 24, over the store. `store-size`: all files of the store over the same features as
float32 files [layer, time, dim], one a segment.
"""

import ctypes
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import Result
from benchmarks._ando_corpus import DIM, LAYERS, GeneratedEncoder, corpus, labels
from msakit.features import FeatureStore, extract
from msakit.training.batching import FeatureBatches
from msakit.training.frame_source import FrameSource

SEGMENTS = 320
LAYER = 19
HEADER = 128  # bytes of a .npy header


def run() -> list[Result]:
    """Two results, both shares of bytes."""
    with tempfile.TemporaryDirectory(prefix="msakit bench ") as folder:
        data = corpus(Path(folder) / "corpus", SEGMENTS)
        encoder = GeneratedEncoder("text", LAYERS, SEGMENTS)
        stored = extract(data, encoder, Path(folder) / "features", progress=False).folder
        size = sum(path.stat().st_size for path in stored.iterdir())
        layers = stored / "layers.npy"
        _drop(layers)
        before = resident_bytes(layers)
        if before:
            raise RuntimeError(f"{before} bytes of {layers} stay in the page cache: what is read cannot be counted")
        _one_epoch(stored)
        read = resident_bytes(layers)
    frames = int(encoder.lengths.sum())
    float32 = frames * LAYERS * DIM * 4 + SEGMENTS * HEADER
    detail = {"segments": SEGMENTS, "frames": frames, "layers": LAYERS, "dim": DIM, "store_bytes": size}
    return [
        Result(
            "store-reads",
            read * LAYERS / size,
            1.05,
            "down",
            f"a {LAYERS}th of the store, for one layer",
            detail | {"bytes_read": read, "bytes_of_the_layer": frames * DIM * 2},
        ),
        Result(
            "store-size", size / float32, 0.5, "down", "one float32 file a segment", detail | {"float32_bytes": float32}
        ),
    ]


def _one_epoch(stored: Path) -> None:
    store = FeatureStore.open(stored)
    ids = list(store.segments["segment_id"])
    source = FrameSource.of(store, ids, LAYER)
    for batch in FeatureBatches({"text": source}, labels(len(ids)), 16, generator=None):
        if not batch["text"].frames.isfinite().all():
            raise RuntimeError("features that are not numbers")


def _drop(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident_bytes(path: Path) -> int:
    """How much of a file the page cache holds."""
    libc = ctypes.CDLL(None, use_errno=True)
    mapped = np.memmap(path, mode="r")
    pages = -(-len(mapped) // mmap.PAGESIZE)
    present = (ctypes.c_ubyte * pages)()
    address = ctypes.c_void_p(mapped.ctypes.data)
    if libc.mincore(address, ctypes.c_size_t(len(mapped)), present):
        raise OSError(ctypes.get_errno(), "mincore")
    return int((np.frombuffer(present, dtype=np.uint8) & 1).sum()) * mmap.PAGESIZE
