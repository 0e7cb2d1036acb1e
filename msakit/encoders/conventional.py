"""Conventional features, the row that pre-trained encoders are compared with; each has one layer.

They stand where Ando et al. have GloVe (300), COVAREP (74) and FACET (35), none of which can be shipped:

    BagOfEmbeddings  static word vectors by PPMI and SVD (Levy & Goldberg 2014), one frame a word
    AcousticSet      25 values a 0.1 s: 20 MFCC, pitch, energy, spectral centroid, spectral flatness, zero crossings
    VisualSet        324 values a video frame: histogram of oriented gradients of the face
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float16

from msakit.data.faces import video_faces
from msakit.data.media import MediaError
from msakit.encoders.base import SegmentError, read_sound, seconds_of_sound, to_half
from msakit.encoders.pretrained import short_name
from msakit.encoders.vision import Pictures

WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?|[^\sa-z0-9]")


def words_of(text: str) -> list[str]:
    """Lower-case words, and every other character that is no space as a word of its own."""
    return WORD.findall(text.lower())


class BagOfEmbeddings:
    """Frames are words; a word outside the vocabulary is a zero vector."""

    modality = "text"
    conventional = True
    n_layers = 1
    frame_rate: float | None = None

    def __init__(self, vocabulary: list[str], vectors: Float[np.ndarray, "word dim"], name: str = "word-vectors"):
        if len(vocabulary) != len(vectors):
            raise ValueError(f"{len(vocabulary)} words but {len(vectors)} vectors")
        self.index = {word: row for row, word in enumerate(vocabulary)}
        # The last row is that of unknown words.
        self.vectors = np.vstack([vectors, np.zeros((1, vectors.shape[1]))]).astype(np.float32)
        self.name = name
        self.dim = int(vectors.shape[1])

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "BagOfEmbeddings":
        """From a folder with words.json (list of words) and vectors.npy [word, dim]."""
        folder = Path(path)
        vocabulary = json.loads((folder / "words.json").read_text(encoding="utf-8"))
        return cls(vocabulary, np.load(folder / "vectors.npy", allow_pickle=False), short_name(folder))

    def save_pretrained(self, folder: Path) -> None:
        (folder / "words.json").write_text(json.dumps(list(self.index), ensure_ascii=False), encoding="utf-8")
        np.save(folder / "vectors.npy", self.vectors[:-1])

    def config(self) -> dict[str, Any]:
        digest = hashlib.sha256(json.dumps(list(self.index)).encode() + self.vectors.tobytes()).hexdigest()[:16]
        return {"encoder": "bag-of-embeddings", "name": self.name, "weights": digest, "unknown": "zeros"}

    def prepare(self, row: dict[str, Any]) -> list[int]:
        text = row.get("text")
        words = words_of(text) if isinstance(text, str) else []
        if not words:
            raise SegmentError("the text is empty")
        return [self.index.get(word, len(self.index)) for word in words]

    def size(self, prepared: list[int]) -> int:
        return len(prepared)

    def encode(self, batch: list[list[int]]) -> list[Float16[np.ndarray, "layer time dim"]]:
        return [to_half(self.vectors[rows])[None] for rows in batch]


class AcousticSet:
    """Means over 0.1 s. Columns: MFCC 0-19; pitch by YIN (octaves above 100 Hz, 60-500 Hz); RMS (dB); spectral
    centroid (kHz); spectral flatness (0-1); zero-crossing rate (0-1)."""

    modality = "audio"
    conventional = True
    name = "acoustic-set"
    n_layers = 1
    dim = 25
    frame_rate: float | None = 10.0
    rate = 16000
    hop = 320  # 20 ms; five of these make an output frame
    window = 1024

    def config(self) -> dict[str, Any]:
        return {
            "encoder": "acoustic-set",
            "name": self.name,
            "version": 1,
            "columns": [f"mfcc{k}" for k in range(20)] + ["pitch", "energy", "centroid", "flatness", "zero_crossings"],
            "frame_rate": self.frame_rate,
            "first_frame_seconds": 0.05,
        }

    def prepare(self, row: dict[str, Any]) -> Float[np.ndarray, " sample"]:
        samples = read_sound(row, self.rate)
        if len(samples) < 2 * self.window:
            raise SegmentError(f"the audio has {len(samples)} samples, fewer than {2 * self.window}")
        return samples

    def size(self, prepared: Float[np.ndarray, " sample"]) -> int:
        return len(prepared) // 1600

    def estimated_size(self, row: dict[str, Any]) -> float:
        """Seconds, from the file's header."""
        return seconds_of_sound(row)

    def encode(self, batch: list[Float[np.ndarray, " _sample"]]) -> list[Float16[np.ndarray, "layer time dim"]]:
        return [to_half(self._frames(samples))[None] for samples in batch]

    def _frames(self, samples: Float[np.ndarray, " sample"]) -> Float[np.ndarray, "time 25"]:
        import librosa  # seconds to import, and only this class needs it

        magnitude = np.abs(librosa.stft(samples, n_fft=self.window, hop_length=self.hop))
        mel = librosa.feature.melspectrogram(S=magnitude**2, sr=self.rate, n_mels=64)
        pitch = librosa.yin(samples, fmin=60, fmax=500, sr=self.rate, frame_length=self.window, hop_length=self.hop)
        rms = librosa.feature.rms(S=magnitude, frame_length=self.window)[0]
        columns = [
            *librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=20),
            np.log2(pitch / 100),
            20 * np.log10(rms + 1e-5),
            librosa.feature.spectral_centroid(S=magnitude, sr=self.rate)[0] / 1000,
            librosa.feature.spectral_flatness(S=magnitude)[0],
            librosa.feature.zero_crossing_rate(samples, frame_length=self.window, hop_length=self.hop)[0],
        ]
        shortest = min(len(column) for column in columns)
        table = np.stack([column[:shortest] for column in columns], axis=1).astype(np.float32)
        starts = np.arange(0, shortest, 5)
        counts = np.diff(np.append(starts, shortest))
        return np.add.reduceat(table, starts, axis=0) / counts[:, None].astype(np.float32)


