"""Every objective improves on its initialisation, and every saved folder opens by `from_pretrained`."""

import json

import numpy as np
import pytest
import torch
from encoder_pools import sentences
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, VisualBertForPreTraining

from msakit.encoders.outputs import grid
from msakit.encoders.pretrain import PRETRAIN, pretrain
from msakit.encoders.pretrain.bert import masked_loss
from msakit.encoders.pretrain.common import mask_tokens
from msakit.encoders.pretrained import load_frozen, load_image_processor


def test_every_recipe_is_tried(trained):
    assert len(PRETRAIN) == 7
    assert set(trained) == set(PRETRAIN)


@pytest.mark.parametrize("name", PRETRAIN)
def test_objective_improves_on_initialisation(trained, name):
    record = json.loads((trained[name] / "pretraining.json").read_text())
    held_out = record["held_out"]
    gain = held_out["after"] - held_out["before"]
    assert gain * (1 if held_out["better"] == "up" else -1) > 0, held_out
    assert record["seed"] == 0
    assert record["objective"]


@pytest.mark.parametrize("name", ["bert", "distilbert", "clip", "visualbert"])
def test_tokenizer_is_saved_whole(trained, name):
    tokenizer = AutoTokenizer.from_pretrained(trained[name])
    text = "The film was great" if name in ("bert", "distilbert") else "a red square"
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
    assert tokens == ["[CLS]", *text.lower().split(), "[SEP]"]


@pytest.mark.parametrize(
    ("name", "layers"), [("bert", 5), ("distilbert", 4), ("wavlm", 5), ("clip", 5), ("resnet", 5), ("visualbert", 4)]
)
def test_saved_folder_opens(trained, name, layers):
    model = AutoModel.from_pretrained(trained[name], use_safetensors=True).eval()
    if name == "visualbert":
        pixels = load_image_processor(trained[name] / "resnet")(
            images=[np.zeros((30, 40, 3), np.uint8)], return_tensors="pt"
        )["pixel_values"]
        cells = grid(load_frozen(trained[name] / "resnet"), pixels, model.config.visual_embedding_dim)
        output = model(input_ids=torch.tensor([[2, 3]]), visual_embeds=cells, output_hidden_states=True)
        assert output.last_hidden_state.shape == (1, 2 + 16, 64)
    elif name in ("clip", "resnet"):
        processor = AutoImageProcessor.from_pretrained(trained[name], backend="pil")
        pixels = processor(images=[np.zeros((30, 40, 3), np.uint8)], return_tensors="pt")["pixel_values"]
        assert pixels.shape == (1, 3, 64, 64)
        tower = getattr(model, "vision_model", model)
        output = tower(pixel_values=pixels, output_hidden_states=True)
    elif name == "wavlm":
        output = model(torch.zeros(1, 4000), output_hidden_states=True)
        assert output.last_hidden_state.shape == (1, 12, 64)  # 1 + (4000 - 400) // 320
    else:
        output = model(input_ids=torch.tensor([[2, 5, 3]]), output_hidden_states=True)
    assert len(output.hidden_states) == layers


def test_visualbert_heads_are_saved(trained):
    model = VisualBertForPreTraining.from_pretrained(trained["visualbert"])
    again = VisualBertForPreTraining.from_pretrained(trained["visualbert"])
    assert torch.equal(model.cls.seq_relationship.weight, again.cls.seq_relationship.weight)


def test_masks_follow_the_recipe(trained):
    tokenizer = AutoTokenizer.from_pretrained(trained["bert"])
    ids = torch.randint(5, len(tokenizer), (200, 40), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, -1] = 2, 3
    corrupted, labels = mask_tokens(ids, tokenizer, torch.Generator().manual_seed(0))
    chosen = labels >= 0
    assert not chosen[:, 0].any()
    assert not chosen[:, -1].any()
    assert abs(chosen[:, 1:-1].float().mean() - 0.15) < 0.01
    assert abs((corrupted[chosen] == tokenizer.mask_token_id).float().mean() - 0.8) < 0.03
    assert torch.equal(corrupted[~chosen], ids[~chosen])
    assert torch.equal(labels[chosen], ids[chosen])


def test_same_seed_same_weights(pools, trained, tmp_path):
    again = pretrain("bert", tmp_path / "bert", pools=pools, steps=25)
    assert (again / "model.safetensors").read_bytes() == (trained["bert"] / "model.safetensors").read_bytes()


def test_finished_folder_is_kept_and_a_broken_one_replaced(pools, trained, tmp_path):
    out = tmp_path / "word-vectors"
    out.mkdir()
    (out / "vectors.npy").write_bytes(b"half")  # no pretraining.json: not believed
    pretrain("word-vectors", out, pools=pools)
    changed = (out / "vectors.npy").stat().st_mtime_ns
    pretrain("word-vectors", out, pools=pools)
    assert (out / "vectors.npy").stat().st_mtime_ns == changed
    assert np.array_equal(np.load(out / "vectors.npy"), np.load(trained["word-vectors"] / "vectors.npy"))


def test_unknown_name_lists_the_choices(tmp_path):
    with pytest.raises(ValueError, match=r"choose one of bert, .*Did you mean 'wavlm'"):
        pretrain("wavml", tmp_path / "x", pools={})


@torch.no_grad()
def test_masked_loss_is_that_of_the_saved_model(trained):
    from transformers import BertForMaskedLM

    tokenizer = AutoTokenizer.from_pretrained(trained["bert"])
    model = BertForMaskedLM.from_pretrained(trained["bert"])
    ids = tokenizer(sentences(64, seed=5))["input_ids"]
    after = json.loads((trained["bert"] / "pretraining.json").read_text())["held_out"]["after"]
    assert abs(masked_loss(model, ids, tokenizer, 0) - after) < 0.7
