"""Frames that stay where they lie, usually in a memory-mapped feature store: a batch reads its own segments only.

So training takes no more memory for a larger corpus: what is read lives in the system's page cache, which gives way,
and one layer costs that layer's bytes alone.
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float16, Float32, Int, Int64

from msakit.features import FeatureStore

CHUNK_FRAMES = 8192  # frames widened at a time for statistics


@dataclass(frozen=True)
class FrameSource:
    """One modality of the rows of a split; row r has the frames starts[r] to starts[r] + lengths[r] of `frames`."""

    frames: Float[np.ndarray, "*layer all_frames dim"]
    starts: Int[np.ndarray, " rows"]
    lengths: Int[np.ndarray, " rows"]
    mean: Float32[np.ndarray, " dim"] | None = None  # taken from each frame that is served ...
    deviation: Float32[np.ndarray, " dim"] | None = None  # ... which is then divided by this

    def __post_init__(self) -> None:
        if len(self.starts) != len(self.lengths):
            raise ValueError(f"{len(self.starts)} starts for {len(self.lengths)} lengths")
        ends = self.starts + self.lengths
        if len(ends) and (self.starts.min() < 0 or self.lengths.min() < 0 or ends.max() > self.frames.shape[-2]):
            raise ValueError(
                f"segments lie between {self.starts.min()} and {ends.max()}, outside the {self.frames.shape[-2]} "
                "frames; take the segments' places from the store of these frames"
            )

    @classmethod
    def of(cls, store: FeatureStore, segment_ids: Sequence[str], layer: int | None) -> "FrameSource":
        """The frames of these segments in one layer of a store; layer None gives all layers.

        Raises ValueError for a layer or a segment that the store does not have.
        """
        if layer is not None and not -store.n_layers <= layer < store.n_layers:
            raise ValueError(f"{store.folder} has layers 0 to {store.n_layers - 1}, not {layer}")
        places = store.segments.set_index("segment_id")[["start", "length"]]
        missing = [segment for segment in segment_ids if segment not in places.index]
        if missing:
            raise ValueError(f"{store.folder} has no segment {missing[0]!r}; was it extracted from this corpus?")
        chosen = places.loc[list(segment_ids)].to_numpy(dtype=np.int64)
        if layer is None:
            return cls(store.layers, chosen[:, 0], chosen[:, 1])
        _announce(store.layers, layer % store.n_layers)
        return cls(store.layers[layer], chosen[:, 0], chosen[:, 1])

    def standardised(self, by: "FrameSource") -> "FrameSource":
        """The same frames, less the mean and over the standard deviation of the frames of `by` (one layer each).

        A dimension that never changes is only moved to zero.
        """
        total, squares, count = np.zeros(by.frames.shape[-1]), np.zeros(by.frames.shape[-1]), 0
        for where in _chunks(by):
            values = by.frames[where].astype(np.float64)
            total += values.sum(0)
            count += len(values)
        mean = total / max(count, 1)
        for where in _chunks(by):
            squares += np.square(by.frames[where].astype(np.float64) - mean).sum(0)
        deviation = np.sqrt(squares / max(count, 1))
        deviation = np.where(deviation > 0, deviation, 1.0)
        return replace(self, mean=mean.astype(np.float32), deviation=deviation.astype(np.float32))


def _announce(layers: Float16[np.ndarray, "layer all_frames dim"], layer: int) -> None:
    """Tell the system that this layer will be wanted, whole, and its neighbours not.

    Left to itself it reads ahead of each random access, megabytes into the layers on both sides.
    """
    if isinstance(layers, np.memmap) and isinstance(layers.base, mmap.mmap):
        size = layers[layer].nbytes
        begin = layers.offset + layer * size
        start = begin - begin % mmap.PAGESIZE
        for advice in (mmap.MADV_RANDOM, mmap.MADV_WILLNEED):
            layers.base.madvise(advice, start, begin + size - start)


def _chunks(source: FrameSource) -> list[Int64[np.ndarray, " frames"]]:
    """Places of all frames of the rows, so many at a time."""
    owner = np.repeat(np.arange(len(source.lengths)), source.lengths)
    inside = np.arange(len(owner)) - (source.lengths.cumsum() - source.lengths)[owner]
    places = (source.starts[owner] + inside).astype(np.int64)
    return [places[start : start + CHUNK_FRAMES] for start in range(0, len(places), CHUNK_FRAMES)]
