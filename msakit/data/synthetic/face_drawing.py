"""Draw a shaded face whose brows, eyes and mouth show an expression, so that frames carry sentiment as pixels.

A `Face` holds what stays the same for a speaker: geometry, skin, hair, clothes, background. `draw_face` adds what
changes from frame to frame: `brow`, `eye` and `mouth`, each in [-1, 1] (lowered and drawn together ... raised;
narrowed ... wide; corners down ... broad smile), and the position of the head. Everything is drawn at twice the size
and averaged down.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import UInt8

SIZE = 128  # pixels, height and width of a frame
_BIG = 2 * SIZE
_SKINS = ((246, 214, 190), (233, 190, 160), (214, 166, 130), (186, 136, 102), (160, 112, 82), (132, 91, 68))
_HAIRS = ((34, 26, 24), (64, 42, 30), (104, 70, 42), (150, 112, 64), (122, 56, 32), (120, 116, 114))
_CLOTHES = ((60, 84, 140), (140, 60, 60), (70, 120, 84), (90, 90, 98), (160, 130, 60), (110, 70, 130))
Colour = tuple[int, int, int]
Number = int | float


@dataclass(frozen=True)
class Face:
    """A speaker's appearance. Lengths are in pixels of the doubled frame (256), colours RGB."""

    half_width: float
    half_height: float
    eye_distance: float  # from the middle line to an eye
    eye_size: float
    brow_height: float  # above the eye
    brow_tilt: float  # resting angle, radians; a nuisance for the brow cue
    mouth_width: float
    nose_length: float
    hair_length: float  # 0 short ... 1 to the shoulders
    fringe: float  # how far the hair covers the forehead, 0 ... 1
    light: float  # where the light comes from, -1 left ... 1 right
    skin: Colour
    hair: Colour
    clothes: Colour
    background: Colour


def sample_face(rng: np.random.Generator) -> Face:
    """A new speaker's appearance."""

    def tint(colour: Colour, spread: Number) -> Colour:
        r, g, b = (int(np.clip(c + rng.normal(0, spread), 12, 250)) for c in colour)
        return r, g, b

    tone = int(rng.integers(len(_SKINS)))
    return Face(
        half_width=rng.uniform(62, 72),
        half_height=rng.uniform(82, 92),
        eye_distance=rng.uniform(26, 30),
        eye_size=rng.uniform(12.5, 15.5),
        brow_height=rng.uniform(19, 23),
        brow_tilt=rng.normal(0, 0.05),
        mouth_width=rng.uniform(21, 27),
        nose_length=rng.uniform(30, 38),
        hair_length=rng.uniform(0, 1),
        fringe=rng.uniform(0, 1),
        light=rng.uniform(-0.7, 0.7),
        skin=tint(_SKINS[tone], 5),
        hair=tint(_HAIRS[rng.integers(6 if tone < 3 else 2)], 8),  # dark skin, dark hair
        clothes=tint(_CLOTHES[rng.integers(len(_CLOTHES))], 15),
        background=tint((150, 165, 175), 35),
    )


