"""A trained model with all it needs for a new clip: encoders, layers, scaling, names of classes. Three lines of Python:

    from msakit.predictor import Predictor
    predictor = Predictor.from_pretrained("results/mini/heads/ando2022/mini-mosi/best-text-audio-vision")
    print(predictor.predict(video="clip.mp4", text="I would see it again"))

A clip goes through `prepare` and `encode` of the same encoders as the corpus did. A modality that is not given, or that
the clip does not have, has no frames, as in training. Any model of the contract (:mod:`msakit.models`) will do whose
inputs are `Frames`.

The saved folder holds model.safetensors and config.json (the head, also for its class's own `from_pretrained`) and
predictor.json. The encoders' weights are not in it, only where they lay and what they were: other weights are refused.
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from safetensors import SafetensorError

from msakit.data.media import MediaError
from msakit.encoders import load_encoder
from msakit.encoders.base import SegmentError
from msakit.features import FeatureStore
from msakit.files import write_atomically
from msakit.models import MODELS, Frames, model_class, reference_of
from msakit.models.layers.packed import Packed
from msakit.runs.experiment import probabilities
from msakit.training.scaling import Scaling

log = logging.getLogger(__name__)

VERSION = 2
FILE = "predictor.json"
COLUMNS = {"text": "text", "audio": "audio", "vision": "video"}  # what each modality reads of a row


class PredictorError(ValueError):
    """A head that cannot be used, or a clip that it cannot score; the message says why and the mend."""


@dataclass(frozen=True)
class Prediction:
    """What a head gives for one clip.

    score: in the range of the corpus's labels, not clipped; None for classes. gates: 0 to 1, of the modalities that
    were there; empty for a head without gates. absent: modality -> why. probabilities: by class; empty for regression.
    """

    score: float | None
    gates: dict[str, float]
    absent: dict[str, str] = field(default_factory=dict)
    probabilities: dict[str, float] = field(default_factory=dict)


@dataclass
class Predictor:
    """A head with the encoders, layers and scaling of its training.

    Raises:
        PredictorError: encoders for other modalities than the head's, or a head with inputs other than `Frames`.
    """

    head: Any  # the trained model
    # For each modality of the head: what it was built from; what `msakit.encoders.load_encoder` takes; the hidden layer
    # that it was trained on (-1 is the output), a list of those that it mixes, or None for all.
    inputs: dict[str, Frames]
    encoders: dict[str, Any]
    layers: dict[str, int | Sequence[int] | None]
    scaling: dict[str, Scaling] = field(default_factory=dict)  # where features were standardised
    # `encoder.config()` at the time of training; an encoder that says otherwise is refused.
    identities: dict[str, dict[str, Any]] = field(default_factory=dict)
    classes: Sequence[str] = ()  # their names, in the order of the head's logits; none for regression
    about: Mapping[str, Any] = field(default_factory=dict)  # plain JSON: corpus, generated, arm, seed, …

    def __post_init__(self) -> None:
        other = [name for name in self.head.modalities if Frames not in self.head.INPUTS[name]]
        if other:
            kinds = " or ".join(kind.__name__ for kind in self.head.INPUTS[other[0]])
            name = type(self.head).__name__
            raise PredictorError(f"{name} takes {other[0]} as {kinds}; a predictor serves Frames alone")
        if set(self.encoders) != set(self.head.modalities):
            raise PredictorError(
                f"the head uses {', '.join(self.head.modalities)}, but encoders are given for "
                f"{', '.join(self.encoders) or 'none'}: give one for each"
            )
        self.head = self.head.cpu().eval()
        self._loaded: dict[str, Any] = {}

    @classmethod
    def from_stores(
        cls,
        head: Any,
        stores: Mapping[str, FeatureStore],
        layers: Mapping[str, int | Sequence[int] | None],
        **more: Any,
    ) -> "Predictor":
        """With the encoders that filled the feature stores the head was trained on; more: scaling, classes, about."""
        inputs = {}
        for name in head.modalities:
            store, layer = stores[name], layers[name]
            mixed = store.n_layers if layer is None else None if isinstance(layer, int) else len(layer)
            inputs[name] = Frames(store.dim, mixed)
        specs = {name: stores[name].config["spec"] for name in head.modalities}
        identities = {name: store.config["encoder"] for name, store in stores.items()}
        layers = {name: layers[name] for name in head.modalities}
        return cls(head, inputs, specs, layers, identities=identities, **more)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model.safetensors, config.json and predictor.json, the last one last: it makes the folder whole."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).unlink(missing_ok=True)
        self.head.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # the hub's empty model card
        content = {
            "version": VERSION,
            "model": reference_of(self.head),
            "inputs": {name: asdict(each) for name, each in self.inputs.items()},
            "encoders": self.encoders,
            "layers": self.layers,
            "scaling": {
                name: {"mean": each.mean.tolist(), "deviation": each.deviation.tolist()}
                for name, each in self.scaling.items()
            },
            "identities": self.identities,
            "classes": self.classes,
            "about": self.about,
        }
        write_atomically(folder / FILE, (json.dumps(content, indent=1, default=str) + "\n").encode())

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, model: str | None = None, encoders: Mapping[str, Any] | None = None
    ) -> "Predictor":
        """From a folder of `save_pretrained`.

        Args:
            model: the head's class (see :func:`msakit.models.model_class`) where it is not of this package: a folder
                cannot name code to be executed.
            encoders: modality -> specification in place of one whose path has moved.

        Raises:
            PredictorError: the folder is no saved predictor, or lacks some of the head's weights.
        """
        folder = Path(folder)
        try:
            content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PredictorError(
                f"{folder} holds no readable {FILE} ({error}): give a folder that Predictor.save_pretrained wrote"
            ) from error
        if content.pop("version", None) != VERSION:
            raise PredictorError(f"{folder / FILE} is not of version {VERSION}: train it again")
        named = content.pop("model")
        if model is None and named not in MODELS:
            raise PredictorError(f"{folder} holds a {named}, none of this package: give its class as `model`")
        try:
            with redirect_stdout(sys.stderr):  # the hub's mixin prints that it loads
                head = model_class(model or named).from_pretrained(str(folder), strict=True)
        except (RuntimeError, OSError, SafetensorError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise PredictorError(f"{folder}: the head cannot be loaded ({reason}): train it again") from error
        content["encoders"] |= encoders or {}
        content["inputs"] = {name: Frames(**each) for name, each in content["inputs"].items()}
        content["scaling"] = {
            name: Scaling(np.array(each["mean"], np.float32), np.array(each["deviation"], np.float32))
            for name, each in content["scaling"].items()
        }
        return cls(head, **content)

    @torch.inference_mode()
    def predict(
        self, video: str | Path | None = None, audio: str | Path | None = None, text: str | None = None
    ) -> Prediction:
        """Score, or probabilities, and gates of one clip.

        Without `audio`, the sound is taken from the video. What is given and cannot be read is an error, and so is
        what the head has no use for; what is not given, and sound that a video does not have, is absent.
        """
        given = {"text": text, "audio": audio, "vision": video}
        self._check(given)
        batch: dict[str, Packed] = {}
        absent: dict[str, str] = {}
        for name in self.head.modalities:
            kind = self.inputs[name]
            frames = np.zeros((*([] if kind.n_layers is None else [kind.n_layers]), 0, kind.dim), np.float32)
            if given[name] is None and not (name == "audio" and video is not None):
                absent[name] = f"no {COLUMNS[name]} was given"
            else:
                try:
                    frames = self._frames(name, {"text": text, "audio": audio, "video": video})
                except (SegmentError, MediaError) as error:
                    if given[name] is not None:
                        raise PredictorError(f"{name}: {error}") from error
                    absent[name] = str(error)
            batch[name] = Packed(torch.from_numpy(frames), torch.tensor([frames.shape[-2]]))
        if len(absent) == len(self.head.modalities):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
            raise PredictorError(f"nothing is left to score ({reasons})")
        output = self.head(batch)
        gates = dict(zip(self.head.modalities, output["gates"][0].tolist(), strict=True)) if "gates" in output else {}
        gates = {name: gate for name, gate in gates.items() if name not in absent}
        prediction = output["prediction"].numpy()
        if prediction.ndim == 1:
            return Prediction(float(prediction[0]), gates, absent)
        found = probabilities(prediction)[0].tolist()
        if len(found) != len(self.classes):
            raise PredictorError(f"the head has {len(found)} classes, and names are given of {len(self.classes)}")
        return Prediction(None, gates, absent, dict(zip(self.classes, found, strict=True)))

    def _check(self, given: Mapping[str, Any]) -> None:
        used = ", ".join(COLUMNS[name] for name in self.head.modalities)
        if all(value is None for value in given.values()):
            raise PredictorError(f"nothing is given: this head reads {used}")
        for name, value in given.items():
            # A video serves a head without vision by its sound.
            wanted = name in self.head.modalities or (name == "vision" and "audio" in self.head.modalities)
            if value is not None and not wanted:
                raise PredictorError(f"this head has no use for {COLUMNS[name]}: it reads {used}; leave the rest out")

    def _encoder(self, name: str) -> Any:
        if name not in self._loaded:
            spec = self.encoders[name]
            kind = spec.partition(":")[0] if isinstance(spec, str) else spec["kind"]
            if kind == "precomputed":
                raise PredictorError(
                    f"the {name} features of this head came with its corpus (kind 'precomputed') and cannot be "
                    "computed for a new clip: use a head trained on an encoder's features"
                )
            encoder = load_encoder(spec)
            expected = self.identities.get(name)
            if expected is not None and encoder.config() != expected:
                differing = [key for key in expected if encoder.config().get(key) != expected[key]]
                raise PredictorError(
                    f"the {name} encoder {spec} is not the one of the training: {', '.join(differing)} differ; "
                    f"give the right one with encoders={{{name!r}: ...}}"
                )
            self._loaded[name] = encoder
        return self._loaded[name]

    def _frames(self, name: str, row: dict[str, Any]) -> Float32[np.ndarray, "*layer frames dim"]:
        """Those of the clip in one modality."""
        encoder, layer = self._encoder(name), self.layers[name]
        (encoded,) = encoder.encode([encoder.prepare(row)])
        frames = encoded if layer is None else encoded[layer]
        frames = self.scaling[name](frames) if name in self.scaling else frames
        return np.asarray(frames, np.float32)


def find_head(folder: str | Path) -> Path:
    """A saved head below `folder`/results or `folder`/build: that of most modalities, the first by name among equals.

    Raises PredictorError where there is none.
    """
    found = [
        path.parent for root in ("results", "build") for path in Path(folder).glob(f"{root}/**/heads/*/*/*/{FILE}")
    ]
    if not found:
        raise PredictorError(
            f"no trained head under {folder}/results or {folder}/build: run `make reproduce`, or name one with --head"
        )
    chosen = min(found, key=lambda path: (-len(json.loads((path / FILE).read_text())["encoders"]), str(path)))
    log.info("using the head %s, one of %d", chosen, len(found))
    return chosen
