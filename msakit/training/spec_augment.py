"""SpecAugment on packed features: hide random stripes of feature dimensions and of time behind the segment's mean.

Source: Park et al. 2019, with the settings of Ando et al.: 10 masks on the feature axis, each narrower than 2 % of the
dimensions, 2 masks on the time axis, each narrower than 20 % of the segment; no time warp.  Each segment, and each
hidden layer where several are given, draws its own masks and is filled with its own mean.
Deviation: widths are uniform over the whole numbers below the limit, so that 64 dimensions (limit 1.28) still lose
one at times.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from msakit.fusion.packed import Packed, frame_positions, segment_of_frame


@dataclass(frozen=True)
class SpecAugment:
    """Settings; call it with packed features and the run's generator."""

    feature_masks: int = 10
    feature_width: float = 0.02  # a mask is narrower than this fraction of the dimensions
    time_masks: int = 2
    time_width: float = 0.20  # a mask is narrower than this fraction of the segment's frames

    def __post_init__(self) -> None:
        if not (0 <= self.feature_width <= 1 and 0 <= self.time_width <= 1):
            raise ValueError(f"widths are fractions from 0 to 1, not {self.feature_width} and {self.time_width}")

    def __call__(self, packed: Packed, generator: torch.Generator) -> Packed:
        """The same frames with masks; frames without any mask are unchanged to the bit."""
        shape, lengths = packed.frames.shape, packed.lengths
        frames = packed.frames.reshape(-1, *shape[-2:])
        owner, position = segment_of_frame(lengths), frame_positions(lengths)
        batch, layers, dim = len(lengths), len(frames), shape[-1]
        sums = frames.new_zeros(layers, batch).index_add_(1, owner, frames.mean(-1))
        mean = (sums / lengths.clamp(min=1))[:, owner, None]
        dims = torch.full((layers, batch), dim)
        hidden = _stripes(dims, self.feature_width, self.feature_masks, torch.arange(dim), generator)[:, owner]
        start, end = _draw(lengths.expand(layers, batch), self.time_width, self.time_masks, generator)
        silent = ((position[:, None] >= start[:, owner]) & (position[:, None] < end[:, owner])).any(-1)
        return Packed(torch.where(hidden | silent[..., None], mean, frames).view(shape), lengths)


def _draw(
    sizes: Int[Tensor, "layer batch"], width: float, masks: int, generator: torch.Generator
) -> tuple[Int[Tensor, "layer batch mask"], Int[Tensor, "layer batch mask"]]:
    """First and one-past-last position of each mask: width below width * size, start uniform over what fits."""
    uniform = torch.rand(2, *sizes.shape, masks, generator=generator)
    # The number of allowed widths 0, 1, ...: all whole numbers that are smaller than the limit.
    allowed = (sizes * width).ceil().clamp(min=1)[..., None]
    widths = (uniform[0] * allowed).long()
    start = (uniform[1] * (sizes[..., None] - widths + 1)).long()
    return start, start + widths


def _stripes(
    sizes: Int[Tensor, "layer batch"],
    width: float,
    masks: int,
    position: Int[Tensor, " dim"],
    generator: torch.Generator,
) -> Bool[Tensor, "layer batch dim"]:
    start, end = _draw(sizes, width, masks, generator)
    return ((position >= start[..., None]) & (position < end[..., None])).any(-2)
