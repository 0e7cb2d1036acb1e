"""A trained head with all it needs to judge a new clip: encoders, layers, scaling. Three lines of Python:

    from msakit.predictor import Predictor
    predictor = Predictor.from_pretrained("results/mini/heads/ando2022/mini-mosi/best-text-audio-vision")
    print(predictor.predict(video="clip.mp4", text="I would see it again"))

A clip goes through `prepare` and `encode` of the same encoders as the corpus did. A modality that is not given, or that
the clip does not have, is absent as in training: no frames, a zero embedding (`msakit.models.gated`).
The saved folder holds model.safetensors and config.json (the head, also for `GatedFusion.from_pretrained`) and
predictor.json. The encoders' weights are not in it, only where they lay and what they were: other weights are refused.
"""

import json
import logging
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from msakit.encoders import load_encoder
from msakit.encoders.base import SegmentError
from msakit.features import FeatureStore
from msakit.models.gated import GatedFusion
from msakit.models.layers.packed import Packed

log = logging.getLogger(__name__)

VERSION = 1
FILE = "predictor.json"
COLUMNS = {"text": "text", "audio": "audio", "vision": "video"}  # what each modality reads of a row


class PredictorError(ValueError):
    """A head that cannot be used, or a clip that it cannot judge; the message says why and the mend."""


@dataclass(frozen=True)
class Scaling:
    """Frames become (frames - mean) / deviation: conventional features as their training split was standardised."""

    mean: Float32[np.ndarray, " dim"]
    deviation: Float32[np.ndarray, " dim"]

    @classmethod
    def of(cls, frames: Float[np.ndarray, "frames dim"]) -> "Scaling":
        """From the frames of the training split; a constant column keeps its size."""
        values = frames.astype(np.float32)
        deviation = values.std(0)
        return cls(values.mean(0), np.where(deviation > 0, deviation, np.float32(1)))

    def __call__(self, frames: Float[np.ndarray, "*layer frames dim"]) -> Float32[np.ndarray, "*layer frames dim"]:
        return (frames.astype(np.float32) - self.mean) / self.deviation


@dataclass(frozen=True)
class Prediction:
    """score: in the range of the corpus' labels, not clipped. gates: 0 to 1, of the modalities that were there; empty
    for the concat decoder. absent: modality -> why."""

    score: float
    gates: dict[str, float]
    absent: dict[str, str] = field(default_factory=dict)


