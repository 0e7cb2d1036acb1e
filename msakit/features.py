"""Feature store: one pass of an encoder over a corpus, kept as one flat float16 array a layer.

    root/<corpus>/<modality>-<encoder>-<key>/
        layers.npy     float16 [layer, frame, dim], the frames of all segments one after another
        segments.csv   segment_id, start, length, status (ok | failed), reason, blank_frames
        config.json    encoder configuration, corpus fingerprint, counts

Reading one layer touches that layer's bytes alone. The key is a sha256 over encoder configuration and corpus
fingerprint, so that another checkpoint, another setting or a changed corpus never meets old features.

Extraction survives a kill at any moment. Finished buckets lie as shards in `<key>.partial/`, written atomically and
checked again when read; the store itself appears by one rename of a finished folder. While it is being put together it
needs twice its size on disk.

A segment that cannot be encoded is one frame of zeros with status "failed" and the reason. Values beyond the range of
float16 are held at +-65504 and counted in config.json, and so are texts that a limit of the encoder truncated.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float16, Float32
from tqdm import tqdm

from msakit.data.corpus import Corpus
from msakit.data.media import MediaError
from msakit.encoders import ENCODERS, encoder_class
from msakit.encoders.base import HALF_MAX, Encoder, SegmentError
from msakit.files import new_folder, replacing

log = logging.getLogger(__name__)

VERSION = 2
READERS = 2  # threads that read and decode ahead of the model
COLUMNS = ("segment_id", "length", "reason", "blank_frames", "truncated")  # of a shard, beside its frames


class FeatureError(ValueError):
    """Features cannot be extracted or read; the message names the segments or the file, and the mend."""


class FeatureStore:
    """A finished extraction, memory-mapped."""

    def __init__(
        self,
        folder: Path,
        layers: Float16[np.ndarray, "layer frame dim"],
        segments: pd.DataFrame,
        config: dict[str, Any],
    ):
        self.folder = folder
        self.layers = layers
        self.segments = segments
        self.config = config
        self.n_layers, _, self.dim = layers.shape
        # Frames per second; None where frames have no time (tokens, cells of an image).
        self.frame_rate: float | None = config.get("frame_rate")
        self._failed = set(segments.loc[segments["status"] == "failed", "segment_id"].astype(str))
        stops = segments["start"] + segments["length"]
        self._spans = dict(
            zip(segments["segment_id"].astype(str), zip(segments["start"], stops, strict=True), strict=True)
        )

    @classmethod
    def open(cls, folder: Path | str) -> "FeatureStore":
        """Raises FeatureError for a folder that is not a whole store of this version."""
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            segments = pd.read_csv(
                folder / "segments.csv", dtype={"segment_id": str, "reason": str}, keep_default_na=False
            )
            layers = np.load(folder / "layers.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise FeatureError(f"{folder} is not a feature store ({error}); delete it and extract again") from error
        if config.get("version") != VERSION:
            raise FeatureError(f"{folder} has version {config.get('version')}, not {VERSION}; extract again")
        if list(layers.shape) != config["shape"] or int(segments["length"].sum()) != layers.shape[1]:
            raise FeatureError(f"{folder}: layers.npy does not fit config.json and segments.csv; extract again")
        return cls(folder, layers, segments, config)

    @property
    def conventional(self) -> bool:
        """Whether these are hand-made features, whose scale is arbitrary."""
        kind = self.config["encoder"].get("encoder")
        return kind in ENCODERS and encoder_class(kind).conventional

    @property
    def weights(self) -> str | None:
        """Digest of the encoder's weights; None where it has none."""
        return self.config["encoder"].get("weights")

    def frames(self, segment_id: str, layer: int) -> Float16[np.ndarray, "time dim"]:
        """One segment in one layer; negative layers count from the output."""
        start, stop = self._span(segment_id)
        return np.array(self.layers[self._layer(layer), start:stop])

    def array(self, segment_ids: Sequence[str], layer: int = -1) -> Float16[np.ndarray, "segment time dim"]:
        """Segments that all have as many frames (one vector each, or the cells of an image) in one layer, as one array.

        A failed segment is zeros. Raises FeatureError where numbers of frames differ.
        """
        kept = [(row, *self._span(name)) for row, name in enumerate(segment_ids) if name not in self._failed]
        lengths = sorted({stop - start for _, start, stop in kept}) or [1]
        if len(lengths) > 1:
            raise FeatureError(f"{self.folder}: segments have {lengths[0]} to {lengths[-1]} frames, not all as many")
        frames = self.layers[self._layer(layer)]
        taken = np.zeros((len(segment_ids), lengths[0], self.dim), dtype=np.float16)
        for row, start, stop in kept:
            taken[row] = frames[start:stop]
        return taken

    def _layer(self, layer: int) -> int:
        if not -self.n_layers <= layer < self.n_layers:
            raise FeatureError(f"{self.folder} has layers 0 to {self.n_layers - 1}, not {layer}")
        return layer

    def _span(self, segment_id: str) -> tuple[int, int]:
        if segment_id not in self._spans:
            raise FeatureError(f"{self.folder} has no segment {segment_id!r}; was it extracted from this corpus?")
        return self._spans[segment_id]


