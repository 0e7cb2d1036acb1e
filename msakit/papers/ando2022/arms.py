"""The arms of Ando et al. follow a rule: each family of ``paper.yaml`` with each set of modalities and each decoder."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

MODALITIES = ("text", "audio", "vision")
SINGLE = "layer"  # the family of single layers


def definitions(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Definitions (:mod:`msakit.runs.arm`) by name: ``<family>-<modality>-…``, single layers ``layer<k>-<encoder>``.

    With ``.concat`` an arm has the concat decoder; a single modality has nothing to concatenate.
    """
    arms: dict[str, dict[str, Any]] = {}
    for family, about in facts["families"].items():
        if family == SINGLE:
            for modality in MODALITIES:
                arms |= dict(single_layer(facts, modality, modality, layer) for layer in range(about["layers"]))
            continue
        sets = about.get("sets") or [names for size in (1, 2, 3) for names in combinations(MODALITIES, size)]
        for ending, args in (("", {}), (".concat", {"decoder": "concat"})):
            for names in sets:
                if ending and len(names) == 1:
                    continue
                arms[f"{family}-{'-'.join(names)}{ending}"] = {
                    "title": " + ".join(names) + (", concatenated" if ending else ""),
                    "group": about["title"],
                    "model": "gated",
                    "args": args,
                    "inputs": {name: about["inputs"][name] for name in names},
                }
    return arms


def single_layer(facts: Mapping[str, Any], modality: str, encoder: str, layer: int) -> tuple[str, dict[str, Any]]:
    """Name and definition of the arm of one layer of one encoder."""
    return f"{SINGLE}{layer}-{encoder}", {
        "title": f"{encoder}, layer {layer}",
        "group": facts["families"][SINGLE]["title"],
        "model": "gated",
        "inputs": {modality: {"encoder": encoder, "layer": layer}},
    }
