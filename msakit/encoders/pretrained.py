"""The one place that opens checkpoints: weights, configuration, tokenizer, image processor, feature extractor.

A path is a folder, an id of the model hub, or "package:NAME/FOLDER" for a folder inside an installed package. Weights
are read from safetensors only, and no code of a checkpoint runs. What cannot be opened is an EncoderError of one line.

Encoders inside fusion models are rebuilt from their configuration alone (`encoder_from_config`): a saved fusion model
holds its encoders' weights and configurations, so that its `from_pretrained` needs no other download.
"""

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from msakit.encoders import resolve_path
from msakit.encoders.base import Encoder, EncoderError

log = logging.getLogger(__name__)

PRECISIONS = ("float32", "bfloat16", "float16")


def written_name(path: str | Path) -> str:
    """A checkpoint as it was given, for records; of an absolute path, which says where somebody keeps it, the end."""
    return Path(path).name if Path(path).is_absolute() else str(path)


def short_name(path: str | Path) -> str:
    """The last part of a folder or hub id, fit for a folder name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", Path(path).name).strip("-").lower() or "encoder"


def load_config(path: str | Path) -> PreTrainedConfig:
    """The configuration of a checkpoint."""
    with _opening(path) as folder:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def load_model(path: str | Path, part: str = "joint", dtype: str = "float32") -> PreTrainedModel:
    """`AutoModel` of a checkpoint, to be fine-tuned.

    Args:
        path: any form; see the module.
        part: of a two-tower model such as CLIP only the tower "text" or "vision"; "joint" for the whole.
        dtype: of the weights: float32, bfloat16 or float16.

    Weights that the checkpoint lacks start at random, and a warning names them.
    """
    if dtype not in PRECISIONS:
        raise EncoderError(f"dtype {dtype!r} of the encoder {str(path)!r}: choose float32, bfloat16 or float16")
    with _opening(path) as folder:
        tower = getattr(AutoConfig.from_pretrained(folder, trust_remote_code=False), f"{part}_config", None)
        model, report = AutoModel.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            **({} if tower is None else {"config": tower}),
        )
    if report["missing_keys"]:
        log.warning("%s lacks weights, which start at random: %s", path, ", ".join(sorted(report["missing_keys"])))
    return model


def load_frozen(path: str | Path, dtype: str = "float32") -> Any:
    """The whole model as `load_model` gives it, in evaluation mode and without gradients.

    Weights that the checkpoint lacks (a pooler, often) are the same at every load, so that the model's digest is, too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = load_model(path, dtype=dtype)
    return model.eval().requires_grad_(False)


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer of a checkpoint. Raises EncoderError for a folder without one.

    Where the files of a tokenizer are missing, transformers makes up one that knows nothing but the special tokens:
    every word would become [UNK].
    """
    with _opening(path) as folder:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids):
        raise EncoderError(
            f"{path} has no tokenizer: its vocabulary holds special tokens only; save the tokenizer there "
            "(tokenizer.save_pretrained writes tokenizer.json and tokenizer_config.json)"
        )
    return tokenizer


def load_image_processor(path: str | Path) -> Any:
    """The image processor of a checkpoint, by PIL: the default backend needs torchvision."""
    with _opening(path) as folder:
        return AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)


def load_feature_extractor(path: str | Path) -> Any:
    """The feature extractor of a checkpoint that reads sound."""
    with _opening(path) as folder:
        return AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)


def weights_digest(model: nn.Module) -> str:
    """sha256 (16 hex digits) over names, shapes and bytes of all weights: the same wherever they were loaded from."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def encoder_from_config(config: dict[str, Any]) -> PreTrainedModel:
    """An untrained encoder of that configuration (`config.to_dict()`, with "model_type")."""
    model: PreTrainedModel = AutoModel.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    return model


def plain_config(encoder: PreTrainedModel) -> dict[str, Any]:
    """The encoder's configuration with json-able values only, without the folder it came from."""
    settings: dict[str, Any] = encoder.config.to_diff_dict()
    # Weights are trained in full precision here, whatever precision they were stored in.
    for name in ("_name_or_path", "dtype"):
        settings.pop(name, None)
    settings["model_type"] = encoder.config.model_type
    return settings


def feature_size(encoder: nn.Module) -> int:
    """Width of the encoder's output; of convolutional networks, the channels of the last stage."""
    config: Any = encoder.config
    size = getattr(config, "hidden_size", None) or (getattr(config, "hidden_sizes", None) or [None])[-1]
    if size is None:
        raise ValueError(
            f"{type(encoder).__name__}: its configuration has neither hidden_size nor hidden_sizes; "
            "choose an encoder of another family"
        )
    return int(size)


class PretrainedEncoder(Encoder):
    """An encoder made of a checkpoint's model and processor, its name, and keyword options of its own."""

    load_processor: ClassVar[Any]  # one of the functions of this module
    outputs: ClassVar[tuple[str, ...]] = ("hidden",)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        name: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        **options: Any,
    ) -> Any:
        """From a folder, hub id or package; `name` goes into folder names, by default the last part of the path."""
        model, processor = load_frozen(path, dtype), cls.load_processor(path)
        return cls(model, processor, name or short_name(path), device=device, **options)  # type: ignore[call-arg]

    def _check_output(self, model: Any, name: str, output: str) -> None:
        if output not in self.outputs:
            raise EncoderError(
                f"output of the {self.modality} encoder {name} is {output!r}: choose one of {', '.join(self.outputs)}"
            )
        if output == "projected" and not hasattr(model, "get_text_features"):
            raise EncoderError(
                f"{name} is a {type(model).__name__}, no dual encoder: output 'projected' needs one (CLIP)"
            )


@contextmanager
def _opening(path: str | Path) -> Iterator[str]:
    """The resolved path; errors of `from_pretrained` become one line that names the checkpoint and the mend."""
    folder = resolve_path(path)
    try:
        yield folder
    except Exception as error:  # the tokenizers library raises nothing narrower
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        # A path that names no folder is taken for an id of the model hub, so that a misspelt one ends there.
        mend = (
            "save the model there again with its tokenizer or processor"
            if Path(folder).is_dir()
            else "there is no such folder here: mend the path, or fetch the checkpoint of that id into the hub's cache "
            "(`msakit data list` says where the papers' own go)"
        )
        raise EncoderError(f"cannot open the encoder {str(path)!r} ({reason.rstrip('.')}): {mend}") from error
