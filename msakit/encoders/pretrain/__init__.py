"""Pre-training of the mini encoders: small models of the papers' families, really trained on an unlabelled pool.

    pretrain("bert", Path("build/encoders/bert"), pools={"mosi": ..., "posts": ...})

Each module states its objective and writes a `save_pretrained` folder with `pretraining.json` (objective, steps, seed,
seconds, held-out metric at initialisation and after training).
"""

import importlib
from pathlib import Path
from typing import Any

from msakit.suggestions import did_you_mean

PRETRAIN: dict[str, str] = {
    "bert": "msakit.encoders.pretrain.bert:train",
    "distilbert": "msakit.encoders.pretrain.distilbert:train",
    "wavlm": "msakit.encoders.pretrain.wavlm:train",
    "clip": "msakit.encoders.pretrain.clip:train",
    "resnet": "msakit.encoders.pretrain.resnet:train",
    "visualbert": "msakit.encoders.pretrain.visualbert:train",
    "word-vectors": "msakit.encoders.pretrain.word_vectors:train",
}

# What must be trained first: distilbert learns from bert, visualbert reads the grid of resnet.
NEEDS: dict[str, str] = {"distilbert": "bert", "visualbert": "resnet"}


def pretrain(name: str, out: Path | str, **options: Any) -> Path:
    """Train one mini encoder into `out` unless it is there already; returns `out`.

    Options go to the module's `train`: pools (dict of pool folders, "mosi" and "posts"), seed, steps, and the folder of
    the model in NEEDS under its own name (`bert=`, `resnet=`).
    """
    check_name(name)
    out = Path(out)
    if not (out / "pretraining.json").exists():
        module, _, function = PRETRAIN[name].partition(":")
        getattr(importlib.import_module(module), function)(out, **options)
    return out


def check_name(name: str) -> None:
    """Raises ValueError, with the choices, for a name that is not in PRETRAIN."""
    if name not in PRETRAIN:
        raise ValueError(
            f"nothing to pre-train is called {name!r}; choose one of {', '.join(PRETRAIN)}."
            f"{did_you_mean(name, PRETRAIN)}"
        )
