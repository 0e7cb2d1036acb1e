"""Audio encoder: all hidden states of WavLM, wav2vec 2.0 or HuBERT, every Nth frame.

Follows the audio features of Ando et al. (WavLM-Large, 16 kHz, every 10th frame: 50 -> 5 per second). Index 0 is the
projected CNN output with positions, which they leave out.

Two kinds of checkpoint need two kinds of batch. With `feat_extract_norm="layer"` (WavLM-Large) clips are padded with
zeros and masked, which is exact. With "group" (WavLM-Base, HuBERT-Base) the first convolution normalises over time,
padding included, and no mask undoes that: only clips of exactly equal length share a batch.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import nn

from msakit.encoders.base import (
    EncoderError,
    SegmentError,
    best_batch,
    pick_device,
    read_sound,
    seconds_of_sound,
    stack_layers,
)
from msakit.encoders.pretrained import load_feature_extractor, load_frozen, short_name, weights_digest
from msakit.process import wide

Samples = Float[np.ndarray, " _sample"]  # clips differ in length: the axis is not bound


class AudioEncoder:
    """Frames are every `every`-th output frame, the first one included; input is 16 kHz mono."""

    modality = "audio"
    conventional = False
    rate = 16000

    def __init__(self, model: nn.Module, extractor: Any, name: str, every: int = 10, device: str = "cpu"):
        if every < 1:
            raise ValueError(f"every must be 1 or more, got {every}")
        settings: Any = model.config
        if not hasattr(settings, "conv_stride"):
            raise EncoderError(
                f"{name} is a {type(model).__name__}, which reads no raw sound: choose a model of the wav2vec 2.0 kind "
                "(WavLM, HuBERT, wav2vec 2.0, data2vec-audio, UniSpeech, SEW), or kind 'whisper' for a Whisper"
            )
        device = pick_device(device)
        self.model: Any = model.to(device).eval()
        if extractor.sampling_rate != self.rate:
            raise ValueError(f"{name} wants {extractor.sampling_rate} Hz audio; only {self.rate} Hz is supported")
        self.extractor = extractor
        self.name = name
        self.every = every
        self.device = device
        # One clip fills a core, if the model is wide; of several, torch's attention as WavLM calls it copies its
        # weights once for each frame.
        self.batch_frames = 1 if device == "cpu" and wide(model) else best_batch(device)
        self.hop = math.prod(settings.conv_stride)  # samples a frame, 320 in every published checkpoint
        self.padded = getattr(settings, "feat_extract_norm", "group") == "layer"
        self.dim: int = settings.hidden_size
        self.n_layers: int = settings.num_hidden_layers + 1
        self.frame_rate: float | None = self.rate / self.hop / every
        # The first frame sees the samples from 0 to the end of the receptive field.
        field = 1
        for kernel, stride in zip(reversed(settings.conv_kernel), reversed(settings.conv_stride), strict=True):
            field = (field - 1) * stride + kernel
        self.field = field
        self._weights = weights_digest(model)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, every: int = 10, device: str = "auto", dtype: str = "float32"
    ) -> "AudioEncoder":
        """From a folder, hub id or package; every=10 is the paper's 5 frames per second, short clips may want a smaller
        one."""
        return cls(load_frozen(path, dtype), load_feature_extractor(path), short_name(path), every, device)

    def config(self) -> dict[str, Any]:
        return {
            "encoder": "audio",
            "name": self.name,
            "weights": self._weights,
            "dtype": str(self.model.dtype),
            "layers": "0 = projected CNN output, last = output",
            "rate": self.rate,
            "every": self.every,
            "normalise": bool(self.extractor.do_normalize),
            "first_frame_seconds": self.field / 2 / self.rate,
        }

    def prepare(self, row: dict[str, Any]) -> Samples:
        samples = read_sound(row, self.rate)
        if len(samples) < self.field:
            raise SegmentError(f"the audio has {len(samples)} samples, fewer than the {self.field} of one frame")
        values = self.extractor(samples, sampling_rate=self.rate, return_tensors="np")["input_values"][0]
        return np.asarray(values, dtype=np.float32)

    def size(self, prepared: Samples) -> int:
        return len(prepared) // self.hop

    def estimated_size(self, row: dict[str, Any]) -> float:
        """Seconds, from the file's header."""
        return seconds_of_sound(row)

    @torch.inference_mode()
    def encode(self, batch: list[Samples]) -> list[Float16[np.ndarray, "layer time dim"]]:
        if self.padded:
            return self._encode(batch)
        results: dict[int, Float16[np.ndarray, "layer time dim"]] = {}
        for length in sorted({len(clip) for clip in batch}):
            rows = [row for row, clip in enumerate(batch) if len(clip) == length]
            results.update(zip(rows, self._encode([batch[row] for row in rows]), strict=True))
        return [results[row] for row in range(len(batch))]

    def _encode(self, clips: list[Samples]) -> list[Float16[np.ndarray, "layer time dim"]]:
        lengths = torch.tensor([len(clip) for clip in clips])
        values = torch.zeros(len(clips), int(lengths.max()))
        for row, clip in enumerate(clips):
            values[row, : len(clip)] = torch.from_numpy(clip)
        mask = (torch.arange(values.shape[1]) < lengths[:, None]).long() if self.padded else None
        output = self.model(
            values.to(self.device, self.model.dtype),
            attention_mask=None if mask is None else mask.to(self.device),
            output_hidden_states=True,
        )
        frames = self.model._get_feat_extract_output_lengths(lengths).tolist()
        return [
            stack_layers([state[row, :length][:: self.every] for state in output.hidden_states])
            for row, length in enumerate(frames)
        ]
