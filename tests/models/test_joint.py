import itertools

import pytest
import torch
from tiny_models import IMAGE_CONFIGS, TEXT_CONFIGS, image_batch, token_batch
from transformers import AutoModel, CLIPConfig, CLIPModel

from msakit.encoders.pretrained import encoder_from_config
from msakit.models import Pretrained
from msakit.models.joint import JointFusion
from msakit.training import losses
from msakit.training.loop import fit


def model(text="distilbert", image="resnet", **settings):
    torch.manual_seed(7)
    settings = {"n_classes": 3, "feedforward": 23, "size": 8, "hidden": 5, "heads": 2} | settings
    return JointFusion(TEXT_CONFIGS[text], IMAGE_CONFIGS[image], **settings).eval()


def built(paths, n_classes=None, **settings):
    return JointFusion.build(
        {name: Pretrained(str(path)) for name, path in paths.items()}, n_classes, **settings
    ).eval()


def batch():
    tokens = token_batch([7, 3, 13])
    return {
        "input_ids": tokens["input_ids"],
        "attention_mask": tokens["attention_mask"],
        "pixel_values": image_batch(3),
        "label": torch.tensor([0, 2, 1]),
    }


PAIRS = list(itertools.product(["bert", "distilbert", "roberta"], IMAGE_CONFIGS))


