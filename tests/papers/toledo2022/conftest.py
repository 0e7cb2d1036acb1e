"""Posts and memes of a few dozen segments, the posts labelled with numbers, untrained encoders, and what the recipe
records on them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    VisualBertConfig,
    VisualBertModel,
)

from msakit.data.corpus import Corpus, load_corpus
from msakit.encoders.pretrained import load_tokenizer
from msakit.papers import choose_arms
from msakit.papers.toledo2022 import recipe
from msakit.runs.store import Runs

SETTINGS = recipe.Settings(epochs=2, learning_rate=1e-3, batch_size=8, frozen_epochs=3, max_tokens=24)
SEEDS = (0, 1)
MAIN = ("text-only", "image-only", "late-fusion", "frozen", "joint", "clip-zero-shot", "clip-probe", "clip-fine-tuned",
        "visualbert")  # fmt: skip


@pytest.fixture(scope="session")
def corpora(tiny_corpora: dict[str, Corpus], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    """posts (three classes), memes (two), numbers (the posts' classes as -1, 0, 1 and a little more)."""
    folder = shutil.copytree(tiny_corpora["mini-posts"].folder, tmp_path_factory.mktemp("numbers") / "numbers")
    table = pd.read_csv(folder / "segments.csv", dtype=str, keep_default_na=False)
    value = {"negative": -1.0, "neutral": 0.0, "positive": 1.0}
    table["label"] = [value[label] + 0.01 * index for index, label in enumerate(table["label"])]
    table.drop(columns=["text_label", "image_label"]).to_csv(folder / "segments.csv", index=False)
    (folder / "oracle.csv").unlink()
    about = json.loads((folder / "corpus.json").read_text())
    about |= {"name": "numbers", "task": {"kind": "regression", "low": -3, "high": 3}}
    (folder / "corpus.json").write_text(json.dumps(about))
    names = {"posts": "mini-posts", "memes": "mini-memes"}
    return {name: tiny_corpora[other] for name, other in names.items()} | {"numbers": load_corpus(folder)}


@pytest.fixture(scope="session")
def encoders(tiny_encoders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """name -> an untrained encoder, as a notebook's parameter has it."""
    root = tmp_path_factory.mktemp("pairs")
    torch.manual_seed(1)
    tokenizer = load_tokenizer(tiny_encoders["distilbert"])
    size: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    words: dict[str, Any] = {"vocab_size": len(tokenizer), "max_position_embeddings": 48, "initializer_range": 0.5}
    ends = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    square = {"height": 16, "width": 16}
    clip = CLIPConfig(
        text_config=size | words | ends, vision_config=size | {"image_size": 16, "patch_size": 8}, projection_dim=6
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=square)
    for part in (CLIPModel(clip), CLIPProcessor(image_processor=processor, tokenizer=tokenizer)):
        part.save_pretrained(root / "clip")
    # The cells of the image encoder's first layer are as wide; no tokenizer of its own.
    VisualBertModel(VisualBertConfig(**size, **words, visual_embedding_dim=4)).save_pretrained(root / "visualbert")
    return {
        "text": tiny_encoders["distilbert"],
        "image": tiny_encoders["resnet"],
        "clip": str(root / "clip"),
        "visualbert": {
            "path": str(root / "visualbert"),
            "tokenizer": tiny_encoders["distilbert"],
            "grid": tiny_encoders["resnet"],
        },
    }


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="session")
def train(encoders: dict[str, Any], store: Path) -> Any:
    """A function that trains arms on a corpus; everything has a default but the corpus and the folder of runs."""

    def train(
        corpus: Corpus, root: Path, arms: Any = MAIN, own: Any = None, settings: Any = SETTINGS, seeds: Any = SEEDS,
        shares: Any = (), **options: Any,
    ) -> Runs:  # fmt: skip
        chosen = choose_arms("toledo2022", arms, own)
        low = recipe.low_resource(choose_arms("toledo2022", ["frozen"]), shares)
        given = {"features": store, **options}
        return recipe.run(corpus, chosen | low, encoders, settings, seeds, root, **given)

    return train


@pytest.fixture(scope="session")
def posts(train: Any, corpora: dict[str, Corpus], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All arms of the sound protocol on three classes, two seeds."""
    runs: Runs = train(corpora["posts"], tmp_path_factory.mktemp("posts") / "runs")
    return runs


@pytest.fixture(scope="session")
def folded(train: Any, corpora: dict[str, Corpus], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Both protocols, each switch, and shares, on two of four folds of two classes."""
    arms = ["joint*", "text-only*", "image-only*", "late-fusion*"]
    settings = SETTINGS.model_copy(update={"batch_size": 5, "least_batches": 3})
    root = tmp_path_factory.mktemp("folded") / "runs"
    runs: Runs = train(corpora["memes"], root, arms, settings=settings, seeds=[0], folds=4, test_folds=[0, 2],
                       shares=[10, 100], share_seeds=[0, 1, 2])  # fmt: skip
    return runs
