"""The gate that shifts a word also sees the whole utterance: contexts pooled from its words, its voice and its face.

Source: Kim & Kim 2022 (CMSBERT-CLR).  The paper's equations were not available; this is a RECONSTRUCTION from its
abstract, on top of MAG (see mag.py), which it names as its base:
g_m = ReLU(W_m [m_i; c_m; e_i; c_l]),  h_i = sum over m of g_m * U_m [m_i; c_m],  the rest as in MAG.
c_l is pooled from the token vectors e ("verbal"), c_v and c_a from vision and audio ("nonverbal").

With contexts="none" the contexts are zero and the gate is MAG exactly.  "own" puts each token's own vectors in place
of the contexts: the same number of parameters as "both" without any knowledge of the utterance, a matched control.
Tokens without audio and vision get no shift, though a context exists for them too.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from msakit.fusion.mag import bounded_shift, token_mask

CONTEXTS: tuple[str, ...] = ("none", "verbal", "nonverbal", "both", "own")
POOLINGS: tuple[str, ...] = ("attention", "mean")


class MaskedPooling(nn.Module):
    """One vector an utterance: softmax attention with a learnt query over the tokens of the mask, or their mean."""

    def __init__(self, dim: int, pooling: str) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1, bias=False) if pooling == "attention" else None

    def forward(
        self, values: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch dim"]:
        """Zero for an utterance whose mask is empty."""
        scores = values.new_zeros(mask.shape) if self.score is None else self.score(values).squeeze(-1)
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) * mask
        return torch.einsum("bt,btd->bd", weights, values)


class CMS(nn.Module):
    """Contextual multimodal shift; arguments as MAG's, and: contexts, one of CONTEXTS; pooling, one of POOLINGS."""

    def __init__(
        self,
        d_text: int,
        d_audio: int,
        d_vision: int,
        beta: float = 1.0,
        dropout: float = 0.5,
        contexts: str = "both",
        pooling: str = "attention",
    ) -> None:
        super().__init__()
        if contexts not in CONTEXTS or pooling not in POOLINGS:
            raise ValueError(f"contexts={contexts!r}, pooling={pooling!r}; choose from {CONTEXTS} and {POOLINGS}")
        if beta < 0:
            raise ValueError(f"beta is {beta}; the bound of the shift cannot be negative")
        self.beta, self.contexts = beta, contexts
        sizes = {"text": d_text, "audio": d_audio, "vision": d_vision}
        pooled = {"verbal": ("text",), "nonverbal": ("audio", "vision"), "both": tuple(sizes)}.get(contexts, ())
        self.pooling = nn.ModuleDict({name: MaskedPooling(sizes[name], pooling) for name in pooled})
        self.gate_vision = nn.Linear(2 * d_vision + 2 * d_text, d_text)
        self.gate_audio = nn.Linear(2 * d_audio + 2 * d_text, d_text)
        self.shift_vision = nn.Linear(2 * d_vision, d_text, bias=False)
        self.shift_audio = nn.Linear(2 * d_audio, d_text, bias=False)
        self.norm = nn.LayerNorm(d_text)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        e: Float[Tensor, "batch token d_text"],
        audio: Float[Tensor, "batch token d_audio"],
        vision: Float[Tensor, "batch token d_vision"],
        attention_mask: Bool[Tensor, "batch token"],
    ) -> Float[Tensor, "batch token d_text"]:
        """attention_mask is true on all tokens but padding: the tokens that the verbal context is pooled from."""
        words = token_mask(audio, vision)
        c_text = self._context("text", e, attention_mask)
        c_audio = self._context("audio", audio, words)
        c_vision = self._context("vision", vision, words)
        gate_v = self.gate_vision(torch.cat([vision, c_vision, e, c_text], dim=-1)).relu()
        gate_a = self.gate_audio(torch.cat([audio, c_audio, e, c_text], dim=-1)).relu()
        h = (
            gate_v * self.shift_vision(torch.cat([vision, c_vision], dim=-1))
            + gate_a * self.shift_audio(torch.cat([audio, c_audio], dim=-1))
        ) * words[..., None]
        return self.dropout(self.norm(e + bounded_shift(e, h, self.beta)))

    def _context(
        self, name: str, values: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch token dim"]:
        if self.contexts == "own":
            return values
        if name not in self.pooling:
            return torch.zeros_like(values)
        return self.pooling[name](values, mask)[:, None].expand_as(values)
