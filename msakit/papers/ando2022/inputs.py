"""What the models of Ando et al. read: frames of frozen encoders, one hidden state of them or a learnt mixture of all.

Conventional features are standardised by the training frames, because some sets come unscaled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from msakit.data.corpus import Corpus
from msakit.encoders import load_encoder
from msakit.features import FeatureStore, extract
from msakit.models import Frames
from msakit.papers.ando2022.layers import single_layer_of
from msakit.runs.arm import Arm, Input, Protocol
from msakit.runs.record import Feature
from msakit.suggestions import did_you_mean
from msakit.training.frame_source import FrameSource

CONVENTIONAL = "conventional-"  # encoder conventional-<modality> stands in where that of a modality is not given


@dataclass(frozen=True)
class Source:
    """Where one modality of an arm comes from: a feature store, and a layer of it, several or (None) all to mix."""

    encoder: str
    store: FeatureStore
    layer: int | tuple[int, ...] | None

    @property
    def kind(self) -> Frames:
        """What a model is built for."""
        count = self.store.n_layers if self.layer is None else None
        return Frames(self.store.dim, len(self.layer) if isinstance(self.layer, tuple) else count)

    @property
    def feature(self) -> Feature:
        """What a record says of it."""
        return Feature(
            encoder=self.encoder,
            features=self.store.folder.name,
            weights=self.store.weights,
            layer="all" if self.layer is None else list(self.layer) if isinstance(self.layer, tuple) else self.layer,
            conventional=self.store.conventional,
        )


Sources = dict[str, Source]  # by modality


def extract_all(
    corpus: Corpus, encoders: Mapping[str, FeatureStore | dict[str, Any] | str], root: Path | str
) -> dict[str, FeatureStore]:
    """A feature store for each encoder (what :func:`msakit.encoders.load_encoder` takes), kept under `root`."""
    return {
        name: given if isinstance(given, FeatureStore) else extract(corpus, load_encoder(given), root)
        for name, given in encoders.items()
    }


@dataclass(frozen=True)
class Inputs:
    """The features at hand, by the name of their encoder.

    layers: hidden states to look at; None for all. It limits the single layers, the choice among them, and what
    `layer: all` mixes; the output layer always belongs to them.

    Raises:
        ValueError: layers that no encoder has.
    """

    stores: Mapping[str, FeatureStore]
    layers: Sequence[int] | None = None

    def __post_init__(self) -> None:
        deepest = max((store.n_layers for store in self.stores.values()), default=1)
        wrong = [layer for layer in self.layers or () if not 0 <= layer < deepest]
        if wrong or self.layers == []:
            raise ValueError(f"layers {self.layers}: name hidden states from 0 to {deepest - 1}, or null for all")

    def layers_of(self, encoder: str) -> list[int]:
        """The hidden states of an encoder to look at, in order."""
        count = self.stores[encoder].n_layers
        wanted = range(count) if self.layers is None else {*self.layers, count - 1}
        return [layer for layer in range(count) if layer in wanted]

    def lacks(self, arm: Arm) -> str | None:
        """What an arm needs and these features do not have, in words; None where there is all of it."""
        single = single_layer_of(arm)
        try:
            self.sources(arm, dict.fromkeys(self.stores, 0))
        except ValueError as error:
            return str(error)
        if single is not None and single[1] not in self.layers_of(single[0]):
            return "its layer is not among those to look at"
        return None

    def sources(self, arm: Arm, best: Mapping[str, int]) -> Sources:
        """What an arm is made of, by modality.

        In an arm of several modalities, one whose encoder is not given comes from conventional features.

        Args:
            best: by encoder, the layer that validation chose.

        Raises:
            ValueError: an encoder or layer that is not there, or what this recipe does not do.
        """
        if arm.protocol.drop_last or arm.loss.contrastive is not None:
            raise ValueError("this recipe has no contrastive loss, and drops no test segment")
        names = {modality: self._encoder(modality, given, len(arm.inputs)) for modality, given in arm.inputs.items()}
        replaced = any(name != arm.inputs[modality].encoder for modality, name in names.items())
        if replaced and all(self.stores[name].conventional for name in names.values()):
            raise ValueError("none of its encoders is given")
        found = {}
        for modality, name in names.items():
            given, store = arm.inputs[modality], self.stores[name]
            if store.config["modality"] != modality:
                raise ValueError(f"encoder {name!r} is one of {store.config['modality']}, not of {modality}")
            if not given.frozen or given.align or given.shuffled:
                raise ValueError(f"input {modality}: this recipe neither fine-tunes, nor aligns, nor shuffles")
            if given.layer == "best" and arm.protocol != Protocol():
                raise ValueError(f"input {modality}: layers are chosen under the default protocol; name one here")
            found[modality] = Source(name, store, self._layer(name, given, best))
        return found

    def _encoder(self, modality: str, given: Input, modalities: int) -> str:
        """The encoder that is given: the one wanted, or the conventional one in its place."""
        if given.encoder in self.stores:
            return given.encoder
        other = CONVENTIONAL + modality
        if given.encoder == modality and modalities > 1 and other in self.stores:
            return other
        near = did_you_mean(given.encoder, self.stores)
        raise ValueError(f"no encoder {given.encoder!r} among {', '.join(self.stores) or 'none'}.{near}")

    def _layer(self, name: str, given: Input, best: Mapping[str, int]) -> int | tuple[int, ...] | None:
        store, wanted = self.stores[name], given.layer
        numbers = [wanted] if isinstance(wanted, int) else wanted if isinstance(wanted, list) else []
        if any(not 0 <= number < store.n_layers for number in numbers):
            raise ValueError(f"encoder {name!r} has hidden states 0 to {store.n_layers - 1} only")
        if isinstance(wanted, int):
            return wanted
        if isinstance(wanted, list):
            return tuple(wanted)
        if store.n_layers == 1:
            return 0
        if wanted == "best":
            return best[name]
        if wanted == "all":
            return None if self.layers is None else tuple(self.layers_of(name))
        return store.n_layers - 1


def frames_of(source: Source, segment_ids: Sequence[str], train: Sequence[str]) -> FrameSource:
    """The frames of some segments, left in their store; those of conventional features standardised.

    train: the training segments of the run.
    """
    if isinstance(source.layer, tuple):
        every = FrameSource.of(source.store, segment_ids, None)
        return replace(every, frames=source.store.layers[_evenly(source.layer)])
    frames = FrameSource.of(source.store, segment_ids, source.layer)
    if source.store.conventional:
        frames = frames.standardised(FrameSource.of(source.store, train, source.layer))
    return frames


def _evenly(layers: tuple[int, ...]) -> slice | list[int]:
    """Layers as a slice where they are evenly spaced: a slice of a memory map is not read into memory."""
    steps = {after - before for before, after in pairwise(layers)}
    if len(steps) > 1 or min(steps, default=1) < 1:
        return list(layers)
    return slice(layers[0], layers[-1] + 1, steps.pop() if steps else 1)
