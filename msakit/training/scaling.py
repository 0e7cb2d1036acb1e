"""Standardisation: statistics of the training split, applied to every split and to new clips.

Source: the z-score of each dimension, with the population standard deviation.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Scaling:
    """Frames become (frames - mean) / deviation; a dimension that never changed is only moved.

    skip_zeros: rows of zeros, at which nothing was recorded, stay zeros.
    """

    mean: Float[np.ndarray, " dim"]
    deviation: Float[np.ndarray, " dim"]
    skip_zeros: bool = False

    @classmethod
    def of_frames(cls, chunks: Iterable[Float[np.ndarray, "_frames dim"]], skip_zeros: bool = False) -> "Scaling":
        """The statistics of the rows of all chunks, in the precision that these have.

        chunks: gone through twice, so a list, or an object that reads them anew each time.  skip_zeros: rows of zeros
        have no part in the statistics either.  Without any row nothing is changed.
        """

        def rows() -> Iterable[np.ndarray]:
            return (chunk[chunk.any(1)] if skip_zeros else chunk for chunk in chunks)

        count = max(1, sum(map(len, rows())))
        mean = sum(chunk.sum(0) for chunk in rows()) / count
        deviation = np.sqrt(sum(np.square(chunk - mean).sum(0) for chunk in rows()) / count)
        return cls(mean, np.where(deviation > 0, deviation, 1), skip_zeros)

    def __call__(self, frames: Float[np.ndarray, "*layer frames dim"]) -> Float[np.ndarray, "*layer frames dim"]:
        scaled = (frames - self.mean) / self.deviation
        return np.where(frames.any(-1, keepdims=True), scaled, 0) if self.skip_zeros else scaled