def test_at_least_three_of_each_kind_are_crossed():
    kinds = [{pair[side] for pair in PAIRS} for side in (0, 1)]
    assert min(map(len, kinds)) >= 3
    assert kinds[1] == {"resnet", "vit", "clip_vision", "dinov2", "convnext"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Every tiny encoder as a checkpoint that AutoModel reads."""
    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(3)
    for name, config in (TEXT_CONFIGS | IMAGE_CONFIGS).items():
        encoder_from_config(config).save_pretrained(root / name)
    return root


@pytest.mark.parametrize(("text", "image"), PAIRS)
@pytest.mark.parametrize("n_classes", [3, None])
def test_every_text_encoder_meets_every_image_encoder(text, image, n_classes, folders, tmp_path):
    settings = {"n_classes": n_classes, "feedforward": 23, "size": 8, "hidden": 5, "heads": 2}
    torch.manual_seed(7)
    net, inputs = built({"text": folders / text, "image": folders / image}, **settings), batch()
    label = inputs["label"] if n_classes else inputs["label"].float()
    output = net(inputs)
    assert output["prediction"].shape == ((3, 3) if n_classes else (3,))
    assert output["fused"].shape == (3, 16)
    (losses.cross_entropy if n_classes else losses.mse)(output, {"label": label}).backward()
    for encoder in net.encoders.values():
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    order = torch.tensor([2, 0, 1])
    permuted = net({name: value[order] for name, value in inputs.items()})
    torch.testing.assert_close(permuted["prediction"], output["prediction"][order], rtol=1e-4, atol=1e-5)
    net.save_pretrained(tmp_path)
    assert torch.equal(JointFusion.from_pretrained(tmp_path).eval()(inputs)["prediction"], output["prediction"])


@pytest.mark.parametrize("kind", list(IMAGE_CONFIGS) + list(TEXT_CONFIGS))
def test_the_vectors_are_the_encoders_own(kind, folders):
    """The image encoder's pooled output, the text encoder's first token; nothing of either is lost on the way."""
    modality = "image" if kind in IMAGE_CONFIGS else "text"
    net = built({modality: folders / kind}, n_classes=2)
    encoder = AutoModel.from_pretrained(folders / kind).eval()
    keys = ("pixel_values",) if modality == "image" else ("input_ids", "attention_mask")
    output = encoder(**{key: batch()[key] for key in keys})
    wanted = output.pooler_output.flatten(1) if modality == "image" else output.last_hidden_state[:, 0]
    torch.testing.assert_close(net.forward_features(batch())[f"{modality}_features"], wanted)


def test_as_published_attention_over_one_token_is_linear():
    """With a sequence of length 1 the softmax is 1: the layer is out_proj(value(x)) whatever query and key are."""
    net, inputs = model(attention_over="single"), batch()
    assert net.attention.self_attn.embed_dim == 16
    before = net(inputs)["prediction"]
    with torch.no_grad():
        net.attention.self_attn.in_proj_weight[:32] = 9.0  # query and key
    torch.testing.assert_close(net(inputs)["prediction"], before)
    two = model(attention_over="modalities")
    assert two.attention.self_attn.embed_dim == 8
    before = two(inputs)["prediction"]
    with torch.no_grad():
        two.attention.self_attn.in_proj_weight[:16].normal_(0, 3)
    assert not torch.allclose(two(inputs)["prediction"], before, atol=1e-5)


@torch.no_grad()
def plain_head(net, image, text):
    """The head for one sample, written out: tokens, one post-norm attention layer head by head, classifier."""
    layer, weights = net.attention, net.attention.self_attn
    tokens = [net.project["image"](image), net.project["text"](text)]
    tokens = torch.cat(tokens)[None] if net.attention_over == "single" else torch.stack(tokens)
    dim, heads = tokens.shape[1], weights.num_heads
    q, k, v = (weights.in_proj_weight @ tokens.T + weights.in_proj_bias[:, None]).split(dim)
    mixed = []
    for rows in torch.arange(dim).chunk(heads):
        attention = (q[rows].T @ k[rows] / len(rows) ** 0.5).softmax(-1)
        mixed.append(attention @ v[rows].T)
    x = layer.norm1(tokens + weights.out_proj(torch.cat(mixed, dim=1)))
    x = layer.norm2(x + layer.linear2(layer.linear1(x).clamp(min=0)))
    return net.classifier[4](net.classifier[1](x.flatten()).clamp(min=0))


@pytest.mark.parametrize("attention_over", ["single", "modalities"])
def test_equals_the_plain_method_sample_by_sample(attention_over):
    net = model(attention_over=attention_over)
    found = net.forward_features(batch())
    pairs = zip(found["image_features"], found["text_features"], strict=True)
    expected = [plain_head(net, image, text) for image, text in pairs]
    torch.testing.assert_close(net(batch())["prediction"], torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_the_published_head_has_the_published_size():
    net = model(attention_over="single", feedforward=2048, size=32, hidden=128, heads=8, n_classes=2)
    head = [*net.attention.parameters(), *net.classifier.parameters()]
    projections = (768 + 1) * 32 + (2048 + 1) * 32  # of the published encoders, wider than the tiny ones
    assert sum(p.numel() for p in head) + projections == pytest.approx(0.380e6, abs=0.001e6)
    assert net(batch())["prediction"].shape == (3, 1)


@pytest.mark.parametrize("modalities", ["text", "image"])
def test_one_modality_needs_only_its_own_inputs(modalities):
    configs = {"text": {"text_config": TEXT_CONFIGS["bert"]}, "image": {"image_config": IMAGE_CONFIGS["resnet"]}}
    net, inputs = JointFusion(**configs[modalities]).eval(), batch()
    drop = {"text": "pixel_values", "image": "input_ids"}[modalities]
    del inputs[drop]
    assert net(inputs)["prediction"].shape == (3,)
    assert set(net.encoders) == {modalities}


def test_frozen_encoders_do_not_change_and_cached_features_give_the_same():
    net = model(frozen=["text", "image"])
    net.train()
    assert not any(m.training for encoder in net.encoders.values() for m in encoder.modules())
    assert net.classifier.training
    assert not any(p.requires_grad for p in net.encoders.parameters())
    before = {name: value.clone() for name, value in net.encoders.state_dict().items()}
    head = net.classifier[1].weight.clone()
    trained = [p for p in net.parameters() if p.requires_grad]
    fit(net, [batch()], [batch()], loss=losses.cross_entropy, optimizer=torch.optim.AdamW(trained, 0.01), epochs=2)
    assert all(torch.equal(value, before[name]) for name, value in net.encoders.state_dict().items())
    assert not torch.equal(net.classifier[1].weight, head)
    features = net.forward_features(batch())
    assert not any(value.requires_grad for value in features.values())
    assert torch.equal(net(features)["prediction"], net(batch())["prediction"])


def test_build_takes_their_weights_and_the_vision_tower_of_clip(tmp_path):
    text = model("bert").encoders["text"]
    text.save_pretrained(tmp_path / "text")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 19}
    clip = CLIPModel(
        CLIPConfig(
            text_config=small | {"vocab_size": 31, "bos_token_id": 0, "eos_token_id": 1},
            vision_config=small | {"image_size": 16, "patch_size": 8},
            projection_dim=7,
        )
    ).eval()
    clip.save_pretrained(tmp_path / "clip")
    net = built({"text": tmp_path / "text", "image": tmp_path / "clip"}, n_classes=2)
    features = net.forward_features(batch())
    torch.testing.assert_close(features["image_features"], clip.vision_model(batch()["pixel_values"]).pooler_output)
    hidden = text(batch()["input_ids"], attention_mask=batch()["attention_mask"]).last_hidden_state
    torch.testing.assert_close(features["text_features"], hidden[:, 0])
    net.save_pretrained(tmp_path / "joint")
    again = JointFusion.from_pretrained(tmp_path / "joint").eval()
    assert torch.equal(again(batch())["prediction"], net(batch())["prediction"])


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="attention_over"):
        model(attention_over="all")
