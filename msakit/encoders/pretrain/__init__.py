"""Pre-training of the mini encoders: small models of the papers' families, really trained on an unlabelled pool.

    pretrain("bert", Path("build/encoders/bert"), pools={"mosi": ..., "posts": ...})

Each module states its objective as a `Task`; one loop minimises it and writes a `save_pretrained` folder with
`pretraining.json` (objective, steps, seed, seconds, held-out metric at initialisation and after training).
"""

import importlib
from pathlib import Path

from msakit.suggestions import did_you_mean

PRETRAIN: dict[str, str] = {
    "bert": "msakit.encoders.pretrain.bert:task",
    "distilbert": "msakit.encoders.pretrain.distilbert:task",
    "wavlm": "msakit.encoders.pretrain.wavlm:task",
    "clip": "msakit.encoders.pretrain.clip:task",
    "resnet": "msakit.encoders.pretrain.resnet:task",
    "visualbert": "msakit.encoders.pretrain.visualbert:task",
    "word-vectors": "msakit.encoders.pretrain.word_vectors:task",
}

# What must be trained first: distilbert learns from bert, visualbert reads the grid of resnet.
NEEDS: dict[str, str] = {"distilbert": "bert", "visualbert": "resnet"}


def pretrain(name: str, out: Path | str, *, pools: dict[str, Path], seed: int = 0, steps: int | None = None) -> Path:
    """Train one mini encoder into `out` unless it is there already; returns `out`.

    The model in NEEDS lies beside `out` under its own name; `pools` are the pool folders "mosi" and "posts"; without
    `steps` it trains as many as the task says.
    """
    check_name(name)
    out = Path(out)
    if not (out / "pretraining.json").exists():
        from msakit.encoders.pretrain.common import run

        module, _, function = PRETRAIN[name].partition(":")
        needs = [out.with_name(NEEDS[name])] if name in NEEDS else []
        run(getattr(importlib.import_module(module), function), needs, out, pools, seed, steps)
    return out


def check_name(name: str) -> None:
    """Raises ValueError, with the choices, for a name that is not in PRETRAIN."""
    if name not in PRETRAIN:
        raise ValueError(
            f"nothing to pre-train is called {name!r}; choose one of {', '.join(PRETRAIN)}."
            f"{did_you_mean(name, PRETRAIN)}"
        )
