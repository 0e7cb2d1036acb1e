"""What the encoders share: their interface, their errors, half precision, and the files of a row."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor, nn

from msakit.data.media import read_audio

HALF_MAX = float(np.finfo(np.float16).max)  # 65504, the largest value that a feature store holds


class SegmentError(ValueError):
    """One segment cannot be encoded; the message is the reason that the feature store keeps beside it."""


class EncoderError(ValueError):
    """A checkpoint that cannot be opened; the message names it and the mend."""


class Encoder:
    """What `msakit.features.extract` asks of an encoder."""

    modality: str  # text | audio | vision
    name: str  # short, goes into folder names
    dim: int
    n_layers = 1  # hidden states: 0 is the embedding or CNN output, n_layers - 1 the output
    frame_rate: float | None = None  # output frames per second; None where frames have no time
    conventional = False  # hand-made features of one layer, whose scale is arbitrary: standardise them before training
    batch_frames = 4096  # of a padded batch
    bucket = 64  # segments that are read, encoded and saved together
    spec: dict[str, Any] | None = None  # what `load_encoder` made it of

    def config(self) -> dict[str, Any]:
        """Everything that the features depend on, as plain JSON values."""
        raise NotImplementedError

    def prepare(self, row: dict[str, Any]) -> Any:
        """Read one row's text or media. Raises SegmentError or MediaError with the reason where that is impossible."""
        raise NotImplementedError

    def size(self, prepared: Any) -> int:
        """Cost of one prepared segment, about its number of frames inside the model; used to form batches."""
        return len(prepared)

    def estimated_size(self, row: dict[str, Any]) -> float:
        """Stands for `size` without reading more than a file's header; segments of like size share a bucket."""
        return 0.0

    def blank_frames(self, prepared: Any) -> int:
        """How many frames will be zeros because nothing was found in them."""
        return 0

    def truncated(self, prepared: Any) -> bool:
        """Whether the segment lost its end to a limit of the encoder."""
        return False

    def encode(self, batch: list[Any]) -> list[Float16[np.ndarray, "layer time dim"]]:
        """Features of each prepared segment, as if it had been encoded alone."""
        raise NotImplementedError


class SoundEncoder(Encoder):
    """Reads a row's sound, mono at 16 kHz: `audio`, or else the sound of `video`."""

    modality = "audio"
    rate = 16000
    hop = 320  # samples a frame inside the encoder
    shortest: int  # samples of one frame

    def prepare(self, row: dict[str, Any]) -> Any:
        """All samples, float32 "sample". Raises SegmentError or MediaError where there are none or too few."""
        path = named_file(row, "audio") or named_file(row, "video")
        if path is None:
            raise SegmentError("no audio file is named")
        samples = read_audio(path, rate=self.rate)
        if len(samples) < self.shortest:
            raise SegmentError(f"the audio has {len(samples)} samples, fewer than the {self.shortest} of one frame")
        return samples

    def size(self, prepared: Any) -> int:
        return len(prepared) // self.hop

    def estimated_size(self, row: dict[str, Any]) -> float:
        """Seconds as the file's header says it; 0 where it does not say (a video, a torn file)."""
        import soundfile

        try:
            return float(soundfile.info(str(named_file(row, "audio") or named_file(row, "video"))).duration)
        except (soundfile.SoundFileError, OSError):
            return 0.0


def named_file(row: dict[str, Any], column: str) -> Path | None:
    """The media file that a row names in a column, if it does."""
    path = row.get(column)
    return Path(path) if isinstance(path, str | Path) and str(path) else None


def to_half(array: Float[np.ndarray, "..."]) -> Float16[np.ndarray, "..."]:
    """float16, with values beyond its range held at +-65504 rather than turned into infinities; NaN stays NaN."""
    return np.clip(array, -HALF_MAX, HALF_MAX).astype(np.float16)


def stack_layers(states: list[Float[Tensor, "time _dim"]]) -> Float16[np.ndarray, "layer time dim"]:
    """The hidden states of one segment as one float16 array; a narrower layer (ResNet) is padded with zeros."""
    dim = max(state.shape[-1] for state in states)
    padded = [nn.functional.pad(state.float(), (0, dim - state.shape[-1])) for state in states]
    # Made half on the device, so that half the bytes travel.
    return torch.stack(padded).clamp(-HALF_MAX, HALF_MAX).half().cpu().numpy()


def pick_device(device: str) -> str:
    """ "auto" is the GPU where there is one; any other name stays as it is."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_batch(device: str) -> int:
    """Frames in a batch of sequences: a GPU wants many, a core's cache few (measured: 256 beat 4096 by a third)."""
    return 256 if device == "cpu" else 4096


def frame_means(table: Float[np.ndarray, "row dim"], every: int) -> Float[np.ndarray, "time dim"]:
    """Means of so many rows each, the last one of what is left."""
    starts = np.arange(0, len(table), every)
    counts = np.diff(np.append(starts, len(table)))[:, None].astype(np.float32)
    return np.add.reduceat(table, starts, axis=0) / counts
