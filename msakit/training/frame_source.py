"""Frames that stay where they lie, usually in a memory-mapped feature store: a batch reads its own segments only.

So training takes no more memory for a larger corpus: what is read lives in the system's page cache, which gives way,
and one layer costs that layer's bytes alone.
"""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float16, Float64, Int

from msakit.features import FeatureStore
from msakit.training.scaling import Scaling

CHUNK_FRAMES = 8192  # frames widened at a time for statistics


@dataclass(frozen=True)
class FrameSource:
    """One modality of the rows of a split; row r has the frames starts[r] to starts[r] + lengths[r] of `frames`."""

    frames: Float[np.ndarray, "*layer all_frames dim"]
    starts: Int[np.ndarray, " rows"]
    lengths: Int[np.ndarray, " rows"]
    scaling: Scaling | None = None  # of each frame that is served

    @classmethod
    def end_to_end(cls, frames: np.ndarray, lengths: np.ndarray) -> "FrameSource":
        """The frames of one row behind those of another. Raises ValueError for other frames than of these lengths."""
        if lengths.sum() != frames.shape[-2]:
            raise ValueError(
                f"the lengths add up to {lengths.sum()}, but {frames.shape[-2]} frames were given; take both from the "
                "same list of segments"
            )
        return cls(frames, lengths.cumsum() - lengths, lengths)

    @classmethod
    def of(cls, store: FeatureStore, segment_ids: Sequence[str], layer: int | None) -> "FrameSource":
        """The frames of these segments in one layer of a store; layer None gives all layers.

        Raises ValueError for a segment that the store does not have.
        """
        spans = store.segments.set_index("segment_id")[["start", "length"]]
        missing = [segment for segment in segment_ids if segment not in spans.index]
        if missing:
            raise ValueError(f"{store.folder} has no segment {missing[0]!r}; was it extracted from this corpus?")
        chosen = spans.loc[list(segment_ids)].to_numpy(dtype=np.int64)
        if layer is None:
            return cls(store.layers, chosen[:, 0], chosen[:, 1])
        _announce(store.layers, layer % store.n_layers)
        return cls(store.layers[layer], chosen[:, 0], chosen[:, 1])

    def standardised(self, by: "FrameSource") -> "FrameSource":
        """The same frames, standardised when they are served by the frames of `by` (one layer each)."""
        found = Scaling.of_frames(by)
        return replace(self, scaling=Scaling(found.mean.astype(np.float32), found.deviation.astype(np.float32)))

    def __iter__(self) -> Iterator[Float64[np.ndarray, "_frames dim"]]:
        """The frames of all rows of one layer, CHUNK_FRAMES at a time."""
        owner = np.repeat(np.arange(len(self.lengths)), self.lengths)
        inside = np.arange(len(owner)) - (self.lengths.cumsum() - self.lengths)[owner]
        rows = (self.starts[owner] + inside).astype(np.int64)
        for start in range(0, max(len(rows), 1), CHUNK_FRAMES):
            yield self.frames[rows[start : start + CHUNK_FRAMES]].astype(np.float64)


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
