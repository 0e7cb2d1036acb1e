"""Tiny pools and one short pre-training of every encoder, shared by the tests of this folder."""

from pathlib import Path

import pytest
import torch
from encoder_pools import pool_mosi, pool_posts

from msakit.encoders.pretrain import PRETRAIN, pretrain

STEPS = {"bert": 25, "distilbert": 15, "wavlm": 15, "clip": 20, "resnet": 25, "visualbert": 25, "word-vectors": 1}


@pytest.fixture(scope="session")
def pools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pools")
    return {"mosi": pool_mosi(root / "mosi"), "posts": pool_posts(root / "posts")}


@pytest.fixture(scope="session")
def trained(pools: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """name -> folder of every mini encoder, a few steps old."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("pretrained")
    return {name: pretrain(name, root / name, pools=pools, steps=STEPS[name]) for name in PRETRAIN}
