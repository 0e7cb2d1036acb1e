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
from msakit.notebook import resolve, settings_of, template_declarations
from msakit.papers import facts
from msakit.papers.toledo2022.learners import Settings
from msakit.papers.toledo2022.recipe import recipe as toledo2022

ROOT = Path(__file__).parents[2]
POSTS = 60
WORDS = ("love", "hate", "sun", "rain", "my", "your", "cake", "song")
# What is changed: paths (below) and these sizes.
SIZES = {"epochs": 1, "patience": 1, "frozen_epochs": 1, "batch_size": 4, "max_tokens": 16, "least_batches": 1}


@pytest.fixture(scope="module")
def profile():
    text = (ROOT / "workflow/profiles/paper.yaml").read_text()
    return text, yaml.safe_load(text)["notebooks"]["toledo2022"]["parameters"]


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
    """parameter of the profile -> folder."""
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
        "text_encoder": (
            DistilBertModel(DistilBertConfig(**vocabulary, dim=8, n_layers=1, n_heads=2, hidden_dim=16)),
            tokenizer,
        ),
        "image_encoder": (ResNetModel(resnet), ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.875)),
        "clip": (CLIPModel(clip), CLIPProcessor(image_processor=processor, tokenizer=tokenizer)),
        # As published, without a tokenizer; its regions are as wide as the image encoder's last grid.
        "visualbert": (VisualBertModel(VisualBertConfig(**size, **vocabulary, visual_embedding_dim=16)),),
        "visualbert_tokenizer": (BertModel(BertConfig(**size, **vocabulary)), tokenizer),
    }
    for name, parts in made.items():
        for part in parts:
            part.save_pretrained(root / name)
    return {name: str(root / name) for name in made}


@pytest.fixture(scope="module")
def ran(profile, tmp_path_factory):
    """corpus of the profile -> its runs."""
    text, given = profile
    root = tmp_path_factory.mktemp("paper")
    paths = checkpoints(root / "weights")
    assert {name for name in given if name in paths} == set(paths)
    makers = {"mvsa-multiple": mvsa, "hateful-memes": hateful_memes}
    # The profile's own comments say how its corpora are imported.
    imports = re.findall(r"`msakit import (\S+) \S+ (\S+)((?: -o \S+=\S+)*)`", text)
    imports = [found for found in imports if found[0] in makers]
    assert [out for _, out, _ in imports] == given["corpora"]
    done = {}
    for name, out, options in imports:
        makers[name](root / name)
        wanted = {key: yaml.safe_load(value) for key, value in re.findall(r"-o (\S+)=(\S+)", options)}
        import_corpus(name, root / name, root / out, **wanted)
        changed = given | paths | {"corpora": [str(root / out)], "seeds": [0], "share_seeds": [0], "shares": [1, 100]}
        changed["settings"] = given["settings"] | SIZES
        all_of_them = resolve(template_declarations(ROOT / "notebooks/experiments/toledo2022.ipynb"), changed)
        p = all_of_them
        encoders = toledo2022.Encoders(
            p["text_encoder"], p["image_encoder"], p["clip"], p["visualbert"], p["visualbert_tokenizer"]
        )
        done[out] = toledo2022.run(
            load_corpus(root / out), encoders, settings_of(Settings, p["settings"]), p["arms"], p["seeds"],
            root / "results/runs", folds=p["folds"], shares=p["shares"], share_arms=p["share_arms"],
            share_seeds=p["share_seeds"],
        )  # fmt: skip
    return done


def test_every_arm_of_the_profile_runs_on_every_corpus(ran, profile):
    _, given = profile
    known = facts("toledo2022")["arms"]
    assert set(known) <= set(given["arms"])
    shares = {f"{arm}.share-{percent}" for arm in ("joint", "frozen", "clip-probe") for percent in (1, 100)}
    for runs in ran.values():
        assert set(runs.frame["arm"]) == {*given["arms"], *shares, "constant"}
        for run in runs:
            table = runs.predictions(run)
            columns = [name for name in table if name.startswith("p_")]
            assert np.isfinite(table[columns]).all(axis=None), run.record.arm
            np.testing.assert_allclose(table[columns].sum(axis=1), 1, atol=1e-5)


def test_both_protocols_are_there(ran):
    for runs in ran.values():
        protocols = set(runs.frame["protocol"])
        assert protocols == {
            "corrected",
            "as_published",
            *(f"as_published_{s}" for s in ("folds", "stop", "drop_last", "attention", "threshold")),
        }


def test_the_corpora_are_the_papers_in_small(ran):
    three, two = ran.values()
    assert [sum(run.record.corpus["counts"].values()) for runs in (three, two) for run in list(runs)[:1]] == [
        POSTS,
        POSTS,
    ]
    (run,) = two.select(arm="joint")
    assert list(two.predictions(run).filter(like="p_")) == ["p_harmless", "p_hateful"]
    (run,) = three.select(arm="joint")
    assert list(three.predictions(run).filter(like="p_")) == ["p_negative", "p_neutral", "p_positive"]
    assert {"text_label", "image_label"} <= set(three.predictions(run))
    assert "examples" not in run.record.artifacts  # what people posted is not stored


def test_the_profile_keeps_the_authors_training(profile):
    """What their code sets, and this kit's defaults repeat."""
    settings = settings_of(Settings, profile[1]["settings"])
    for name in ("epochs", "patience", "learning_rate", "decay_per_epoch", "weight_decay", "batch_size", "max_tokens"):
        assert getattr(settings, name) == getattr(Settings(), name), name
    assert (settings.epochs, settings.patience, settings.learning_rate, settings.batch_size) == (30, 2, 3e-5, 32)
    assert profile[1]["folds"] == len(profile[1]["seeds"]) == 10
    assert profile[1]["shares"] == [1, 5, 10, 25, 50, 100]
    assert len(profile[1]["share_seeds"]) >= 3
