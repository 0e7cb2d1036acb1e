"""Files as data URIs: what makes the page whole wherever it is moved."""

import base64
import gzip
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

# A larger table is packed: a page of many would otherwise grow by megabytes.
PLAIN_BYTES = 64_000
MEDIA = {".csv": "text/csv", ".json": "application/json", ".md": "text/markdown"}


class Download(NamedTuple):
    """A file inside the page: its name when saved, its data URI, and its size in bytes as it was."""

    name: str
    href: str
    size: int


class Picture(NamedTuple):
    """A picture inside the page: its data URI, and its size in pixels of the screen at full size."""

    src: str
    width: int
    height: int


def uri(content: bytes, media: str) -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode()}"


def download(content: bytes, name: str) -> Download:
    """A text file to save; more than 64 kB are gzip-packed (pandas reads .csv.gz as it is)."""
    if len(content) > PLAIN_BYTES:
        smaller = gzip.compress(content, mtime=0)  # without the time, so that equal files are equal bytes
        return Download(f"{name}.gz", uri(smaller, "application/gzip"), len(content))
    media = MEDIA.get(Path(name).suffix, "text/plain")
    return Download(name, uri(content, f"{media};charset=utf-8"), len(content))


def picture(content: bytes, dpi: float | None = None) -> Picture:
    """A picture, pixel for pixel, as lossless WebP: a third of the PNG's bytes.

    dpi: dots an inch that it was drawn for, to show it at its own size; default: what the file says, else 96.
    """
    with Image.open(BytesIO(content)) as image:
        webp = BytesIO()
        # Nothing shines through our figures: without the fourth channel the file is smaller.
        opaque = "A" not in image.getbands() or image.getchannel("A").getextrema() == (255, 255)
        pixels = image.convert("RGB" if opaque else "RGBA")
        pixels.save(webp, "WEBP", lossless=True, method=6, exact=True)
        scale = 96 / (dpi or image.info.get("dpi", (96, 96))[0])
        return Picture(uri(webp.getvalue(), "image/webp"), round(image.width * scale), round(image.height * scale))
