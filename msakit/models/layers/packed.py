"""Sequences of different lengths laid end to end, so that no layer ever computes on padding.

A batch of three segments with 5, 2 and 7 frames is one matrix of 14 frames and the lengths (5, 2, 7).  Layers that
act on single frames (linear, normalisation, dropout) run on that matrix as it is; only attention needs to know where
a segment begins and ends.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Layout(NamedTuple):
    """Where each frame of a batch lies: what every operation on segments needs, worked out once a batch."""

    owner: Int[Tensor, " frames"]  # row number of the frame's segment
    position: Int[Tensor, " frames"]  # of the frame inside its segment, from 0
    longest: int  # frames of the longest segment


class Packed(NamedTuple):
    """Frames of all segments of a batch, end to end; `lengths` says how many belong to each segment (0 is allowed).

    `frames` may have leading axes (the hidden layers of an encoder): "*layer frames dim".  Whoever makes a batch may
    pass its `layout` on; without it, it is worked out from the lengths where it is needed.
    """

    frames: Float[Tensor, "*layer frames dim"]
    lengths: Int[Tensor, " batch"]
    layout: Layout | None = None


def layout_of(lengths: Int[Tensor, " batch"]) -> Layout:
    """The layout of segments of these lengths, laid end to end."""
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    starts = lengths.cumsum(0) - lengths
    position = torch.arange(len(owner), device=owner.device) - starts[owner]
    return Layout(owner, position, int(lengths.max()) if len(lengths) else 0)


def split_packed(packed: Packed, sizes: list[int]) -> list[Packed]:
    """The batch cut into smaller ones of so many segments; the frames are not copied."""
    owner, position, _ = packed.layout or layout_of(packed.lengths)
    parts, segment, frame = [], 0, 0
    for size, lengths in zip(sizes, packed.lengths.split(sizes), strict=True):
        until = frame + int(lengths.sum())
        layout = Layout(owner[frame:until] - segment, position[frame:until], int(lengths.max()) if size else 0)
        parts.append(Packed(packed.frames[..., frame:until, :], lengths, layout))
        segment, frame = segment + size, until
    return parts
