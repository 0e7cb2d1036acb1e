"""The three recipes, run once at toy size for all tests that look at what they record."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """name -> small generated corpus; read only."""
    from tiny_papers import corpora

    return corpora(tmp_path_factory.mktemp("tiny-corpora"))


@pytest.fixture(scope="session")
def tiny_encoders(tiny_corpora: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """name -> folder of an untrained encoder; read only."""
    from tiny_papers import encoders

    texts = [text for corpus in tiny_corpora.values() for text in corpus.table()["text"]]
    return encoders(tmp_path_factory.mktemp("tiny-encoders"), texts)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the runs of all three recipes; tests that change it work on a copy."""
    return tmp_path_factory.mktemp("tiny-runs") / "runs"


@pytest.fixture(scope="session")
def tiny_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny-features")


@pytest.fixture(scope="session")
def kim(tiny_corpora: dict[str, Any], tiny_encoders: dict[str, str], tiny_root: Path, tiny_features: Path) -> Any:
    from tiny_papers import KIM, KIM_ARMS, SEEDS, Recipe, kim2022, kim_stores

    corpus = tiny_corpora["mini-mosi"]
    call = partial(kim2022.run, corpus, tiny_encoders["bert"], kim_stores(corpus, tiny_features))
    return Recipe(call, call(KIM, KIM_ARMS, SEEDS, tiny_root), tiny_root)
