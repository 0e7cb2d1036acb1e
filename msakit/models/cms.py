"""The gate that shifts a word also gets the whole utterance: contexts pooled from its words, its voice and its face.

Source: Kim & Kim 2022 (CMSBERT-CLR).  The paper's equations were not available; this is a RECONSTRUCTION from its
abstract, on top of MAG (see mag.py), which it names as its base:
g_m = ReLU(W_m [m_i; c_m; e_i; c_l]),  h_i = sum over m of g_m * U_m [m_i; c_m],  the rest as in MAG.
c_l is pooled from the token vectors e ("verbal"), c_v and c_a from vision and audio ("nonverbal").

The columns of W and U that meet a context are modules of their own (`gate_context`, `shift_context`), applied once an
utterance; `gate` and `shift` are MAG's.  With the contexts at zero, or contexts="none", this is MAG exactly.  Tokens
without audio and vision get no shift, though a context exists for them too.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from msakit.models.mag import MAG, bounded_shift, token_mask

CONTEXTS: tuple[str, ...] = ("none", "verbal", "nonverbal", "both")
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


class CMS(MAG):
    """Contextual multimodal shift; arguments as MAG's, and: contexts, one of CONTEXTS; pooling, one of POOLINGS."""

    def __init__(
        self,
        d_text: int,
        dims: Mapping[str, int],
        beta: float = 1.0,
        dropout: float = 0.5,
        contexts: str = "both",
        pooling: str = "attention",
    ) -> None:
        super().__init__(d_text, dims, beta, dropout)
        if contexts not in CONTEXTS or pooling not in POOLINGS:
            raise ValueError(f"contexts={contexts!r}, pooling={pooling!r}; choose from {CONTEXTS} and {POOLINGS}")
        verbal = {"text": d_text} if contexts in ("verbal", "both") else {}
        nonverbal = dict(dims) if contexts in ("nonverbal", "both") else {}
        self.pooling = nn.ModuleDict(
            {name: MaskedPooling(size, pooling) for name, size in (verbal | nonverbal).items()}
        )
        around = {name: verbal.get("text", 0) + nonverbal.get(name, 0) for name in dims}
        self.gate_context = nn.ModuleDict({n: nn.Linear(k, d_text, bias=False) for n, k in around.items() if k})
        self.shift_context = nn.ModuleDict({n: nn.Linear(k, d_text, bias=False) for n, k in nonverbal.items()})

    def displacement(
        self,
        e: Float[Tensor, "batch token d_text"],
        nonverbal: Mapping[str, Float[Tensor, "batch token _dim"]],
        attention_mask: Bool[Tensor, "batch token"],
    ) -> Float[Tensor, "batch token d_text"]:
        """The bounded shift of each token.  The verbal context is pooled over all tokens but padding, the others over
        the words that have either audio or vision."""
        words = token_mask(nonverbal)
        contexts = {
            name: pool(e, attention_mask) if name == "text" else pool(nonverbal[name], words)
            for name, pool in self.pooling.items()
        }
        h = torch.zeros_like(e)
        for name, gate in self.gate.items():
            values = nonverbal[name]
            opened, shift = gate(torch.cat([values, e], dim=-1)), self.shift[name](values)
            around = [contexts[key] for key in (name, "text") if key in contexts]
            if around:
                opened = opened + self.gate_context[name](torch.cat(around, dim=-1))[:, None]
            if name in contexts:
                shift = shift + self.shift_context[name](contexts[name])[:, None]
            h = h + opened.relu() * shift
        return bounded_shift(e, h * words[..., None], self.beta)
