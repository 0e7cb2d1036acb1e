"""The papers' recipes at toy size: generated corpora of a few dozen segments, untrained encoders, one or two epochs."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import (
    BertConfig,
    BertModel,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    DistilBertConfig,
    DistilBertModel,
    ResNetConfig,
    ResNetModel,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
)

from msakit.data import CORPORA
from msakit.data.corpus import Corpus, load_corpus
from msakit.encoders import load_encoder
from msakit.encoders.pretrain.common import word_pieces
from msakit.encoders.pretrain.resnet import image_processor
from msakit.features import FeatureStore, extract
from msakit.runs.store import Runs

SIZES = {
    "mini-mosi": {"train": 24, "valid": 8, "test": 12},
    "mini-posts": {"train": 24, "valid": 12, "test": 12},
    "mini-memes": {"train": 24, "valid": 12, "test": 12},
}
SEEDS = (0, 1)


def corpora(root: Path) -> dict[str, Corpus]:
    """name -> generated corpus."""
    for name, sizes in SIZES.items():
        module, function = CORPORA[name].split(":")
        (root / name).mkdir(parents=True)
        getattr(import_module(module), function)(root / name, 0, sizes)
    return {name: load_corpus(root / name) for name in SIZES}


def encoders(root: Path, texts: list[str]) -> dict[str, str]:
    """name -> folder of an untrained encoder with a tokenizer or processor of its own."""
    torch.manual_seed(0)
    tokenizer = word_pieces(texts, 400, 48)
    wide = {"initializer_range": 0.5}  # BERT's own 0.02 would give each text of so narrow a model the same vector
    small: dict[str, Any] = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    speech = WavLMConfig(
        **small,
        num_hidden_layers=1,
        conv_dim=(4,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
    )
    bert = BertConfig(**small, vocab_size=len(tokenizer), num_hidden_layers=2, max_position_embeddings=48, **wide)
    distilbert = DistilBertConfig(
        vocab_size=len(tokenizer), dim=8, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=48, **wide
    )
    clip = CLIPVisionConfig(**small, num_hidden_layers=1, image_size=16, patch_size=8)
    resnet = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    square = {"height": 16, "width": 16}
    made = {
        "bert": (BertModel(bert), tokenizer),
        "distilbert": (DistilBertModel(distilbert), tokenizer),
        "wavlm": (WavLMModel(speech), Wav2Vec2FeatureExtractor()),
        "clip": (CLIPVisionModel(clip), CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=square)),
        "resnet": (ResNetModel(resnet), image_processor()),
    }
    for name, parts in made.items():
        for part in parts:
            part.save_pretrained(root / name)
    words = sorted({word for text in texts for word in text.split()})
    (root / "word-vectors").mkdir()
    (root / "word-vectors" / "words.json").write_text(json.dumps(words))
    np.save(root / "word-vectors" / "vectors.npy", np.random.default_rng(0).normal(size=(len(words), 5)))
    return {name: str(root / name) for name in (*made, "word-vectors")}


def kim_stores(corpus: Corpus, root: Path) -> dict[str, FeatureStore]:
    """Frames with times: the acoustic set, and the visual set."""
    kinds = {"audio": "acoustic-set", "vision": "visual-set"}
    return {name: extract(corpus, load_encoder(kind), root) for name, kind in kinds.items()}


@dataclass(frozen=True)
class Recipe:
    """A recipe with everything but settings, seeds and the folder of runs filled in, and what it recorded."""

    call: Callable[..., Runs]
    runs: Runs
    root: Path


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every file, by relative path."""
    return {
        file.relative_to(root).as_posix(): (file.stat().st_mtime_ns, file.read_bytes())
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


def predictions(root: Path, paper: str, corpus: str, arm: str, seed: int, split: str = "test") -> pd.DataFrame:
    """One split of a run's predictions, read without the package."""
    table = pd.read_parquet(root / paper / corpus / arm / f"seed-{seed}.parquet")
    return table[table["split"] == split].reset_index(drop=True)
