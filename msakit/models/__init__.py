"""One method a file, and the contract of a model: whatever follows it trains in every recipe that serves its inputs.

`MODELS` names the models of this package.  Wherever a name does, ``module:Class`` and ``path/to/file.py:Class`` do as
well (`model_class`); ``msakit check-model`` and :func:`msakit.models.check.check_model` run the contract on a class.

A model is a class of its own on ``torch.nn.Module`` and ``huggingface_hub.PyTorchModelHubMixin`` with

``__init__(…)``
    plain values only (numbers, texts, lists, dicts): `save_pretrained` writes them to config.json, `from_pretrained`
    builds the model from them alone and then loads its weights.  The file does not keep the order of a dict.
``INPUTS``
    what it can take: modality ("text", "audio", "vision", "image") -> tuple of the input kinds below.
``FROZEN``, if it takes vectors of frozen encoders (see `Pretrained` below)
    modality -> the output of :mod:`msakit.encoders` that they are; recipes then store and serve them.
``build(inputs, n_classes=None, **args)``, a classmethod
    a new model.  inputs: modality -> an instance of one of its kinds, for the modalities it is to use (those that it
    cannot do without raise ValueError); n_classes: None for regression; args: its hyperparameters, as an arm gives
    them.  Pre-trained encoders bring their weights, everything else is drawn from torch's generator.
``modalities``
    tuple of the modalities in use, in the model's own order.
``forward_features(batch)``, ``forward_head(features)``, ``forward(batch)``
    batch -> dict of tensors; that dict -> dict of tensors with "prediction"; both in one, with the same "prediction".

Kinds of inputs, and what a batch holds for a modality m of the kind:

========================== ==========================================================================================
`Frames`                   batch[m]: :class:`msakit.models.layers.packed.Packed`, frames "frames dim", or "layer frames
                           dim" where layers are mixed; a segment may have no frame: the modality is then absent
`TokenVectors`             batch[m]: "batch token dim", one vector a word piece of the text, zeros on special tokens and
                           padding
`Grid`                     batch[m]: "batch step dim", equally spaced in time, or the cells of an image row by row;
                           beside a text also batch["word_positions"] "batch token 2"
                           (:func:`msakit.models.layers.word_pieces.word_positions`) for audio and vision
`Pretrained`               text: batch["input_ids"] and batch["attention_mask"], both "batch token"; image:
                           batch["pixel_values"] "batch 3 height width".  A frozen one may be given its vectors in
                           place of these, batch["text_features"] or batch["image_features"] "batch dim"
========================== ==========================================================================================

Batches also hold "label" "batch" and "index" "batch" (row numbers), which models leave alone.

What goes out: "prediction", for regression "batch" in units of the label, for classes logits "batch classes", or of two
classes "batch 1", the logit of the second.  Anything else is free; these names have a meaning where they occur:
"gates" "batch modality" (how much of each modality enters, 0 to 1, in the order of `modalities`), "fused" "batch dim"
(what the last layers see), `attention_<modality>` packed "frames heads", `layer_weights_<modality>` "layer", and
"text", "audio", "vision" "batch dim" (embeddings of the modalities, of length 1 if the contrastive loss compares them).

What must hold: outputs are finite; every trainable parameter gets a gradient; neither padding nor the other segments of
a batch change a segment's outputs, and their order permutes them; a loaded model, and a copy, predict what the saved
one did; the same seed gives the same model and the same outputs.
"""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from typing import Any

from msakit.suggestions import did_you_mean

MODELS: dict[str, str] = {
    "clip": "msakit.models.clip:ClipClassifier",
    "gated": "msakit.models.gated:GatedFusion",
    "joint": "msakit.models.joint:JointFusion",
    "shifted_bert": "msakit.models.shifted_bert:ShiftedBert",
    "visualbert": "msakit.models.visualbert:VisualBertClassifier",
}


@dataclass(frozen=True)
class Frames:
    """Stored frames of a frozen encoder: of one hidden layer (n_layers None), or of several, which the model mixes."""

    dim: int
    n_layers: int | None = None


@dataclass(frozen=True)
class TokenVectors:
    """Stored frames averaged over words and laid on the word pieces of the text."""

    dim: int


@dataclass(frozen=True)
class Grid:
    """The same number of stored vectors for every segment: equal parts of its time, or cells of its image."""

    dim: int


@dataclass(frozen=True)
class Pretrained:
    """A pre-trained encoder inside the model (folder or hub id), fine-tuned with it or frozen."""

    path: str
    frozen: bool = False


Input = Frames | TokenVectors | Grid | Pretrained


def model_class(reference: str) -> Any:
    """The class of that name in MODELS, of ``module:Class`` or of ``path/to/file.py:Class``.

    A file is executed: it is the user's own, named in an arm or on the command line.

    Raises:
        ValueError: no such name, module, file or class.
    """
    source, separator, attribute = MODELS.get(reference, reference).rpartition(":")
    if not separator:
        raise ValueError(
            f"no model {reference!r}: choose from {', '.join(MODELS)}, or name a class of your own, as module:Class "
            f"or path/to/file.py:Class.{did_you_mean(reference, MODELS)}"
        )
    module = _file_module(Path(source)) if source.endswith(".py") else _module(source)
    if not hasattr(module, attribute):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise ValueError(f"{source} has no class {attribute!r}.{did_you_mean(attribute, classes)}")
    return getattr(module, attribute)


def build_model(
    reference: str,
    inputs: Mapping[str, Input],
    n_classes: int | None = None,
    args: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Any:
    """A new model by its reference: `build` of its class, once its inputs and arguments are known to fit.

    Args:
        args: hyperparameters that an arm names; the class must know them.
        defaults: hyperparameters of all arms of a recipe; those that the class knows are passed on, below `args`.

    Raises:
        ValueError: a modality or a kind of input that the class does not take, or an argument that it does not know.
    """
    found = model_class(reference)
    for modality, each in inputs.items():
        kinds = found.INPUTS.get(modality, ())
        if not isinstance(each, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            takes = f"takes {modality} as {names}" if kinds else f"takes {', '.join(found.INPUTS)}"
            raise ValueError(f"model {reference!r} {takes}, not {modality} as {type(each).__name__}")
    parameters = inspect.signature(found.__init__).parameters
    known = [name for name in parameters if name not in ("self", "n_classes")]
    given, shared = dict(args or {}), defaults or {}
    unknown = [name for name in given if name not in known]
    if unknown and not any(each.kind == each.VAR_KEYWORD for each in parameters.values()):
        raise ValueError(
            f"model {reference!r} has no argument {unknown[0]!r}: there are {', '.join(known)}."
            f"{did_you_mean(unknown[0], known)}"
        )
    return found.build(inputs, n_classes, **{name: shared[name] for name in shared if name in known} | given)


def reference_of(model: Any) -> str:
    """What `model_class` finds the class of this model by: its name in MODELS, else module:Class."""
    source = f"{type(model).__module__}:{type(model).__qualname__}"
    return next((name for name, each in MODELS.items() if each == source), source)


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports
        raise ValueError(f"no module {name!r}: install it, or name its file, as path/to/file.py:Class") from error


def _file_module(path: Path) -> Any:
    """The module in a file, executed anew: a notebook sees what has been edited."""
    if not path.is_file():
        raise ValueError(f"no file {path} in {Path.cwd()}: give the path of the file that defines the model")
    name = f"model_file_{path.stem}"
    spec = util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be imported as a module: give a Python file")
    module = util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
