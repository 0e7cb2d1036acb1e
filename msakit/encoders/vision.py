"""Vision encoder: all layers of any vision `AutoModel` (CLIP's tower, ViT, ResNet, ...) on the faces of a video.

Follows the visual features of Ando et al. (CLIP ViT-L/14, 3 frames per second, largest face, [CLS] of every layer,
zeros where no face is found). Deviations: faces are found by OpenCV's Haar cascade instead of MTCNN; a model without
[CLS] gives the mean over positions; layer 0 is the embedding output, so that their 0-based layer k is k + 1 here. A
row with an image and no video gives one frame, the whole picture. Other outputs than the hidden states are what the
head of a fine-tuned model reads.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16
from torch import Tensor, nn

from msakit.data.faces import video_faces
from msakit.data.media import read_frames, read_image
from msakit.encoders.base import EncoderError, SegmentError, named_file, pick_device, stack_layers
from msakit.encoders.outputs import grid, image_feature, image_vectors
from msakit.encoders.pretrained import PretrainedEncoder, load_image_processor, weights_digest

CLASS_TOKEN = re.compile(r"(^|\.)(class_embedding|cls_token|class_token)$")
OTHER_TOKENS = re.compile(r"(^|\.)(distillation_token|register_tokens)$")  # stand between [CLS] and the patches


@dataclass(frozen=True)
class Pictures:
    """Processed pictures of one segment, and which of its frames they belong to."""

    pixels: Float[np.ndarray, "found channel height width"]
    found: Bool[np.ndarray, " time"]  # False: no face in that frame

    def __len__(self) -> int:
        return len(self.found)


class VisionEncoder(PretrainedEncoder):
    """Frames are video frames at `fps`; `faces=False` encodes whole frames instead of face crops of `face_size` px.

    output: "hidden", one vector a frame in all hidden states; "pooled", the output that `image_feature` takes;
    "projected", the vector of a dual encoder such as CLIP, of length 1; "grid", whose frames are the cells of a picture
    in the last layer that is `cell_dim` wide, or else in the last one. position: of hidden states [CLS] ("cls", where
    there is one the default) or the mean over the patches ("mean"). batch: pictures a forward pass, by default 64 on a
    GPU and 8 on a CPU.
    """

    modality = "vision"
    outputs = ("hidden", "pooled", "projected", "grid")
    load_processor = staticmethod(load_image_processor)
    # Pictures are large, and no padding is to be saved: few segments are held at once, in the order of the corpus.
    bucket = 16
    batch_frames = 512

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        name: str,
        *,
        fps: float | int = 3.0,
        faces: bool = True,
        face_size: int = 256,
        batch: int | None = None,
        device: str = "cpu",
        output: str = "hidden",
        position: str | None = None,
        cell_dim: int | None = None,
    ):
        self._check_output(model, name, output)
        device = pick_device(device)
        tower: Any = model if output == "projected" else getattr(model, "vision_model", model)
        self.model: Any = tower.to(device).eval()
        self.processor = processor
        self.name = name
        self.output = output
        self.cell_dim = cell_dim
        self.fps = float(fps)
        self.frame_rate: float | None = None if output == "grid" else self.fps
        self.faces = faces
        self.face_size = face_size
        self.batch = batch or (8 if device == "cpu" else 64)
        self.device = device
        class_token = any(CLASS_TOKEN.search(key) for key, _ in tower.named_parameters())
        if position not in (None, "mean", *(["cls"] if class_token else [])):
            choices = "cls, mean" if class_token else "mean, as it has no [CLS]"
            raise EncoderError(f"position of the vision encoder {name} is {position!r}: choose {choices}")
        self.position = position or ("cls" if class_token else "mean")
        others = [value for key, value in tower.named_parameters() if OTHER_TOKENS.search(key)]
        self._first_patch = class_token + sum(value.shape[-2] for value in others)
        self._weights = weights_digest(tower)
        # Layer count and widths differ by family and are not in one place of the configs: one blank picture tells.
        pixels = self._process([np.zeros((face_size, face_size, 3), dtype=np.uint8)])
        layers = self._layers(torch.from_numpy(pixels))
        self._shape = pixels.shape[1:]
        self._cells = layers[0].shape[1]
        self.n_layers: int = len(layers)
        self.dim: int = max(layer.shape[-1] for layer in layers)

    def config(self) -> dict[str, Any]:
        if self.output == "hidden":
            patches = "mean of patches" if self._first_patch else "mean"
            position = "[CLS]" if self.position == "cls" else patches
            what: dict[str, Any] = {"layers": "0 = embeddings, last = output", "position": position}
        else:
            what = {"output": self.output} | ({"cell_dim": self.cell_dim} if self.output == "grid" else {})
        return {
            "encoder": "vision",
            "name": self.name,
            "weights": self._weights,
            "dtype": str(self.model.dtype),
            **what,
            "fps": self.fps,
            "faces": self.faces,
            "face_size": self.face_size if self.faces else None,
            "processor": {
                key: value
                for key, value in self.processor.to_dict().items()
                if isinstance(value, str | int | float | bool | list | dict | type(None))
            },
            "first_frame_seconds": 0.0,
        }

    def prepare(self, row: dict[str, Any]) -> Pictures:
        video, image = named_file(row, "video"), named_file(row, "image")
        if video is not None and self.faces:
            crops, found = video_faces(video, self.fps, self.face_size)
            return Pictures(self._process(list(crops[found])), found)
        if video is not None:
            pictures = list(read_frames(video, fps=self.fps)[0])
        elif image is not None:
            pictures = [np.asarray(read_image(image))]
        else:
            raise SegmentError("neither a video nor an image is named")
        return Pictures(self._process(pictures), np.ones(len(pictures), dtype=bool))

    def blank_frames(self, prepared: Pictures) -> int:
        """How many frames show no face."""
        return int((~prepared.found).sum()) * self._cells

    @torch.inference_mode()
    def encode(self, batch: list[Pictures]) -> list[Float16[np.ndarray, "layer time dim"]]:
        rows = [picture for pictures in batch for picture in pictures.pixels]
        vectors = []
        for start in range(0, len(rows), self.batch):  # in full batches, of which one at a time is copied
            layers = self._layers(torch.from_numpy(np.stack(rows[start : start + self.batch])))
            vectors.append(stack_layers([layer.flatten(0, 1) for layer in layers]))
        found = np.concatenate([pictures.found for pictures in batch]).repeat(self._cells)
        frames = np.zeros((self.n_layers, len(found), self.dim), dtype=np.float16)
        if vectors:
            frames[:, found] = np.concatenate(vectors, axis=1)
        ends = np.cumsum([len(pictures) * self._cells for pictures in batch])
        return np.split(frames, ends[:-1], axis=1)

    def _process(self, pictures: list[np.ndarray]) -> Float[np.ndarray, "picture channel height width"]:
        if not pictures:
            return np.zeros((0, *self._shape), dtype=np.float32)
        return np.asarray(self.processor(images=pictures, return_tensors="np")["pixel_values"], dtype=np.float32)

    @torch.inference_mode()
    def _layers(
        self, pixels: Float[Tensor, "picture channel height width"]
    ) -> list[Float[Tensor, "picture cell _dim"]]:
        pixels = pixels.to(self.device, self.model.dtype)
        if self.output == "pooled":
            return [image_feature(self.model(pixel_values=pixels))[:, None]]
        if self.output == "projected":
            return [image_vectors(self.model, pixels)[:, None]]
        if self.output == "grid":
            return [grid(self.model, pixels, self.cell_dim)]
        states = self.model(pixel_values=pixels, output_hidden_states=True).hidden_states
        return [self._one_vector(state)[:, None] for state in states]

    def _one_vector(self, state: Float[Tensor, "picture ..."]) -> Float[Tensor, "picture _dim"]:
        if state.ndim == 4:  # a feature map [picture, channel, height, width]
            return state.flatten(2).mean(-1)
        return state[:, 0] if self.position == "cls" else state[:, self._first_patch :].mean(1)
