"""The words of the mini corpora (words.yaml), and the phrases that modifiers make of those that have a valence.

A sentiment slot of a sentence is filled with a phrase: an optional modifier and a word. The phrase's valence is the
modifier's factor times the word's valence, clipped to [-3, 3]; its weight is the product of both weights. Given the
sentiment s, a phrase of valence v is drawn with probability

    p(phrase | s) = weight · exp(-(v - s)² / 2σ²) / sum over all phrases of the slot

so that the likelihood of a sentence is exact. Ambiguous words have only a strength: v is compared with |s| instead.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float

WORDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text("utf-8"))


@dataclass(frozen=True)
class Phrases:
    """All fillings of one kind of slot: texts, valences, and weights summing to one."""

    texts: tuple[str, ...]
    valence: Float[np.ndarray, "phrases"]
    weight: Float[np.ndarray, "phrases"]

    def probabilities(self, sentiment: Float[np.ndarray, "grid"], sigma: float) -> Float[np.ndarray, "grid phrases"]:
        """p(phrase | s) for each s of the grid."""
        logits = np.log(self.weight) - (self.valence - sentiment[:, None]) ** 2 / (2 * sigma**2)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(p / p.sum(axis=1, keepdims=True))


def phrases(words: dict[str, float], modifiers: dict[str, list[float]]) -> Phrases:
    """Every modifier before every word."""
    texts, valence, weight = [], [], []
    for modifier, (factor, share) in modifiers.items():
        for word, v in words.items():
            texts.append(f"{modifier} {word}".strip())
            valence.append(float(np.clip(factor * v, -3.0, 3.0)))
            weight.append(share / len(words))
    return Phrases(tuple(texts), np.array(valence), np.array(weight) / np.sum(weight))


SLOTS = {
    "ADJ": phrases(WORDS["adjectives"], WORDS["adjective_modifiers"]),
    "VERB": phrases(WORDS["verbs"], WORDS["verb_modifiers"]),
    "AMB": phrases(WORDS["ambiguous"], WORDS["ambiguous_modifiers"]),
}
