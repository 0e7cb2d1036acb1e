"""Audio and vision shift each word's vector inside a text encoder, by no more than the vector's own length.

Source: MAG-BERT (Rahman et al. 2020), the multimodal adaptation gate, as its public code describes it:
g_m = ReLU(W_m [m_i; e_i]),  h_i = g_v * U_v v_i + g_a * U_a a_i,  alpha = min(beta |e| / |h|, 1),
e' = Dropout(LN(e + alpha h)).

Deviation: U has no bias, so that tokens without audio and vision (special tokens, padding: zero rows) get exactly no
shift, whatever was learnt; the layer norm still applies to them.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

# Keeps the ratio of norms finite where there is no shift; far below any norm that occurs.
EPSILON = 1e-6


def bounded_shift(
    e: Float[Tensor, "batch token dim"], h: Float[Tensor, "batch token dim"], beta: float
) -> Float[Tensor, "batch token dim"]:
    """alpha * h with alpha = min(beta |e| / |h|, 1) for each token; zero where h is zero."""
    length = torch.linalg.vector_norm(h, dim=-1, keepdim=True).clamp_min(EPSILON)
    alpha = (beta * torch.linalg.vector_norm(e, dim=-1, keepdim=True) / length).clamp_max(1.0)
    return alpha * h


def token_mask(
    audio: Float[Tensor, "batch token d_audio"], vision: Float[Tensor, "batch token d_vision"]
) -> Bool[Tensor, "batch token"]:
    """True where a token has any audio or vision: false on special tokens and padding."""
    return (audio != 0).any(-1) | (vision != 0).any(-1)


class MAG(nn.Module):
    """The gate: token vectors, and audio and vision on the same tokens, to shifted token vectors.

    beta bounds the shift relative to the token's own length; dropout acts after the layer norm.
    """

    def __init__(self, d_text: int, d_audio: int, d_vision: int, beta: float = 1.0, dropout: float = 0.5) -> None:
        super().__init__()
        if beta < 0:
            raise ValueError(f"beta is {beta}; the bound of the shift cannot be negative")
        self.beta = beta
        self.gate_vision = nn.Linear(d_vision + d_text, d_text)
        self.gate_audio = nn.Linear(d_audio + d_text, d_text)
        self.shift_vision = nn.Linear(d_vision, d_text, bias=False)
        self.shift_audio = nn.Linear(d_audio, d_text, bias=False)
        self.norm = nn.LayerNorm(d_text)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        e: Float[Tensor, "batch token d_text"],
        audio: Float[Tensor, "batch token d_audio"],
        vision: Float[Tensor, "batch token d_vision"],
        attention_mask: Bool[Tensor, "batch token"],
    ) -> Float[Tensor, "batch token d_text"]:
        gate_v = self.gate_vision(torch.cat([vision, e], dim=-1)).relu()
        gate_a = self.gate_audio(torch.cat([audio, e], dim=-1)).relu()
        h = gate_v * self.shift_vision(vision) + gate_a * self.shift_audio(audio)
        return self.dropout(self.norm(e + bounded_shift(e, h, self.beta)))
