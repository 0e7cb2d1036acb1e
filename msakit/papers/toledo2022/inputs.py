"""Texts and images of a corpus as the encoders want them, each made once and only if an arm asks for it.

Everything is kept for all labelled segments in one order, so that a fold is a choice of rows.  Pixels and the grid
cells of images are kept in half precision, the precision of a pixel being a 256th; batches widen them.  What frozen
encoders give is computed once a corpus and serves every fold, seed and share.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import send_to_device
from jaxtyping import Float, Float16, Int
from torch import Tensor, nn
from tqdm import tqdm

from msakit.data.media import read_image
from msakit.encoders.pretrained import load_encoder
from msakit.models.clip import ClipClassifier, zero_shot
from msakit.models.joint import JointFusion
from msakit.models.visualbert import grid
from msakit.training.batching import TensorBatches, TextBatches

CHUNK = 128  # segments that pass an encoder, or an image processor, at once


@dataclass(frozen=True)
class Encoders:
    """Folders or hub ids; an arm that needs an empty one is refused."""

    text: str
    image: str
    clip: str = ""
    visualbert: str = ""  # brings its own image encoder in a folder `resnet`, or looks through `image`
    visualbert_tokenizer: str = ""  # where the checkpoint has none

    @property
    def eyes(self) -> str:
        """The image encoder whose grid cells VisualBERT sees."""
        own = Path(self.visualbert) / "resnet"
        return str(own) if own.is_dir() else self.image


@dataclass(frozen=True)
class Tokens:
    """Token ids a segment, and the id that fills up."""

    ids: list[list[int]]
    pad: int

    def batches(self, rows: Int[np.ndarray, " rows"], dense: Mapping[str, np.ndarray], **options: Any) -> TextBatches:
        """Texts of similar length go together, so that little is padded."""
        chosen = [self.ids[row] for row in rows]
        return TextBatches(chosen, dense=dense, pad_id=self.pad, bucket=True, **options)


class Inputs:
    """All labelled segments of a corpus (`msakit.data.folds.labelled`), prepared for the encoders on demand.

    Raises msakit.data.media.MediaError where an image cannot be read; the file is named.
    """

    def __init__(self, table: pd.DataFrame, encoders: Encoders, max_tokens: int, device: torch.device) -> None:
        self.table, self.encoders, self.max_tokens, self.device = table, encoders, max_tokens, device
        self.everything = np.arange(len(table))
        self._frozen: dict[str, dict[str, np.ndarray]] = {}

    @cached_property
    def tokens(self) -> Tokens:
        return self._tokenize(self.encoders.text)

    @cached_property
    def pixels(self) -> Float16[np.ndarray, "segments 3 height width"]:
        return self._process(self.encoders.image)

    @cached_property
    def clip_tokens(self) -> Tokens:
        return self._tokenize(self.encoders.clip)

    @cached_property
    def clip_pixels(self) -> Float16[np.ndarray, "segments 3 height width"]:
        return self._process(self.encoders.clip)

    @cached_property
    def visualbert_tokens(self) -> Tokens:
        return self._tokenize(self.encoders.visualbert, self.encoders.visualbert_tokenizer)

    @cached_property
    def cells(self) -> Float16[np.ndarray, "segments cells dim"]:
        """What VisualBERT takes for regions: the grid of its image encoder."""
        from transformers import AutoConfig

        width = AutoConfig.from_pretrained(self.encoders.visualbert).visual_embedding_dim
        eyes = load_encoder(self.encoders.eyes, "vision").eval().to(self.device)
        same = self.encoders.eyes == self.encoders.image
        pixels = self.pixels if same else self._process(self.encoders.eyes)
        parts = [
            grid(eyes, torch.from_numpy(pixels[start : start + CHUNK]).float().to(self.device), width).cpu().half()
            for start in tqdm(range(0, len(pixels), CHUNK), desc="grid cells", mininterval=2, leave=False)
        ]
        return torch.cat(parts).numpy()

    def frozen(self, name: str, model: JointFusion | ClipClassifier) -> dict[str, np.ndarray]:
        """Vectors of the model's encoders for every segment; computed at the first call of that name."""
        if name not in self._frozen:
            tokens, pixels = (
                (self.clip_tokens, self.clip_pixels)
                if isinstance(model, ClipClassifier)
                else (self.tokens, self.pixels)
            )
            label = np.zeros(len(self.table), dtype=int)
            batches = tokens.batches(self.everything, {"pixel_values": pixels}, label=label, batch_size=CHUNK)
            self._frozen[name] = vectors(model.forward_features, model, batches, self.device)
        return self._frozen[name]

    def guess(self, model: ClipClassifier, prompts: Mapping[str, list[str]]) -> Float[np.ndarray, "segments classes"]:
        """CLIP's probabilities of every segment without training; prompts: by class, in the order of the classes."""
        found = self.frozen("clip", model)
        tokenizer = _tokenizer(self.encoders.clip)
        embedded = []
        model.eval()
        with torch.inference_mode():
            for texts in prompts.values():
                ready = tokenizer(texts, truncation=True, max_length=self.max_tokens, padding=True, return_tensors="pt")
                embedded.append(model.embed_texts(send_to_device(dict(ready), self.device)).cpu())
            temperature = float((-model.clip.logit_scale).exp())
            image, text = (torch.from_numpy(found[f"{name}_features"]) for name in ("image", "text"))
            return zero_shot(image, text, embedded, temperature).numpy()

    def _tokenize(self, path: str, tokenizer_path: str = "") -> Tokens:
        tokenizer = _tokenizer(tokenizer_path or path)
        limit = min(self.max_tokens, tokenizer.model_max_length, _positions(path))
        ids = tokenizer(list(self.table["text"]), truncation=True, max_length=limit)["input_ids"]
        return Tokens(ids, tokenizer.pad_token_id or 0)

    def _process(self, path: str) -> Float16[np.ndarray, "segments 3 height width"]:
        from transformers import AutoImageProcessor

        # torchvision, which the default backend wants, does not go with this torch.
        processor = AutoImageProcessor.from_pretrained(path, backend="pil")
        files, parts = list(self.table["image"]), []
        for start in tqdm(range(0, len(files), CHUNK), desc="images", mininterval=2, leave=False):
            images = [read_image(file) for file in files[start : start + CHUNK]]
            parts.append(processor(images, return_tensors="np")["pixel_values"].astype(np.float16))
        return np.concatenate(parts)


def _tokenizer(path: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


def _positions(path: str) -> int:
    """How many tokens the encoder has positions for (of a dual encoder, its text tower)."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    config = getattr(config, "text_config", None) or config
    # RoBERTa and its kin count positions from the padding id on.
    start = (config.pad_token_id or 0) + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return int(getattr(config, "max_position_embeddings", 512)) - start


@torch.inference_mode()
def vectors(
    function: Callable[[dict[str, Any]], dict[str, Tensor]],
    model: nn.Module,
    batches: TextBatches | TensorBatches,
    device: torch.device,
) -> dict[str, Float[np.ndarray, "segments dim"]]:
    """What a function of the model gives for every segment, in the segments' order; the model ends in eval mode."""
    model.to(device).eval()
    found: dict[str, list[np.ndarray]] = {}
    rows = []
    for batch in batches:
        rows.append(batch["index"].numpy())
        for name, value in function(send_to_device(batch, device)).items():
            found.setdefault(name, []).append(value.float().cpu().numpy())
    order = np.argsort(np.concatenate(rows))
    return {name: np.concatenate(values)[order] for name, values in found.items()}