class VisualSet:
    """HOG of the largest face at 48 px: 6 x 6 cells of 8 px, 9 orientations, normalised in blocks of 2 x 2 cells that
    do not overlap (9 blocks x 36 = 324). A frame without a face is zeros."""

    modality = "vision"
    conventional = True
    name = "visual-set"
    n_layers = 1
    dim = 324
    side = 48

    def __init__(self, fps: float | int = 3.0):
        self.fps = float(fps)
        self.frame_rate: float | None = self.fps

    def config(self) -> dict[str, Any]:
        return {
            "encoder": "visual-set",
            "name": self.name,
            "version": 1,
            "fps": self.fps,
            "side": self.side,
            "first_frame_seconds": 0.0,
        }

    def prepare(self, row: dict[str, Any]) -> Pictures:
        import cv2

        path = row.get("video")
        if not isinstance(path, str | Path) or not str(path):
            raise SegmentError("no video file is named")
        try:
            crops, found = video_faces(Path(path), self.fps, self.side)
        except MediaError as error:
            raise SegmentError(str(error)) from error
        grey = [cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[None] for crop in crops[found]]
        pixels = np.stack(grey) if grey else np.zeros((0, 1, self.side, self.side))
        return Pictures(pixels.astype(np.float32), found)

    def size(self, prepared: Pictures) -> int:
        return len(prepared.found)

    def blank_frames(self, prepared: Pictures) -> int:
        """How many frames show no face."""
        return int((~prepared.found).sum())

    def encode(self, batch: list[Pictures]) -> list[Float16[np.ndarray, "layer time dim"]]:
        import cv2

        hog = cv2.HOGDescriptor((self.side, self.side), (16, 16), (16, 16), (8, 8), 9)
        results = []
        for pictures in batch:
            frames = np.zeros((1, len(pictures.found), self.dim), dtype=np.float32)
            for row, face in zip(np.flatnonzero(pictures.found), pictures.pixels, strict=True):
                frames[0, row] = np.ravel(hog.compute(face[0].astype(np.uint8)))
            results.append(to_half(frames))
        return results
