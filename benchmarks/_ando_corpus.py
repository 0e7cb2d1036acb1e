"""Generated features of published sizes for the benchmarks on Ando et al.: no corpus, only lengths and noise.

Lengths are log-normal around the mean number of frames that the paper's encoders give on CMU-MOSI (about 15 word
pieces, 21 frames of audio at 5 per second, 13 faces at 3 per second); values are standard normal, in half precision.
"""

import numpy as np

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
