"""Encoders: one object a modality that turns a row of a corpus into `[layer, time, dim]` features.

`msakit.encoders.base.Encoder` states what every encoder has. `load_encoder` makes one from a line of a profile:

    load_encoder({"kind": "audio", "path": "microsoft/wavlm-large", "every": 10})
    load_encoder("text:bert-large-uncased")
    load_encoder("acoustic-set")

Besides all hidden states ("hidden", the default), text and vision encoders give one layer of what a model's own head
would read (option `output`), for the frozen encoders of fine-tuned models:

    {"kind": "text", "path": P, "output": "first"}        one frame: first token of the last hidden state
    {"kind": "text", "path": P, "output": "projected"}    one frame: text vector of a dual encoder (CLIP), of length 1
    {"kind": "vision", "path": P, "output": "pooled"}     a frame a picture: pooler output, else [CLS], else mean
    {"kind": "vision", "path": P, "output": "projected"}  a frame a picture: image vector of a dual encoder, of length 1
    {"kind": "vision", "path": P, "output": "grid", "cell_dim": D}  frames are cells of a picture, row by row: of the
                                                          last layer that is D wide, else (or without D) of the last one

`FeatureStore.array(segment_ids)` gives them as one array "segment time dim". `msakit.encoders.pretrained` is the one
place that opens checkpoints, `msakit.encoders.tokens` the one that tokenises.
"""

import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import Any

from pydantic import create_model

from msakit.strict import Strict, parse
from msakit.suggestions import did_you_mean

ENCODERS: dict[str, str] = {
    "text": "msakit.encoders.text:TextEncoder",
    "audio": "msakit.encoders.audio:AudioEncoder",
    "whisper": "msakit.encoders.whisper:WhisperEncoder",
    "vision": "msakit.encoders.vision:VisionEncoder",
    "bag-of-embeddings": "msakit.encoders.conventional:BagOfEmbeddings",
    "acoustic-set": "msakit.encoders.conventional:AcousticSet",
    "opensmile": "msakit.encoders.conventional:OpenSmile",
    "visual-set": "msakit.encoders.conventional:VisualSet",
    "precomputed": "msakit.encoders.conventional:Precomputed",
}


def load_encoder(spec: dict[str, Any] | str) -> Any:
    """An encoder from `{"kind": ..., "path": ..., **options}`, or from "kind" or "kind:path" in short.

    `path` is a folder, a hub id, or "package:NAME/FOLDER" for a folder inside an installed package. Options are the
    keyword-only arguments of the class and of its `from_pretrained`. The encoder remembers the whole of it as `spec`.

    Raises ValueError, with the choices, for an unknown kind or option, an option of another type, or a package that is
    not installed; EncoderError, which is one, for a checkpoint that cannot be opened.
    """
    if isinstance(spec, str):
        kind, _, path = spec.partition(":")
        options: dict[str, Any] = {"path": path} if path else {}
    else:
        options = dict(spec)
        if "kind" not in options:
            raise ValueError(f"an encoder needs a 'kind', one of {', '.join(ENCODERS)}; got {spec!r}")
        kind = options.pop("kind")
    found = encoder_class(kind)
    make = getattr(found, "from_pretrained", found)
    parameters = {**inspect.signature(found).parameters, **inspect.signature(make).parameters}
    fields: dict[str, Any] = {
        name: (each.annotation, ... if each.default is each.empty else each.default)
        for name, each in parameters.items()
        if each.kind is each.KEYWORD_ONLY or name == "path"
    }
    parse(create_model("Options", __base__=Strict, **fields), options, f"encoder of kind {kind!r}")
    spec = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    if "path" in options:
        options["path"] = resolve_path(options["path"])
    encoder = make(**options)
    encoder.spec = {"kind": kind, **spec}
    return encoder


def encoder_class(kind: str) -> Any:
    """The class of a kind. Raises ValueError, with the choices, for an unknown one."""
    if kind not in ENCODERS:
        near = did_you_mean(kind, ENCODERS)
        raise ValueError(f"no encoder is called {kind!r}; choose one of {', '.join(ENCODERS)}.{near}")
    module, _, name = ENCODERS[kind].partition(":")
    return getattr(importlib.import_module(module), name)


def resolve_path(path: str | Path) -> str:
    """The folder behind "package:NAME/FOLDER"; any other path or hub id as it is, as text.

    Raises ValueError if the package is not installed or lacks the folder.
    """
    scheme, colon, rest = str(path).partition(":")
    if scheme != "package" or not colon:
        return str(path)
    name, _, folder = rest.partition("/")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{path}: the package {name} is not installed; pip install {name.replace('_', '-')}")
    found = Path(next(iter(spec.submodule_search_locations))) / folder
    if not found.is_dir():
        raise ValueError(f"{path}: the package {name} has no folder {folder!r}")
    return str(found)
