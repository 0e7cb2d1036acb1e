"""Tiny untrained encoders and batches; a different prime for each axis, so that swapped axes cannot go unnoticed."""

from typing import Any

import torch
from transformers import (
    BertConfig,
    CLIPConfig,
    CLIPVisionConfig,
    ConvNextConfig,
    Dinov2Config,
    DistilBertConfig,
    ResNetConfig,
    RobertaConfig,
    VisualBertConfig,
    ViTConfig,
)

from msakit.models.layers.packed import Packed

D_AUDIO, D_VISION = 5, 11

TEXT_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": BertConfig(
        vocab_size=31,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=19,
        max_position_embeddings=29,
    ).to_dict(),
    "roberta": RobertaConfig(
        vocab_size=31,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=19,
        max_position_embeddings=29,
        pad_token_id=1,
    ).to_dict(),
    "distilbert": DistilBertConfig(
        vocab_size=31, dim=16, n_layers=3, n_heads=2, hidden_dim=19, max_position_embeddings=29
    ).to_dict(),
}
IMAGE_CONFIGS: dict[str, dict[str, Any]] = {
    "resnet": ResNetConfig(embedding_size=7, hidden_sizes=[7, 13], depths=[1, 1], layer_type="basic").to_dict(),
    "vit": ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=19, image_size=16, patch_size=8
    ).to_dict(),
    "clip_vision": CLIPVisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=19, image_size=16, patch_size=8
    ).to_dict(),
}
IMAGE_CONFIGS |= {
    "dinov2": Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2, image_size=16, patch_size=8
    ).to_dict(),
    "convnext": ConvNextConfig(patch_size=2, num_stages=2, hidden_sizes=[7, 13], depths=[1, 1]).to_dict(),
}
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 19,
}
CLIP_CONFIG: dict[str, Any] = CLIPConfig(
    text_config=SMALL | {"vocab_size": 31, "max_position_embeddings": 29, "bos_token_id": 0, "eos_token_id": 1},
    vision_config=SMALL | {"image_size": 16, "patch_size": 8},
    projection_dim=7,
).to_dict()
VISUALBERT_CONFIG: dict[str, Any] = VisualBertConfig(
    **SMALL, vocab_size=31, max_position_embeddings=29, visual_embedding_dim=13, initializer_range=0.5
).to_dict()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def packed(dim: int, lengths: list[int], layers: int | None = None, seed: int = 0) -> Packed:
    shape = (sum(lengths), dim) if layers is None else (layers, sum(lengths), dim)
    return Packed(torch.randn(shape, generator=generator(seed)), torch.tensor(lengths))


def token_batch(lengths: list[int], padding: int = 0, seed: int = 0) -> dict[str, Any]:
    """Word pieces with audio and vision, zero on the first and last token of each row and on padding."""
    rows, width, source = len(lengths), max(lengths) + padding, generator(seed)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    words = mask & (torch.arange(width) > 0) & (torch.arange(width) < torch.tensor(lengths)[:, None] - 1)
    batch: dict[str, Any] = {
        "attention_mask": mask.long(),
        "label": torch.randn(rows, generator=source),
        "input_ids": torch.ones(rows, width, dtype=torch.long),
        "audio": torch.zeros(rows, width, D_AUDIO),
        "vision": torch.zeros(rows, width, D_VISION),
    }
    for row, length in enumerate(lengths):
        batch["input_ids"][row, :length] = torch.randint(2, 31, (length,), generator=source)
        batch["audio"][row, :length] = torch.randn(length, D_AUDIO, generator=source)
        batch["vision"][row, :length] = torch.randn(length, D_VISION, generator=source)
    return batch | {name: batch[name] * words[..., None] for name in ("audio", "vision")}


def image_batch(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 3, 16, 16, generator=generator(seed))


def cell_batch(rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    """Grid cells of images: 2 x 2."""
    return torch.randn(rows, 4, dim, generator=generator(seed))
