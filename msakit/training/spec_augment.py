"""SpecAugment on packed features: hide random stripes of feature dimensions and of time behind the segment's mean.

Source: Park et al. 2019, in the form of Ando et al.'s public code.  On an axis of n positions (dimensions, or frames of
the segment) with a fraction r, the limit is L = floor(n r).  Each mask draws its width w uniformly from 0, …, L - 1 and
its first position uniformly from 0, …, n - w - 1, so that it never reaches the last position; where L is 0 there is no
mask.  10 masks on the feature axis with r = 0.02, 2 on the time axis with r = 0.20; no time warp.  So 64 dimensions
(L = 1) lose none, and texts of under 10 tokens (L = 1 or 0) no token.  Each segment, and each hidden layer where
several are given, draws its own masks and is filled with its own mean.
Deviation: the mean is that of the segment as it came; the public code takes it anew before each mask.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from msakit.models.layers.packed import Packed, layout_of


@dataclass(frozen=True)
class SpecAugment:
    """Settings; `draw` from the run's generator, `mask` packed features on the CPU."""

    feature_masks: int = 10
    feature_width: float = 0.02  # r of the dimensions
    time_masks: int = 2
    time_width: float = 0.20  # r of the segment's frames
    layers_apart: bool = True  # each hidden layer draws its own masks; False: all are masked alike

    def draw(
        self, segments: int, layers: int, generator: torch.Generator | None
    ) -> Float[Tensor, "two layer segment mask"]:
        """All the randomness that masks of so many segments and layers need: for widths and for starts, in [0, 1)."""
        masks = self.feature_masks + self.time_masks
        return torch.rand(2, layers if self.layers_apart else 1, segments, masks, generator=generator)

    def mask(self, packed: Packed, drawn: Float[Tensor, "two layer segment mask"]) -> Packed:
        """The frames with the masks that were drawn; those without any mask are unchanged."""
        shape, lengths = packed.frames.shape, packed.lengths
        owner, position, _ = layout = packed.layout or layout_of(lengths)
        frames = packed.frames.reshape(-1, *shape[-2:])
        layers, batch, dim = len(frames), len(lengths), shape[-1]
        sums = frames.new_zeros(layers, batch).index_add_(1, owner, frames.mean(-1))
        mean = (sums / lengths.clamp(min=1))[:, owner, None]

        # First and one-past-last position of each mask, those of features first.
        fractions = [self.feature_width] * self.feature_masks + [self.time_width] * self.time_masks
        sizes = lengths[:, None].repeat(1, len(fractions))
        sizes[:, : self.feature_masks] = dim
        widths = (drawn[0] * (sizes * torch.tensor(fractions)).floor()).long()
        start = (drawn[1] * (sizes - widths)).long()
        end = start + widths
        features, times = slice(self.feature_masks), slice(self.feature_masks, None)
        shown = _outside(start[..., features], end[..., features], dim)
        # A last row that shows nothing serves the hidden steps of time.
        shown = nn.functional.pad(shown, (0, 0, 0, 1))
        since, until = start[..., times][:, owner], end[..., times][:, owner]
        silent = ((position[:, None] >= since) & (position[:, None] < until)).any(-1)
        row = torch.where(silent, batch, owner) + torch.arange(len(shown))[:, None] * (batch + 1)
        keep = shown.flatten(0, 1).index_select(0, row.flatten()).view(len(shown), -1, dim)
        return Packed(torch.lerp(mean, frames, keep).view(shape), lengths, layout)


def _outside(
    start: Int[Tensor, "layer batch mask"], end: Int[Tensor, "layer batch mask"], dim: int
) -> Float[Tensor, "layer batch dim"]:
    """1 where no mask lies, else 0: from the running count of masks that have begun and not yet ended."""
    change = torch.zeros(*start.shape[:2], dim + 1)
    change.scatter_add_(-1, start, torch.ones(start.shape)).scatter_add_(-1, end, -torch.ones(end.shape))
    return (change.cumsum(-1)[..., :dim] == 0).float()
