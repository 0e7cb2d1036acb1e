"""Text encoder: all hidden states of all tokens of any `AutoModel`, or the one vector that a classifier reads.

Follows the text features of Ando et al. (BERT-large-uncased, every token including [CLS] and [SEP], every layer),
with the embedding output kept as layer 0, so that their 0-based layer k is hidden state k + 1 here.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from msakit.encoders.base import SegmentError, best_batch, pick_device, stack_layers
from msakit.encoders.outputs import text_vectors
from msakit.encoders.pretrained import PretrainedEncoder, load_tokenizer, weights_digest
from msakit.encoders.tokens import apply_tokenizer, token_limit


@dataclass(frozen=True)
class TokenIds:
    """One text as the model reads it."""

    ids: list[int]
    truncated: bool = False


class TextEncoder(PretrainedEncoder):
    """Frames are tokens, specials included; texts longer than `max_length` tokens lose their end.

    output: "hidden", all hidden states of all tokens; "first", one frame, the first token of the last hidden state;
    "projected", one frame, the projected vector of a dual encoder such as CLIP, of length 1.
    """

    modality = "text"
    outputs = ("hidden", "first", "projected")
    load_processor = staticmethod(load_tokenizer)

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        *,
        max_length: int = 512,
        device: str = "cpu",
        output: str = "hidden",
    ):
        self._check_output(model, name, output)
        self.max_length = token_limit(tokenizer, model.config, max_length)
        # Of an encoder-decoder only the encoder reads the text.
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        device = pick_device(device)
        # CLIP and other dual encoders: their text tower.
        self.model: Any = (model if output == "projected" else getattr(model, "text_model", model)).to(device).eval()
        self.tokenizer = tokenizer
        self.name = name
        self.device = device
        self.output = output
        self.batch_frames = best_batch(device)
        settings = self.model.config
        self.dim: int = settings.projection_dim if output == "projected" else settings.hidden_size
        self.n_layers: int = settings.num_hidden_layers + 1 if output == "hidden" else 1
        self._weights = weights_digest(self.model)
        # Now: a tokenizer's text changes when it is used, because it remembers the truncation asked for.
        vocabulary = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else str(tokenizer)
        self._tokens = hashlib.sha256(vocabulary.encode()).hexdigest()[:16]
        # Once here, so that threads find the truncation set: to set it while another thread tokenises is an error.
        apply_tokenizer(tokenizer, [""], self.max_length)

    def config(self) -> dict[str, Any]:
        hidden = {"layers": "0 = embeddings, last = output", "tokens": "all, specials included"}
        return {
            "encoder": "text",
            "name": self.name,
            "weights": self._weights,
            "tokenizer": self._tokens,
            "dtype": str(self.model.dtype),
            "max_length": self.max_length,
            **(hidden if self.output == "hidden" else {"output": self.output}),
        }

    def prepare(self, row: dict[str, Any]) -> TokenIds:
        text = row.get("text")
        if not isinstance(text, str) or not text.strip():
            raise SegmentError("the text is empty")
        tokens = apply_tokenizer(self.tokenizer, [text], self.max_length)
        return TokenIds(tokens.ids[0], tokens.truncated > 0)

    def size(self, prepared: TokenIds) -> int:
        return len(prepared.ids)

    def estimated_size(self, row: dict[str, Any]) -> float:
        """Characters."""
        return float(len(str(row.get("text") or "")))

    def truncated(self, prepared: TokenIds) -> bool:
        """Whether the text was longer than `max_length` tokens."""
        return prepared.truncated

    @torch.inference_mode()
    def encode(self, batch: list[TokenIds]) -> list[Float16[np.ndarray, "layer time dim"]]:
        lengths = [len(text.ids) for text in batch]
        padding = self.tokenizer.pad_token_id or 0
        ids = pad_sequence([torch.tensor(text.ids) for text in batch], batch_first=True, padding_value=padding)
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        ids, mask = ids.to(self.device), mask.to(self.device)
        if self.output != "hidden":
            return [stack_layers([vector[None]]) for vector in self._vectors(ids, mask)]
        states = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        return [stack_layers([state[row, :length] for state in states]) for row, length in enumerate(lengths)]

    def _vectors(self, ids: Int[Tensor, "text token"], mask: Int[Tensor, "text token"]) -> Tensor:
        if self.output == "projected":
            return text_vectors(self.model, ids, mask)
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
