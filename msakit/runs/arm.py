"""The one schema of an arm, for every paper: in ``papers/<paper>/paper.yaml`` and as a notebook's parameter alike.

    mag:                                     # its name: a folder's, chosen freely
      title: MAG (word-level shift)
      group: Word-level shift                # heading under which tables and figures list it
      model: shifted_bert                    # a name of msakit.models.MODELS, module:Class or file.py:Class
      args: {shift: mag}                     # further arguments of the model's constructor
      inputs: {text: {encoder: text, frozen: false}, audio: audio, vision: vision}
      loss: {}
      protocol: {}
      settings: {}                           # where its training differs from the experiment's settings
    mine: {like: mag, title: MAG with less dropout, settings: {shift_dropout: 0.1}}

`like` takes over the definition of another arm: what is given replaces it, dictionaries are merged key by key, and
null takes a dictionary out (``inputs: {vision: null}``).
Two kinds of arm train nothing: `model: mean` averages the stored predictions of `args: {of: [arm, ...]}`, `model:
zero_shot` compares with prompts.
"""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from msakit.strict import Strict, parse
from msakit.suggestions import did_you_mean

NAME = re.compile(r"[a-z0-9_][a-z0-9_.@-]*")  # an arm's name is a folder's
MEAN = "mean"  # `model` of an arm that averages the stored predictions of others


class Input(Strict):
    """Where one modality comes from; a text alone is the encoder."""

    encoder: str  # a name among the experiment's encoders
    layer: int | list[int] | Literal["output", "best", "all"] | None = None  # None: what the recipe takes
    frozen: bool = True  # False: fine-tuned together with the model
    align: Literal["words", "soft"] | None = None  # how frames meet words
    shuffled: bool = False  # control: that of another segment of the split, a derangement


class Contrastive(Strict):
    """InfoNCE between the modalities' embeddings, added to the loss."""

    weight: float = Field(gt=0)  # λ
    pairs: list[Literal["text-audio", "text-vision", "audio-vision"]] = ["text-audio", "text-vision"]
    temperature: float = Field(default=0.07, gt=0)  # τ
    smoothing: float = Field(default=0.0, ge=0, lt=1)  # of its targets, ε


class Loss(Strict):
    """What is minimised."""

    name: str | None = None  # of msakit.training.losses.LOSSES; None: the recipe's for the task
    contrastive: Contrastive | None = None


class Protocol(Strict):
    """How an arm is trained and scored; the defaults are the sound choices."""

    name: str = "corrected"  # what tables call it; as_published… where it follows a published flaw
    folds: Literal["stratified", "shuffled", "none"] = "stratified"  # none: the corpus's own split in any case
    stop: Literal["valid", "test"] = "valid"  # the split that chooses the epoch
    drop_last: bool = False  # incomplete last batches are left out, of the test split too
    threshold: Literal["probabilities", "logits"] = "probabilities"  # what 0.5 is compared with in scoring
    share: int = Field(default=100, ge=1, le=100)  # per cent of the training split that is trained on

    @property
    def leaks(self) -> bool:
        """Whether the choice of the epoch sees the test split."""
        return self.stop == "test"

    @model_validator(mode="after")
    def _named(self) -> "Protocol":
        if self.leaks and not self.name.startswith("as_published"):
            raise ValueError("stop: test leaks; such a protocol needs a name that begins with as_published")
        return self


def _input(value: Any) -> Any:
    return {"encoder": value} if isinstance(value, str) else value


class Arm(Strict):
    """One trained variant."""

    title: str
    group: str = ""
    model: str
    args: dict[str, Any] = {}
    inputs: dict[str, Annotated[Input, BeforeValidator(_input)]] = {}
    loss: Loss = Loss()
    protocol: Protocol = Protocol()
    settings: dict[str, Any] = {}
    like: str | None = None

    @model_validator(mode="after")
    def _of_arms(self) -> "Arm":
        of = self.args.get("of")
        if self.model == MEAN and not (isinstance(of, list) and of and all(isinstance(name, str) for name in of)):
            raise ValueError(f"model: mean wants args: {{of: [arm, ...]}}, the arms to average, not {self.args}")
        return self

    def training(self) -> dict[str, Any]:
        """What of it decides the trained weights, as plain values: no names, nothing of the scoring, and not the
        inputs, which a recipe resolves (`msakit.runs.record.Feature`)."""
        protocol = self.protocol.model_dump(exclude={"name", "threshold"})
        return {"model": self.model, "args": self.args, "loss": self.loss.model_dump(), "protocol": protocol}


