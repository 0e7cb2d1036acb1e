"""Generated features of published sizes for the benchmarks on Ando et al.: no corpus, only lengths and noise.

Lengths are log-normal around the mean number of frames that the paper's encoders give on CMU-MOSI (about 15 word
pieces, 21 frames of audio at 5 per second, 13 faces at 3 per second); values are standard normal, in half precision.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msakit.data.corpus import Corpus, load_corpus
from msakit.encoders.base import Encoder

MEAN_FRAMES = {"text": 15, "audio": 21, "vision": 13}
SPREAD = 0.6  # standard deviation of the logarithm
DIM = 1024
LAYERS = 24
MOSI_TRAIN, MOSEI_TRAIN = 1284, 16326  # segments


def lengths(segments: int) -> dict[str, np.ndarray]:
    """Frames of each segment by modality, int64, at least one."""
    random = np.random.default_rng(0)
    return {
        name: np.maximum(random.lognormal(np.log(mean) - SPREAD**2 / 2, SPREAD, segments).round(), 1).astype(np.int64)
        for name, mean in MEAN_FRAMES.items()
    }


def labels(segments: int) -> np.ndarray:
    """Sentiment from -3 to 3."""
    return np.random.default_rng(1).uniform(-3, 3, segments).astype(np.float32)


def frames(count: int, seed: int) -> np.ndarray:
    """float16 "count dim"."""
    return np.random.default_rng(seed).standard_normal((count, DIM), dtype=np.float32).astype(np.float16)


def corpus(folder: Path, segments: int) -> Corpus:
    """A corpus of so many training segments, a few of validation and of test, with nothing but a line of text each."""
    folder.mkdir(parents=True)
    label = labels(segments)
    rows = pd.DataFrame({"segment_id": [f"s{row:05d}" for row in range(segments)]})
    rows["video_id"] = [f"v{row // 16}" for row in range(segments)]
    rows["clip_id"] = [row % 16 for row in range(segments)]
    rows["split"] = "train"
    rows.loc[segments - 16 : segments - 9, ["video_id", "split"]] = "valid"
    rows.loc[segments - 8 :, ["video_id", "split"]] = "test"
    rows["label"] = label
    rows["text"] = "generated"
    rows.to_csv(folder / "segments.csv", index=False)
    return load_corpus(folder)


class GeneratedEncoder(Encoder):
    """Stands where an encoder would: noise of the published shape, made when a segment is encoded."""

    name, dim = "generated", DIM

    def __init__(self, modality: str, n_layers: int, segments: int) -> None:
        self.modality, self.n_layers = modality, n_layers
        self.lengths = lengths(segments)[modality]

    def config(self) -> dict[str, Any]:
        """What the store is keyed by."""
        return {"encoder": "generated", "modality": self.modality, "layers": self.n_layers, "rows": len(self.lengths)}

    def prepare(self, row: dict[str, Any]) -> int:
        """The row number."""
        return int(row["segment_id"][1:])

    def size(self, prepared: int) -> int:
        """Frames."""
        return int(self.lengths[prepared])

    def encode(self, batch: list[int]) -> list[np.ndarray]:
        """float16 "layer time dim" each."""
        shapes = [(self.n_layers, int(self.lengths[row]), DIM) for row in batch]
        return [
            frames(layers * time, row).reshape(layers, time, dim)
            for row, (layers, time, dim) in zip(batch, shapes, strict=True)
        ]
