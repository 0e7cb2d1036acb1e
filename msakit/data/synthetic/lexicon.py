"""The words of the mini corpora, each with a valence in [-3, 3], and the phrases that modifiers make of them.

A sentiment slot of a sentence is filled with a phrase: an optional modifier and a word. The phrase's valence is the
modifier's factor times the word's valence, clipped to [-3, 3]; its weight is the product of both weights. Given the
sentiment s, a phrase of valence v is drawn with probability

    p(phrase | s) = weight · exp(-(v - s)² / 2σ²) / sum over all phrases of the slot

so that the likelihood of a sentence is exact. Ambiguous words have only a strength: v is compared with |s| instead.
The valences are our own judgement, made for these corpora; they come from no published lexicon.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

ADJECTIVES = {
    "awful": -2.8, "terrible": -2.7, "horrible": -2.8, "dreadful": -2.6, "disgusting": -3.0, "pathetic": -2.5,
    "miserable": -2.4, "painful": -2.1, "annoying": -1.8, "boring": -1.7, "dull": -1.4, "lazy": -1.5, "messy": -1.1,
    "weak": -1.2, "disappointing": -1.9, "clumsy": -1.0, "slow": -0.7, "forgettable": -1.1, "confusing": -1.0,
    "flat": -0.9, "stale": -1.2, "odd": -0.5, "long": -0.3, "average": -0.1, "ordinary": 0.0, "okay": 0.3, "usual": 0.0,
    "decent": 0.7, "fair": 0.5, "fine": 0.6, "solid": 1.1, "pleasant": 1.3, "neat": 1.1, "sweet": 1.5, "clever": 1.5,
    "good": 1.5, "nice": 1.3, "funny": 1.6, "charming": 1.8, "fresh": 1.2, "moving": 1.5, "great": 2.2, "lovely": 2.0,
    "delightful": 2.3, "beautiful": 2.4, "excellent": 2.6, "wonderful": 2.6, "fantastic": 2.7, "amazing": 2.7,
    "brilliant": 2.6, "perfect": 2.9, "superb": 2.8,
}  # fmt: skip
VERBS = {
    "hated": -2.8, "despised": -3.0, "disliked": -1.8, "regretted": -2.0, "dreaded": -2.2, "resented": -2.3,
    "endured": -1.3, "tolerated": -0.7, "noticed": 0.0, "watched": 0.0, "accepted": 0.3, "liked": 1.4, "enjoyed": 1.8,
    "appreciated": 1.5, "admired": 2.0, "loved": 2.6, "adored": 2.9, "treasured": 2.7,
}  # fmt: skip
# Strength without a sign: only the tone and the face of the whole utterance give the sign.
AMBIGUOUS = {
    "sick": 2.6, "insane": 2.8, "unreal": 2.4, "wild": 2.0, "crazy": 1.8, "wicked": 2.2, "brutal": 2.5, "intense": 1.4,
    "something": 0.8, "different": 0.5, "unusual": 0.3, "ridiculous": 2.1,
}  # fmt: skip

# modifier -> (factor on the valence, weight)
ADJECTIVE_MODIFIERS = {
    "": (1.0, 0.58), "really": (1.3, 0.09), "so": (1.25, 0.07), "very": (1.3, 0.06), "pretty": (0.85, 0.06),
    "a bit": (0.5, 0.06), "not": (-0.6, 0.08),
}  # fmt: skip
VERB_MODIFIERS = {"": (1.0, 0.66), "really": (1.3, 0.14), "kind of": (0.55, 0.10), "never": (-0.7, 0.10)}
AMBIGUOUS_MODIFIERS = {"": (1.0, 0.6), "really": (1.2, 0.15), "so": (1.2, 0.15), "a bit": (0.5, 0.10)}


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


def phrases(words: dict[str, float], modifiers: dict[str, tuple[float, float]]) -> Phrases:
    """Every modifier before every word."""
    texts, valence, weight = [], [], []
    for modifier, (factor, share) in modifiers.items():
        for word, v in words.items():
            texts.append(f"{modifier} {word}".strip())
            valence.append(float(np.clip(factor * v, -3.0, 3.0)))
            weight.append(share / len(words))
    return Phrases(tuple(texts), np.array(valence), np.array(weight) / np.sum(weight))


SLOTS = {
    "ADJ": phrases(ADJECTIVES, ADJECTIVE_MODIFIERS),
    "VERB": phrases(VERBS, VERB_MODIFIERS),
    "AMB": phrases(AMBIGUOUS, AMBIGUOUS_MODIFIERS),
}

# Sentences of a film review; capitals are slots, N a neutral noun. All fillers are independent of the sentiment.
TEMPLATES = (
    "i VERB the N and it was ADJ",
    "the N was ADJ and the N felt ADJ",
    "i think the N in it was ADJ",
    "honestly the whole N is ADJ to me",
    "i VERB the N from the first minute",
    "she VERB it but i found it ADJ",
    "the N was ADJ and also ADJ",
    "this N is ADJ and that N ADJ",
    "and then the N came and it was ADJ",
    "i would say that this N looks ADJ",
    "we VERB the N and VERB the N",
    "for me the N was ADJ overall",
)
# The same without verbs of liking, for utterances whose sentiment words are all ambiguous.
AMBIGUOUS_TEMPLATES = (
    "the N was ADJ and the N felt ADJ",
    "i think the N in it was ADJ",
    "honestly the whole N is ADJ to me",
    "the N was ADJ and also ADJ",
    "and then the N came and it was ADJ",
    "i would say that this N looks ADJ",
)
NOUNS = (
    "movie", "film", "plot", "story", "acting", "cast", "music", "ending", "script", "scene", "camera", "sound",
    "dialogue", "trailer", "book", "phone", "game", "album", "show", "song", "hero", "villain", "picture", "title",
)  # fmt: skip
