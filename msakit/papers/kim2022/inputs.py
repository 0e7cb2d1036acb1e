"""What the models of Kim & Kim 2022 read: word pieces with audio and vision along them, or equal parts to align softly.

Special tokens get zeros, each piece of a word the word's vector. Audio and vision are standardised by the segments that
a run is trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float32, Int, Shaped

from msakit import models
from msakit.data.corpus import Corpus
from msakit.encoders import load_encoder
from msakit.encoders.pretrained import load_frozen, weights_digest, written_name
from msakit.encoders.tokens import Tokens, tokenize
from msakit.features import extract
from msakit.models.layers.word_pieces import align_to_pieces, word_positions
from msakit.papers.kim2022.words import Array, Source, Vectors, in_parts, on_words, words_of
from msakit.runs.arm import Arm, Input
from msakit.runs.experiment import Case
from msakit.runs.record import Feature
from msakit.strict import parse
from msakit.suggestions import did_you_mean
from msakit.training.batching import TextBatches
from msakit.training.scaling import Scaling

if TYPE_CHECKING:
    from msakit.papers.kim2022.recipe import Settings

MODALITIES = ("text", "audio", "vision")
EVAL_BATCH_SIZE = 256


class Inputs:
    """What the arms of one experiment read. Encoders are opened, texts tokenised, frames averaged when an arm asks.

    Rows are those of `segments`, the ids of the labelled segments; `words` are theirs. encoders: name to specification:
    the path of a text encoder, alone or as `path` of a dict; of audio and vision an encoder's
    (:func:`msakit.encoders.load_encoder`), whose store is under `features`, or the fields of
    :class:`msakit.papers.kim2022.words.Array`; None where the corpus has nothing for it: arms do without that modality.
    """

    def __init__(
        self, corpus: Corpus, segments: Sequence[str], encoders: Mapping[str, Any], features: Path | str
    ) -> None:
        self.corpus, self.segments, self.encoders, self.folder = corpus, segments, encoders, Path(features)
        self._words = words_of(corpus)
        self.words = [self._words[segment] for segment in segments]
        self._found: dict[tuple[Any, ...], Any] = {}

    def of(self, arm: Arm) -> dict[str, Input]:
        """The inputs of an arm that the corpus has.

        Raises:
            ValueError: an encoder that is not given, or an input that this recipe cannot serve.
        """
        if "text" not in arm.inputs:
            raise ValueError(f"arm {arm.title!r} reads no text: this recipe lays audio and vision on its words")
        for modality, each in arm.inputs.items():
            fault = None
            if modality not in MODALITIES:
                fault = f"choose from {', '.join(MODALITIES)}"
            elif each.encoder not in self.encoders:
                near = did_you_mean(each.encoder, self.encoders)
                fault = f"there is no encoder {each.encoder!r}: give it, as null where the corpus has none.{near}"
            elif modality == "text" and each.layer is not None:
                fault = "the text encoder is inside the model: leave out its layer"
            elif modality != "text" and not (each.frozen and isinstance(each.layer, int | None | str)):
                fault = "it is one stored layer of a frozen encoder"
            elif each.layer in ("best", "all"):
                fault = f"layer {each.layer!r} is not served here: give a number, or output"
            if fault:
                raise ValueError(f"arm {arm.title!r}, {modality}: {fault}")
        return {name: each for name, each in arm.inputs.items() if self.encoders[each.encoder] is not None}

    def features(self, arm: Arm) -> dict[str, Feature]:
        """What a record says of the inputs of an arm."""
        return {name: self._feature(name, each) for name, each in self.of(arm).items()}

    def kinds(self, arm: Arm, settings: "Settings") -> dict[str, models.Input]:
        """What a model is built for."""
        kinds: dict[str, models.Input] = {}
        for name, each in self.of(arm).items():
            if name == "text":
                kinds[name] = models.Pretrained(self._path(each), each.frozen)
            else:
                kind = models.Grid if each.align == "soft" else models.TokenVectors
                kinds[name] = kind(self._vectors(name, each, settings)[0].shape[-1])
        return kinds

    def batches(
        self, case: Case, label: Shaped[np.ndarray, " segment"], settings: "Settings", generator: torch.Generator
    ) -> dict[str, TextBatches]:
        """By split, batches of rows of similar length, those of training in random order."""
        given, tokens = self.of(case.arm), self.tokens(case.arm, settings)
        word_ids = tokens.word_ids or []
        vectors = {}
        for name in [name for name in given if name != "text"]:
            raw = self._vectors(name, given[name], settings)
            scaling = Scaling.of_frames([np.concatenate([raw[row] for row in case.rows["train"]])], skip_zeros=True)
            vectors[name] = [scaling(each).astype(np.float32) for each in raw]
        batches = {}
        for split, rows in case.rows.items():
            per_token, dense = {}, {}
            for name, values in vectors.items():
                sources = rows
                if given[name].shuffled:
                    sources = rows[derangement(len(rows), np.random.default_rng(case.random_seed))]
                if given[name].align == "soft":
                    dense[name] = np.stack([values[source] for source in sources])
                    per_token["word_positions"] = [word_positions(word_ids[r], len(self.words[r])) for r in rows]
                else:
                    per_token[name] = [
                        align_to_pieces(word_ids[row], resampled(values[source], len(self.words[row])))
                        for row, source in zip(rows, sources, strict=True)
                    ]
            batches[split] = TextBatches(
                [tokens.ids[row] for row in rows],
                label[rows],
                settings.batch_size if split == "train" else EVAL_BATCH_SIZE,
                per_token=per_token,
                dense=dense,
                pad_id=tokens.pad_id,
                bucket=True,
                generator=generator if split == "train" else None,
            )
        return batches

    def tokens(self, arm: Arm, settings: "Settings") -> Tokens:
        """The word pieces that the arm's text encoder reads."""
        path, limit = self._path(arm.inputs["text"]), settings.max_tokens
        return self._once(("tokens", path, limit), lambda: tokenize(path, self.words, limit))

    def _path(self, given: Input) -> str:
        spec = self.encoders[given.encoder]
        return str(spec["path"]) if isinstance(spec, Mapping) else str(spec).removeprefix("text:")

    def _feature(self, modality: str, given: Input) -> Feature:
        shared = given.model_dump(include={"encoder", "frozen", "align", "shuffled"})
        if modality == "text":
            path = self._path(given)
            weights = self._once(("weights", path), lambda: weights_digest(load_frozen(path)))
            return Feature(**shared, checkpoint=written_name(path), weights=weights)
        source, layer = self._source(given)
        if isinstance(source, Array):
            fields = source.model_dump(exclude_none=True).items()
            return Feature(**shared, features=", ".join(f"{name} {value}" for name, value in fields), conventional=True)
        return Feature(**shared, features=source.folder.name, layer=layer, conventional=source.conventional)

    def _vectors(self, modality: str, given: Input, settings: "Settings") -> list[Float32[np.ndarray, "_step _dim"]]:
        """Audio or vision of each segment, a row a word, or a row an equal part of its time."""
        source, layer = self._source(given)
        parts = settings.frames if given.align == "soft" else 0

        def found() -> Vectors:
            if parts:
                return in_parts(self.corpus, source, layer, parts)
            return on_words(self.corpus, modality, source, layer, self._words)

        vectors = self._once(("vectors", given.encoder, layer, parts), found)
        return [vectors[segment] for segment in self.segments]

    def _source(self, given: Input) -> tuple[Source, int]:
        """Where audio or vision comes from, and the layer of a feature store, by default its output."""
        spec = self.encoders[given.encoder]

        def opened() -> Source:
            if isinstance(spec, Mapping) and "array" in spec:
                return parse(Array, spec, f"encoder {given.encoder!r}")
            return extract(self.corpus, load_encoder(spec), self.folder)

        source: Source = self._once(("source", given.encoder), opened)
        if isinstance(source, Array):
            return source, 0
        layer = given.layer if isinstance(given.layer, int) else source.n_layers - 1
        if not 0 <= layer < source.n_layers:
            raise ValueError(f"encoder {given.encoder!r} has layers 0 to {source.n_layers - 1}, not {layer}")
        return source, layer

    def _once(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        if key not in self._found:
            self._found[key] = make()
        return self._found[key]


def derangement(count: int, random: np.random.Generator) -> Int[np.ndarray, " segment"]:
    """For each segment another one, each used once, drawn at random: the next in a random circle."""
    circle = random.permutation(count)
    order = np.empty(count, np.int64)
    order[circle] = np.roll(circle, 1)
    return order


def resampled(vectors: Float32[np.ndarray, "_other dim"], count: int) -> Float32[np.ndarray, "_word dim"]:
    """The vectors of one segment's words over `count` words, in proportion; zeros if it has no word."""
    if not len(vectors):
        return np.zeros((count, vectors.shape[1]), np.float32)
    return vectors[((np.arange(count) + 0.5) / max(count, 1) * len(vectors)).astype(int)]
