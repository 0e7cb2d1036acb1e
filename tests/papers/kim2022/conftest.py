"""A corpus of a few dozen segments with word times and arrays, an untrained BERT, and what the recipe records."""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertModel

from msakit.data.corpus import Corpus, load_corpus
from msakit.encoders.pretrain.common import word_pieces
from msakit.papers import choose_arms
from msakit.papers.kim2022 import recipe
from msakit.runs.store import Runs

WORDS = ["so", "this", "movie", "was", "really", "not", "bad", "wonderful", "um", "i", "would", "recommend", "it"]
SIZES = {"train": 24, "valid": 8, "test": 12}
CLASSES = ["negative", "neutral", "positive"]
KINDS = ["plain", "ambiguous", "sarcastic"]
# Vision at ten frames a second, audio at each word.
ENCODERS: dict[str, Any] = {
    "audio": {"array": "audio", "level": "word"},
    "vision": {"array": "vision", "level": "frame", "seconds": 0.1},
}
SETTINGS = recipe.Settings(epochs=2, batch_size=8, learning_rate=1e-2, average_decay=0.8, momentum_decay=0.8,
                           projection=4, frames=5, max_tokens=40)  # fmt: skip
ARMS = ("mag", "cms-clr-smooth-ema")
SEEDS = (0, 1)


def write_corpus(folder: Path, classes: bool = False) -> Corpus:
    """Two segments a video; the label follows the number of good words and the sound."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    segments, words, audio, vision = [], [], [], []
    for number in range(sum(SIZES.values())):
        split = ("train",) * 24 + ("valid",) * 8 + ("test",) * 12
        listed = list(random.choice(WORDS, random.integers(3, 9)))
        edges = np.concatenate([[0], random.uniform(0.15, 0.5, len(listed)).cumsum()]).round(3)
        sound = random.normal(size=5)
        value = float(np.clip(listed.count("wonderful") - listed.count("bad") + sound[0], -3, 3).round(1))
        name = f"s{number:02d}"
        segments.append(dict(segment_id=name, video_id=f"v{number // 2}", clip_id=number % 2, split=split[number],
                             label=CLASSES[int(np.digitize(value, [-0.5, 0.5]))] if classes else value,
                             text=" ".join(listed), kind=KINDS[number % 3]))  # fmt: skip
        words += [dict(segment_id=name, word_index=i, word=word, start=edges[i], end=edges[i + 1])
                  for i, word in enumerate(listed)]  # fmt: skip
        audio.append(np.pad(sound + random.normal(0, 0.3, (len(listed), 5)), ((0, 9 - len(listed)), (0, 0))))
        frames = int(edges[-1] * 10)
        vision.append(np.pad(random.normal(1, 1, (frames, 4)), ((0, 50 - frames), (0, 0))))
    pd.DataFrame(segments).to_csv(folder / "segments.csv", index=False)
    pd.DataFrame(words).to_csv(folder / "words.csv", index=False)
    ids = [row["segment_id"] for row in segments]
    np.savez(folder / "features.npz", segment_id=ids, audio=np.float32(audio), vision=np.float32(vision))
    task = {"kind": "classification", "classes": CLASSES} if classes else {"kind": "regression", "low": -3, "high": 3}
    (folder / "corpus.json").write_text(json.dumps({"name": folder.name, "generated": True, "task": task}))
    return load_corpus(folder)


def mag_pickle(path: Path, widths: dict[str, int], sizes: dict[str, int]) -> Path:
    """Lists of ((words, visual, acoustic), label, segment); some words without a face, one segment of one word."""
    random, content = np.random.default_rng(len(path.name)), {}
    for split, count in sizes.items():
        content[split] = []
        for k in range(count):
            words = list(random.choice(WORDS, 1 if k == 1 else random.integers(4, 9)))
            vision, audio = (random.normal(size=(len(words), widths[name])) for name in ("vision", "audio"))
            vision[0] = 0
            label = np.array([[round(random.uniform(-3, 3), 1)]])
            content[split].append(((words, vision, audio), label, f"{split}video{k // 2}[{k}]"))
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Labelled in [-3, 3]; read only."""
    return write_corpus(tmp_path_factory.mktemp("kim") / "numbers")


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The same in three classes; read only."""
    return write_corpus(tmp_path_factory.mktemp("kim") / "classes", classes=True)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of an untrained BERT of three layers with its tokenizer."""
    folder = tmp_path_factory.mktemp("kim") / "bert"
    torch.manual_seed(0)
    # Too few pieces for the longer words, which are split.
    tokenizer = word_pieces([" ".join(WORDS)] * 3, 50, 40)
    config = BertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=16, num_hidden_layers=3,
                        vocab_size=len(tokenizer), max_position_embeddings=40, initializer_range=0.5)  # fmt: skip
    for part in (BertModel(config), tokenizer):
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def encoders(bert: str) -> dict[str, Any]:
    return {"text": bert, **ENCODERS}


@dataclass(frozen=True)
class Recorded:
    """The recipe with everything but arms, settings, seeds and the folder of runs filled in, and what it recorded."""

    call: Callable[..., Runs]
    runs: Runs
    root: Path


@pytest.fixture(scope="session")
def kim(numbers: Corpus, encoders: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    root = tmp_path_factory.mktemp("kim") / "runs"
    call = partial(run, numbers, encoders)
    return Recorded(call, call(ARMS, SETTINGS, SEEDS, root), root)


def run(
    corpus: Corpus, encoders: dict[str, Any], arms: Any, settings: recipe.Settings, seeds: Any, root: Path, **more: Any
) -> Runs:
    """arms: names of the paper, or arms by name."""
    chosen = arms if isinstance(arms, dict) else choose_arms("kim2022", list(arms))
    return recipe.run(corpus, chosen, encoders, settings, seeds, root, **more)


def columns(run: Any, split: str, column: str) -> np.ndarray:
    """One column of a run's predictions of a split."""
    return run.split(split)[column].to_numpy()
