"""Encoders inside fusion models: loaded from a folder or hub id, rebuilt from their configuration alone.

A saved fusion model holds its encoders' weights and configurations, so `from_pretrained` needs no other download.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

log = logging.getLogger(__name__)


def encoder_from_config(config: dict[str, Any]) -> PreTrainedModel:
    """An untrained encoder of that configuration (`config.to_dict()`, with "model_type")."""
    settings = dict(config)
    kind = settings.pop("model_type", None)
    if not kind:
        raise ValueError("the encoder's configuration has no model_type; pass config.to_dict() of a transformers model")
    model: PreTrainedModel = AutoModel.from_config(AutoConfig.for_model(kind, **settings), dtype=torch.float32)
    return model


def load_encoder(path: str | Path, part: str) -> PreTrainedModel:
    """AutoModel weights at `path`; of a two-tower model such as CLIP only the tower `part` ("text" or "vision").

    Weights that the checkpoint lacks start at random, and a warning names them.
    """
    config = AutoConfig.from_pretrained(path)
    tower = getattr(config, f"{part}_config", None)
    model, report = AutoModel.from_pretrained(
        path, use_safetensors=True, output_loading_info=True, **({} if tower is None else {"config": tower})
    )
    if report["missing_keys"]:
        log.warning("%s lacks weights, which start at random: %s", path, ", ".join(sorted(report["missing_keys"])))
    return model


def plain_config(encoder: PreTrainedModel) -> dict[str, Any]:
    """The encoder's configuration with json-able values only, without the folder it came from."""
    settings: dict[str, Any] = encoder.config.to_diff_dict()
    # Weights are trained in full precision here, whatever precision they were stored in.
    for name in ("_name_or_path", "dtype"):
        settings.pop(name, None)
    settings["model_type"] = encoder.config.model_type
    return settings


def feature_size(encoder: nn.Module) -> int:
    """Width of the encoder's output; of convolutional networks, the channels of the last stage."""
    config: Any = encoder.config
    size = getattr(config, "hidden_size", None) or (getattr(config, "hidden_sizes", None) or [None])[-1]
    if size is None:
        raise ValueError(
            f"{type(encoder).__name__}: its configuration has neither hidden_size nor hidden_sizes; "
            "choose an encoder of another family"
        )
    return int(size)


def set_frozen(encoder: nn.Module) -> None:
    """No gradients and no dropout; the owner keeps it in eval mode when it is itself put in train mode."""
    encoder.requires_grad_(False)
    encoder.eval()
