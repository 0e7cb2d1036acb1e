"""openSMILE's acoustic sets (eGeMAPS, ComParE, ...) as an optional extra: `pip install 'msakit[opensmile]'`.

Eyben et al. 2016 (eGeMAPSv02: 25 low-level descriptors) and Schuller et al. 2016 (ComParE_2016: 65). The descriptors
come every 10 ms; a frame here is their mean over 0.1 s, like those of `AcousticSet`. openSMILE's licence allows
research and private use, not products: hence an extra, imported only when this encoder is made.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Float16

from msakit.encoders.base import EncoderError, SegmentError, read_sound, seconds_of_sound, to_half


class OpenSmile:
    """Means of low-level descriptors over 0.1 s; `feature_set` is a name of `opensmile.FeatureSet`."""

    modality = "audio"
    conventional = True
    n_layers = 1
    frame_rate: float | None = 10.0
    rate = 16000
    every = 10  # descriptors of 10 ms in a frame

    def __init__(self, feature_set: str = "eGeMAPSv02"):
        try:
            import opensmile
        except ImportError as error:
            raise EncoderError(
                f"the encoder opensmile needs a package that is absent ({error}): pip install 'msakit[opensmile]'"
            ) from error
        choices = [name for name in opensmile.FeatureSet.__members__ if not name.startswith("_")]
        if feature_set not in choices:
            raise EncoderError(f"openSMILE has no feature set {feature_set!r}: choose one of {', '.join(choices)}")
        self._smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet[feature_set],
            feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
        )
        self._version = str(opensmile.__version__)
        self.name = f"opensmile-{feature_set.lower()}"
        self.feature_set = feature_set
        self.columns = [str(name) for name in self._smile.feature_names]
        self.dim = len(self.columns)

    def config(self) -> dict[str, Any]:
        return {
            "encoder": "opensmile",
            "name": self.name,
            "feature_set": self.feature_set,
            "opensmile": self._version,
            "columns": self.columns,
            "frame_rate": self.frame_rate,
            "first_frame_seconds": 0.05,
        }

    def prepare(self, row: dict[str, Any]) -> Float[np.ndarray, " sample"]:
        samples = read_sound(row, self.rate)
        if len(samples) < self.rate // 10:
            raise SegmentError(f"the audio has {len(samples)} samples, fewer than the {self.rate // 10} of one frame")
        return samples

    def size(self, prepared: Float[np.ndarray, " sample"]) -> int:
        return len(prepared) * 10 // self.rate

    def estimated_size(self, row: dict[str, Any]) -> float:
        """Seconds, from the file's header."""
        return seconds_of_sound(row)

    def encode(self, batch: list[Float[np.ndarray, " _sample"]]) -> list[Float16[np.ndarray, "layer time dim"]]:
        return [self._frames(samples) for samples in batch]

    def _frames(self, samples: Float[np.ndarray, " sample"]) -> Float16[np.ndarray, "layer time dim"]:
        table = self._smile.process_signal(samples, self.rate).to_numpy(dtype=np.float32)
        starts = np.arange(0, len(table), self.every)
        counts = np.diff(np.append(starts, len(table)))[:, None].astype(np.float32)
        # Descriptors that are not defined in silence (jitter, formants) come as 0 or NaN.
        return to_half(np.add.reduceat(np.nan_to_num(table), starts, axis=0) / counts)[None]
