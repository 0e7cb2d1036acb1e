"""Videos of a few dozen segments, labelled with numbers or with classes, untrained encoders, and what the recipe
records on them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from msakit.data.corpus import Corpus, load_corpus
from msakit.features import FeatureStore
from msakit.papers import choose_arms
from msakit.papers.ando2022 import recipe
from msakit.papers.ando2022.inputs import Inputs, extract_all
from msakit.runs.store import Runs

SETTINGS = recipe.Settings(
    width=8, embedding=4, heads=2, epochs=2, warmup_epochs=1, cosine_epochs=2, learning_rate=3e-3
)
SEEDS = (0, 1)
# Every kind of arm once; there are no conventional features of vision.
ARMS = (
    "conventional-text", "conventional-audio", "conventional-text-audio", "convbert-text-audio", "layer*",
    "output-text", "output-text-audio-vision", "best-text", "best-audio", "best-vision", "best-text-audio-vision*",
    "weighted-text", "weighted-text-audio-vision",
)  # fmt: skip
CLASSES = ["negative", "neutral", "positive"]


@dataclass(frozen=True)
class Study:
    """One corpus, its features, and the recipe on it; `runs` is what all arms of ARMS recorded under `root`."""

    corpus: Corpus
    stores: dict[str, FeatureStore]
    root: Path
    runs: Runs | None = None

    def run(self, root: Path, arms: Any = ARMS, settings: Any = SETTINGS, seeds: Any = SEEDS, own: Any = None,
            variants: Any = None, **options: Any) -> Runs:  # fmt: skip
        """Run arms given by patterns; settings may be what differs from SETTINGS."""
        settings = SETTINGS.model_copy(update=settings) if isinstance(settings, dict) else settings
        lacks = Inputs(self.stores, options.get("layers")).lacks
        chosen = choose_arms("ando2022", arms, own, variants, lacks=lacks)
        return recipe.run(self.corpus, chosen, self.stores, settings, seeds, root, **options)


@pytest.fixture(scope="session")
def features_of(tiny_encoders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Corpus], Any]:
    """Feature stores of a corpus, by the name of the encoder."""
    root = tmp_path_factory.mktemp("ando-features")
    encoders = {
        "text": {"kind": "text", "path": tiny_encoders["bert"]},
        "audio": {"kind": "audio", "path": tiny_encoders["wavlm"], "every": 5},
        "vision": {"kind": "vision", "path": tiny_encoders["clip"], "face_size": 32},
        "conventional-text": f"bag-of-embeddings:{tiny_encoders['word-vectors']}",
        "conventional-audio": "acoustic-set",
    }
    return lambda corpus: extract_all(corpus, encoders, root)


@pytest.fixture(scope="session")
def ando(tiny_corpora: dict[str, Corpus], features_of: Callable[[Corpus], Any],
         tmp_path_factory: pytest.TempPathFactory) -> Study:  # fmt: skip
    """All arms on numbers, on the corpus's own split."""
    corpus = tiny_corpora["mini-mosi"]
    study = Study(corpus, features_of(corpus), tmp_path_factory.mktemp("ando") / "runs")
    return Study(corpus, study.stores, study.root, study.run(study.root))


@pytest.fixture(scope="session")
def classes(tiny_corpora: dict[str, Corpus], features_of: Callable[[Corpus], Any],
            tmp_path_factory: pytest.TempPathFactory) -> Study:  # fmt: skip
    """The same videos with three classes for labels; nothing is run yet."""
    folder = shutil.copytree(tiny_corpora["mini-mosi"].folder, tmp_path_factory.mktemp("classes") / "classes")
    table = pd.read_csv(folder / "segments.csv", dtype=str, keep_default_na=False)
    table["label"] = pd.cut(table["label"].astype(float), [-4, -0.5, 0.5, 4], labels=CLASSES).astype(str)
    table.to_csv(folder / "segments.csv", index=False)
    (folder / "oracle.csv").unlink()
    about = json.loads((folder / "corpus.json").read_text())
    about |= {"name": "classes", "task": {"kind": "classification", "classes": CLASSES}}
    (folder / "corpus.json").write_text(json.dumps(about))
    corpus = load_corpus(folder)
    return Study(corpus, features_of(corpus), tmp_path_factory.mktemp("ando-classes") / "runs")
