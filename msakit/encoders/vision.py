"""Vision encoder: all layers of any vision `AutoModel` (CLIP's tower, ViT, ResNet, ...) on the faces of a video.

Follows the visual features of Ando et al. (CLIP ViT-L/14, 3 frames per second, largest face, [CLS] of every layer,
zeros where no face is found). Deviations: faces are found by OpenCV's Haar cascade instead of MTCNN; a model without
[CLS] gives the mean over positions; layer 0 is the embedding output, so that their 0-based layer k is k + 1 here. A
row with an image and no video gives one frame, the whole picture.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel

from msakit.data.faces import video_faces
from msakit.data.media import MediaError, read_frames, read_image
from msakit.encoders.base import (
    SegmentError,
    load_weights,
    opening,
    pick_device,
    short_name,
    stack_layers,
    weights_digest,
)

CLASS_TOKEN = re.compile(r"(^|\.)(class_embedding|cls_token|class_token)$")


@dataclass(frozen=True)
class Pictures:
    """Processed pictures of one segment, and which of its frames they belong to."""

    pixels: Float[np.ndarray, "found channel height width"]
    found: Bool[np.ndarray, " time"]  # False: no face in that frame


class VisionEncoder:
    """Frames are video frames at `fps`; `faces=False` encodes whole frames instead of face crops of `face_size` px."""

    modality = "vision"
    # Pictures are large, and no padding is to be saved: few segments are held at once, in the order of the corpus.
    bucket = 16
    batch_frames = 512

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        name: str,
        fps: float | int = 3.0,
        faces: bool = True,
        face_size: int = 256,
        batch: int | None = None,
        device: str = "cpu",
    ):
        device = pick_device(device)
        tower: Any = getattr(model, "vision_model", model)
        self.model: Any = tower.to(device).eval()
        self.processor = processor
        self.name = name
        self.fps = float(fps)
        self.frame_rate: float | None = self.fps
        self.faces = faces
        self.face_size = face_size
        self.batch = batch or (8 if device == "cpu" else 64)
        self.device = device
        self.class_token = any(CLASS_TOKEN.search(key) for key, _ in tower.named_parameters())
        self._weights = weights_digest(tower)
        # Layer count and widths differ by family and are not in one place of the configs: one blank picture tells.
        blank = np.zeros((face_size, face_size, 3), dtype=np.uint8)
        pixels = self._process([blank])
        layers = self._layers(torch.from_numpy(pixels))
        self._shape = pixels.shape[1:]
        self.n_layers: int = len(layers)
        self.dim: int = max(layer.shape[-1] for layer in layers)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        fps: float | int = 3.0,
        faces: bool = True,
        face_size: int = 256,
        batch: int | None = None,
        device: str = "auto",
        dtype: str = "float32",
    ) -> "VisionEncoder":
        """From a folder or hub id. `batch`: pictures a forward pass, by default 64 on a GPU and 8 on a CPU."""
        model = load_weights(AutoModel, path, dtype)
        with opening(path):  # the PIL backend: the default one needs torchvision
            processor = AutoImageProcessor.from_pretrained(path, backend="pil", trust_remote_code=False)
        return cls(model, processor, short_name(path), fps, faces, face_size, batch, device)

    def config(self) -> dict[str, Any]:
        return {
            "encoder": "vision",
            "name": self.name,
            "weights": self._weights,
            "dtype": str(self.model.dtype),
            "layers": "0 = embeddings, last = output",
            "position": "[CLS]" if self.class_token else "mean",
            "fps": self.fps,
            "faces": self.faces,
            "face_size": self.face_size if self.faces else None,
            "processor": {key: value for key, value in self.processor.to_dict().items() if _plain(value)},
            "first_frame_seconds": 0.0,
        }

    def prepare(self, row: dict[str, Any]) -> Pictures:
        try:
            pictures, found = self._pictures(row)
        except MediaError as error:
            raise SegmentError(str(error)) from error
        return Pictures(self._process([picture for picture, kept in zip(pictures, found, strict=True) if kept]), found)

    def size(self, prepared: Pictures) -> int:
        return len(prepared.found)

    def blank_frames(self, prepared: Pictures) -> int:
        """How many frames show no face."""
        return int((~prepared.found).sum())

    @torch.inference_mode()
    def encode(self, batch: list[Pictures]) -> list[Float16[np.ndarray, "layer time dim"]]:
        parts = [stack_layers(self._layers(part)) for part in self._parts([pictures.pixels for pictures in batch])]
        vectors = np.concatenate([np.zeros((self.n_layers, 0, self.dim), np.float16), *parts], axis=1)
        results, start = [], 0
        for pictures in batch:
            frames = np.zeros((self.n_layers, len(pictures.found), self.dim), dtype=np.float16)
            stop = start + len(pictures.pixels)
            frames[:, pictures.found] = vectors[:, start:stop]
            results.append(frames)
            start = stop
        return results

    def _pictures(self, row: dict[str, Any]) -> tuple[list[np.ndarray], Bool[np.ndarray, " time"]]:
        video, image = row.get("video"), row.get("image")
        if isinstance(video, str | Path) and str(video):
            if self.faces:
                crops, found = video_faces(Path(video), self.fps, self.face_size)
                return list(crops), found
            frames, _ = read_frames(Path(video), fps=self.fps)
            return list(frames), np.ones(len(frames), dtype=bool)
        if isinstance(image, str | Path) and str(image):
            return [np.asarray(read_image(Path(image)))], np.ones(1, dtype=bool)
        raise SegmentError("neither a video nor an image is named")

    def _process(self, pictures: list[np.ndarray]) -> Float[np.ndarray, "picture channel height width"]:
        if not pictures:
            return np.zeros((0, *self._shape), dtype=np.float32)
        return np.asarray(self.processor(images=pictures, return_tensors="np")["pixel_values"], dtype=np.float32)

    def _parts(
        self, arrays: list[Float[np.ndarray, "_picture channel height width"]]
    ) -> Iterator[Float[Tensor, "_picture channel height width"]]:
        """Pictures of several segments in full batches, of which one at a time is copied."""
        places = [(array, row) for array in arrays for row in range(len(array))]
        for start in range(0, len(places), self.batch):
            yield torch.from_numpy(np.stack([array[row] for array, row in places[start : start + self.batch]]))

    @torch.inference_mode()
    def _layers(self, pixels: Float[Tensor, "picture channel height width"]) -> list[Float[Tensor, "picture dim"]]:
        output = self.model(pixel_values=pixels.to(self.device, self.model.dtype), output_hidden_states=True)
        layers = []
        for state in output.hidden_states:
            if state.ndim == 4:  # a feature map [picture, channel, height, width]
                layers.append(state.flatten(2).mean(-1))
            else:
                layers.append(state[:, 0] if self.class_token else state.mean(1))
        return layers


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | list | dict | type(None))
