"""mini-memes: a line of text over a picture, whose class is the exclusive or of the two, after Hateful Memes.

Kiela et al. (2020) chose memes whose text and image are each harmless alone. Here this is carried to its end, with
wording that offends nobody ("love how your cake turned out" over a ruined or a sunny scene). The generating model:

1. Text polarity a and image polarity b are independent fair coins, -1 or 1.
2. y = hateful if a ≠ b, harmless if a = b; then flipped with probability `FLIP`. Neither a nor b alone
   depends on y.
3. Text, given a: a line with two polarity words, a feeling and an adjective, each from the words of polarity a with
   probability 1 - `WORD_NOISE`, else from the other ones; uniform among them. Subjects and templates are nuisances.
4. Picture, given b: weather, light and expression, each from the values of polarity b with probability 1 - `VIEW_NOISE`
   (in that order), else from the others; uniform among them. Object, colours and positions are nuisances.

`oracle.csv` holds the exact posterior p(y | words, picture's content); by the model, a single modality gives 1/2 each.
The columns text_polarity and image_polarity hold a and b.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from msakit.data.synthetic.generated import SPLIT_CODES, checked_sizes, generator, write_description, write_pictures
from msakit.data.synthetic.lexicon import WORDS
from msakit.data.synthetic.scenes import Scene, sample_scene

NAME = "mini-memes"
SIZES = {"train": 1200, "valid": 200, "test": 400}
CLASSES = ("harmless", "hateful")
TASK = {"kind": "classification", "classes": list(CLASSES)}
DESCRIPTION = (
    "Generated memes: binary, the class is the exclusive or of text polarity and image polarity, so that no modality "
    "alone decides. Model: msakit.data.synthetic.mini_memes. Harmless wording throughout; not memes by people."
)
FLIP = 0.03
WORD_NOISE = 0.03
VIEW_NOISE = (0.10, 0.10, 0.04)  # weather, light, expression
# Index 0: polarity -1, index 1: polarity +1.
WEATHER = (("rainy", "stormy"), ("sunny", "cloudy"))
LIGHT = (("dim",), ("bright", "soft"))
EXPRESSION = (("frowning",), ("smiling", "plain"))


@dataclass(frozen=True)
class Meme:
    """Everything drawn for one meme; polarities and the polarity of each cue are 0 (unpleasant) or 1 (pleasant)."""

    label: int
    text_polarity: int
    image_polarity: int
    text: str
    word_cues: tuple[int, ...]
    view_cues: tuple[int, ...]
    scene: Scene


def sample_meme(rng: np.random.Generator) -> Meme:
    """Draw polarities, label, words and the picture's content."""
    a, b = int(rng.integers(2)), int(rng.integers(2))
    y = int(a != b) ^ int(rng.random() < FLIP)
    text, words = sample_line(rng, a)
    views = tuple(b ^ int(rng.random() < noise) for noise in VIEW_NOISE)
    seen = [str(rng.choice(values[p])) for values, p in zip((WEATHER, LIGHT, EXPRESSION), views, strict=True)]
    return Meme(y, a, b, text, words, views, sample_scene(rng, *seen))


def sample_line(rng: np.random.Generator, polarity: int) -> tuple[str, tuple[int, ...]]:
    """A line of the given polarity, and the polarity of each of its two words."""
    words = tuple(polarity ^ int(rng.random() < WORD_NOISE) for _ in range(2))
    memes = WORDS["memes"]
    filling = {
        "F": str(rng.choice(memes["feelings"][words[0]])),
        "A": str(rng.choice(memes["adjectives"][words[1]])),
        "S": str(rng.choice(memes["subjects"])),
    }
    return " ".join(filling.get(token, token) for token in str(rng.choice(memes["templates"])).split()), words


def posterior(meme: Meme) -> dict[str, Float[np.ndarray, "2"]]:
    """p(y | text and picture) as "", p(y | text) as "text_", p(y | picture) as "image_"; classes as in CLASSES."""
    text = _polarity(meme.word_cues, (WORD_NOISE,) * 2)
    image = _polarity(meme.view_cues, VIEW_NOISE)
    even = np.array([0.5, 0.5])
    found = {}
    for name, (a, b) in {"": (text, image), "text_": (text, even), "image_": (even, image)}.items():
        differ = a[0] * b[1] + a[1] * b[0]
        hateful = differ * (1 - FLIP) + (1 - differ) * FLIP
        found[name] = np.array([1 - hateful, hateful])
    return found


def _polarity(cues: tuple[int, ...], noise: tuple[float, ...]) -> Float[np.ndarray, "2"]:
    """Posterior of a fair polarity from cues that are each wrong with their own probability."""
    p = np.array(
        [np.prod([1 - e if cue == side else e for cue, e in zip(cues, noise, strict=True)]) for side in (0, 1)]
    )
    return np.asarray(p / p.sum())


def sample_memes(split: str, count: int, seed: int, code: int = 3) -> list[Meme]:
    """`count` memes; one split and seed give one list, and a shorter list is its beginning."""
    return [sample_meme(generator(seed, code, SPLIT_CODES[split], n)) for n in range(count)]


def generate(folder: Path, seed: int = 0, sizes: dict[str, int] | None = None) -> None:
    """Write the corpus into `folder`; one seed and sizes always give the same bytes."""
    memes = {split: sample_memes(split, n, seed) for split, n in checked_sizes(sizes, SIZES).items()}
    names = ("unpleasant", "pleasant")
    write_pictures(
        folder, "me", CLASSES, memes, posterior,
        lambda m: {"text_polarity": names[m.text_polarity], "image_polarity": names[m.image_polarity]},
    )  # fmt: skip
    write_description(folder, NAME, TASK, DESCRIPTION, seed, __doc__ or "")