def extraction_report(stores: Iterable[FeatureStore]) -> pd.DataFrame:
    """One row a store, in counts: what was encoded, what failed, and what lacks something.

    segments, failed; frames; blank_frames (no face found: zeros), blank_segments (in none of their frames), truncated
    (texts that lost their end), clipped (values beyond float16).
    """
    rows = []
    for store in stores:
        table = store.segments
        ok = table["status"] == "ok"
        rows.append(
            {
                "modality": store.config["modality"],
                "encoder": store.config["encoder"]["name"],
                "layers": store.n_layers,
                "dim": store.dim,
                "segments": len(table),
                "failed": int((~ok).sum()),
                "frames": int(table.loc[ok, "length"].sum()),
                "blank_frames": int(table["blank_frames"].sum()),
                "blank_segments": int((ok & (table["blank_frames"] >= table["length"])).sum()),
                "truncated": int(store.config.get("truncated", 0)),
                "clipped": int(store.config["clipped"]),
            }
        )
    return pd.DataFrame(rows)


def store_folder(corpus: Corpus, encoder: Encoder, root: Path | str) -> Path:
    """Where `extract` puts the features."""
    identity = {"version": VERSION, "encoder": encoder.config(), "corpus": corpus.fingerprint}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    return Path(root) / corpus.name / f"{encoder.modality}-{encoder.name}-{key}"


