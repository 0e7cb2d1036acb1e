"""Tiny pools and corpora of the interchange format, made without the corpus generators: tones, tinted squares, and
sentences of a small grammar."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from msakit.data.media import write_audio

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220)}
OBJECTS = ("square", "bar")


def sentences(count: int, seed: int = 0) -> list[str]:
    """Adjective and noun always agree, so that a masked word can be guessed from its neighbours."""
    generator = np.random.default_rng(seed)
    pairs = [("great", "film"), ("awful", "plot"), ("dull", "speech"), ("bright", "scene")]
    picked = [pairs[k] for k in generator.integers(len(pairs), size=count)]
    return [f"the {noun} was really {adjective}, a {adjective} {noun}" for adjective, noun in picked]


def tone(seconds: float, pitch: float, generator: np.random.Generator) -> np.ndarray:
    """A harmonic sound whose pitch jumps every 0.2 s."""
    time = np.arange(round(seconds * 16000)) / 16000
    steps = generator.choice([1.0, 1.5], size=int(seconds / 0.2) + 1)[(time / 0.2).astype(int)]
    phase = 2 * np.pi * np.cumsum(pitch * steps) / 16000
    sound = sum(np.sin(k * phase) / k for k in range(1, 5))
    return (0.1 * sound + 0.005 * generator.normal(size=len(time))).astype(np.float32)


def picture(colour: str, shape: str, generator: np.random.Generator, side: int = 48) -> Image.Image:
    pixels = generator.integers(100, 140, size=(side, side, 3), dtype=np.uint8)
    high, wide = (24, 24) if shape == "square" else (8, 40)
    top, left = generator.integers(0, side - high + 1), generator.integers(0, side - wide + 1)
    pixels[top : top + high, left : left + wide] = COLOURS[colour]
    return Image.fromarray(pixels)


def pool_mosi(folder: Path, count: int = 12) -> Path:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = []
    for number, text in enumerate(sentences(count)):
        name = f"{number}.wav"
        write_audio(folder / name, tone(0.9 + 0.05 * (number % 4), 90 + 40 * (number % 5), generator), 16000)
        rows.append({"segment_id": f"p{number}", "split": "pool", "text": text, "audio": name})
    pd.DataFrame(rows).to_csv(folder / "segments.csv", index=False)
    _documents(folder, seed=1)
    return folder


def pool_posts(folder: Path, count: int = 96) -> Path:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        colour, shape = list(COLOURS)[number % 3], OBJECTS[number // 3 % 2]
        picture(colour, shape, generator).save(folder / f"{number}.png")
        rows.append(
            {
                "segment_id": f"i{number}",
                "split": "pool",
                "image": f"{number}.png",
                "caption": f"a {colour} {shape}",
                "object": f"{colour} {shape}",
            }
        )
    pd.DataFrame(rows).to_csv(folder / "segments.csv", index=False)
    _documents(folder, seed=2)
    return folder


def _documents(folder: Path, seed: int, count: int = 150) -> None:
    """Two sentences a document, the second the same as the first in other order, a blank line after each document."""
    firsts = sentences(count, seed)
    text = "".join(f"{first}\n{' '.join(reversed(first.split()))}\n\n" for first in firsts)
    (folder / "texts.txt").write_text(text, encoding="utf-8")
