"""The contract of a model (:mod:`msakit.models`), run on any class: ``msakit check-model module:Class``.

Each check builds the class on tiny inputs of the kinds that it takes, with untrained encoders made for it, and compares
outputs; for regression and for classes.
"""

import copy
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.utils import logging as transformers_logging

from msakit.encoders.pretrained import encoder_from_config
from msakit.models import Frames, Grid, Input, Pretrained, TokenVectors, model_class
from msakit.models.layers.packed import Packed
from msakit.models.layers.word_pieces import word_positions

TASKS: tuple[int | None, ...] = (None, 2, 3)  # regression, and numbers of classes
NAMES = ("INPUTS", "build", "forward_features", "forward_head", "forward", "save_pretrained", "from_pretrained")
TOKENS = (7, 3, 13, 5)  # of each segment, the first and the last of them special
STEPS = 6
# Another prime for each axis, so that swapped axes cannot go unnoticed.
DIMS = {"text": 7, "audio": 5, "vision": 11, "image": 11}
_SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 19,
    "initializer_range": 0.5,  # so that outputs differ enough between segments to show what changes them
}
_WORDS = {"vocab_size": 31, "max_position_embeddings": 29}
_PIXELS = {"image_size": 16, "patch_size": 8}
ENCODERS: dict[str, dict[str, Any]] = {
    "text": {"model_type": "bert", **_SMALL, **_WORDS},
    "image": {"model_type": "vit", **_SMALL, **_PIXELS},
    "clip": {
        "model_type": "clip",
        "text_config": {**_SMALL, **_WORDS, "bos_token_id": 0, "eos_token_id": 1},
        "vision_config": {**_SMALL, **_PIXELS},
        "projection_dim": 7,
    },
    "visual_bert": {"model_type": "visual_bert", **_SMALL, **_WORDS, "visual_embedding_dim": 13},
}


@dataclass(frozen=True)
class Result:
    """One check of a class: on which task, and why it failed ("" where it passed)."""

    check: str
    task: str
    reason: str = ""

    @property
    def passed(self) -> bool:
        return not self.reason

    def __str__(self) -> str:
        return f"{self.check} ({self.task}): {self.reason or 'passed'}"


class ContractError(AssertionError):
    """A promise of the contract that a model breaks."""


@dataclass(frozen=True)
class Case:
    """A class with inputs that it can be built from, a task, and segments to feed it."""

    kind: type
    inputs: dict[str, Input]
    n_classes: int | None
    args: dict[str, Any] = field(default_factory=dict)

    def build(self, seed: int = 11) -> Any:
        torch.manual_seed(seed)
        return self.kind.build(self.inputs, self.n_classes, **self.args)  # type: ignore[attr-defined]

    @cached_property
    def model(self) -> Any:
        """One for all checks, which leave its weights as they are."""
        return self.build()

    def batch(self, rows: Sequence[int] = range(len(TOKENS)), without: str = "") -> dict[str, Any]:
        """These segments, in this order; without: a modality whose frames are left out."""
        batch: dict[str, Any] = {"index": torch.tensor(rows), "label": torch.zeros(len(rows))}
        for modality, given in self.inputs.items():
            batch |= _served(modality, given, rows)
        if without:
            frames, lengths, _ = batch[without]
            batch[without] = Packed(frames[..., :0, :], torch.zeros_like(lengths))
        return batch


def check_model(reference: str) -> list[Result]:
    """Every check of the contract on the class that `reference` names (see :func:`msakit.models.model_class`).

    A class is checked with all its modalities at once, and once more where one of them comes in several kinds. Where
    it lacks a part of the contract, or cannot be built, that is the only result.
    """
    try:
        kind = model_class(reference)
        missing = [name for name in NAMES if not hasattr(kind, name)]
        _require(not missing, f"it has no {', '.join(missing)}; see the contract in msakit.models")
    except (ContractError, ValueError) as error:
        return [Result("class", reference, str(error))]
    with cases(kind) as found:
        return [Result(check, name, failure(check, case)) for name, case in found.items() for check in CHECKS]