def read_arms(
    definitions: Mapping[str, Any], known: Mapping[str, Arm] | None = None, where: str = "arms"
) -> dict[str, Arm]:
    """Arms by name, in the order given.

    Args:
        definitions: name to definition, as in the module's example; `like` may name any of them, or one of `known`.
        known: arms that exist already; their names are taken.
        where: the file or parameter, for messages.

    Raises:
        ValueError: a fault in a definition, a name that is taken or cannot be a folder's, `like` of no arm.
    """
    found: dict[str, Arm] = {}
    for name, definition in definitions.items():
        if not NAME.fullmatch(str(name)):
            raise ValueError(f"{where}: arm {name!r} cannot name a folder: only a-z 0-9 - _ . @, no leading dot")
        if not isinstance(definition, Mapping):
            raise ValueError(f"{where}: arm {name!r} is {definition!r}: give it a definition, at least title and model")
        if name in (known or {}):
            raise ValueError(f"{where}: there is an arm {name!r} already: choose another name, and say like: {name}")
        _resolve(name, definitions, known or {}, found, where, ())
    return {name: found[name] for name in definitions}


def _resolve(
    name: str,
    definitions: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, Arm],
    found: dict[str, Arm],
    where: str,
    waiting: tuple[str, ...],
) -> Arm:
    if name in found or name in known:
        return found.get(name) or known[name]
    if name in waiting:
        raise ValueError(f"{where}: arm {name!r} is like itself: {' like '.join((*waiting, name))}")
    values = dict(definitions[name])
    base = values.get("like")
    if base is not None:
        if base not in definitions and base not in known:
            choices = [*definitions, *known]
            raise ValueError(f"{where}: {name} is like {base!r}, which is no arm.{did_you_mean(str(base), choices)}")
        other = _resolve(str(base), definitions, known, found, where, (*waiting, name))
        values = _merged(other.model_dump(exclude={"title", "like"}), values)
    found[name] = parse(Arm, values, f"{where}, {name}")
    return found[name]


def _merged(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` over `base`, dictionaries key by key; null takes a dictionary out."""
    merged = dict(base)
    for key, value in given.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[key] = _merged(old, value)
        elif isinstance(value, str) and isinstance(old, Mapping) and "encoder" in old:
            merged[key] = {**old, "encoder": value}
        elif value is None and isinstance(base.get(key), Mapping):
            del merged[key]
        else:
            merged[key] = value
    return merged


def select(arms: Mapping[str, Arm], patterns: Iterable[str] | None) -> dict[str, Arm]:
    """The arms whose names fit one of the patterns (``*`` stands for anything), in their own order; None for all.

    Raises:
        ValueError: a pattern that fits no arm.
    """
    if patterns is None:
        return dict(arms)
    patterns = list(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in arms):
            raise ValueError(f"no arm {pattern!r}: choose from {', '.join(arms)}.{did_you_mean(pattern, arms)}")
    return {name: arm for name, arm in arms.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}


def args_of(arm: Arm, names: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of an arm; a mean's parts go by the other names that `names` has for them."""
    if arm.model != MEAN:
        return arm.args
    return {**arm.args, "of": [names.get(part, part) for part in arm.args["of"]]}


def with_variants(arms: Mapping[str, Arm], variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Arm]:
    """The arms, followed by each of them again under each variant, as ``<arm>@<variant>``.

    Args:
        variants: name to what differs: `settings`, and `encoders`, the encoder that stands in for another one, by name
            (``{minilm: {encoders: {text: minilm}}}``).

    Raises:
        ValueError: a variant with other fields, of a name that no folder can have, or of an encoder that no arm has.
    """
    made = dict(arms)
    encoders = {each.encoder for arm in arms.values() for each in arm.inputs.values()}
    for variant, changes in variants.items():
        if not NAME.fullmatch(str(variant)):
            raise ValueError(f"variant {variant!r} cannot name a folder: only a-z 0-9 - _ . @, no leading dot")
        if unknown := set(changes) - {"settings", "encoders"}:
            raise ValueError(f"variant {variant!r} has {min(unknown)!r}: a variant changes settings and encoders")
        exchanged = changes.get("encoders", {})
        if unused := set(exchanged) - encoders:
            near = did_you_mean(min(unused), encoders)
            raise ValueError(f"variant {variant!r} exchanges encoder {min(unused)!r}, which no arm has.{near}")
        for name, arm in arms.items():
            inputs = {
                modality: each.model_copy(update={"encoder": exchanged.get(each.encoder, each.encoder)})
                for modality, each in arm.inputs.items()
            }
            settings = {**arm.settings, **changes.get("settings", {})}
            args = args_of(arm, {part: f"{part}@{variant}" for part in arm.args.get("of", [])})
            title = f"{arm.title} [{variant}]"
            update = {"title": title, "args": args, "inputs": inputs, "settings": settings, "like": name}
            made[f"{name}@{variant}"] = arm.model_copy(update=update)
    return made
