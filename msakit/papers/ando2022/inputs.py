"""What the arms of Ando et al. are made of: a source of frames for each modality, by the arm's name.

``ando2022.yaml`` lists the names, ``<features>-<modalities>``; `Inputs.arm` says what each stands for, given the
features at hand. Conventional features are standardised by the training frames, because some sets come unscaled.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

from msakit.data.corpus import Corpus
from msakit.encoders import load_encoder
from msakit.features import FeatureStore, extract
from msakit.papers import facts
from msakit.training.frame_source import FrameSource

PAPER = "ando2022"
MODALITIES = ("text", "audio", "vision")
CONCAT = ".concat"
# The arms of one layer of one modality.
LAYER_ARM = r"^layer(?P<layer>\d+)-(?P<modality>\w+)$"


@dataclass(frozen=True)
class Source:
    """Where one modality of an arm comes from: a feature store, and a layer of it, several or (None) all to mix."""

    store: FeatureStore
    layer: int | tuple[int, ...] | None
    conventional: bool

    @property
    def mixed(self) -> int | None:
        """How many layers are mixed with learnt weights; None for a single one."""
        if self.layer is None:
            return self.store.n_layers
        return None if isinstance(self.layer, int) else len(self.layer)

    def describe(self) -> dict[str, Any]:
        """What the record says of it."""
        layer = list(self.layer) if isinstance(self.layer, tuple) else self.layer
        return {
            "features": self.store.folder.name,
            "layer": "all" if layer is None else layer,
            "conventional": self.conventional,
        }


Sources = dict[str, Source]  # by modality


@dataclass(frozen=True)
class Arm:
    """What is trained: a source for each modality, and how their embeddings are put together."""

    sources: Sources
    decoder: str = "gated"  # or "concat"

    def describe(self) -> dict[str, Any]:
        """What the record says of it; arms of equal description are one training."""
        inputs = {modality: source.describe() for modality, source in self.sources.items()}
        return {"inputs": inputs, "decoder": self.decoder}


@dataclass(frozen=True)
class Inputs:
    """The features at hand, by modality, and the hidden states to look at (None: every one).

    `layers` limits the single layers, the choice among them and what the weighted arms mix. The output layer always
    belongs to them.
    """

    encoded: Mapping[str, FeatureStore]
    conventional: Mapping[str, FeatureStore]
    layers: Sequence[int] | None = None

    def __post_init__(self) -> None:
        deepest = max((store.n_layers for store in self.encoded.values()), default=1)
        wrong = [layer for layer in self.layers or () if not 0 <= layer < deepest]
        if wrong or self.layers == []:
            raise ValueError(f"layers {self.layers}: name hidden states from 0 to {deepest - 1}, or null for all")

    def layers_of(self, modality: str) -> list[int]:
        """The hidden states of an encoder to look at, in order."""
        there = self.encoded[modality].n_layers
        wanted = range(there) if self.layers is None else {*self.layers, there - 1}
        return [layer for layer in range(there) if layer in wanted]

    def arms(self) -> Iterator[str]:
        """Names of all arms that these features allow, in the order of ``ando2022.yaml``."""
        for family in facts(PAPER)["families"].values():
            for pattern in family["arms"]:
                modality = pattern.rpartition("-")[2]
                layers = self.layers_of(modality) if "<N>" in pattern and modality in self.encoded else [0]
                for name in (pattern.replace("<N>", str(layer)) for layer in layers):
                    if self.arm(name, dict.fromkeys(self.encoded, 0)) is not None:
                        yield name

    def arm(self, name: str, best: Mapping[str, int] | None = None) -> Arm | None:
        """What an arm is made of; None where features for it are not at hand.

        In a multimodal arm of the encoders, a modality without an encoder comes from conventional features.

        Args:
            best: by modality, the layer that validation chose; the arms ``best-…`` need it.
        """
        plain = name.removesuffix(CONCAT)
        family, *modalities = plain.split("-")
        sources: dict[str, Source | None] = {}
        for modality in modalities:
            encoder, classic = self.encoded.get(modality), self.conventional.get(modality)
            by_encoder = family != "conventional" and not (family == "convbert" and modality != "text")
            if by_encoder and encoder is not None:
                sources[modality] = Source(encoder, self._layer(family, modality, best or {}), False)
            elif classic is not None and (family == "conventional" or len(modalities) > 1):
                sources[modality] = Source(classic, 0, True)
            else:
                return None
        found = {modality: source for modality, source in sources.items() if source is not None}
        if family != "conventional" and all(source.conventional for source in found.values()):
            return None
        if family == "convbert" and found["text"].conventional:
            return None
        return Arm(found, "concat" if plain != name else "gated")

    def _layer(self, family: str, modality: str, best: Mapping[str, int]) -> int | tuple[int, ...] | None:
        if family == "weighted":
            return None if self.layers is None else tuple(self.layers_of(modality))
        if family == "best":
            return best[modality]
        return int(family.removeprefix("layer")) if family.startswith("layer") else self.encoded[modality].n_layers - 1


def extract_all(corpus: Corpus, encoders: Mapping[str, Any], root: Path | str) -> dict[str, FeatureStore]:
    """One feature store a modality.

    Args:
        encoders: by modality, what :func:`msakit.encoders.load_encoder` takes.
        root: folder of the feature stores.

    Raises:
        ValueError: a modality that the paper does not have.
    """
    unknown = sorted(set(encoders) - set(MODALITIES))
    if unknown:
        raise ValueError(f"no modality {unknown[0]!r}: choose from {', '.join(MODALITIES)}")
    return {
        modality: extract(corpus, load_encoder(encoders[modality]), root)
        for modality in MODALITIES
        if modality in encoders
    }


def choose_arms(inputs: Inputs, arms: Sequence[str] | None) -> list[str]:
    """The arms to run, in the order of ``ando2022.yaml``.

    Args:
        arms: names or patterns with ``*`` (``best-*``, ``*.concat``); None for all that the features allow. An arm
            ``best-…`` brings the single layers that its choice rests on.

    Raises:
        ValueError: a name or pattern that fits no arm.
    """
    possible = list(inputs.arms())
    if arms is None:
        return possible
    for pattern in arms:
        if not any(fnmatchcase(name, pattern) for name in possible):
            raise ValueError(f"no arm {pattern!r} with these features: choose from {', '.join(possible)}")
    wanted = {name for name in possible if any(fnmatchcase(name, pattern) for pattern in arms)}
    chosen = {
        modality for name in wanted if name.startswith("best-") for modality in inputs.encoded if modality in name
    }
    wanted |= {name for name in possible if (found := re.match(LAYER_ARM, name)) and found["modality"] in chosen}
    return [name for name in possible if name in wanted]


def split_features(corpus: Corpus, sources: Mapping[str, Source], split: str) -> dict[str, FrameSource]:
    """The frames of one split by modality, left in their stores."""
    return take(corpus, sources, list(corpus.splits[split]["segment_id"]))


def take(corpus: Corpus, sources: Mapping[str, Source], segment_ids: Sequence[str]) -> dict[str, FrameSource]:
    """The frames of some segments by modality, left in their stores; conventional features are standardised."""
    taken: dict[str, FrameSource] = {}
    for name, source in sources.items():
        frames = FrameSource.of(source.store, segment_ids, None if isinstance(source.layer, tuple) else source.layer)
        if isinstance(source.layer, tuple):
            frames = replace(frames, frames=source.store.layers[_evenly(source.layer)])
        if source.conventional:
            train = list(corpus.splits["train"]["segment_id"])
            frames = frames.standardised(FrameSource.of(source.store, train, 0))
        taken[name] = frames
    return taken


def _evenly(layers: tuple[int, ...]) -> slice | list[int]:
    """Layers as a slice where they are evenly spaced: a slice of a memory map is not read into memory."""
    steps = {after - before for before, after in pairwise(layers)}
    if len(steps) > 1:
        return list(layers)
    return slice(layers[0], layers[-1] + 1, steps.pop() if steps else 1)
