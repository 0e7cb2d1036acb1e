"""Audio and vision shift each word's vector inside a text encoder, by no more than the vector's own length.

Source: MAG-BERT (Rahman et al. 2020), the multimodal adaptation gate, as its public code describes it:
g_m = ReLU(W_m [m_i; e_i]),  h_i = g_v * U_v v_i + g_a * U_a a_i,  alpha = min(beta |e| / |h|, 1),
e' = Dropout(LN(e + alpha h)).

Deviation: U has no bias, so that tokens without audio and vision (special tokens, padding: zero rows) get exactly no
shift, whatever was learnt; the layer norm still applies to them.  A modality that the corpus lacks is left out of the
sum.  width=k, ours, sums k gated shifts a modality, each with weights of its own: a larger MAG to compare others with.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

# The two that shift words, in the order in which sizes are given.
NONVERBAL: tuple[str, ...] = ("audio", "vision")
# Keeps the ratio of norms finite where there is no shift; far below any norm that occurs.
EPSILON = 1e-6


def bounded_shift(
    e: Float[Tensor, "batch token dim"], h: Float[Tensor, "batch token dim"], beta: float
) -> Float[Tensor, "batch token dim"]:
    """alpha * h with alpha = min(beta |e| / |h|, 1) for each token; zero where h is zero."""
    length = torch.linalg.vector_norm(h, dim=-1, keepdim=True).clamp_min(EPSILON)
    alpha = (beta * torch.linalg.vector_norm(e, dim=-1, keepdim=True) / length).clamp_max(1.0)
    return alpha * h


def token_mask(nonverbal: Mapping[str, Float[Tensor, "batch token _dim"]]) -> Bool[Tensor, "batch token"]:
    """True where a token has any audio or vision: false on special tokens and padding."""
    masks = [(values != 0).any(-1) for values in nonverbal.values()]
    return torch.stack(masks).any(0)


class MAG(nn.Module):
    """The gate: token vectors, and audio and vision on the same tokens, to shifted token vectors.

    dims: size of each modality there is, "audio" and "vision"; beta bounds the shift relative to the token's own
    length; dropout acts after the layer norm; width: gated shifts a modality, 1 as published.
    """

    def __init__(
        self, d_text: int, dims: Mapping[str, int], beta: float = 1.0, dropout: float = 0.5, width: int = 1
    ) -> None:
        super().__init__()
        if beta < 0 or width < 1 or not dims:
            raise ValueError(
                f"beta is {beta}, width {width}, dims {dict(dims)}: the bound of the shift cannot be negative, and "
                "there must be a gated shift, which needs the size of audio, of vision or of both"
            )
        self.beta, self.width = beta, width
        wide = width * d_text
        self.gate = nn.ModuleDict({name: nn.Linear(size + d_text, wide) for name, size in dims.items()})
        self.shift = nn.ModuleDict({name: nn.Linear(size, wide, bias=False) for name, size in dims.items()})
        self.norm = nn.LayerNorm(d_text)
        self.dropout = nn.Dropout(dropout)

    def displacement(
        self,
        e: Float[Tensor, "batch token d_text"],
        nonverbal: Mapping[str, Float[Tensor, "batch token _dim"]],
        attention_mask: Bool[Tensor, "batch token"],
    ) -> Float[Tensor, "batch token d_text"]:
        """The bounded shift of each token, zero where it has neither audio nor vision."""
        h = torch.zeros_like(e)
        for name, gate in self.gate.items():
            values = nonverbal[name]
            shifts = gate(torch.cat([values, e], dim=-1)).relu() * self.shift[name](values)
            h = h + (shifts if self.width == 1 else shifts.unflatten(-1, (self.width, -1)).sum(-2))
        return bounded_shift(e, h, self.beta)

    def forward(
        self,
        e: Float[Tensor, "batch token d_text"],
        nonverbal: Mapping[str, Float[Tensor, "batch token _dim"]],
        attention_mask: Bool[Tensor, "batch token"],
    ) -> Float[Tensor, "batch token d_text"]:
        return self.dropout(self.norm(e + self.displacement(e, nonverbal, attention_mask)))
