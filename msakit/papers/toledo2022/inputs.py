"""Texts and images of a corpus as the models of this paper read them: token ids, pixels, stored vectors, grid cells.

Vectors of frozen encoders, grid cells and pixels are read from feature stores: made in one pass, half precision (that
of a pixel is a 256th), shared by all processes, folds, seeds and shares. Token ids are made once a process.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Shaped

from msakit.data.corpus import Corpus
from msakit.data.folds import Rows, labelled
from msakit.data.media import read_image
from msakit.encoders import load_encoder
from msakit.encoders.base import Encoder, to_half
from msakit.encoders.pretrained import (
    load_config,
    load_frozen,
    load_image_processor,
    short_name,
    weights_digest,
    written_name,
)
from msakit.encoders.tokens import Tokens, tokenize
from msakit.features import FeatureStore, extract
from msakit.models import Grid, Input, Pretrained, model_class
from msakit.runs.arm import Arm
from msakit.runs.record import Feature
from msakit.strict import Strict, parse
from msakit.training.batching import TensorBatches, TextBatches

ZERO_SHOT = "zero_shot"  # `model` of an arm that compares with prompts
TOKENS, PIXELS, GRID, PROJECTED = "tokens", "pixels", "grid", "projected"


class EncoderSpec(Strict):
    """An encoder of the experiment; in parameters a text alone is the path."""

    path: str  # folder, hub id or package:NAME/FOLDER
    tokenizer: str | None = None  # where it lies, if not there
    grid: str | None = None  # image encoder whose grid cells the model gets in place of regions; None: the same path


class Inputs:
    """All labelled segments of a corpus, prepared for the encoders on demand.

    encoders: name -> path or `EncoderSpec`. features: folder of the feature stores.

    Raises:
        ValueError: a faulty specification of an encoder.
    """

    def __init__(
        self, corpus: Corpus, encoders: Mapping[str, Any], max_tokens: int, features: Path, device: torch.device
    ) -> None:
        self.corpus, self.max_tokens, self.root, self.device = corpus, max_tokens, features, device
        table = labelled(corpus)
        self.texts, self.ids = list(table["text"]), list(table["segment_id"])
        self.specs = {
            name: parse(EncoderSpec, given if isinstance(given, Mapping) else {"path": given}, f"encoders, {name}")
            for name, given in encoders.items()
            if given
        }
        self._tokens, self._store, self._digest = cache(self._tokenized), cache(self._extracted), cache(_digest)

    def reads(self, arm: Arm) -> dict[str, str]:
        """By modality of an arm: TOKENS, PIXELS, or an output of :mod:`msakit.encoders` that is stored."""
        if arm.model == ZERO_SHOT:
            return dict.fromkeys(arm.inputs, PROJECTED)
        model = model_class(arm.model)
        found = {}
        for modality, each in arm.inputs.items():
            found[modality] = TOKENS if modality == "text" else PIXELS
            if Grid in model.INPUTS.get(modality, ()):
                found[modality] = GRID
            elif each.frozen:
                found[modality] = getattr(model, "FROZEN", {}).get(modality, found[modality])
        return found

    def kinds(self, arm: Arm) -> dict[str, Input]:
        """For `msakit.models.build_model`: what the arm's model gets of each modality."""
        found: dict[str, Input] = {}
        for modality, what in self.reads(arm).items():
            each = arm.inputs[modality]
            found[modality] = Pretrained(self.spec(each.encoder).path, each.frozen)
            if what == GRID:
                found[modality] = Grid(self.store(arm, modality, GRID).dim)
        return found

    def features(self, arm: Arm) -> dict[str, Feature]:
        """The arm's inputs, resolved for its record. What is stored is made here, if it is not there yet.

        Raises:
            ValueError: an encoder that is not given, or an option of an input that this paper does not have.
        """
        found = {}
        for modality, what in self.reads(arm).items():
            each, spec = arm.inputs[modality], self.spec(arm.inputs[modality].encoder)
            if unknown := each.model_dump(exclude={"encoder", "frozen"}, exclude_defaults=True):
                raise ValueError(f"{arm.title!r}: inputs of this paper have no {min(unknown)}, only encoder and frozen")
            folder = "" if what == TOKENS else self.store(arm, modality, what).folder.name
            weights = self._digest(spec.grid or spec.path if what == GRID else spec.path)
            name = "" if folder else written_name(spec.path)
            found[modality] = Feature(
                encoder=each.encoder, checkpoint=name, features=folder, weights=weights, frozen=each.frozen
            )
        return found

    def truncated(self, arm: Arm) -> dict[str, int]:
        """For a record: how many texts lost their end, and the most tokens of one."""
        if "text" not in arm.inputs:
            return {}
        tokens = self.tokens(arm)
        return {"truncated_texts": tokens.truncated, "most_tokens": tokens.limit}

    def batches(
        self, arm: Arm, label: Shaped[np.ndarray, " segments"], rows: Rows, batch_size: int, **options: Any
    ) -> TextBatches | TensorBatches:
        """Batches of these rows as the arm's model reads them; texts of similar length go together.

        label: of all segments. options: generator, drop_last.
        """
        dense, reads = self.dense(arm, rows), self.reads(arm)
        if reads.get("text") != TOKENS:
            return TensorBatches(dense, label[rows], batch_size, **options)
        tokens = self.tokens(arm)
        ids = [tokens.ids[row] for row in rows]
        return TextBatches(ids, label[rows], batch_size, dense=dense, pad_id=tokens.pad_id, bucket=True, **options)

    def dense(self, arm: Arm, rows: Rows) -> dict[str, Float16[np.ndarray, "rows ..."]]:
        """What is stored of the arm's inputs, a row a segment, by its name in a batch."""
        found = {}
        for modality, what in self.reads(arm).items():
            if what == TOKENS:
                continue
            store = self.store(arm, modality, what)
            values = store.array([self.ids[row] for row in rows])
            if what == PIXELS:
                found["pixel_values"] = values.reshape(len(rows), *store.config["encoder"]["shape"])
            elif what == GRID:
                found[modality] = values
            else:
                found[f"{modality}_features"] = values[:, 0]
        return found

    def spec(self, encoder: str) -> EncoderSpec:
        """The encoder of that name. Raises ValueError for one that is not given."""
        if encoder not in self.specs:
            raise ValueError(f"the encoder {encoder!r} is not given: there are {', '.join(self.specs) or 'none'}")
        return self.specs[encoder]

    def tokens(self, arm: Arm) -> Tokens:
        """The texts as the arm's encoder reads them."""
        return self._tokens(arm.inputs["text"].encoder, self._limit(arm))

    def store(self, arm: Arm, modality: str, what: str) -> FeatureStore:
        """What is stored of a modality of the arm; made here, if it is not there yet."""
        limit = self._limit(arm) if modality == "text" else None
        return self._store(arm.inputs[modality].encoder, modality, what, limit)

    def _limit(self, arm: Arm) -> int:
        return int(arm.settings.get("max_tokens", self.max_tokens))

    def _tokenized(self, encoder: str, limit: int) -> Tokens:
        spec = self.spec(encoder)
        return tokenize(spec.path, self.texts, limit, tokenizer=spec.tokenizer)

    def _extracted(self, encoder: str, modality: str, what: str, limit: int | None) -> FeatureStore:
        spec = self.spec(encoder)
        if what == PIXELS:
            return extract(self.corpus, Pixels(spec.path), self.root)
        options: dict[str, Any] = {"kind": "vision", "path": spec.path, "output": what, "faces": False}
        if modality == "text":
            options = {"kind": "text", "path": spec.path, "output": what, "max_length": limit}
        elif what == GRID:
            # The regions of its pre-training were so wide.
            cell = getattr(load_config(spec.path), "visual_embedding_dim", None)
            options |= {"path": spec.grid or spec.path, "cell_dim": cell}
        return extract(self.corpus, load_encoder(options), self.root)


class Pixels(Encoder):
    """Images as an encoder's processor prepares them, to be stored as frames: what fine-tuned image encoders read."""

    modality = "image"

    def __init__(self, path: str) -> None:
        self.processor, self.name = load_image_processor(path), f"{short_name(path)}-pixels"
        self.shape = self._process(np.zeros((64, 64, 3), dtype=np.uint8)).shape
        self.dim = int(np.prod(self.shape))

    def config(self) -> dict[str, Any]:
        processor = json.loads(self.processor.to_json_string())
        return {"encoder": "pixels", "name": self.name, "processor": processor, "shape": list(self.shape)}

    def prepare(self, row: dict[str, Any]) -> Float16[np.ndarray, "layer time dim"]:
        return self._process(read_image(Path(row["image"]))).reshape(1, 1, -1)

    def encode(self, batch: list[Any]) -> list[Float16[np.ndarray, "layer time dim"]]:
        return batch

    def _process(self, picture: Any) -> Float16[np.ndarray, "channel height width"]:
        return to_half(np.asarray(self.processor([picture], return_tensors="np")["pixel_values"])[0])


def _digest(path: str) -> str:
    return weights_digest(load_frozen(path))