@contextmanager
def cases(kind: Any) -> Iterator[dict[str, Case]]:
    """By name of the task and the kinds of inputs, the cases of a class; its encoders are there inside the block."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    # The hub's mixin prints that it loads.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        found = {}
        # The first kind of input of each modality, then the second where there is one, …
        for number in range(max(map(len, kind.INPUTS.values()))):
            kinds = {modality: each[min(number, len(each) - 1)] for modality, each in kind.INPUTS.items()}
            inputs = _inputs(kind, kinds, Path(folder))
            named = ", ".join(f"{modality} {each.__name__}" for modality, each in kinds.items())
            for n_classes in TASKS:
                task = "regression" if n_classes is None else f"{n_classes} classes"
                found[f"{task}; {named}"] = Case(kind, inputs, n_classes)
        try:
            yield found
        finally:
            if shown:
                transformers_logging.enable_progress_bar()


def failure(check: str, case: Case) -> str:
    """Why a check fails; "" where it passes."""
    try:
        CHECKS[check](case)
    except ContractError as error:
        return str(error)
    except Exception as error:  # whatever a user's class raises is the result of the check
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    return ""


def shapes(case: Case) -> None:
    """`modalities` and "prediction" are as the contract says, of features and head apart and of both in one."""
    model, batch = case.model.eval(), case.batch()
    same = sorted(model.modalities) == sorted(case.inputs)
    _require(same, f"modalities are {model.modalities}, but it was built from {tuple(case.inputs)}")
    outputs = model(batch)
    rows = len(batch["index"])
    wanted: list[tuple[int, ...]] = [(rows,)] if case.n_classes is None else [(rows, case.n_classes)]
    wanted += [(rows, 1)] if case.n_classes == 2 else []
    found = tuple(outputs["prediction"].shape)
    _require(found in wanted, f"prediction has the shape {found}, not {' or '.join(map(str, wanted))}")
    gates = tuple(outputs["gates"].shape) if "gates" in outputs else (rows, len(case.inputs))
    _require(gates == (rows, len(case.inputs)), f"gates have the shape {gates}, not {(rows, len(case.inputs))}")
    apart = model.forward_head(model.forward_features(batch))["prediction"]
    _same(apart, outputs["prediction"], outputs["prediction"], "features and head apart")


def finite(case: Case) -> None:
    """Everything that comes out is finite, in training and in evaluation."""
    for training in (True, False):
        for name, value in case.model.train(training)(case.batch()).items():
            _require(value.isfinite().all(), f"{name} is not finite")


def gradients(case: Case) -> None:
    """Every trainable parameter gets a finite gradient from what comes out."""
    model = case.model.train()
    model.zero_grad()
    sum(value.float().square().sum() for value in model(case.batch()).values()).backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    _require(trained, "no parameter is trainable")
    without = [name for name, parameter in trained.items() if parameter.grad is None]
    _require(not without, f"no gradient reaches {', '.join(without[:5])}: leave them out, or freeze them")
    wrong = [name for name, parameter in trained.items() if not parameter.grad.isfinite().all()]
    _require(not wrong, f"the gradient of {', '.join(wrong[:5])} is not finite")


def padding(case: Case) -> None:
    """Segments have the same outputs alone as beside longer ones, and whatever ids stand in the padding of a text."""
    model, together = case.model.eval(), case.batch()
    outputs = model(together)["prediction"]
    for row in together["index"].tolist():
        _same(model(case.batch([row]))["prediction"][0], outputs[row], outputs, f"segment {row} alone")
    if "input_ids" in together:
        other = torch.where(together["attention_mask"].bool(), together["input_ids"], 17)
        _same(model(together | {"input_ids": other})["prediction"], outputs, outputs, "other ids in the padding")


def order(case: Case) -> None:
    """The order of a batch permutes its outputs, which differ between segments."""
    model, rows = case.model.eval(), [2, 0, 3, 1]
    outputs = model(case.batch())["prediction"]
    _require(_spread(outputs) > 0, "the prediction is the same for every segment")
    _same(model(case.batch(rows))["prediction"], outputs[rows], outputs, "another order of the batch")


def saving(case: Case) -> None:
    """A saved and loaded model predicts the same, and so does a model of which a copy has changed."""
    model, batch = case.model.eval(), case.batch()
    outputs = model(batch)["prediction"]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = case.kind.from_pretrained(folder, strict=True)  # type: ignore[attr-defined]
    _same(loaded.eval()(batch)["prediction"], outputs, outputs, "saved and loaded")
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    _same(model(batch)["prediction"], outputs, outputs, "once a copy has changed")


def seeding(case: Case) -> None:
    """The same seed gives the same model and the same outputs in training; another seed gives other weights."""
    first, again, other = (case.build(seed).train() for seed in (11, 11, 12))
    outputs = []
    for model in (first, again):
        torch.manual_seed(5)
        outputs.append(model(case.batch())["prediction"])
    _require(torch.equal(*outputs), "built and run twice with the same seed, it gives different outputs")
    differ = any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    _require(differ, "built with two seeds, it has the same weights")


def absence(case: Case) -> None:
    """Where a modality has no frames in the whole batch, the others still give a finite prediction."""
    names = [name for name, given in case.inputs.items() if isinstance(given, Frames)]
    model = case.model.eval()
    for name in names if len(case.inputs) > 1 else []:
        finite = model(case.batch(without=name))["prediction"].isfinite().all()
        _require(finite, f"without any frame of {name} the prediction is not finite")


CHECKS: dict[str, Callable[[Case], None]] = {
    each.__name__: each for each in (shapes, finite, gradients, padding, order, saving, seeding, absence)
}


def _require(kept: Any, reason: str) -> None:
    if not kept:
        raise ContractError(reason)


def _spread(outputs: Tensor) -> float:
    """How much outputs differ between segments."""
    return float((outputs - outputs.mean(0)).abs().max().detach())


def _same(found: Tensor, expected: Tensor, outputs: Tensor, what: str) -> None:
    """Equal up to rounding: differences are small beside those between segments."""
    difference = float((found - expected).abs().max().detach())
    allowed = 1e-3 * _spread(outputs) + 1e-6 * float(outputs.abs().max().detach())
    _require(difference <= allowed, f"{what}: the prediction differs by {difference:.2g}")


def _inputs(kind: Any, kinds: dict[str, type], folder: Path) -> dict[str, Input]:
    """Inputs that the class can be built from: tiny encoders of one modality, else of several, until it takes them.

    Where it takes none, those of one; each check then says why.
    """
    attempts = []
    for encoder in ("", "clip", "visual_bert"):
        attempts.append(
            {
                name: Pretrained(_encoder(encoder or name, folder)) if each is Pretrained else each(DIMS[name])
                for name, each in kinds.items()
            }
        )
        try:
            kind.build(attempts[-1])
        except Exception:
            continue
        return attempts[-1]
    return attempts[0]


def _encoder(name: str, folder: Path) -> str:
    """The folder of an untrained encoder."""
    path = folder / name
    if not path.exists():
        torch.manual_seed(3)
        encoder_from_config(ENCODERS[name]).save_pretrained(path)
    return str(path)


@cache
def _values(modality: str, row: int, *shape: int) -> Tensor:
    """What one segment has in one modality: the same in every batch."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(100 * len(modality) + row))


