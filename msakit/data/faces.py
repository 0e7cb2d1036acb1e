"""Find the largest frontal face of a frame and cut it out square: OpenCV's Haar cascade, which needs no download.

The cascade (Viola and Jones 2001, trained by Lienhart) is old, quick and bundled with OpenCV 4. It misses profiles
and tilted heads; frames where it finds nothing borrow the box of the nearest frame in which it did, and are marked as
not found.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from msakit.data.media import read_frames

Box = tuple[int, int, int, int]
_LONG_SIDE = 320  # pixels; larger frames are searched at this scale, which loses no face worth having
_local = threading.local()  # a cascade serves one thread at a time
_REMEMBERED = 50_000  # videos whose boxes are kept in memory, about half a kilobyte each
_boxes: OrderedDict[tuple[str, int, int, float], list[Box | None]] = OrderedDict()


def _detector() -> Any:
    if not hasattr(_local, "detector"):
        path = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
        detector = cv2.CascadeClassifier(str(path))
        if detector.empty():
            mend = "install opencv-python-headless>=4.14,<5"
            raise FileNotFoundError(f"OpenCV {cv2.__version__} has no cascade at {path}: {mend}")
        _local.detector = detector
    return _local.detector


def largest_face(frame: UInt8[np.ndarray, "height width 3"]) -> Box | None:
    """(x, y, width, height) in pixels of the largest frontal face, or None; under a fifth of the frame is ignored."""
    scale = min(1.0, _LONG_SIDE / max(frame.shape[:2]))
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if scale < 1.0:
        gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    # A speaker's face mostly fills the frame. Large faces are few scales to search, less than half the time of all; the
    # small scales follow only if there is none.
    for share in (0.45, 0.2):
        least = max(24, int(share * min(gray.shape)))
        boxes = _detector().detectMultiScale(gray, scaleFactor=1.1, minNeighbors=3, minSize=(least, least))
        if len(boxes):
            break
    else:
        return None
    x, y, width, height = max((tuple(int(v) for v in box) for box in boxes), key=lambda b: (b[2] * b[3], b))
    return round(x / scale), round(y / scale), round(width / scale), round(height / scale)


def crop_face(
    frame: UInt8[np.ndarray, "height width 3"], box: Box, size: int, margin: float = 0.15
) -> UInt8[np.ndarray, "size size 3"]:
    """The box widened by `margin` of its size on each side, as a square of `size` pixels; outside it, edges repeat."""
    x, y, width, height = box
    side = round(max(width, height) * (1 + 2 * margin))
    left, top = x + width // 2 - side // 2, y + height // 2 - side // 2
    pad = max(0, -left, -top, left + side - frame.shape[1], top + side - frame.shape[0])
    padded = np.pad(frame, ((pad, pad), (pad, pad), (0, 0)), mode="edge") if pad else frame
    cut = padded[top + pad : top + pad + side, left + pad : left + pad + side]
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cut, (size, size), interpolation=how), dtype=np.uint8)


def video_faces(
    path: str | Path, fps: int | float, size: int
) -> tuple[UInt8[np.ndarray, "time size size 3"], Bool[np.ndarray, "time"]]:
    """`find_faces` on the frames of a video at `fps`; a video is searched once a process, however many encoders ask."""
    frames, _ = read_frames(path, fps=fps)
    there = os.stat(path)
    key = (str(path), there.st_mtime_ns, there.st_size, float(fps))
    boxes = _boxes.get(key)
    if boxes is None:
        boxes = _boxes[key] = [largest_face(frame) for frame in frames]
        if len(_boxes) > _REMEMBERED:
            _boxes.popitem(last=False)
    return find_faces(frames, size, boxes)


def find_faces(
    frames: UInt8[np.ndarray, "time height width 3"], size: int, boxes: Sequence[Box | None] | None = None
) -> tuple[UInt8[np.ndarray, "time size size 3"], Bool[np.ndarray, "time"]]:
    """One face crop a frame, and whether it was found there. Without any face in the whole clip the crops are black.

    boxes: of `largest_face`, one a frame, where they are known already.
    """
    if boxes is None:
        boxes = [largest_face(frame) for frame in frames]
    found = np.array([box is not None for box in boxes], dtype=bool)
    crops = np.zeros((len(frames), size, size, 3), dtype=np.uint8)
    where = np.flatnonzero(found)
    for t, frame in enumerate(frames):
        if len(where):
            box = boxes[where[np.abs(where - t).argmin()]]
            if box is not None:
                crops[t] = crop_face(frame, box, size)
    return crops, found