def extract(
    corpus: Corpus, encoder: Encoder, root: Path | str, *, max_failed: float = 0.05, progress: bool = True
) -> FeatureStore:
    """All layers of all segments, of all splits; returns at once if they are there, goes on where a killed run stopped.

    Segments of like length form buckets of `encoder.bucket`: what a kill can cost, and, twice, what lies in memory. In
    a bucket they form padded batches of at most `encoder.batch_frames` frames; a longer segment goes alone.

    Raises FeatureError, which names them, if more than the share `max_failed` (0 to 1) of the segments failed.
    """
    if not 0 <= max_failed <= 1:
        raise ValueError(f"max_failed is {max_failed:g}: give the share of segments that may fail, from 0 to 1")
    folder = store_folder(corpus, encoder, root)
    if folder.exists():
        return FeatureStore.open(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        partial = folder.with_name(folder.name + ".partial")
        if not folder.exists():  # another process may have finished while this one waited
            partial.mkdir(exist_ok=True)
            for killed in folder.parent.glob(f"{folder.name}.*.partial"):
                shutil.rmtree(killed)
            shards = _encode_buckets(corpus, encoder, partial, max_failed, progress)
            with new_folder(folder) as whole:
                _assemble(shards, encoder, corpus, whole)
        shutil.rmtree(partial, ignore_errors=True)
    return FeatureStore.open(folder)


def _encode_buckets(corpus: Corpus, encoder: Encoder, partial: Path, max_failed: float, progress: bool) -> list[Path]:
    """The shards of all buckets. While the model works on one bucket, the next one is being read."""
    rows = [{str(key): value for key, value in row.items()} for row in corpus.table().to_dict("records")]
    rows.sort(key=encoder.estimated_size)  # stable: the order of the corpus among equals
    buckets = []
    for start in range(0, len(rows), encoder.bucket):
        part = rows[start : start + encoder.bucket]
        buckets.append((part, partial / f"{start:08d}-{start + len(part):08d}.npz"))
    readers = ThreadPoolExecutor(READERS, thread_name_prefix="prepare")

    def begin(number: int) -> tuple[dict[str, np.ndarray] | None, list[Future[tuple[Any, str]]]]:
        """A bucket's content, if its shard is there, or its segments as they are being read."""
        if number == len(buckets):
            return None, []
        part, shard = buckets[number]
        content = _read_shard(shard)
        return content, [readers.submit(_prepare, encoder, row) for row in part] if content is None else []

    failed: dict[str, str] = {}
    with_failures: list[Path] = []
    title = f"{encoder.modality} {encoder.name}"
    bar = tqdm(total=len(rows), desc=title, unit="segment", disable=not progress, mininterval=2)
    try:
        ahead = begin(0)
        for number, (part, shard) in enumerate(buckets):
            content, prepared = ahead
            ahead = begin(number + 1)
            if content is None:
                content = _encode_bucket(part, [future.result() for future in prepared], encoder)
                with replacing(shard) as temporary:
                    np.savez(temporary, allow_pickle=False, **content)
            bad = content["reason"] != ""
            if bad.any():
                with_failures.append(shard)
                failed.update(zip(content["segment_id"][bad].tolist(), content["reason"][bad].tolist(), strict=True))
            if len(failed) > max_failed * len(rows):
                # Shards with failures go, so that the next run reads the mended files.
                for path in with_failures:
                    path.unlink()
                listed = "; ".join(f"{segment}: {reason}" for segment, reason in list(failed.items())[:20])
                more = f"; and {len(failed) - 20} more" if len(failed) > 20 else ""
                raise FeatureError(
                    f"{len(failed)} of {len(rows)} segments failed in {title}, more than max_failed={max_failed:g} "
                    f"allows: {listed}{more}. Mend or leave out these rows, or raise max_failed."
                )
            bar.update(len(part))
    finally:
        bar.close()
        readers.shutdown(cancel_futures=True)  # after an error nobody waits for what has not begun
    for segment, reason in failed.items():
        log.warning("%s: segment %s is kept as zeros: %s", title, segment, reason)
    return [shard for _, shard in buckets]


def _prepare(encoder: Encoder, row: dict[str, Any]) -> tuple[Any, str]:
    """(input of `encode`, ""), or (None, the reason)."""
    try:
        return encoder.prepare(row), ""
    except (SegmentError, MediaError) as error:
        return None, str(error) or "no reason given"


def _encode_bucket(rows: list[dict[str, Any]], items: list[tuple[Any, str]], encoder: Encoder) -> dict[str, np.ndarray]:
    """One shard: frames [layer, frame, dim], and COLUMNS of each segment; of a segment that is ok the reason is ""."""
    reasons = [reason for _, reason in items]
    prepared = {position: item for position, (item, reason) in enumerate(items) if not reason}
    zeros = np.zeros((encoder.n_layers, 1, encoder.dim), dtype=np.float16)
    arrays: list[np.ndarray] = [zeros] * len(rows)
    sizes = {position: encoder.size(item) for position, item in prepared.items()}
    for batch in _batches(sizes, encoder.batch_frames):
        encoded = encoder.encode([prepared[position] for position in batch])
        for position, array in zip(batch, encoded, strict=True):
            if array.shape[1] == 0:
                reasons[position] = "the encoder gave no frame"
            elif np.isnan(array).any():
                reasons[position] = "the encoder gave values that are not numbers"
            else:
                arrays[position] = array
    blank, truncated = np.zeros((2, len(rows)), dtype=np.int64)
    for position, item in prepared.items():
        blank[position], truncated[position] = encoder.blank_frames(item), encoder.truncated(item)
    return {
        "frames": np.concatenate(arrays, axis=1),
        "segment_id": np.array([str(row["segment_id"]) for row in rows]),
        "length": np.array([array.shape[1] for array in arrays], dtype=np.int64),
        "reason": np.array(reasons),
        "blank_frames": blank,
        "truncated": truncated,
    }


def _batches(sizes: dict[int, int], limit: int) -> Iterator[list[int]]:
    """Positions in batches of like size whose padded total stays within the limit."""
    batch: list[int] = []
    for position in sorted(sizes, key=lambda position: (sizes[position], position)):
        if batch and (len(batch) + 1) * sizes[position] > limit:  # sorted: this one is the longest so far
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def _read_shard(path: Path) -> dict[str, np.ndarray] | None:
    """A shard's arrays, or None (and no file) where it is missing or damaged, which zip checksums show."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in ("frames", *COLUMNS)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged (%s) and will be encoded again", path, error)
        path.unlink()
        return None


def _assemble(shards: list[Path], encoder: Encoder, corpus: Corpus, folder: Path) -> None:
    """The store's files from its shards, one shard in memory at a time."""
    tables = []
    for shard in shards:
        with np.load(shard, allow_pickle=False) as archive:
            tables.append(pd.DataFrame({name: archive[name] for name in COLUMNS}))
    # Shards go by length, the store by the order of the corpus.
    order = corpus.table()["segment_id"].astype(str).tolist()
    segments = pd.concat(tables).set_index("segment_id").loc[order].reset_index()
    segments["start"] = segments["length"].cumsum() - segments["length"]
    segments["status"] = np.where(segments["reason"] == "", "ok", "failed")
    starts = dict(zip(segments["segment_id"], segments["start"], strict=True))
    truncated = int(segments["truncated"].sum())
    # int(): a numpy integer in the shape writes a header that cannot be read back.
    shape = (int(encoder.n_layers), int(segments["length"].sum()), int(encoder.dim))
    layers = np.lib.format.open_memmap(folder / "layers.npy", mode="w+", dtype=np.float16, shape=shape)
    clipped = 0
    for shard in shards:
        with np.load(shard, allow_pickle=False) as archive:
            frames, ids, lengths = archive["frames"], archive["segment_id"], archive["length"]
        clipped += int((np.abs(frames) >= HALF_MAX).sum())
        position = 0
        for segment, length in zip(ids, lengths, strict=True):
            start = starts[segment]
            layers[:, start : start + length] = frames[:, position : position + length]
            position += length
    layers.flush()
    del layers
    if clipped:
        log.warning("%s: %d values beyond float16 are held at +-%g", encoder.name, clipped, HALF_MAX)
    if truncated:
        log.warning(
            "%s: %d of %d segments are longer than the encoder reads; what is beyond is left out",
            encoder.name, truncated, len(segments),
        )  # fmt: skip
    config = {
        "version": VERSION,
        "encoder": encoder.config(),
        "spec": encoder.spec,  # how `load_encoder` made it; the paths in it are no part of the key
        "corpus": {"name": corpus.name, "fingerprint": corpus.fingerprint},
        "modality": encoder.modality,
        "frame_rate": encoder.frame_rate,
        "shape": list(shape),
        "failed": int((segments["status"] == "failed").sum()),
        "blank_frames": int(segments["blank_frames"].sum()),
        "truncated": truncated,
        "clipped": clipped,
    }
    columns = ["segment_id", "start", "length", "status", "reason", "blank_frames"]
    segments[columns].to_csv(folder / "segments.csv", index=False)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    # On disk before the rename that makes them count.
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One process an extraction; the system frees the lock of a killed one."""
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def average_over_words(
    store: FeatureStore, words: pd.DataFrame, layer: int = 0
) -> dict[str, Float32[np.ndarray, "word dim"]]:
    """Mean frame of each word, as word-aligned methods need; words: segment_id, word_index, start, end in seconds.

    A word in which no frame falls takes the frame nearest to its middle; a failed segment gives zeros. Raises
    FeatureError for a store whose frames have no time.
    """
    if store.frame_rate is None:
        raise FeatureError(f"{store.folder}: its frames are tokens, which have no time")
    first = float(store.config["encoder"].get("first_frame_seconds", 0.0))
    averages = {}
    for segment_id, group in words.sort_values(["segment_id", "word_index"]).groupby("segment_id", sort=False):
        frames = store.frames(str(segment_id), layer).astype(np.float32)
        times = first + np.arange(len(frames)) / store.frame_rate
        starts, ends = group["start"].to_numpy(dtype=float), group["end"].to_numpy(dtype=float)
        low, high = np.searchsorted(times, starts), np.searchsorted(times, ends)
        nearest = np.abs(times[None] - (starts + ends)[:, None] / 2).argmin(axis=1)
        averages[str(segment_id)] = np.stack(
            [frames[a:b].mean(axis=0) if b > a else frames[n] for a, b, n in zip(low, high, nearest, strict=True)]
        )
    return averages
