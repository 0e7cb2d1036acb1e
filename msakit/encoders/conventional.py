"""Conventional features, the row that pre-trained encoders are compared with; each has one layer.

They stand where Ando et al. have GloVe (300), COVAREP (74) and FACET (35), none of which can be shipped:

    BagOfEmbeddings  static word vectors by PPMI and SVD (Levy & Goldberg 2014), one frame a word
    AcousticSet      25 values a 0.1 s: 20 MFCC, pitch, energy, spectral centroid, spectral flatness, zero crossings
    OpenSmile        eGeMAPS or ComParE, where openSMILE is installed
    VisualSet        324 values a video frame: histogram of oriented gradients of the face
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float16, Shaped

from msakit.data.faces import video_faces
from msakit.encoders.base import Encoder, EncoderError, SegmentError, SoundEncoder, frame_means, named_file, to_half
from msakit.encoders.pretrained import short_name
from msakit.encoders.vision import Pictures

WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?|[^\sa-z0-9]")


def words_of(text: str) -> list[str]:
    """Lower-case words, and every other character that is no space as a word of its own."""
    return WORD.findall(text.lower())


class BagOfEmbeddings(Encoder):
    """Frames are words; a word outside the vocabulary is a zero vector."""

    modality = "text"
    conventional = True

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

    def encode(self, batch: list[list[int]]) -> list[Float16[np.ndarray, "layer time dim"]]:
        return [to_half(self.vectors[rows])[None] for rows in batch]


class AcousticSet(SoundEncoder):
    """Means over 0.1 s. Columns: MFCC 0-19; pitch by YIN (octaves above 100 Hz, 60-500 Hz); RMS (dB); spectral
    centroid (kHz); spectral flatness (0-1); zero-crossing rate (0-1)."""

    conventional = True
    name = "acoustic-set"
    dim = 25
    frame_rate: float | None = 10.0
    window = 1024
    shortest = 2 * window

    def config(self) -> dict[str, Any]:
        return {
            "encoder": "acoustic-set",
            "name": self.name,
            "version": 1,
            "columns": [f"mfcc{k}" for k in range(20)] + ["pitch", "energy", "centroid", "flatness", "zero_crossings"],
            "frame_rate": self.frame_rate,
            "first_frame_seconds": 0.05,
        }

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
        return frame_means(table, 5)  # of 20 ms


class OpenSmile(SoundEncoder):
    """openSMILE's acoustic sets, an optional extra: `pip install 'msakit[opensmile]'`.

    Means over 0.1 s of low-level descriptors that come every 10 ms; `feature_set` is a name of `opensmile.FeatureSet`:
    Eyben et al. 2016 (eGeMAPSv02, 25 descriptors), Schuller et al. 2016 (ComParE_2016, 65). openSMILE's licence allows
    research and private use, not products: hence an extra, imported only when this encoder is made.
    """

    conventional = True
    frame_rate: float | None = 10.0
    shortest = 1600

    def __init__(self, *, feature_set: str = "eGeMAPSv02"):
        try:
            import opensmile
        except ImportError as error:
            raise EncoderError(
                f"the encoder opensmile needs a package that is absent ({error}): pip install 'msakit[opensmile]'"
            ) from error
        choices = [name for name in opensmile.FeatureSet.__members__ if not name.startswith("_")]
        if feature_set not in choices:
            raise EncoderError(f"openSMILE has no feature set {feature_set!r}: choose one of {', '.join(choices)}")
        self._smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet[feature_set],
            feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
        )
        self._version = str(opensmile.__version__)
        self.name = f"opensmile-{feature_set.lower()}"
        self.feature_set = feature_set
        self.columns = [str(name) for name in self._smile.feature_names]
        self.dim = len(self.columns)

    def config(self) -> dict[str, Any]:
        return {
            "encoder": "opensmile",
            "name": self.name,
            "feature_set": self.feature_set,
            "opensmile": self._version,
            "columns": self.columns,
            "frame_rate": self.frame_rate,
            "first_frame_seconds": 0.05,
        }

    def encode(self, batch: list[Float[np.ndarray, " _sample"]]) -> list[Float16[np.ndarray, "layer time dim"]]:
        tables = [self._smile.process_signal(samples, self.rate).to_numpy(dtype=np.float32) for samples in batch]
        # Descriptors that are not defined in silence (jitter, formants) come as 0 or NaN.
        return [to_half(frame_means(np.nan_to_num(table), 10))[None] for table in tables]


class VisualSet(Encoder):
    """HOG of the largest face at 48 px: 6 x 6 cells of 8 px, 9 orientations, normalised in blocks of 2 x 2 cells that
    do not overlap (9 blocks x 36 = 324). A frame without a face is zeros."""

    modality = "vision"
    conventional = True
    name = "visual-set"
    dim = 324
    side = 48

    def __init__(self, *, fps: float | int = 3.0):
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

        path = named_file(row, "video")
        if path is None:
            raise SegmentError("no video file is named")
        crops, found = video_faces(path, self.fps, self.side)
        grey = [cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[None] for crop in crops[found]]
        pixels = np.stack(grey) if grey else np.zeros((0, 1, self.side, self.side))
        return Pictures(pixels.astype(np.float32), found)

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


class Precomputed(Encoder):
    """One array of a corpus's features.npz (GloVe, COVAREP, FACET, ...), [segment, dim] or [segment, time, dim].

    Frames of zeros at either end of a segment are padding and are cut, all but one. NaN and infinities (COVAREP writes
    -inf for silence) become 0; `config()["not_finite"]` counts them.
    """

    conventional = True

    def __init__(
        self,
        segment_ids: Shaped[np.ndarray, " segment"],
        values: Shaped[np.ndarray, "segment *time dim"],
        array: str,
        modality: str | None = None,
        id_column: str = "segment_id",
    ):
        if len(segment_ids) != len(values):
            raise ValueError(f"array {array!r} has {len(values)} rows for {len(segment_ids)} segments")
        self.name = array
        self.id_column = id_column
        self.modality = modality or array
        if self.modality not in ("text", "audio", "vision"):
            raise ValueError(f"say the modality of array {array!r}: modality='text', 'audio' or 'vision'")
        values = np.asarray(values, dtype=np.float32)
        finite = np.isfinite(values)
        self._not_finite = int((~finite).sum())
        values = np.where(finite, values, np.float32(0))
        self._values = values[:, None] if values.ndim == 2 else values
        self._rows = {str(segment): row for row, segment in enumerate(segment_ids)}
        self.dim = int(values.shape[-1])

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, array: str, modality: str | None = None, id_column: str = "segment_id"
    ) -> "Precomputed":
        """From features.npz or the corpus folder that holds it.

        id_column: the column of the corpus that names its segments as the file does.
        """
        file = Path(path) / "features.npz" if Path(path).is_dir() else Path(path)
        with np.load(file, allow_pickle=False) as archive:
            if array not in archive.files or "segment_id" not in archive.files:
                raise ValueError(f"{file} has the arrays {archive.files}; it needs segment_id and {array!r}")
            return cls(archive["segment_id"], archive[array], array, modality, id_column)

    def config(self) -> dict[str, Any]:
        return {
            "encoder": "precomputed",
            "name": self.name,
            "weights": hashlib.sha256(self._values.tobytes()).hexdigest()[:16],
            "padding": "frames of zeros at either end are cut",
            "not_finite": self._not_finite,
            **({} if self.id_column == "segment_id" else {"id_column": self.id_column}),
        }

    def prepare(self, row: dict[str, Any]) -> Float[np.ndarray, "_time dim"]:
        segment = str(row.get(self.id_column) or "")
        if segment not in self._rows:
            raise SegmentError(f"no row in array {self.name!r}")
        frames = self._values[self._rows[segment]]
        used = np.flatnonzero(frames.any(axis=1))
        return frames[used[0] : used[-1] + 1] if len(used) else frames[:1]

    def encode(self, batch: list[Float[np.ndarray, "_time dim"]]) -> list[Float16[np.ndarray, "layer time dim"]]:
        return [to_half(frames)[None] for frames in batch]
