"""mini-posts: a short generated post and a picture, each with its own sentiment, and the sentiment of the whole.

After MVSA (Niu et al. 2016), where text and image are labelled apart and may disagree, and where by the usual rule a
polar label outweighs a neutral one. The generating model:

1. y ∈ {negative, neutral, positive} with probabilities `PRIOR`.
2. (text label t, image label i) from the joint table `JOINT[y]`; it is not a product: where the two disagree, mostly
   one of them is neutral and the other is y.
3. Words, given t ∈ {-1, 0, 1}: one or two sentiment phrases of `lexicon` with p(phrase) ∝ weight · exp(-(v - 2t)² /
   2·`SIGMA_WORDS`²), and one hashtag from `TAGS` with probabilities `TAG_GIVEN`. The rest is independent of t.
4. Picture, given i: weather, light and expression of the paper face, each independent given i (`WEATHER_GIVEN`,
   `LIGHT_GIVEN`, `EXPRESSION_GIVEN`); object, colours and positions are nuisances.

`oracle.csv` holds the exact posterior p(y | words, picture's content), and from each modality alone in the columns
text_p_<class> and image_p_<class>. The columns text_label and image_label hold t and i.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from msakit.data.synthetic.generated import SPLIT_CODES, checked_sizes, generator, write_description, write_pictures
from msakit.data.synthetic.lexicon import SLOTS, WORDS
from msakit.data.synthetic.scenes import EXPRESSIONS, LIGHTS, WEATHERS, Scene, sample_scene

NAME = "mini-posts"
SIZES = {"train": 600, "valid": 200, "test": 400}
CLASSES = ("negative", "neutral", "positive")
TASK = {"kind": "classification", "classes": list(CLASSES)}
DESCRIPTION = (
    "Generated posts with a picture: three classes; text and image carry labels of their own that may disagree. "
    "Model: msakit.data.synthetic.mini_posts. Not posts by people."
)
PRIOR = np.array([0.33, 0.30, 0.37])
# JOINT[y, t, i]
JOINT = np.array([
    [[0.46, 0.27, 0.03], [0.21, 0.01, 0.00], [0.02, 0.00, 0.00]],
    [[0.00, 0.01, 0.04], [0.01, 0.88, 0.01], [0.04, 0.01, 0.00]],
    [[0.00, 0.00, 0.02], [0.00, 0.01, 0.21], [0.03, 0.27, 0.46]],
])  # fmt: skip
TEXT_PRIOR = np.einsum("y,yti->t", PRIOR, JOINT / JOINT.sum(axis=(1, 2), keepdims=True))
SIGMA_WORDS = 0.75
TAGS = WORDS["posts"]["tags"]
_GOOD, _EVEN, _BAD = (np.repeat(p, 4) / 4 for p in ((0.06, 0.20, 0.74), (0.08, 0.84, 0.08), (0.74, 0.20, 0.06)))
TAG_GIVEN = np.stack([_GOOD, _EVEN, _BAD])  # rows: t = negative, neutral, positive
WEATHER_GIVEN = np.array([[0.04, 0.14, 0.40, 0.42], [0.10, 0.70, 0.14, 0.06], [0.80, 0.14, 0.04, 0.02]])
LIGHT_GIVEN = np.array([[0.08, 0.20, 0.72], [0.10, 0.80, 0.10], [0.72, 0.20, 0.08]])
EXPRESSION_GIVEN = np.array([[0.03, 0.10, 0.87], [0.06, 0.88, 0.06], [0.87, 0.10, 0.03]])
_PHRASES = SLOTS["ADJ"]
_PHRASE_GIVEN = _PHRASES.probabilities(np.array([-2.0, 0.0, 2.0]), SIGMA_WORDS)


@dataclass(frozen=True)
class Post:
    """Everything drawn for one post; labels are indices into CLASSES."""

    label: int
    text_label: int
    image_label: int
    text: str
    phrase_indices: tuple[int, ...]
    tag: int
    scene: Scene


def sample_post(rng: np.random.Generator) -> Post:
    """Draw labels, words and the picture's content."""
    y = int(rng.choice(3, p=PRIOR))
    t, i = divmod(int(rng.choice(9, p=JOINT[y].ravel() / JOINT[y].sum())), 3)
    text, chosen, tag = sample_text(rng, t)
    weather = WEATHERS[rng.choice(4, p=WEATHER_GIVEN[i])]
    light = LIGHTS[rng.choice(3, p=LIGHT_GIVEN[i])]
    expression = EXPRESSIONS[rng.choice(3, p=EXPRESSION_GIVEN[i])]
    return Post(y, t, i, text, chosen, tag, sample_scene(rng, weather, light, expression))


def sample_text(rng: np.random.Generator, text_label: int) -> tuple[str, tuple[int, ...], int]:
    """A post of the given text label, the phrases it holds, and its hashtag."""
    words, chosen = [], []
    for token in str(rng.choice(WORDS["posts"]["templates"])).split():
        if token == "N":
            words.append(str(rng.choice(WORDS["nouns"])))
        elif token == "P":
            chosen.append(int(rng.choice(len(_PHRASES.texts), p=_PHRASE_GIVEN[text_label])))
            words.append(_PHRASES.texts[chosen[-1]])
        else:
            words.append(token)
    tag = int(rng.choice(len(TAGS), p=TAG_GIVEN[text_label]))
    return f"{' '.join(words)} {rng.choice(WORDS['posts']['adverbials'])} {TAGS[tag]}", tuple(chosen), tag


def posterior(post: Post) -> dict[str, Float[np.ndarray, "3"]]:
    """p(y | text and picture) as "", p(y | text) as "text_", p(y | picture) as "image_"."""
    text = np.prod(_PHRASE_GIVEN[:, list(post.phrase_indices)], axis=1) * TAG_GIVEN[:, post.tag]
    scene = post.scene
    image = (
        WEATHER_GIVEN[:, WEATHERS.index(scene.weather)]
        * LIGHT_GIVEN[:, LIGHTS.index(scene.light)]
        * EXPRESSION_GIVEN[:, EXPRESSIONS.index(scene.expression)]
    )
    joint = JOINT / JOINT.sum(axis=(1, 2), keepdims=True)
    ones = np.ones(3)
    found = {}
    for name, (a, b) in {"": (text, image), "text_": (text, ones), "image_": (ones, image)}.items():
        p = PRIOR * np.einsum("yti,t,i->y", joint, a, b)
        found[name] = p / p.sum()
    return found


def sample_posts(split: str, count: int, seed: int, code: int = 2) -> list[Post]:
    """`count` posts; one split and seed give one list, and a shorter list is its beginning."""
    return [sample_post(generator(seed, code, SPLIT_CODES[split], n)) for n in range(count)]


def generate(folder: Path, seed: int = 0, sizes: dict[str, int] | None = None) -> None:
    """Write the corpus into `folder`; one seed and sizes always give the same bytes."""
    posts = {split: sample_posts(split, n, seed) for split, n in checked_sizes(sizes, SIZES).items()}
    write_pictures(
        folder, "mp", CLASSES, posts, posterior,
        lambda post: {"text_label": CLASSES[post.text_label], "image_label": CLASSES[post.image_label]},
    )  # fmt: skip
    write_description(folder, NAME, TASK, DESCRIPTION, seed, __doc__ or "")
