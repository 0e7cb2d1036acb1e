"""Draw a 96 x 96 scene: a sky with weather, a light, a main object, and a round paper face with an expression.

Weather, light and expression carry meaning in mini-posts and mini-memes; object, colours and positions are nuisances.
Everything is drawn at twice the size and averaged down. `caption` names what is visible, in varied words.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from msakit.data.synthetic.lexicon import WORDS

SIZE = 96
_BIG = 2 * SIZE
WEATHERS = ("sunny", "cloudy", "rainy", "stormy")
LIGHTS = ("bright", "soft", "dim")
EXPRESSIONS = ("smiling", "plain", "frowning")
OBJECTS = ("house", "tree", "car", "boat", "cup", "ball", "lamp", "book")
COLOURS = {
    "red": (196, 58, 52), "blue": (62, 98, 190), "green": (70, 150, 80), "yellow": (222, 190, 62),
    "purple": (140, 84, 168), "orange": (228, 134, 52), "white": (232, 230, 224), "brown": (134, 92, 60),
}  # fmt: skip
_SKIES = {"sunny": (112, 182, 238), "cloudy": (168, 182, 194), "rainy": (128, 142, 158), "stormy": (82, 88, 108)}
_GROUNDS = ((126, 168, 92), (186, 170, 124), (150, 150, 146), (104, 140, 110))


@dataclass(frozen=True)
class Scene:
    """What a picture shows, by name, and where."""

    weather: str
    light: str
    expression: str
    thing: str
    colour: str
    at: float  # left edge of the object, 0 ... 1
    face_left: bool
    seed: int  # clouds, drops, ground


def sample_scene(rng: np.random.Generator, weather: str, light: str, expression: str) -> Scene:
    """A scene with the given meaning and random nuisances."""
    return Scene(
        weather, light, expression, str(rng.choice(OBJECTS)), str(rng.choice(list(COLOURS))), rng.uniform(),
        bool(rng.random() < 0.5), int(rng.integers(2**31)),
    )  # fmt: skip


def draw_scene(scene: Scene) -> UInt8[np.ndarray, "size size 3"]:
    """The picture, 96 x 96 RGB."""
    rng = np.random.default_rng(scene.seed)
    rows = np.linspace(0, 1, _BIG, dtype=np.float32)[:, None, None]
    sky = np.array(_SKIES[scene.weather]) + rng.normal(0, 6, 3)
    image = np.broadcast_to(np.clip(sky * (0.85 + 0.3 * rows), 0, 255), (_BIG, _BIG, 3)).astype(np.uint8).copy()
    horizon = int(rng.uniform(0.62, 0.70) * _BIG)
    ground = tuple(int(c) for c in np.array(_GROUNDS[rng.integers(4)]) + rng.normal(0, 8, 3))
    cv2.rectangle(image, (0, horizon), (_BIG, _BIG), ground, -1)
    _draw_weather(image, scene.weather, rng)
    width = 84
    left = int((_BIG - width - 70) * scene.at) + (70 if scene.face_left else 0)
    _draw_thing(image, scene.thing, COLOURS[scene.colour], left, horizon + 22, width)
    if scene.weather in ("rainy", "stormy"):
        _draw_rain(image, rng, 90 if scene.weather == "stormy" else 60)
    lit = image.astype(np.float32)
    gain, warm = {"bright": (1.12, 12.0), "soft": (0.92, 0.0), "dim": (0.55, -10.0)}[scene.light]
    lit = np.clip(lit * gain + np.array([warm, warm * 0.5, -warm * 0.5]), 0, 255)
    image = lit.astype(np.uint8)
    _draw_paper_face(image, scene, rng)  # a sticker on the picture: no weather or light touches it
    return np.asarray(cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _draw_weather(image: np.ndarray, weather: str, rng: np.random.Generator) -> None:
    if weather == "sunny":
        x, y = int(rng.uniform(0.3, 0.7) * _BIG), int(rng.uniform(0.10, 0.20) * _BIG)
        for k in range(10):
            angle = 2 * np.pi * k / 10 + 0.2
            tip = (round(x + 30 * np.cos(angle)), round(y + 30 * np.sin(angle)))
            cv2.line(image, (x, y), tip, (250, 216, 92), 3, cv2.LINE_AA)
        cv2.circle(image, (x, y), 18, (254, 226, 96), -1, cv2.LINE_AA)
        return
    shade, clouds = {"cloudy": (226, 4), "rainy": (150, 5), "stormy": (62, 7)}[weather]
    for _ in range(clouds):
        x, y = int(rng.uniform(0, 1) * _BIG), int(rng.uniform(0.06, 0.28) * _BIG)
        for _ in range(4):
            dx, dy, r = int(rng.normal(0, 16)), int(rng.normal(0, 5)), int(rng.uniform(10, 18))
            tone = int(shade + rng.normal(0, 7))
            cv2.circle(image, (x + dx, y + dy), r, (tone, tone, min(255, tone + 8)), -1, cv2.LINE_AA)
    if weather == "stormy":
        x = int(rng.uniform(0.25, 0.75) * _BIG)
        bolt = np.array(
            [(x, 34), (x - 12, 66), (x + 2, 66), (x - 10, 104), (x + 18, 58), (x + 4, 58), (x + 14, 34)], np.int32
        )
        cv2.fillPoly(image, [bolt], (252, 236, 120), cv2.LINE_AA)


def _draw_rain(image: np.ndarray, rng: np.random.Generator, drops: int) -> None:
    for x, y in rng.uniform(0, _BIG, (drops, 2)).astype(int):
        cv2.line(image, (int(x), int(y)), (int(x) - 4, int(y) + 13), (196, 210, 230), 2, cv2.LINE_AA)


def _draw_thing(image: np.ndarray, thing: str, colour: tuple[int, int, int], x: int, base: int, w: int) -> None:
    """Draw the main object standing on `base`, `w` pixels wide, its left edge at x."""
    dark = tuple(int(c * 0.6) for c in colour)
    middle = x + w // 2

    def box(x0: int, y0: int, x1: int, y1: int, c: tuple[int, ...]) -> None:
        cv2.rectangle(image, (x0, y0), (x1, y1), c, -1, cv2.LINE_AA)

    def area(*points: tuple[int, int], c: tuple[int, ...]) -> None:
        cv2.fillPoly(image, [np.array(points, np.int32)], c, cv2.LINE_AA)

    def disc(cx: int, cy: int, r: int, c: tuple[int, ...]) -> None:
        cv2.circle(image, (cx, cy), r, c, -1, cv2.LINE_AA)

    cv2.ellipse(image, (middle, base), (w // 2, 6), 0, 0, 360, (70, 74, 64), -1, cv2.LINE_AA)
    if thing == "house":
        box(x + 12, base - 46, x + w - 12, base, colour)
        area((x + 2, base - 46), (middle, base - 82), (x + w - 2, base - 46), c=dark)
        box(middle - 8, base - 26, middle + 8, base, (92, 62, 44))
        box(x + 18, base - 38, x + 30, base - 26, (236, 228, 170))
    elif thing == "tree":
        box(middle - 7, base - 40, middle + 7, base, (104, 74, 48))
        for dx, dy, r in ((-18, -48, 20), (18, -48, 20), (0, -66, 24)):
            disc(middle + dx, base + dy, r, colour if dx <= 0 else dark)
    elif thing == "car":
        box(x, base - 30, x + w, base - 8, colour)
        area((x + 14, base - 30), (x + 26, base - 50), (x + 58, base - 50), (x + 70, base - 30), c=dark)
        area((x + 22, base - 31), (x + 30, base - 45), (x + 54, base - 45), (x + 62, base - 31), c=(190, 214, 226))
        for cx in (x + 18, x + w - 18):
            disc(cx, base - 8, 11, (36, 36, 40))
            disc(cx, base - 8, 5, (170, 170, 174))
    elif thing == "boat":
        area((x, base - 22), (x + w, base - 22), (x + w - 16, base), (x + 16, base), c=dark)
        box(middle - 2, base - 84, middle + 2, base - 22, (90, 66, 48))
        area((middle + 5, base - 82), (middle + 5, base - 28), (x + w - 6, base - 28), c=colour)
    elif thing == "cup":
        cv2.ellipse(image, (x + 66, base - 32), (13, 16), 0, 0, 360, dark, 6, cv2.LINE_AA)
        area((x + 14, base - 60), (x + 64, base - 60), (x + 57, base), (x + 21, base), c=colour)
        cv2.ellipse(image, (x + 39, base - 60), (25, 7), 0, 0, 360, dark, -1, cv2.LINE_AA)
    elif thing == "ball":
        disc(middle, base - 32, 32, colour)
        cv2.ellipse(image, (middle, base - 32), (32, 12), 20, 0, 360, dark, 4, cv2.LINE_AA)
        disc(middle - 10, base - 44, 6, (250, 250, 246))
    elif thing == "lamp":
        box(middle - 3, base - 56, middle + 3, base, (70, 70, 76))
        box(middle - 18, base - 5, middle + 18, base, (70, 70, 76))
        area(
            (middle - 16, base - 84),
            (middle + 16, base - 84),
            (middle + 30, base - 52),
            (middle - 30, base - 52),
            c=colour,
        )
    elif thing == "book":
        area((x + 4, base - 44), (middle, base - 34), (middle, base), (x + 4, base - 8), c=colour)
        area((x + w - 4, base - 44), (middle, base - 34), (middle, base), (x + w - 4, base - 8), c=dark)
        area((x + 10, base - 46), (middle, base - 38), (middle, base - 6), (x + 10, base - 14), c=(244, 240, 228))
        area(
            (x + w - 10, base - 46), (middle, base - 38), (middle, base - 6), (x + w - 10, base - 14), c=(226, 222, 210)
        )
    else:
        raise ValueError(f"cannot draw {thing!r}: choose one of {', '.join(OBJECTS)}")


def _draw_paper_face(image: np.ndarray, scene: Scene, rng: np.random.Generator) -> None:
    r = int(rng.uniform(27, 31))
    x = r + 6 if scene.face_left else _BIG - r - 6
    y = int(_BIG - r - 5 - rng.uniform(0, 14))
    cv2.circle(image, (x, y), r, (250, 214, 88), -1, cv2.LINE_AA)
    cv2.circle(image, (x, y), r, (120, 92, 30), 2, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.ellipse(image, (x + side * r * 2 // 5, y - r // 4), (4, 6), 0, 0, 360, (52, 40, 24), -1, cv2.LINE_AA)
    half = r // 2
    if scene.expression == "smiling":
        cv2.ellipse(image, (x, y + r // 6), (half + 2, half), 0, 15, 165, (110, 40, 24), 4, cv2.LINE_AA)
    elif scene.expression == "frowning":
        cv2.ellipse(image, (x, y + r * 7 // 10), (half + 2, half), 0, 195, 345, (110, 40, 24), 4, cv2.LINE_AA)
    else:
        cv2.line(image, (x - half, y + r * 2 // 5), (x + half, y + r * 2 // 5), (110, 40, 24), 4, cv2.LINE_AA)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One sentence naming object, weather, light and expression."""
    weather, light, face = (
        str(rng.choice(WORDS["captions"][cue][getattr(scene, cue)])) for cue in ("weather", "light", "expression")
    )
    article = "an" if scene.colour[0] in "aeiou" else "a"
    thing = f"{article} {scene.colour} {scene.thing}"
    forms = (
        f"{thing} {weather} in {light} beside {face}",
        f"{light} , {thing} {weather} and {face}",
        f"{face} next to {thing} {weather} , {light}",
        f"there is {thing} {weather} , {light} and {face}",
    )
    form = forms[int(rng.integers(len(forms)))]
    return form.replace("in a dark picture", "in dark light").replace("in a bright picture", "in bright light")
