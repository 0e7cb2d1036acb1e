"""Sizes small enough for tests, and a maker of corpora by name."""

from importlib import import_module
from pathlib import Path

from msakit.data import CORPORA

SMALL = {
    "mini-mosi": {"train": 12, "valid": 4, "test": 8},
    "mini-posts": {"train": 12, "valid": 4, "test": 8},
    "mini-memes": {"train": 12, "valid": 4, "test": 8},
    "mini-pool-mosi": {"pool": 6, "texts": 40},
    "mini-pool-posts": {"scenes": 12, "faces": 6, "texts": 40},
}


def make(name: str, folder: Path, seed: int = 0, sizes: dict[str, int] | None = None) -> Path:
    """Generate a corpus by its name."""
    module, function = CORPORA[name].split(":")
    folder.mkdir(parents=True)
    getattr(import_module(module), function)(folder, seed, sizes or SMALL[name])
    return folder
