"""What the encoders share: their interface, the error of one segment, and the fingerprint of a set of weights."""

import hashlib
import re
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor, nn

HALF_MAX = float(np.finfo(np.float16).max)  # 65504, the largest value that a feature store holds


class SegmentError(ValueError):
    """One segment cannot be encoded; the message is the reason that the feature store keeps beside it."""


@runtime_checkable
class Encoder(Protocol):
    """What `msakit.features.extract` asks of an encoder."""

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
    return to_half(torch.stack(padded).cpu().numpy())


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


def load_weights(auto_class: Any, path: str | Path, dtype: str, **options: Any) -> Any:
    """`from_pretrained` with safetensors only and no code from the checkpoint; in evaluation mode, gradients off."""
    model = auto_class.from_pretrained(
        path, use_safetensors=True, trust_remote_code=False, dtype=getattr(torch, dtype), **options
    )
    return model.eval().requires_grad_(False)