def draw_face(
    face: Face, brow: Number, eye: Number, mouth: Number, shift: tuple[Number, Number] = (0.0, 0.0), roll: Number = 0.0
) -> UInt8[np.ndarray, "size size 3"]:
    """One frame of 128 x 128 pixels; `shift` (x, y) in pixels and `roll` in degrees move the head."""
    backdrop, head, alpha = _head(face)
    head = head.copy()
    _draw_eyes(head, face, eye)
    _draw_brows(head, face, brow)
    _draw_mouth(head, face, mouth)
    move = cv2.getRotationMatrix2D((_BIG / 2, _BIG * 0.8), roll, 0.5)
    # Half size, with the middle of the doubled frame landing in the middle of the frame.
    move[:, 2] += np.array([SIZE / 2 - _BIG / 2 + shift[0], SIZE * 0.8 - _BIG * 0.8 + shift[1]])
    head = cv2.blur(head, (2, 2))  # halving would otherwise leave jagged lines
    small = cv2.warpAffine(head, move, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpAffine(alpha, move, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    share = cover[..., None].astype(np.uint16)
    return ((small * share + backdrop * (255 - share)) // 255).astype(np.uint8)


def _mix(a: Colour, b: Colour, share: Number) -> Colour:
    r, g, b_ = (int(x * (1 - share) + y * share) for x, y in zip(a, b, strict=True))
    return r, g, b_


def _points(*pairs: tuple[Number, Number]) -> np.ndarray:
    """Coordinates for OpenCV, in sixteenths of a pixel so that small movements show."""
    return np.round(np.array(pairs) * 16).astype(np.int32)


def _centre(face: Face) -> tuple[float, float, float, float]:
    """x of the middle line; y of the face's middle, of the eyes and of the mouth."""
    x, y = _BIG / 2, _BIG * 0.53
    return x, y, y - 0.12 * face.half_height, y + 0.53 * face.half_height


@lru_cache(maxsize=64)
def _head(face: Face) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The parts that no expression changes: backdrop (128), head with bare face (256), and the head's cover (256)."""
    rows, cols = np.mgrid[0:_BIG, 0:_BIG].astype(np.float32)
    x, y, eye_y, _ = _centre(face)
    w, h = face.half_width, face.half_height
    fall = 1.1 - 0.35 * rows / _BIG + 0.12 * face.light * (cols / _BIG - 0.5)
    backdrop = np.clip(fall[..., None] * np.array(face.background), 0, 255).astype(np.uint8)
    image = backdrop.copy()
    alpha = np.zeros((_BIG, _BIG), np.uint8)

    def ellipse(cx: Number, cy: Number, rx: Number, ry: Number, colour: Colour) -> None:
        for canvas, value in ((image, colour), (alpha, (255, 0, 0))):
            cv2.ellipse(canvas, _xy(cx, cy), _xy(rx, ry), 0, 0, 360, value, -1, cv2.LINE_AA, 4)

    # Hair behind, shoulders, neck, ears.
    drop = h * (0.1 + 1.0 * face.hair_length)
    ellipse(x, y - 0.28 * h + drop / 2, w * 1.17, h * 0.88 + drop / 2, face.hair)
    ellipse(x, _BIG * 1.10, _BIG * 0.46, _BIG * 0.24, face.clothes)
    ellipse(x, y + 0.95 * h, w * 0.48, h * 0.36, _mix(face.skin, (60, 30, 20), 0.35))
    for side in (-1, 1):
        ellipse(x + side * w * 1.0, eye_y + 0.14 * h, w * 0.12, h * 0.16, _mix(face.skin, (90, 40, 30), 0.25))
    ellipse(x, y, w, h, face.skin)

    # Shade the skin as an ellipsoid under one lamp, then hollow the eyes and model nose, cheeks and chin.
    u, v = (cols - x) / w, (rows - y) / h
    inside = (u**2 + v**2) < 1
    depth = np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))
    lamp = np.array([0.45 * face.light, -0.35, 0.82])
    shade = 0.60 + 0.48 * np.clip(u * lamp[0] + v * lamp[1] + depth * lamp[2], 0, 1)

    def blob(cx: Number, cy: Number, rx: Number, ry: Number, amount: Number) -> None:
        nonlocal shade
        shade = shade + amount * np.exp(-(((cols - cx) / rx) ** 2) - ((rows - cy) / ry) ** 2)

    nose = eye_y + face.nose_length
    for side in (-1, 1):
        blob(x + side * face.eye_distance, eye_y - 3, 22, 14, -0.26)
        blob(x + side * w * 0.55, eye_y + 0.42 * h, 17, 15, 0.08)
        blob(x + side * 10, nose + 1, 5, 5, -0.10)
        blob(x + side * 9, nose - 12, 4, 16, -0.05)
    blob(x, eye_y + 6, 6, face.nose_length * 0.8, 0.10)
    blob(x, nose - 5, 7, 7, 0.10)
    blob(x, nose + 7, 12, 5, -0.13)
    blob(x, y + 0.74 * h, 18, 6, -0.08)
    blob(x, y - 0.55 * h, 34, 20, 0.05)
    # Skin also shines a little whatever its colour, which keeps dark faces readable.
    shine = np.zeros_like(u)
    for cx, cy, rx, ry in (
        (x, eye_y + 8, 5, face.nose_length * 0.7), (x, y - 0.5 * h, 36, 16),
        (x - w * 0.52, eye_y + 0.36 * h, 16, 11), (x + w * 0.52, eye_y + 0.36 * h, 16, 11),
    ):  # fmt: skip
        shine = shine + 34 * np.exp(-(((cols - cx) / rx) ** 2) - ((rows - cy) / ry) ** 2)
    skin = np.clip(shade[..., None] * np.array(face.skin) + shine[..., None], 0, 255)
    blush = 0.10 * sum(
        np.exp(-(((cols - x - side * w * 0.55) / 16) ** 2) - ((rows - eye_y - 0.42 * h) / 14) ** 2) for side in (-1, 1)
    )
    skin = skin * (1 - blush[..., None]) + np.array([215, 95, 90]) * blush[..., None]
    soft = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 1.2)[..., None]
    image = (image * (1 - soft) + skin * soft).astype(np.uint8)
    for side in (-1, 1):
        hollow = _mix(face.skin, (40, 10, 5), 0.65)
        cv2.ellipse(image, _xy(x + side * 6, nose + 4), _xy(3.2, 1.8), 0, 0, 360, hollow, -1, cv2.LINE_AA, 4)

    # Hair in front: a cap with a hairline that the fringe lowers, lighter towards the lamp.
    line = y - h * (0.62 - 0.16 * face.fringe) + 0.20 * h * (np.abs(u) ** 2.2) * (0.6 + face.hair_length)
    cap = ((u / 1.10) ** 2 + ((rows - (y - 0.05 * h)) / (1.12 * h)) ** 2 < 1) & (rows < line)
    cover = cv2.GaussianBlur(cap.astype(np.float32), (0, 0), 1.5)
    gloss = 0.85 + 0.35 * np.exp(-(((u - 0.4 * face.light) / 0.5) ** 2) - ((v + 0.9) / 0.16) ** 2)
    gloss = gloss + 0.05 * np.sin(u * 30 + 3 * v)
    hair = np.clip(gloss[..., None] * np.array(face.hair), 0, 255)
    image = (image * (1 - cover[..., None]) + hair * cover[..., None]).astype(np.uint8)
    alpha = np.maximum(alpha, (cover * 255).astype(np.uint8))
    # The shoulders reach the lower edge whatever the head does.
    backdrop = cv2.resize(backdrop, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return backdrop, image, alpha


def _xy(x: Number, y: Number) -> tuple[int, int]:
    return round(x * 16), round(y * 16)


def _draw_eyes(image: np.ndarray, face: Face, eye: Number) -> None:
    x, _, eye_y, _ = _centre(face)
    rx = face.eye_size
    ry = face.eye_size * (0.46 + 0.27 * eye)
    iris = 6.4
    lid = _mix(face.skin, (45, 22, 18), 0.78)
    for side in (-1, 1):
        cx = x + side * face.eye_distance
        top, left = int(eye_y) - 18, int(cx) - 20
        ox, oy = cx - left, eye_y - top
        opening = np.zeros((36, 40), np.uint8)
        cv2.ellipse(opening, _xy(ox, oy), _xy(rx, ry), 0, 0, 360, 255, -1, cv2.LINE_AA, 4)
        ball = np.full((36, 40, 3), (238, 236, 232), np.uint8)
        cv2.circle(ball, _xy(ox, oy - 0.5), round(iris * 16), (72, 52, 38), -1, cv2.LINE_AA, 4)
        cv2.circle(ball, _xy(ox, oy - 0.5), round(iris * 8), (14, 10, 10), -1, cv2.LINE_AA, 4)
        cv2.circle(ball, _xy(ox + 2, oy - 3), 26, (250, 250, 250), -1, cv2.LINE_AA, 4)
        region = image[top : top + 36, left : left + 40]
        share = opening[..., None].astype(np.uint16)
        region[:] = ((region * (255 - share) + ball * share) // 255).astype(np.uint8)
        cv2.ellipse(image, _xy(cx, eye_y), _xy(rx, ry), 0, 180, 360, lid, 3, cv2.LINE_AA, 4)
        cv2.ellipse(image, _xy(cx, eye_y), _xy(rx, ry), 0, 10, 170, _mix(face.skin, lid, 0.5), 1, cv2.LINE_AA, 4)
        cv2.ellipse(
            image, _xy(cx, eye_y - 4), _xy(rx, ry + 2), 0, 205, 335, _mix(face.skin, lid, 0.35), 1, cv2.LINE_AA, 4
        )


def _draw_brows(image: np.ndarray, face: Face, brow: Number) -> None:
    x, _, eye_y, _ = _centre(face)
    colour = _mix(face.hair, face.skin, 0.15)
    for side in (-1, 1):
        along = np.linspace(-1, 1, 9)  # from the inner end to the outer
        bx = x + side * (face.eye_distance - 1 + along * 16 - 3 * brow * (along < 0) * along)
        tilt = face.brow_tilt * 16 * along
        # Lowered: inner ends down, a straight frown. Raised: a high arc.
        arc = (3.0 + 2.0 * brow) * (1 - along**2)
        by = eye_y - face.brow_height - 3.5 * brow + 6.75 * brow * along - arc + tilt
        thick = 3.6 * (1 - 0.45 * np.clip(along, 0, 1))
        upper = np.stack([bx, by - thick], axis=1)
        lower = np.stack([bx, by + thick * 0.7], axis=1)[::-1]
        outline = _points(*map(tuple, np.concatenate([upper, lower])))
        cv2.fillPoly(image, [outline], colour, cv2.LINE_AA, 4)
    if brow < -0.25:  # the crease between lowered brows
        crease = _mix(face.skin, (60, 25, 15), min(0.6, -0.5 * brow))
        for side in (-1, 1):
            ends = _points((x + side * 4, eye_y - 17), (x + side * 5, eye_y - 7))
            cv2.polylines(image, [ends], False, crease, 1, cv2.LINE_AA, 4)


def _draw_mouth(image: np.ndarray, face: Face, mouth: Number) -> None:
    x, _, eye_y, my = _centre(face)
    width = face.mouth_width * (1 + 0.22 * mouth)
    along = np.linspace(-1, 1, 17)
    bow = 13 * mouth * (along**2 - 0.45)  # positive: corners up
    middle = my - bow
    gape = max(0.0, mouth - 0.15) * 11  # a broad smile shows teeth
    shape = np.clip(1 - along**2, 0, 1)
    lip = _mix(face.skin, (165, 50, 55), 0.55)
    px = x + along * width

    def band(upper: np.ndarray, lower: np.ndarray, colour: Colour) -> None:
        rim = np.concatenate([np.stack([px, upper], axis=1), np.stack([px, lower], axis=1)[::-1]])
        cv2.fillPoly(image, [_points(*map(tuple, rim))], colour, cv2.LINE_AA, 4)

    full = 4.2 - 0.9 * abs(mouth)
    band(middle - full * shape**0.7, middle + gape * shape + (full + 1.5) * shape**0.7, lip)
    if gape > 0.8:
        band(middle - 0.5, middle + gape * shape, (70, 20, 24))
        band(middle, middle + 0.62 * gape * shape, (240, 236, 228))
    line = _points(*zip(px, middle, strict=True))
    cv2.polylines(image, [line], False, _mix(face.skin, (70, 15, 20), 0.75), 2, cv2.LINE_AA, 4)
    fold = _mix(face.skin, (90, 40, 30), 0.10 + 0.30 * max(0.0, mouth) + 0.15 * max(0.0, -mouth))
    for side in (-1, 1):  # folds from the nose to the corners of the mouth
        lift = 6 * mouth
        path = _points(
            (x + side * 15, eye_y + face.nose_length - 2),
            (x + side * (width + 1), my - 13 - lift),
            (x + side * (width + 6), my - 2 - lift),
        )
        cv2.polylines(image, [path], False, fold, 1, cv2.LINE_AA, 4)
