"""CLIP and VisualBERT as classifiers: their vectors are the models' own, and what they cannot take is refused."""

import numpy as np
import pytest
import torch
from tiny_models import (
    CLIP_CONFIG,
    IMAGE_CONFIGS,
    TEXT_CONFIGS,
    VISUALBERT_CONFIG,
    cell_batch,
    image_batch,
    token_batch,
)
from transformers import AutoConfig, AutoModel

from msakit.encoders.outputs import grid
from msakit.encoders.pretrained import encoder_from_config
from msakit.models import Grid, Pretrained
from msakit.models.clip import ClipClassifier, joined, zero_shot
from msakit.models.visualbert import VisualBertClassifier


def posts():
    return {name: token_batch([7, 3, 13])[name] for name in ("input_ids", "attention_mask")}


def clip(**settings):
    torch.manual_seed(5)
    return ClipClassifier(CLIP_CONFIG, **settings).eval()


def test_clip_keeps_its_own_similarity(tmp_path):
    net, inputs = clip(n_classes=3), posts() | {"pixel_values": image_batch(3)}
    net.clip.save_pretrained(tmp_path)
    features = (
        ClipClassifier.build({name: Pretrained(str(tmp_path)) for name in ("text", "image")}, None)
        .eval()
        .forward_features(inputs)
    )
    image, text = features["image_features"], features["text_features"]
    own = net.clip(**inputs)
    torch.testing.assert_close(image @ text.T * own.logit_scale if hasattr(own, "logit_scale") else image @ text.T,
                               own.logits_per_image / net.clip.logit_scale.exp(), rtol=1e-4, atol=1e-5)  # fmt: skip
    fused = joined(image, text)
    assert fused.shape == (3, 21)
    torch.testing.assert_close(fused[:, 14:].sum(1) / 7, (image * text).sum(1))
    torch.testing.assert_close(fused[:, :14].square().mean(), torch.tensor(1.0))


def test_a_linear_probe_leaves_the_towers_alone():
    net, inputs = clip(n_classes=2, frozen=True), posts() | {"pixel_values": image_batch(3)}
    net.train()
    assert not net.clip.training
    assert {name for name, p in net.named_parameters() if p.requires_grad} == {"classifier.weight", "classifier.bias"}
    assert torch.equal(net(net.forward_features(inputs))["prediction"], net(inputs)["prediction"])


def test_zero_shot_prefers_the_nearest_prompts():
    e = torch.eye(3)
    prompts = [e[:1], torch.stack([e[1], e[1]]), e[2:]]
    # The image is near class 0; the texts near 0, near 1, and halfway to 2.
    image = e[[0, 0, 0]]
    text = torch.stack([e[0], e[1], (e[0] + e[2]) / 2**0.5])
    found = zero_shot(image, text, prompts, 0.5)
    expected = np.exp(np.array([[1, 0, 0], [0.5, 0.5, 0], [0.5 + 0.5**1.5, 0, 0.5**1.5]]) / 0.5)
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=1e-5)


def test_visualbert_sees_the_cells(tmp_path):
    torch.manual_seed(5)
    net = VisualBertClassifier(VISUALBERT_CONFIG, 13, n_classes=3).eval()
    assert isinstance(net.adapt, torch.nn.Identity)
    cells = cell_batch(3, 13)
    inputs = posts() | {"image": cells}
    output = net(inputs)
    other = net(inputs | {"image": cell_batch(3, 13, seed=1)})
    assert not torch.allclose(output["prediction"], other["prediction"], atol=1e-4)
    ones = torch.ones(3, 4, dtype=torch.long)
    own = net.bert(**posts(), visual_embeds=cells, visual_attention_mask=ones, visual_token_type_ids=ones)
    torch.testing.assert_close(output["fused"], own.pooler_output)
    net.bert.save_pretrained(tmp_path)
    wide = VisualBertClassifier.build({"text": Pretrained(str(tmp_path)), "image": Grid(5)}, 3).eval()
    assert wide(posts() | {"image": cell_batch(3, 5)})["prediction"].shape == (3, 3)


def test_the_grid_is_the_last_layer_of_the_wanted_width():
    torch.manual_seed(5)
    resnet = encoder_from_config(IMAGE_CONFIGS["resnet"]).eval()
    states = resnet(image_batch(2), output_hidden_states=True).hidden_states
    narrow = states[1]  # the embedder and the first stage are 7 wide
    assert narrow.shape[1] == 7 != states[2].shape[1]
    rows, columns = narrow.shape[2:]
    found = grid(resnet, image_batch(2), 7)
    assert found.shape == (2, rows * columns, 7)
    torch.testing.assert_close(found[1, columns + 1], narrow[1, :, 1, 1])
    assert grid(resnet, image_batch(2), 99).shape[2] == 13
    vit = encoder_from_config(IMAGE_CONFIGS["vit"]).eval()
    last = vit(image_batch(2), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(grid(vit, image_batch(2), 16), last[:, 1:])


def test_encoders_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no dual encoder"):
        ClipClassifier(TEXT_CONFIGS["bert"])
    with pytest.raises(ValueError, match="no visual_embedding_dim"):
        VisualBertClassifier(TEXT_CONFIGS["bert"], 13)
    encoder_from_config(VISUALBERT_CONFIG).save_pretrained(tmp_path)
    assert isinstance(AutoModel.from_pretrained(tmp_path).config, type(AutoConfig.from_pretrained(tmp_path)))
