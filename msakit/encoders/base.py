"""What the encoders share: their interface, the error of one segment, and the fingerprint of a set of weights."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
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

    It may also have `rough_size(row)`, a guess of `size` that reads no more than a file's header, by which segments are
    brought into buckets of like length; `batch_frames` and `bucket`, the defaults of `extract` for it; and
    `blank_frames(prepared)`, how many frames will be zeros because nothing was found in them.
    """

    modality: str  # text | audio | vision
    name: str  # short, goes into folder names
    dim: int
    n_layers: int  # hidden states: 0 is the embedding or CNN output, n_layers - 1 the output
    frame_rate: float | None  # output frames per second; None where frames are tokens

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


def weights_digest(model: nn.Module) -> str:
    """sha256 (16 hex digits) over names, shapes and bytes of all weights: the same wherever they were loaded from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def short_name(path: str | Path) -> str:
    """The last part of a folder or hub id, fit for a folder name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", Path(path).name).strip("-").lower() or "encoder"


def pick_device(device: str) -> str:
    """ "auto" is the GPU where there is one; any other name stays as it is."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_batch(device: str) -> int:
    """Frames in a batch of sequences: a GPU wants many, a core's cache few (measured: 256 beat 4096 by a third)."""
    return 256 if device == "cpu" else 4096


@contextmanager
def opening(path: str | Path) -> Iterator[None]:
    """Errors of `from_pretrained` as one line that names the checkpoint and the mend."""
    try:
        yield
    except (OSError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, EncoderError):
            raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        # A path that names no folder is taken for an id of the model hub, so that a misspelt one ends there.
        mend = (
            "save the model there again with its tokenizer or processor"
            if Path(path).is_dir()
            else "there is no such folder here: mend the path, or fetch the checkpoint of that id into the hub's cache "
            "(`msakit data list` says where the papers' own go)"
        )
        raise EncoderError(f"cannot open the encoder {str(path)!r} ({reason.rstrip('.')}): {mend}") from error


def load_weights(auto_class: Any, path: str | Path, dtype: str, **options: Any) -> Any:
    """`from_pretrained` with safetensors only and no code from the checkpoint; in evaluation mode, gradients off.

    dtype: float32, or, at half the memory and several times the speed of a GPU, bfloat16 or float16.
    """
    if dtype not in ("float32", "bfloat16", "float16"):
        raise EncoderError(f"dtype {dtype!r} of the encoder {str(path)!r}: choose float32, bfloat16 or float16")
    with opening(path):
        model = auto_class.from_pretrained(
            path, use_safetensors=True, trust_remote_code=False, dtype=getattr(torch, dtype), **options
        )
    return model.eval().requires_grad_(False)


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
