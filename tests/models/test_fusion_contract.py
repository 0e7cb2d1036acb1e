"""What every entry of FUSIONS promises: finite outputs, gradients to all trainable parameters, repeatable by seed."""

import pytest
import torch
from tiny_models import (
    CLIP_CONFIG,
    D_AUDIO,
    D_VISION,
    IMAGE_CONFIGS,
    TEXT_CONFIGS,
    VISUALBERT_CONFIG,
    cell_batch,
    image_batch,
    packed,
    token_batch,
)

from msakit.models import FUSIONS, fusion_class

ROWS = [7, 3, 13]
SETTINGS = {
    "clip": {"clip_config": CLIP_CONFIG},
    "gated": {"dims": {"text": 7, "vision": 11}, "n_layers": {"text": 2}, "width": 8, "embedding": 6},
    "joint": {"text_config": TEXT_CONFIGS["bert"], "image_config": IMAGE_CONFIGS["vit"], "feedforward": 23},
    "shifted_bert": {
        "text_config": TEXT_CONFIGS["bert"],
        "d_audio": D_AUDIO,
        "d_vision": D_VISION,
        "contrast": ["text", "audio", "vision"],
    },
    "visualbert": {"config": VISUALBERT_CONFIG, "cell": 11},
}
BATCHES = {
    "clip": lambda: token_batch(ROWS) | {"pixel_values": image_batch(3)},
    "gated": lambda: {"text": packed(7, ROWS, layers=2), "vision": packed(11, ROWS)},
    "joint": lambda: token_batch(ROWS) | {"pixel_values": image_batch(3)},
    "shifted_bert": lambda: token_batch(ROWS),
    "visualbert": lambda: token_batch(ROWS) | {"visual_embeds": cell_batch(3, 11)},
}


def outputs(name, **settings):
    torch.manual_seed(11)
    model = fusion_class(name)(**SETTINGS[name], **settings)
    return model, model(BATCHES[name]())


def test_every_fusion_is_covered():
    assert set(FUSIONS) == set(SETTINGS) == set(BATCHES)
    assert len(FUSIONS) == 5


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("n_classes", [None, 2, 5])
def test_contract(name, n_classes):
    model, found = outputs(name, n_classes=n_classes)
    assert found["prediction"].shape == ((3,) if n_classes is None else (3, n_classes))
    assert all(value.isfinite().all() for value in found.values())
    sum(value.float().square().sum() for value in found.values()).backward()
    for parameter_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
    _, again = outputs(name, n_classes=n_classes)
    assert all(torch.equal(found[key], again[key]) for key in found)


def test_unknown_fusion_lists_the_choices():
    with pytest.raises(ValueError, match="gated"):
        fusion_class("gate")
