"""One published fusion method a file.  `FUSIONS` names the models; `fusion_class` loads one on demand."""

from importlib import import_module
from typing import Any

FUSIONS: dict[str, str] = {
    "clip": "msakit.models.clip:ClipClassifier",
    "gated": "msakit.models.gated:GatedFusion",
    "joint": "msakit.models.joint:JointFusion",
    "shifted_bert": "msakit.models.shifted_bert:ShiftedBert",
    "visualbert": "msakit.models.visualbert:VisualBertClassifier",
}


def fusion_class(name: str) -> Any:
    """The model class of that name; an unknown name raises ValueError listing the choices."""
    if name not in FUSIONS:
        raise ValueError(f"unknown fusion {name!r}; choose from {sorted(FUSIONS)}")
    module, attribute = FUSIONS[name].split(":")
    return getattr(import_module(module), attribute)