def _served(modality: str, given: Input, rows: Sequence[int]) -> dict[str, Any]:
    """What a batch of these segments holds for one modality."""
    if isinstance(given, Frames):
        lengths = [TOKENS[row] + len(modality) - 4 for row in rows]
        layers = () if given.n_layers is None else (given.n_layers,)
        parts = [_values(modality, row, *layers, length, given.dim) for row, length in zip(rows, lengths, strict=True)]
        return {modality: Packed(torch.cat(parts, dim=-2), torch.tensor(lengths))}
    if isinstance(given, TokenVectors):
        parts = [_values(modality, row, TOKENS[row], given.dim).clone() for row in rows]
        for part in parts:
            part[[0, -1]] = 0  # special tokens
        return {modality: pad_sequence(parts, batch_first=True)}
    if isinstance(given, Grid):
        positions = [word_positions([None, *range(n - 2), None], n - 2) for n in (TOKENS[row] for row in rows)]
        padded = pad_sequence([torch.from_numpy(each) for each in positions], batch_first=True)
        values = torch.stack([_values(modality, row, STEPS, given.dim) for row in rows])
        return {modality: values, "word_positions": padded}
    if modality == "image":
        return {"pixel_values": torch.stack([_values(modality, row, 3, 16, 16) for row in rows])}
    ids = [2 + (_values(modality, row, TOKENS[row]).abs() * 1000).long() % 29 for row in rows]
    masks = [torch.ones(TOKENS[row], dtype=torch.long) for row in rows]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence(masks, batch_first=True),
    }
