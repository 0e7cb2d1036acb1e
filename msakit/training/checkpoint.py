"""A training run that is killed goes on from its last finished epoch, to the very result of an unbroken run.

A checkpoint is one file: weights, optimizer, schedule, moving average, best weights so far, the history, and every
source of random numbers, those of the batches' order included.  It is written whole or not at all, so that a kill while
writing leaves the one before; read with `weights_only=True`, which constructs tensors and plain containers and nothing
else; and removed when the fit it belongs to is done.  `resumable(stem)` names the files of every fit that a job makes.
"""

import logging
import pickle
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import count
from pathlib import Path
from types import FunctionType, NoneType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from msakit.files import replacing

log = logging.getLogger(__name__)

# How often a fit reports and, inside `resumable`, is checkpointed: a shorter one is sooner trained again than stored.
SECONDS_BETWEEN = 60.0

_paths: ContextVar[Iterator[Path] | None] = ContextVar("paths", default=None)


class CheckpointError(ValueError):
    """The file is no checkpoint of this fit."""


@contextmanager
def resumable(stem: Path) -> Iterator[None]:
    """Each fit inside is checkpointed about once a minute, at `stem`.1.checkpoint, `stem`.2.checkpoint, … in the order
    in which the fits begin.

    After a kill, call the same job again inside the same context: fits that had ended are trained again, the one under
    way goes on, with the result of an unbroken run.  Its batches, and a loss or an on_epoch that is more than a
    function, must have `state_dict` and `load_state_dict` (the batches of this package do).  The stem must change with
    whatever changes the result (put the run's key into it).
    """
    before = _paths.set(stem.with_name(f"{stem.name}.{number}.checkpoint") for number in count(1))
    try:
        yield
    finally:
        _paths.reset(before)


def next_path() -> Path | None:
    """The file of the next fit of the surrounding `resumable`; None outside of one."""
    paths = _paths.get()
    return next(paths) if paths is not None else None


class Checkpoint:
    """What a fit is made of, and its file.

    parts: name -> what has `state_dict` and `load_state_dict`.  None, lists and plain functions have nothing to
    remember and are left out, and so are a module's frozen weights: they are as they were built.

    Raises ValueError for a part whose state cannot be kept.
    """

    def __init__(self, path: Path, parts: Mapping[str, Any], accelerator: Accelerator) -> None:
        self.path, self.accelerator = Path(path), accelerator
        stateless = (list, tuple, NoneType, FunctionType, partial)
        self.parts = {name: part for name, part in parts.items() if not isinstance(part, stateless)}
        for name, part in self.parts.items():
            if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
                raise ValueError(
                    f"{name} is a {type(part).__name__} without state_dict and load_state_dict: a killed run could not "
                    "go on with the same result; add them, or train without a checkpoint"
                )

    def load(self) -> dict[str, Any] | None:
        """Put every part and all random numbers back, and return the notes; None if there is no file.

        Raises CheckpointError if the file is damaged or belongs to another model, optimizer or number of processes.
        """
        if not self.path.exists():
            return None
        try:
            stored = torch.load(self.path, map_location="cpu", weights_only=True)
            if stored["parts"].keys() != self.parts.keys() or len(stored["random"]) != self.accelerator.num_processes:
                raise ValueError(f"it holds {sorted(stored['parts'])} of {len(stored['random'])} processes")
            for name, part in self.parts.items():
                _load(part, stored["parts"][name])
        except (RuntimeError, ValueError, KeyError, TypeError, EOFError, OSError, pickle.UnpicklingError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(
                f"{self.path}: no checkpoint of this fit ({reason[0]}); delete it to train from the start"
            ) from error
        _set_random_state(stored["random"][self.accelerator.process_index])
        log.info("goes on from %s", self.path)
        notes: dict[str, Any] = stored["notes"]
        return notes

    def save(self, notes: dict[str, Any]) -> None:
        """Write the present state, with notes of tensors, numbers, strings, lists and dicts.  All processes call it."""
        sources = gather_object([_random_state()])
        if self.accelerator.is_main_process:
            parts = {name: _state(part) for name, part in self.parts.items()}
            with replacing(self.path) as partial:
                torch.save({"parts": parts, "random": sources, "notes": notes}, partial)
        self.accelerator.wait_for_everyone()

    def remove(self) -> None:
        """Delete the file, and what a kill while writing may have left beside it."""
        if self.accelerator.is_main_process:
            for path in (self.path, *self.path.parent.glob(f".{self.path.stem}.*.partial{self.path.suffix}")):
                path.unlink(missing_ok=True)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a module without its frozen weights, not copied."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value.detach() for name, value in model.state_dict().items() if name not in frozen}


def _state(part: Any) -> Any:
    return trained_state(part) if isinstance(part, nn.Module) else part.state_dict()


def _load(part: Any, state: Any) -> None:
    if not isinstance(part, nn.Module):
        part.load_state_dict(state)
        return
    different = state.keys() ^ trained_state(part).keys()
    if different:
        raise ValueError(f"{min(different)} is trained in one of the two models only")
    part.load_state_dict(state, strict=False)


def _random_state() -> dict[str, Any]:
    generator, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (generator, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    generator, keys, *rest = state["numpy"]
    np.random.set_state((generator, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
