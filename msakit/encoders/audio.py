"""Audio encoder: all hidden states of WavLM, wav2vec 2.0 or HuBERT, every Nth frame.

Follows the audio features of Ando et al. (WavLM-Large, 16 kHz, every 10th frame: 50 -> 5 per second). Index 0 is the
projected CNN output with positions, which they leave out.

Two kinds of checkpoint need two kinds of batch. With `feat_extract_norm="layer"` (WavLM-Large) clips are padded with
zeros and masked, which is exact. With "group" (WavLM-Base, HuBERT-Base) the first convolution normalises over time,
padding included, and no mask undoes that: only clips of exactly equal length share a batch.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch.nn.utils.rnn import pad_sequence

from msakit.encoders.base import EncoderError, SoundEncoder, best_batch, pick_device, stack_layers
from msakit.encoders.pretrained import PretrainedEncoder, load_feature_extractor, weights_digest
from msakit.process import wide

Samples = Float[np.ndarray, " _sample"]  # clips differ in length: the axis is not bound


class SoundModel(PretrainedEncoder, SoundEncoder):
    """A pre-trained model whose frames are every `every`-th output frame, the first one included."""

    load_processor = staticmethod(load_feature_extractor)

    def __init__(self, model: Any, extractor: Any, name: str, *, every: int = 10, device: str = "cpu"):
        if every < 1:
            raise ValueError(f"every must be 1 or more, got {every}")
        self.device = pick_device(device)
        self.model = model.to(self.device).eval()
        self.extractor = extractor
        self.name = name
        self.every = every
        self.dim: int = self.model.config.hidden_size
        self.n_layers: int = self.model.config.num_hidden_layers + 1
        self.frame_rate: float | None = self.rate / self.hop / every
        self._weights = weights_digest(self.model)


class AudioEncoder(SoundModel):
    """WavLM, wav2vec 2.0, HuBERT and others that read raw sound; every=10 is the paper's 5 frames per second."""

    def __init__(self, model: Any, extractor: Any, name: str, *, every: int = 10, device: str = "cpu"):
        settings = model.config
        if not hasattr(settings, "conv_stride"):
            raise EncoderError(
                f"{name} is a {type(model).__name__}, which reads no raw sound: choose a model of the wav2vec 2.0 kind "
                "(WavLM, HuBERT, wav2vec 2.0, data2vec-audio, UniSpeech, SEW), or kind 'whisper' for a Whisper"
            )
        if extractor.sampling_rate != self.rate:
            raise ValueError(f"{name} wants {extractor.sampling_rate} Hz audio; only {self.rate} Hz is supported")
        self.hop = math.prod(settings.conv_stride)  # 320 in every published checkpoint
        super().__init__(model, extractor, name, every=every, device=device)
        # One clip fills a core, if the model is wide; of several, torch's attention as WavLM calls it copies its
        # weights once for each frame.
        self.batch_frames = 1 if self.device == "cpu" and wide(model) else best_batch(self.device)
        self.padded = getattr(settings, "feat_extract_norm", "group") == "layer"
        # The first frame sees the samples from 0 to the end of the receptive field.
        self.shortest = 1
        for kernel, stride in zip(reversed(settings.conv_kernel), reversed(settings.conv_stride), strict=True):
            self.shortest = (self.shortest - 1) * stride + kernel

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
            "first_frame_seconds": self.shortest / 2 / self.rate,
        }

    def prepare(self, row: dict[str, Any]) -> Samples:
        values = self.extractor(super().prepare(row), sampling_rate=self.rate, return_tensors="np")["input_values"][0]
        return np.asarray(values, dtype=np.float32)

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
        values = pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)
        mask = (torch.arange(values.shape[1]) < lengths[:, None]).long().to(self.device) if self.padded else None
        output = self.model(
            values.to(self.device, self.model.dtype),
            attention_mask=mask,
            output_hidden_states=True,
        )
        frames = self.model._get_feat_extract_output_lengths(lengths).tolist()
        return [
            stack_layers([state[row, :length][:: self.every] for state in output.hidden_states])
            for row, length in enumerate(frames)
        ]
