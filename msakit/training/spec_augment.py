"""SpecAugment on packed features: hide random stripes of feature dimensions and of time behind the segment's mean.

Source: Park et al. 2019, with the settings of Ando et al.: 10 masks on the feature axis, each narrower than 2 % of the
dimensions, 2 masks on the time axis, each narrower than 20 % of the segment; no time warp.  Each segment, and each
hidden layer where several are given, draws its own masks and is filled with its own mean.
Deviation: widths are uniform over the whole numbers below the limit, so that 64 dimensions (limit 1.28) still lose
one at times.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from msakit.models.layers.packed import Packed, layout_of


@dataclass(frozen=True)
class SpecAugment:
    """Settings; call it with packed features and the run's generator."""

    feature_masks: int = 10
    feature_width: float = 0.02  # a mask is narrower than this fraction of the dimensions
    time_masks: int = 2
    time_width: float = 0.20  # a mask is narrower than this fraction of the segment's frames
    layers_apart: bool = True  # each hidden layer draws its own masks; False: all are masked at the same places

    def __post_init__(self) -> None:
        if not (0 <= self.feature_width <= 1 and 0 <= self.time_width <= 1):
            raise ValueError(f"widths are fractions from 0 to 1, not {self.feature_width} and {self.time_width}")

    def __call__(self, packed: Packed, generator: torch.Generator) -> Packed:
        """The same frames with masks; frames without any mask are unchanged.  The generator lives on the CPU."""
        return self.mask(packed, self.draw(len(packed.lengths), packed.frames.shape[:-2].numel(), generator))

    def draw(self, segments: int, layers: int, generator: torch.Generator) -> Float[Tensor, "two layer segment mask"]:
        """All the randomness that masks of so many segments and layers need: for widths and for places, in [0, 1)."""
        masks = self.feature_masks + self.time_masks
        return torch.rand(2, layers if self.layers_apart else 1, segments, masks, generator=generator)

    def mask(self, packed: Packed, drawn: Float[Tensor, "two layer segment mask"]) -> Packed:
        """The frames with the masks that were drawn."""
        shape, device, lengths = packed.frames.shape, packed.frames.device, packed.lengths
        owner, position, _ = layout = packed.layout or layout_of(lengths)
        frames = packed.frames.reshape(-1, *shape[-2:])
        layers, batch, dim = len(frames), len(lengths), shape[-1]
        sums = frames.new_zeros(layers, batch).index_add_(1, owner, frames.mean(-1))
        mean = (sums / lengths.clamp(min=1))[:, owner, None]

        start, end = self._edges(lengths.cpu(), dim, drawn)
        features, times = slice(self.feature_masks), slice(self.feature_masks, None)
        shown = _outside(start[..., features], end[..., features], dim).to(device)
        # A last row that shows nothing serves the hidden steps of time.
        shown = nn.functional.pad(shown, (0, 0, 0, 1))
        since, until = start[..., times].to(device)[:, owner], end[..., times].to(device)[:, owner]
        silent = ((position[:, None] >= since) & (position[:, None] < until)).any(-1)
        row = torch.where(silent, batch, owner) + torch.arange(len(shown), device=device)[:, None] * (batch + 1)
        keep = shown.flatten(0, 1).index_select(0, row.flatten()).view(len(shown), -1, dim)
        return Packed(torch.lerp(mean, frames, keep).view(shape), lengths, layout)

    def _edges(
        self, lengths: Int[Tensor, " batch"], dim: int, drawn: Float[Tensor, "two layer batch mask"]
    ) -> tuple[Int[Tensor, "layer batch mask"], Int[Tensor, "layer batch mask"]]:
        """First and one-past-last position of each mask, those of features first.

        The width of a mask is below its fraction of the axis, its start uniform over what fits.
        """
        sizes = lengths[:, None].repeat(1, self.feature_masks + self.time_masks)
        sizes[:, : self.feature_masks] = dim
        fractions = torch.tensor([self.feature_width] * self.feature_masks + [self.time_width] * self.time_masks)
        # The number of allowed widths 0, 1, ...: all whole numbers that are smaller than the limit.
        allowed = (sizes * fractions).ceil().clamp(min=1)
        widths = (drawn[0] * allowed).long()
        start = (drawn[1] * (sizes - widths + 1)).long()
        return start, start + widths


def _outside(
    start: Int[Tensor, "layer batch mask"], end: Int[Tensor, "layer batch mask"], dim: int
) -> Float[Tensor, "layer batch dim"]:
    """1 where no mask lies, else 0: from the running count of masks that have begun and not yet ended."""
    change = torch.zeros(*start.shape[:2], dim + 1)
    change.scatter_add_(-1, start, torch.ones(start.shape)).scatter_add_(-1, end, -torch.ones(end.shape))
    return (change.cumsum(-1)[..., :dim] == 0).float()
