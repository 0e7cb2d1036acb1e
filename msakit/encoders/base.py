"""What the encoders share: their interface, their errors, half precision, and the sound of a row."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor, nn

from msakit.data.media import MediaError, read_audio

HALF_MAX = float(np.finfo(np.float16).max)  # 65504, the largest value that a feature store holds


class SegmentError(ValueError):
    """One segment cannot be encoded; the message is the reason that the feature store keeps beside it."""


class EncoderError(ValueError):
    """A checkpoint that cannot be opened; the message names it and the mend."""


@runtime_checkable
class Encoder(Protocol):
    """What `msakit.features.extract` asks of an encoder.

    It may also have `estimated_size(row)`, which stands for `size` without reading more than a file's header, and by
    which segments are brought into buckets of like length; `batch_frames` and `bucket`, the defaults of `extract` for
    it; `blank_frames(prepared)`, how many frames will be zeros because nothing was found in them; and
    `truncated(prepared)`, whether the segment lost its end to a limit of the encoder.
    """

    modality: str  # text | audio | vision
    name: str  # short, goes into folder names
    dim: int
    n_layers: int  # hidden states: 0 is the embedding or CNN output, n_layers - 1 the output
    frame_rate: float | None  # output frames per second; None where frames have no time
    conventional: bool  # hand-made features of one layer, whose scale is arbitrary: standardise them before training

    def config(self) -> dict[str, Any]:
        """Everything that the features depend on, as plain JSON values."""
        ...

    def prepare(self, row: dict[str, Any]) -> Any:
        """Read one row's text or media. Raises SegmentError with the reason where that is impossible."""
        ...

    def size(self, prepared: Any) -> int:
        """Cost of one prepared segment, about its number of frames inside the model; used to form batches."""
        ...

    def encode(self, batch: list[Any]) -> list[Float16[np.ndarray, "layer time dim"]]:
        """Features of each prepared segment, as if it had been encoded alone."""
        ...


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


def sound_file(row: dict[str, Any]) -> Path:
    """The file that holds a row's sound: `audio`, or else `video`. Raises SegmentError where neither is named."""
    for column in ("audio", "video"):
        path = row.get(column)
        if isinstance(path, str | Path) and str(path):
            return Path(path)
    raise SegmentError("no audio file is named")


def read_sound(row: dict[str, Any], rate: int) -> Float[np.ndarray, " sample"]:
    """A row's sound, mono at `rate` samples a second; raises SegmentError where there is none."""
    try:
        return read_audio(sound_file(row), rate=rate)
    except MediaError as error:
        raise SegmentError(str(error)) from error


def seconds_of_sound(row: dict[str, Any]) -> float:
    """Length as the file's header says it; 0 where it does not say (a video, a torn file)."""
    import soundfile

    try:
        return float(soundfile.info(str(sound_file(row))).duration)
    except (SegmentError, soundfile.SoundFileError, OSError):
        return 0.0
