"""Audio encoder: all hidden states of Whisper's encoder (Radford et al. 2023), every Nth frame of the sound's own.

Input is log-mel at 100 frames a second, as the checkpoint's feature extractor makes it of the clip and silence behind
it; two of these are one frame of 20 ms. Hidden state 0 is the convolutions' output with positions.

Whisper was trained on windows of 30 s, filled up with silence that its attention sees. Here a window ends 20 ms after
the sound, which for a clip of 2 s costs a sixteenth. It is transformers' own forward pass with fewer positions, and not
the same as in a window of 30 s: hidden state 0 is, those behind it attend to less silence. On clips of 2 s of emotional
speech (Whisper tiny.en) they are off by 8, 14, 21 and 34 % of their norm, at cosines of .996, .990, .978 and .939.
Sounds longer than the model has positions for are encoded in windows of full length, one after another.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor, nn

from msakit.encoders.base import EncoderError, SegmentError, pick_device, read_sound, seconds_of_sound, stack_layers
from msakit.encoders.pretrained import load_feature_extractor, load_frozen, short_name, weights_digest

LogMel = Float[np.ndarray, "mel _time"]  # 10 ms a column; clips differ in length: the axis is not bound


class WhisperEncoder:
    """Frames are every `every`-th output frame, the first one included; input is 16 kHz mono."""

    modality = "audio"
    conventional = False
    rate = 16000
    hop = 320  # samples a frame
    batch_frames = 1  # no mask: clips of other lengths cannot share a batch

    def __init__(self, model: nn.Module, extractor: Any, name: str, every: int = 10, device: str = "cpu"):
        if every < 1:
            raise ValueError(f"every must be 1 or more, got {every}")
        settings: Any = model.config
        if settings.model_type != "whisper":
            raise EncoderError(f"{name} is a {type(model).__name__}, no Whisper: choose kind 'audio' for raw sound")
        if (extractor.sampling_rate, 2 * extractor.hop_length) != (self.rate, self.hop):
            raise EncoderError(f"{name} reads {extractor.sampling_rate} Hz in steps of {extractor.hop_length} samples")
        self.device = pick_device(device)
        encoder: Any = getattr(model, "encoder", model)
        self.model = encoder.to(self.device).eval()
        self.extractor = extractor
        self.name = name
        self.every = every
        self.dim: int = settings.d_model
        self.n_layers: int = settings.encoder_layers + 1
        self.frame_rate: float | None = self.rate / self.hop / every
        self._weights = weights_digest(self.model)
        self._positions = self.model.embed_positions.weight

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, every: int = 10, device: str = "auto", dtype: str = "float32"
    ) -> "WhisperEncoder":
        """From a folder, hub id or package; every=10 gives 5 frames per second, short clips may want a smaller one."""
        return cls(load_frozen(path, dtype), load_feature_extractor(path), short_name(path), every, device)

    def config(self) -> dict[str, Any]:
        return {
            "encoder": "whisper",
            "name": self.name,
            "weights": self._weights,
            "dtype": str(self.model.dtype),
            "layers": "0 = convolutions with positions, last = output",
            "rate": self.rate,
            "every": self.every,
            "window": "the sound and 20 ms of silence",
            "first_frame_seconds": 0.0,
        }

    def prepare(self, row: dict[str, Any]) -> LogMel:
        """Log-mel of the sound and of 20 ms of silence behind it, in an even number of columns."""
        samples = read_sound(row, self.rate)
        if len(samples) < self.hop:
            raise SegmentError(f"the audio has {len(samples)} samples, fewer than the {self.hop} of one frame")
        frames = -(-len(samples) // self.hop) + 1
        # Silence for one window of the transform more: at its end the transform mirrors what it is given.
        samples = np.pad(samples, (0, frames * self.hop + self.extractor.n_fft - len(samples)))
        mel = self.extractor(
            samples, sampling_rate=self.rate, padding="do_not_pad", truncation=False, return_tensors="np"
        )["input_features"][0]
        return np.asarray(mel[:, : 2 * frames], dtype=np.float32)

    def size(self, prepared: LogMel) -> int:
        return prepared.shape[1] // 2

    def estimated_size(self, row: dict[str, Any]) -> float:
        """Seconds, from the file's header."""
        return seconds_of_sound(row)

    @torch.inference_mode()
    def encode(self, batch: list[LogMel]) -> list[Float16[np.ndarray, "layer time dim"]]:
        results = []
        for mel in batch:
            whole = torch.from_numpy(mel)[None].to(self.device, self.model.dtype)
            windows = [self._hidden_states(part) for part in whole.split(2 * len(self._positions), dim=-1)]
            layers = [torch.cat(states)[:-1] for states in zip(*windows, strict=True)]
            results.append(stack_layers([layer[:: self.every] for layer in layers]))
        return results

    def _hidden_states(self, mel: Float[Tensor, "1 mel columns"]) -> list[Float[Tensor, "time dim"]]:
        """Transformers' own forward pass, with as many positions as there are frames."""
        frames = mel.shape[-1] // 2
        self.model.config.max_source_positions = frames
        self.model.embed_positions = nn.Embedding.from_pretrained(self._positions[:frames])
        return [state[0] for state in self.model(mel, output_hidden_states=True).hidden_states]
