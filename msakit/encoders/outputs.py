"""From what a pre-trained model puts out to the vectors that a classifier on it reads."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize


def image_feature(output: Any) -> Float[Tensor, "image dim"]:
    """One vector an image from any image encoder's output: pooler output, else [CLS], else the mean over space."""
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    hidden = output.last_hidden_state
    return hidden[:, 0] if hidden.ndim == 3 else hidden.flatten(2).mean(-1)


def image_vectors(model: Any, pixels: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image dim"]:
    """Projected vectors of a dual encoder (CLIP), of length 1."""
    return normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)


def text_vectors(model: Any, ids: Tensor, mask: Tensor | None = None) -> Float[Tensor, "text dim"]:
    """Projected vectors of a dual encoder (CLIP), of length 1; ids and mask "text token"."""
    return normalize(model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output, dim=-1)


@torch.no_grad()
def grid(
    encoder: nn.Module, pixels: Float[Tensor, "image 3 height width"], cell_dim: int | None = None
) -> Float[Tensor, "image cell _dim"]:
    """Cells of the last layer that is `cell_dim` wide, or else of the last layer, row by row; no [CLS] among them."""
    states = list(encoder(pixel_values=pixels, output_hidden_states=True).hidden_states)
    fitting = [state for state in states if state.shape[1 if state.ndim == 4 else 2] == cell_dim]
    chosen = (fitting or states)[-1]
    if chosen.ndim == 4:  # feature maps
        return chosen.flatten(2).transpose(1, 2)
    side = int(chosen.shape[1] ** 0.5)
    return chosen[:, chosen.shape[1] - side * side :]