class Predictor:
    """A regression head of `GatedFusion` with the encoders, layers and scaling of its training.

    Args:
        head: the trained model.
        encoders: modality -> what `msakit.encoders.load_encoder` takes; for every modality of the head.
        layers: modality -> hidden layer that the head was trained on (-1 is the output, the default); None for a head
            that mixes all layers.
        scaling: modality -> Scaling, where features were standardised.
        identities: modality -> `encoder.config()` at the time of training; an encoder that says otherwise is refused.
        about: anything worth knowing later, as plain JSON (corpus, generated, arm, seed, label range, ...).
        device: of head and encoders; "auto" is the GPU where there is one.
    """

    def __init__(
        self,
        head: GatedFusion,
        encoders: Mapping[str, Any],
        layers: Mapping[str, int | None] | None = None,
        scaling: Mapping[str, Scaling] | None = None,
        identities: Mapping[str, dict[str, Any]] | None = None,
        about: Mapping[str, Any] | None = None,
        device: str = "cpu",
    ):
        if head.n_classes:
            raise PredictorError(f"the head has {head.n_classes} classes; only regression heads give a score")
        if set(encoders) != set(head.modalities):
            raise PredictorError(
                f"the head uses {', '.join(head.modalities)}, but encoders are given for "
                f"{', '.join(encoders) or 'none'}: give one for each"
            )
        self.head = head.to(device).eval()
        self.encoders = {name: encoders[name] for name in head.modalities}
        self.layers = {name: (layers or {}).get(name, -1) for name in head.modalities}
        self.scaling = dict(scaling or {})
        self.identities = dict(identities or {})
        self.about = dict(about or {})
        self.device = device
        self._loaded: dict[str, Any] = {}

    @classmethod
    def from_stores(
        cls,
        head: GatedFusion,
        stores: Mapping[str, FeatureStore],
        layers: Mapping[str, int | None],
        scaling: Mapping[str, Scaling] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> "Predictor":
        """With the encoders that filled the feature stores the head was trained on."""
        for name, store in stores.items():
            if not store.config.get("spec"):
                raise PredictorError(f"{store.folder} does not say how its {name} encoder was made: extract it again")
        return cls(
            head,
            {name: store.config["spec"] for name, store in stores.items()},
            layers,
            scaling,
            {name: store.config["encoder"] for name, store in stores.items()},
            about,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model.safetensors, config.json and predictor.json, the last one last: it makes the folder whole."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).unlink(missing_ok=True)
        self.head.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # the hub's empty model card
        content = {
            "version": VERSION,
            "encoders": self.encoders,
            "layers": self.layers,
            "scaling": {
                name: {"mean": scaling.mean.tolist(), "deviation": scaling.deviation.tolist()}
                for name, scaling in self.scaling.items()
            },
            "identities": self.identities,
            "about": self.about,
        }
        (folder / FILE).write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, encoders: Mapping[str, Any] | None = None, device: str = "cpu"
    ) -> "Predictor":
        """From a folder of `save_pretrained`; `encoders` replaces specifications whose paths have moved.

        Raises PredictorError for a folder that is no saved predictor.
        """
        folder = Path(folder)
        try:
            content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PredictorError(
                f"{folder} holds no readable {FILE} ({error}): give a folder that Predictor.save_pretrained wrote"
            ) from error
        if content.get("version") != VERSION:
            raise PredictorError(f"{folder / FILE} has version {content.get('version')}, not {VERSION}: train it again")
        scaling = {
            name: Scaling(np.array(values["mean"], np.float32), np.array(values["deviation"], np.float32))
            for name, values in content["scaling"].items()
        }
        with redirect_stdout(sys.stderr):  # the hub's mixin prints that it loads
            head = GatedFusion.from_pretrained(str(folder))
        return cls(
            head,
            content["encoders"] | dict(encoders or {}),
            content["layers"],
            scaling,
            content["identities"],
            content["about"],
            device,
        )

    def predict(
        self, video: str | Path | None = None, audio: str | Path | None = None, text: str | None = None
    ) -> Prediction:
        """Score and gates of one clip.

        Without `audio`, the sound is taken from the video. What is given and cannot be read is an error, and so is
        what the head has no use for; what is not given, and sound that a video does not have, is absent.
        """
        given = {"text": text, "audio": audio, "vision": video}
        self._check(given)
        row = {"text": text, "audio": audio, "video": video}
        features: dict[str, Tensor] = {}
        absent: dict[str, str] = {}
        for name in self.head.modalities:
            # Absent: the zero vector that the head's own encoders give for a segment without frames.
            features[name] = torch.zeros(1, self.head.embedding, device=self.device)
            if given[name] is None and not (name == "audio" and video is not None):
                absent[name] = f"no {COLUMNS[name]} was given"
                continue
            try:
                features[name] = self._embedding(name, row)
            except SegmentError as error:
                if given[name] is not None:
                    raise PredictorError(f"{name}: {error}") from error
                absent[name] = str(error)
        if len(absent) == len(self.head.modalities):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
            raise PredictorError(f"nothing is left to judge ({reasons})")
        with torch.inference_mode():
            output = self.head.forward_head(features)
        gates = dict(zip(self.head.modalities, output["gates"][0].tolist(), strict=True)) if "gates" in output else {}
        return Prediction(
            float(output["prediction"][0]), {name: gate for name, gate in gates.items() if name not in absent}, absent
        )

    def _check(self, given: Mapping[str, Any]) -> None:
        used = ", ".join(COLUMNS[name] for name in self.head.modalities)
        if all(value is None for value in given.values()):
            raise PredictorError(f"nothing is given to judge: this head reads {used}")
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

    @torch.inference_mode()
    def _embedding(self, name: str, row: dict[str, Any]) -> Float[Tensor, "1 embedding"]:
        encoder = self._encoder(name)
        (encoded,) = encoder.encode([encoder.prepare(row)])
        layer = self.layers[name]
        frames = encoded if layer is None else encoded[layer]
        frames = self.scaling[name](frames) if name in self.scaling else frames.astype(np.float32)
        length = torch.tensor([frames.shape[-2]], device=self.device)
        embedded, _ = self.head.encoders[name](Packed(torch.from_numpy(frames).to(self.device), length))
        return embedded


def find_head(folder: str | Path) -> Path:
    """A saved head below `folder`/results or `folder`/build: that of most modalities, the first by name among equals.

    Raises PredictorError where there is none.
    """
    found = [
        path.parent for place in ("results", "build") for path in Path(folder).glob(f"{place}/**/heads/*/*/*/{FILE}")
    ]
    if not found:
        raise PredictorError(
            f"no trained head under {folder}/results or {folder}/build: run `make reproduce`, or name one with --head"
        )
    chosen = min(found, key=lambda path: (-len(json.loads((path / FILE).read_text())["encoders"]), str(path)))
    log.info("using the head %s, one of %d", chosen, len(found))
    return chosen
