"""Features that came with the corpus (`features.npz`: GloVe, COVAREP, FACET, ...), read like those of an encoder."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float16, Shaped

from msakit.encoders.base import SegmentError, to_half

Frames = Float[np.ndarray, "_time dim"]


class Precomputed:
    """One array of features.npz, [segment, dim] (one frame each) or [segment, time, dim].

    Frames of zeros at either end of a segment are padding and are cut, all but one. NaN and infinities (COVAREP writes
    -inf for silence) become 0; `config()["not_finite"]` counts them.
    """

    conventional = True
    n_layers = 1
    frame_rate: float | None = None  # the file does not say

    def __init__(
        self,
        segment_ids: Shaped[np.ndarray, " segment"],
        values: Shaped[np.ndarray, "segment *time dim"],
        array: str,
        modality: str | None = None,
        id_column: str = "segment_id",
    ):
        if len(segment_ids) != len(values):
            raise ValueError(f"array {array!r} has {len(values)} rows for {len(segment_ids)} segments")
        self.name = array
        self.id_column = id_column
        self.modality = modality or array
        if self.modality not in ("text", "audio", "vision"):
            raise ValueError(f"say the modality of array {array!r}: modality='text', 'audio' or 'vision'")
        values = np.asarray(values, dtype=np.float32)
        finite = np.isfinite(values)
        self._not_finite = int((~finite).sum())
        values = np.where(finite, values, np.float32(0))
        self._values = values[:, None] if values.ndim == 2 else values
        self._rows = {str(segment): row for row, segment in enumerate(segment_ids)}
        self.dim = int(values.shape[-1])

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, array: str, modality: str | None = None, id_column: str = "segment_id"
    ) -> "Precomputed":
        """From features.npz or the corpus folder that holds it.

        id_column: the column of the corpus that names its segments as the file does.
        """
        file = Path(path) / "features.npz" if Path(path).is_dir() else Path(path)
        with np.load(file, allow_pickle=False) as archive:
            if array not in archive.files or "segment_id" not in archive.files:
                raise ValueError(f"{file} has the arrays {archive.files}; it needs segment_id and {array!r}")
            return cls(archive["segment_id"], archive[array], array, modality, id_column)

    def config(self) -> dict[str, Any]:
        return {
            "encoder": "precomputed",
            "name": self.name,
            "weights": hashlib.sha256(self._values.tobytes()).hexdigest()[:16],
            "padding": "frames of zeros at either end are cut",
            "not_finite": self._not_finite,
            **({} if self.id_column == "segment_id" else {"id_column": self.id_column}),
        }

    def prepare(self, row: dict[str, Any]) -> Frames:
        segment = str(row.get(self.id_column) or "")
        if segment not in self._rows:
            raise SegmentError(f"no row in array {self.name!r}")
        frames = self._values[self._rows[segment]]
        used = np.flatnonzero(frames.any(axis=1))
        if len(used) == 0:
            return frames[:1]
        return frames[used[0] : used[-1] + 1]

    def size(self, prepared: Frames) -> int:
        return len(prepared)

    def encode(self, batch: list[Frames]) -> list[Float16[np.ndarray, "layer time dim"]]:
        return [to_half(frames)[None] for frames in batch]
