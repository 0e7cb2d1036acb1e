"""mini-pool-posts: unlabelled pictures with captions, and texts, for pre-training the mini encoders.

Scenes take weather, light and expression from the models of mini-posts and mini-memes (in turn) under their own seed
keys, so that what goes together there goes together here and no picture is shared; face frames are of speakers in no
other corpus. Short texts are shared: many lines recur in mini-memes by chance, since it has few templates and words,
and some in mini-posts; the description says how many.

Captions name what is visible (object, weather, light, expression; for faces hair, brows, eyes, mouth), not the
sentiment, and the label cells are empty. `object` is the main object, "face" for faces. `texts.txt` holds documents of
two sentences, one a line, a blank line after each: two posts of one text label or two meme lines of one polarity, in
turn. Sizes: "scenes", "faces" and "texts" (sentences).
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from msakit.data.synthetic import generated
from msakit.data.synthetic.face_drawing import Face, draw_face, sample_face
from msakit.data.synthetic.lexicon import WORDS
from msakit.data.synthetic.mini_memes import SIZES as MEMES_SIZES
from msakit.data.synthetic.mini_memes import sample_line, sample_memes
from msakit.data.synthetic.mini_posts import SIZES as POSTS_SIZES
from msakit.data.synthetic.mini_posts import TASK, TEXT_PRIOR, sample_posts, sample_text
from msakit.data.synthetic.scenes import Scene, caption, draw_scene

NAME = "mini-pool-posts"
SIZES = {"scenes": 1600, "faces": 1600, "texts": 6000}
DESCRIPTION = (
    "Unlabelled generated pictures with captions of what is visible, and texts, for pre-training: the models of "
    "mini-posts and mini-memes and the faces of mini-mosi, other draws. Not pictures of people."
)
_CODE = 5


def generate(folder: Path, seed: int = 0, sizes: dict[str, int] | None = None) -> None:
    """Write the pool into `folder`; one seed and sizes always give the same bytes."""
    chosen = generated.checked_sizes(sizes, SIZES)
    (folder / "image").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for n, scene in enumerate(tqdm(_scenes(chosen.get("scenes", 0), seed), desc=f"{NAME} scenes", unit="image")):
        rng = generated.generator(seed, _CODE, 0, n)
        rows.append(_save(folder, f"pp-scene-{n:04d}", draw_scene(scene), caption(scene, rng), scene.thing))
    for n in tqdm(range(chosen.get("faces", 0)), desc=f"{NAME} faces", unit="image"):
        rng = generated.generator(seed, _CODE, 1, n)
        # Brows, eyes and mouth go together loosely, as in mini-mosi.
        cues = np.tanh(rng.normal(0, 0.5) + rng.normal(0, 0.5, 3))
        face = sample_face(rng)
        x, y = rng.normal(0, 2, 2).tolist()
        brow, eye, mouth = cues.tolist()
        pixels = draw_face(face, brow, eye, mouth, (x, y), rng.normal(0, 1.5))
        rows.append(_save(folder, f"pp-face-{n:04d}", pixels, _face_caption(face, cues, rng), "face"))
    if not rows:
        raise ValueError(f"sizes {chosen}: ask for scenes or faces, a pool needs pictures")
    generated.write_table(folder / "segments.csv", rows)
    documents = _documents(chosen.get("texts", 2) // 2, seed)
    generated.write_documents(folder / "texts.txt", documents)
    pool = [*(row["text"] for row in rows), *(line for document in documents for line in document)]
    posts = [post.text for post in sample_posts("test", POSTS_SIZES["test"], seed)]
    memes = [meme.text for meme in sample_memes("test", MEMES_SIZES["test"], seed)]
    shared = generated.recurring("mini-posts", posts, pool) + generated.recurring("mini-memes", memes, pool)
    generated.write_description(folder, NAME, TASK, DESCRIPTION + shared, seed, __doc__ or "")


def _scenes(count: int, seed: int) -> list[Scene]:
    posts = sample_posts("pool", (count + 1) // 2, seed, code=_CODE)
    memes = sample_memes("pool", count // 2, seed, code=_CODE + 1)
    return [(posts, memes)[n % 2][n // 2].scene for n in range(count)]


def _documents(count: int, seed: int) -> list[list[str]]:
    """Two posts of one text label, and two lines of one polarity, in turn."""
    documents = []
    for number in range(count):
        rng = generated.generator(seed, _CODE, 2, number)
        if number % 2:
            polarity = int(rng.integers(2))
            documents.append([sample_line(rng, polarity)[0] for _ in range(2)])
        else:
            label = int(rng.choice(3, p=TEXT_PRIOR))
            documents.append([sample_text(rng, label)[0] for _ in range(2)])
    return documents


def _save(folder: Path, name: str, pixels: np.ndarray, text: str, thing: str) -> dict[str, Any]:
    Image.fromarray(pixels).save(folder / f"image/{name}.png")
    return {
        "segment_id": name, "video_id": name, "clip_id": 1, "split": "pool", "label": None, "text": text,
        "image": f"image/{name}.png", "caption": text, "object": thing,
    }  # fmt: skip


def _face_caption(face: Face, cues: np.ndarray, rng: np.random.Generator) -> str:
    brow, eye, mouth = (
        str(rng.choice(WORDS["captions"][part][int(np.digitize(cue, (-1 / 3, 1 / 3)))]))
        for part, cue in zip(("brows", "eyes", "mouth"), cues, strict=True)
    )
    hair = f"{'long' if face.hair_length > 0.5 else 'short'} {'dark' if sum(face.hair) < 200 else 'light'} hair"
    forms = (
        f"a face with {brow} , {eye} and {mouth}",
        f"a person with {hair} , {brow} , {eye} and {mouth}",
        f"{mouth} , {eye} and {brow} on a face with {hair}",
    )
    return forms[int(rng.integers(len(forms)))]
