"""Text encoder: all hidden states of all tokens of any `AutoModel`.

Follows the text features of Ando et al. (BERT-large-uncased, every token including [CLS] and [SEP], every layer),
with the embedding output kept as layer 0, so that their 0-based layer k is hidden state k + 1 here.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16
from transformers import AutoModel, AutoTokenizer

from msakit.encoders.base import (
    SegmentError,
    best_batch,
    load_weights,
    opening,
    pick_device,
    short_name,
    stack_layers,
    weights_digest,
)


class TextEncoder:
    """Frames are tokens, specials included; texts longer than `max_length` tokens lose their end."""

    modality = "text"
    frame_rate: float | None = None

    def __init__(self, model: Any, tokenizer: Any, name: str, max_length: int = 512, device: str = "cpu"):
        # Of an encoder-decoder only the encoder reads the text.
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        device = pick_device(device)
        # CLIP and other dual encoders: their text tower.
        self.model: Any = getattr(model, "text_model", model).to(device).eval()
        self.tokenizer = tokenizer
        self.name = name
        self.max_length = max_length
        self.device = device
        self.batch_frames = best_batch(device)
        self.dim: int = self.model.config.hidden_size
        self.n_layers: int = self.model.config.num_hidden_layers + 1
        self._weights = weights_digest(self.model)
        # Now: a tokenizer's text changes when it is used, because it remembers the truncation asked for.
        vocabulary = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else str(tokenizer)
        self._tokens = hashlib.sha256(vocabulary.encode()).hexdigest()[:16]

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        name: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        max_length: int | None = None,
    ) -> "TextEncoder":
        """From a folder or hub id; `max_length` in tokens defaults to what the model has positions for, at most 512.

        `name` goes into folder names; it defaults to the last part of the path.
        """
        model = load_weights(AutoModel, path, dtype)
        with opening(path):
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", 512)
        limit = min(positions, tokenizer.model_max_length, 512)
        return cls(model, tokenizer, name or short_name(path), max_length or limit, device)

    def config(self) -> dict[str, Any]:
        return {
            "encoder": "text",
            "name": self.name,
            "weights": self._weights,
            "tokenizer": self._tokens,
            "dtype": str(self.model.dtype),
            "layers": "0 = embeddings, last = output",
            "max_length": self.max_length,
            "tokens": "all, specials included",
        }

    def prepare(self, row: dict[str, Any]) -> list[int]:
        text = row.get("text")
        if not isinstance(text, str) or not text.strip():
            raise SegmentError("the text is empty")
        return self.tokenizer(text, truncation=True, max_length=self.max_length)["input_ids"]

    def size(self, prepared: list[int]) -> int:
        return len(prepared)

    def rough_size(self, row: dict[str, Any]) -> float:
        """Characters."""
        return float(len(str(row.get("text") or "")))

    @torch.inference_mode()
    def encode(self, batch: list[list[int]]) -> list[Float16[np.ndarray, "layer time dim"]]:
        lengths = [len(ids) for ids in batch]
        ids = torch.full((len(batch), max(lengths)), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        output = self.model(
            input_ids=ids.to(self.device), attention_mask=mask.to(self.device), output_hidden_states=True
        )
        states = output.hidden_states
        return [stack_layers([state[row, :length] for state in states]) for row, length in enumerate(lengths)]
