"""The `paper` profile of Toledo & Marcacini runs: every arm, with stand-ins for the data and the weights alone.

The corpora are a few posts in the published layouts, brought in by the importers that the profile names; the
checkpoints have the published architectures, a few units wide and untrained; one epoch.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    ConvNextImageProcessorPil,
    DistilBertConfig,
    DistilBertModel,
    ResNetConfig,
    ResNetModel,
    VisualBertConfig,
    VisualBertModel,
)

from msakit.data.corpus import load_corpus
from msakit.data.importers import import_corpus
from msakit.encoders.pretrain.common import word_pieces
from msakit.notebook import template_declarations, with_preset
from msakit.papers import arms_of, choose_arms
from msakit.papers.toledo2022 import recipe
from msakit.profiles import load_profile
from msakit.runs.arm import select
from msakit.strict import parse

ROOT = Path(__file__).parents[3]
POSTS = 60
WORDS = ("love", "hate", "sun", "rain", "my", "your", "cake", "song")
# What is changed: paths (below) and these sizes.
SIZES = {"epochs": 1, "patience": 1, "frozen_epochs": 1, "batch_size": 4, "max_tokens": 16, "least_batches": 1}


@pytest.fixture(scope="module")
def profile():
    return (ROOT / "workflow/profiles/paper.yaml").read_text(), load_profile("paper").parameters("toledo2022")


def picture(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(shade).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def line(number):
    return " ".join(np.random.default_rng(number).choice(WORDS, 5))


def mvsa(folder):
    rows = ["ID\ttext,image\ttext,image\ttext,image"]
    for k in range(POSTS):
        label = ("negative", "neutral", "positive")[k % 3]
        rows.append(f"{k}\t{label},{label}\t{label},neutral\t{label},{label}")
        picture(folder / f"data/{k}.jpg", k)
        (folder / f"data/{k}.txt").write_bytes(line(k).encode())
    (folder / "labelResultAll.txt").write_text("\n".join(rows))


def hateful_memes(folder):
    for name, start, count in (("train", 0, POSTS - 12), ("dev_seen", POSTS - 12, 12)):
        memes = [
            {"id": k, "img": f"img/{k:05d}.png", "label": k % 2, "text": line(k)} for k in range(start, start + count)
        ]
        for meme in memes:
            picture(folder / meme["img"], meme["id"])
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, memes)))


def checkpoints(root):
    """The encoders of the profile, each from a folder of that name."""
    torch.manual_seed(0)
    tokenizer = word_pieces([line(k) for k in range(POSTS)], 60, 24)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vocabulary = {"vocab_size": len(tokenizer), "max_position_embeddings": 24}
    ends = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    square = {"height": 16, "width": 16}
    clip = CLIPConfig(
        text_config=size | vocabulary | ends, vision_config=size | {"image_size": 16, "patch_size": 8}, projection_dim=8
    )
    resnet = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8, 12, 16], depths=[1, 1, 1, 1], layer_type="bottleneck")
    processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=square)
    made = {
        "text": (
            DistilBertModel(DistilBertConfig(**vocabulary, dim=8, n_layers=1, n_heads=2, hidden_dim=16)),
            tokenizer,
        ),
        "image": (ResNetModel(resnet), ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.875)),
        "clip": (CLIPModel(clip), CLIPProcessor(image_processor=processor, tokenizer=tokenizer)),
        # As published, without a tokenizer; its regions are as wide as the image encoder's last grid.
        "visualbert": (VisualBertModel(VisualBertConfig(**size, **vocabulary, visual_embedding_dim=16)),),
        "tokenizer": (BertModel(BertConfig(**size, **vocabulary)), tokenizer),
    }
    for name, parts in made.items():
        for part in parts:
            part.save_pretrained(root / name)
    given = {name: str(root / name) for name in ("text", "image", "clip")}
    parts = {"path": "visualbert", "tokenizer": "tokenizer", "grid": "image"}
    return given | {"visualbert": {part: str(root / name) for part, name in parts.items()}}


@pytest.fixture(scope="module")
def ran(profile, tmp_path_factory):
    """corpus of the profile -> its runs."""
    text, given = profile
    root = tmp_path_factory.mktemp("paper")
    encoders = checkpoints(root / "weights")
    assert set(encoders) == set(given["encoders"])
    assert set(encoders["visualbert"]) == set(given["encoders"]["visualbert"])
    makers = {"mvsa-multiple": mvsa, "hateful-memes": hateful_memes}
    # The profile's own comments say how its corpora are imported.
    imports = re.findall(r"`msakit import (\S+) \S+ (\S+)((?: -o \S+=\S+)*)`", text)
    imports = [found for found in imports if found[0] in makers]
    assert [out for _, out, _ in imports] == given["corpora"]
    declared = template_declarations(ROOT / "notebooks/experiments/toledo2022.ipynb")
    p = with_preset(declared, {name: each.default for name, each in declared.items()}, given, "paper")
    chosen = choose_arms("toledo2022", p["arms"])
    low = recipe.low_resource(select(arms_of("toledo2022"), p["share_arms"]), [1, 100])
    settings = parse(recipe.Settings, p["settings"] | SIZES, "settings")
    done = {}
    for name, out, options in imports:
        makers[name](root / name)
        wanted = {key: yaml.safe_load(value) for key, value in re.findall(r"-o (\S+)=(\S+)", options)}
        import_corpus(name, root / name, root / out, **wanted)
        done[out] = recipe.run(
            load_corpus(root / out), chosen | low, encoders, settings, p["seeds"], root / "results/runs",
            folds=p["folds"], test_folds=[0], share_seeds=[0], features=root / "features",
        )  # fmt: skip
    return done


def test_every_arm_of_the_paper_runs_on_every_corpus(ran):
    shares = {f"{arm}.share-{percent}" for arm in ("joint", "frozen", "clip-probe") for percent in (1, 100)}
    for runs in ran.values():
        assert set(runs.arms) == {*arms_of("toledo2022"), *shares, "constant"}
        for run in runs:
            columns = [name for name in run.predictions if name.startswith("p_")]
            assert np.isfinite(run.predictions[columns]).all(axis=None), run.record.arm
            np.testing.assert_allclose(run.predictions[columns].sum(axis=1), 1, atol=1e-5)


def test_both_protocols_are_there(ran):
    for runs in ran.values():
        assert set(runs.frame["protocol"]) == {"corrected", *recipe.facts("toledo2022")["protocols"]}


def test_the_corpora_are_the_papers_in_small(ran):
    three, two = ran.values()
    assert [sum(runs.runs[0].record.corpus.counts.values()) for runs in (three, two)] == [POSTS, POSTS]
    (run,) = two.select(arm="joint")
    assert list(run.predictions.filter(like="p_")) == ["p_harmless", "p_hateful"]
    (run,) = three.select(arm="joint")
    assert list(run.predictions.filter(like="p_")) == ["p_negative", "p_neutral", "p_positive"]
    assert {"text_label", "image_label"} <= set(run.predictions)
    assert "examples" not in run.record.artifacts  # what people posted is not stored


def test_the_profile_keeps_the_authors_training(profile):
    """What their code sets, and this kit's defaults repeat."""
    given = profile[1]
    settings = parse(recipe.Settings, given["settings"], "settings")
    for name in ("epochs", "patience", "learning_rate", "decay_per_epoch", "weight_decay", "batch_size", "max_tokens"):
        assert getattr(settings, name) == getattr(recipe.Settings(), name), name
    assert (settings.epochs, settings.patience, settings.learning_rate, settings.batch_size) == (30, 2, 3e-5, 32)
    assert given["folds"] == 10
    assert given.get("test_folds") is None
    assert given["shares"] == [1, 5, 10, 25, 50, 100]
    assert len(given["share_seeds"]) >= 3
