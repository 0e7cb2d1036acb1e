"""Audio encoder: all hidden states of Whisper's encoder (Radford et al. 2023), every Nth frame of the sound's own.

Input is log-mel at 100 frames a second, as the checkpoint's feature extractor makes it of the clip and silence behind
it; two of these are one frame of 20 ms. Hidden state 0 is the convolutions' output with positions.

Whisper was trained on windows of 30 s, filled up with silence that its attention sees. Here a window ends 20 ms after
the sound, which for a clip of 2 s costs a sixteenth. It is transformers' own forward pass with fewer positions, and not
the same as in a window of 30 s: hidden state 0 is, those behind it attend to less silence. On clips of 2 s of emotional
speech (Whisper tiny.en) they are off by 8, 14, 21 and 34 % of their norm, at cosines of .996, .990, .978 and .939.
Sounds longer than the model has positions for are encoded in windows of full length, one after another.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor, nn

from msakit.encoders.audio import SoundModel
from msakit.encoders.base import EncoderError, stack_layers

LogMel = Float[np.ndarray, "mel _time"]  # 10 ms a column; clips differ in length: the axis is not bound


class WhisperEncoder(SoundModel):
    """Every=10 gives 5 frames per second, short clips may want a smaller one."""

    shortest = 320
    batch_frames = 1  # no mask: clips of other lengths cannot share a batch

    def __init__(self, model: Any, extractor: Any, name: str, *, every: int = 10, device: str = "cpu"):
        if model.config.model_type != "whisper":
            raise EncoderError(f"{name} is a {type(model).__name__}, no Whisper: choose kind 'audio' for raw sound")
        if (extractor.sampling_rate, 2 * extractor.hop_length) != (self.rate, self.hop):
            raise EncoderError(f"{name} reads {extractor.sampling_rate} Hz in steps of {extractor.hop_length} samples")
        super().__init__(getattr(model, "encoder", model), extractor, name, every=every, device=device)
        self._positions = self.model.embed_positions.weight

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
        samples = super().prepare(row)
        frames = -(-len(samples) // self.hop) + 1
        # Silence for one window of the transform more: at its end the transform mirrors what it is given.
        samples = np.pad(samples, (0, frames * self.hop + self.extractor.n_fft - len(samples)))
        mel = self.extractor(
            samples, sampling_rate=self.rate, padding="do_not_pad", truncation=False, return_tensors="np"
        )["input_features"][0]
        return np.asarray(mel[:, : 2 * frames], dtype=np.float32)

    def size(self, prepared: LogMel) -> int:
        return prepared.shape[1] // 2

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
