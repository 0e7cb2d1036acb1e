"""The feature store: round trip, layer bytes, kills, damage, failures, word averages."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from msakit.data.corpus import load_corpus
from msakit.encoders.base import Encoder, SegmentError, to_half
from msakit.encoders.conventional import BagOfEmbeddings
from msakit.features import (
    FeatureError,
    FeatureStore,
    average_over_words,
    extract,
    extraction_report,
    store_folder,
)


class Toy(Encoder):
    """Frames of a segment: its number + frame / 10 + 100 * layer in both columns of three layers; length by number."""

    modality = "audio"
    name = "toy"
    dim = 2
    n_layers = 3
    frame_rate: float | None = 10.0
    batch_frames = 7
    bad: ClassVar[dict[str, str]] = {}

    def __init__(self, stop_after: int | None = None, pause: float = 0.0, bad=None, scale: float = 1.0, bucket=5):
        self.stop_after, self.pause, self.bad, self.scale = stop_after, pause, bad or {}, scale
        self.bucket = bucket
        self.batches: list[int] = []

    def config(self):
        return {"encoder": "toy", "name": "toy", "scale": self.scale, "first_frame_seconds": 0.05}

    def prepare(self, row):
        if self.bad.get(row["segment_id"]) == "prepare":
            raise SegmentError("its file, is torn")
        return row["segment_id"]

    def size(self, prepared):
        return 1 + int(prepared[1:]) % 5

    def blank_frames(self, prepared):
        return int(prepared == "s3")

    def truncated(self, prepared):
        return prepared in ("s7", "s20")

    def encode(self, batch):
        if self.stop_after is not None and len(self.batches) >= self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(len(batch))
        time.sleep(self.pause)
        results = []
        for prepared in batch:
            frames = int(prepared[1:]) + np.arange(self.size(prepared))[None, :, None] / 10
            values = (frames + 100 * np.arange(3)[:, None, None]) * np.ones(2) * self.scale
            if self.bad.get(prepared) == "nan":
                values[1, 0, 0] = np.nan
            results.append(to_half(values))
        return results


def make_corpus(folder: Path, count: int = 23):
    folder.mkdir(exist_ok=True)
    rows = [
        {
            "segment_id": f"s{k}",
            "video_id": f"v{k}",
            "clip_id": 0,
            "split": ["train", "valid", "test"][k % 3],
            "label": 0.5,
            "text": f"words of {k}",
        }
        for k in range(count)
    ]
    pd.DataFrame(rows).to_csv(folder / "segments.csv", index=False)
    return load_corpus(folder)


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "corpus")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_round_trip(corpus, tmp_path):
    store = extract(corpus, Toy(), tmp_path / "store", progress=False)
    assert (store.n_layers, store.dim, store.frame_rate) == (3, 2, 10.0)
    assert store.segments["segment_id"].tolist() == [f"s{k}" for k in range(23)]
    assert set(store.segments["status"]) == {"ok"}
    assert store.layers.dtype == np.float16
    for k in (0, 7, 22):
        for layer in range(3):
            expected = Toy().encode([f"s{k}"])[0][layer]
            np.testing.assert_array_equal(store.frames(f"s{k}", layer), expected)
    np.testing.assert_array_equal(store.frames("s4", -1), store.frames("s4", 2))
    assert store.segments.set_index("segment_id").loc["s3", "blank_frames"] == 1
    assert store.config["blank_frames"] == 1
    assert store.config["encoder"] == Toy().config()


def test_segments_of_one_length_are_one_array(corpus, tmp_path):
    store = extract(corpus, Toy(bad={"s12": "prepare"}), tmp_path / "store", progress=False)
    array = store.array(["s7", "s2", "s12", "s17"], 1)  # three frames each, but for the failed one
    assert array.shape == (4, 3, 2)
    np.testing.assert_array_equal(array[:, :, 0], np.float16([[107, 107.1, 107.2], [102, 102.1, 102.2], [0, 0, 0],
                                                              [117, 117.1, 117.2]]))  # fmt: skip
    np.testing.assert_array_equal(store.array(["s7"])[0], store.frames("s7", 2))  # the output
    assert store.array(["s12"]).shape == (1, 1, 2)
    assert store.array([]).shape == (0, 1, 2)
    with pytest.raises(FeatureError, match="segments have 1 to 3 frames, not all as many"):
        store.array(["s7", "s0"])


def test_a_store_says_what_kind_of_features_it_holds(corpus, tmp_path):
    store = extract(corpus, Toy(), tmp_path / "store", progress=False)
    assert (store.conventional, store.weights) == (False, None)
    words = BagOfEmbeddings(["words"], np.ones((1, 3)))
    store = extract(corpus, words, tmp_path / "store", progress=False)
    assert (store.conventional, store.weights) == (True, words.config()["weights"])


def test_truncated_segments_are_counted_and_reported_once_even_after_a_kill(corpus, tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt):
        extract(corpus, Toy(stop_after=6), tmp_path / "store", progress=False)
    assert "longer than" not in caplog.text
    store = extract(corpus, Toy(), tmp_path / "store", progress=False)
    assert store.config["truncated"] == extraction_report([store])["truncated"].item() == 2
    (line,) = [record.getMessage() for record in caplog.records if "longer than" in record.getMessage()]
    assert line == "toy: 2 of 23 segments are longer than the encoder reads; what is beyond is left out"


def test_batches_hold_like_lengths_within_the_limit(corpus, tmp_path):
    encoder = Toy(bucket=23)
    encoder.batch_frames = 8
    extract(corpus, encoder, tmp_path / "store", progress=False)
    assert sum(encoder.batches) == 23
    # Lengths 1..5 occur 5, 5, 5, 4, 4 times; 5 ones and a two exceed no limit of 8 frames only up to 4 x 2.
    assert max(encoder.batches) <= 8
    assert len(encoder.batches) < 23


class Sized(Toy):
    """Knows lengths beforehand."""

    batch_frames = 10

    def __init__(self, **options):
        super().__init__(**options)
        self.sizes: list[list[int]] = []

    def estimated_size(self, row):
        return 10.0 * self.size(row["segment_id"])

    def encode(self, batch):
        self.sizes.append([self.size(prepared) for prepared in batch])
        return super().encode(batch)


def test_like_lengths_share_a_bucket_and_the_store_keeps_the_order_of_the_corpus(corpus, tmp_path):
    plain = extract(corpus, Toy(), tmp_path / "plain", progress=False)
    encoder = Sized()
    sorted_ = extract(corpus, encoder, tmp_path / "sorted", progress=False)
    assert content(sorted_.folder) == content(plain.folder)
    # 23 segments of 1 to 5 frames, five at a time: lengths rise over the whole corpus, not within buckets alone.
    flat = [size for sizes in encoder.sizes for size in sizes]
    assert flat == sorted(flat)
    assert len(flat) == 23
    assert all(len(sizes) * max(sizes) <= 10 for sizes in encoder.sizes)
    held = Sized(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        extract(corpus, held, tmp_path / "torn", progress=False)
    extract(corpus, Sized(), tmp_path / "torn", progress=False)
    assert content(store_folder(corpus, held, tmp_path / "torn")) == content(plain.folder)


def test_one_bucket_is_read_ahead_and_no_more(corpus, tmp_path):
    class Counting(Sized):
        prepared, encoded, most = 0, 0, 0

        def prepare(self, row):
            type(self).prepared += 1
            return super().prepare(row)

        def encode(self, batch):
            type(self).most = max(self.most, self.prepared - self.encoded)
            type(self).encoded += len(batch)
            return super().encode(batch)

    extract(corpus, Counting(), tmp_path / "store", progress=False)
    assert Counting.prepared == Counting.encoded == 23
    assert Counting.most <= 2 * 5


def test_the_report_counts_what_failed_and_where_nothing_was_seen(corpus, tmp_path):
    store = extract(corpus, Toy(bad={"s4": "prepare"}), tmp_path / "store", progress=False)
    (row,) = extraction_report([store]).to_dict("records")
    frames = sum(1 + k % 5 for k in range(23) if k != 4)
    assert row == {
        "modality": "audio", "encoder": "toy", "layers": 3, "dim": 2, "segments": 23, "failed": 1, "frames": frames,
        "blank_frames": 1, "blank_segments": 0, "truncated": 2, "clipped": 0,
    }  # fmt: skip


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_of_failures_is_a_share(corpus, tmp_path, share):
    with pytest.raises(ValueError, match="give the share of segments that may fail, from 0 to 1"):
        extract(corpus, Toy(), tmp_path / "store", max_failed=share)


def test_extraction_is_idempotent_and_keyed(corpus, tmp_path):
    root = tmp_path / "store"
    first = extract(corpus, Toy(), root, progress=False)
    again = Toy(stop_after=0)
    assert extract(corpus, again, root, progress=False).folder == first.folder
    assert again.batches == []
    other = extract(corpus, Toy(scale=2.0), root, progress=False)
    assert other.folder != first.folder
    assert other.folder.parent == first.folder.parent == root / corpus.name
    assert first.folder.name.startswith("audio-toy-")
    changed = make_corpus(tmp_path / "corpus", count=24)
    assert store_folder(changed, Toy(), root) != first.folder


def test_one_layer_touches_its_bytes_alone(corpus, tmp_path):
    store = extract(corpus, Toy(), tmp_path / "store", progress=False)
    view = store.layers[1]
    base = store.layers.__array_interface__["data"][0]
    layer_bytes = store.layers.shape[1] * 2 * 2
    assert view.flags["C_CONTIGUOUS"]
    assert view.__array_interface__["data"][0] - base == layer_bytes
    # Every byte outside layer 1 is changed; what layer 1 gives is not.
    before = np.array(store.layers[1])
    path = store.folder / "layers.npy"
    raw = bytearray(path.read_bytes())
    start = len(raw) - 3 * layer_bytes
    raw[start : start + layer_bytes] = bytes(layer_bytes)
    raw[start + 2 * layer_bytes :] = bytes(layer_bytes)
    path.write_bytes(raw)
    np.testing.assert_array_equal(before, FeatureStore.open(store.folder).layers[1])


def test_resume_after_an_error_gives_the_identical_store(corpus, tmp_path):
    whole = extract(corpus, Toy(), tmp_path / "whole", progress=False)
    torn = Toy(stop_after=6)
    with pytest.raises(KeyboardInterrupt):
        extract(corpus, torn, tmp_path / "torn", progress=False)
    folder = store_folder(corpus, torn, tmp_path / "torn")
    assert not folder.exists()
    done = sum(torn.batches)
    resumed = Toy()
    extract(corpus, resumed, tmp_path / "torn", progress=False)
    assert sum(resumed.batches) <= 23 - done + 5  # one bucket at most is done twice
    assert content(folder) == content(whole.folder)
    assert [path.name for path in folder.parent.iterdir() if not path.name.startswith(".")] == [folder.name]


def test_sigkill_then_resume_gives_the_identical_store(corpus, tmp_path):
    whole = extract(corpus, Toy(bucket=3), tmp_path / "whole", progress=False)
    script = (
        "import sys; from pathlib import Path; from test_features import Toy;"
        "from msakit.data.corpus import load_corpus; from msakit.features import extract;"
        "extract(load_corpus(Path(sys.argv[1])), Toy(pause=0.15, bucket=3), Path(sys.argv[2]), progress=False)"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent)])
    folder = store_folder(corpus, Toy(), tmp_path / "killed")
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(corpus.folder), str(tmp_path / "killed")],
        env={**os.environ, "PYTHONPATH": path},
    )
    partial = folder.with_name(folder.name + ".partial")
    until = time.monotonic() + 60
    while len(list(partial.glob("*.npz"))) < 3 and child.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert len(list(partial.glob("*.npz"))) >= 3
    assert not folder.exists()
    resumed = Toy(bucket=3)
    extract(corpus, resumed, tmp_path / "killed", progress=False)
    assert 0 < sum(resumed.batches) <= 23 - 6
    assert content(folder) == content(whole.folder)


@pytest.mark.parametrize("damage", ["half", "flipped", "empty", "temporary"])
def test_a_half_written_shard_is_not_believed(corpus, tmp_path, damage):
    whole = extract(corpus, Toy(), tmp_path / "whole", progress=False)
    torn = Toy(stop_after=2)
    torn.batch_frames = 100  # a bucket is a batch
    with pytest.raises(KeyboardInterrupt):
        extract(corpus, torn, tmp_path / "torn", progress=False)
    folder = store_folder(corpus, torn, tmp_path / "torn")
    shard = folder.with_name(folder.name + ".partial") / "00000000-00000005.npz"
    raw = bytearray(shard.read_bytes())
    if damage == "half":
        shard.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped":
        place = raw.index(b"NUMPY") + 130  # in the frames, past their header
        raw[place] ^= 255
        shard.write_bytes(raw)
    elif damage == "empty":
        shard.write_bytes(b"")
    else:
        shard.rename(shard.with_name(f".{shard.stem}.123.partial.npz"))
    resumed = Toy()
    extract(corpus, resumed, tmp_path / "torn", progress=False)
    assert sum(resumed.batches) == 23 - 5
    assert content(folder) == content(whole.folder)


def test_a_half_assembled_store_is_not_believed(corpus, tmp_path):
    whole = extract(corpus, Toy(), tmp_path / "whole", progress=False)
    folder = store_folder(corpus, Toy(), tmp_path / "torn")
    store = folder.with_name(f"{folder.name}.123.partial")  # of a process that was killed
    store.mkdir(parents=True)
    (store / "layers.npy").write_bytes(b"half")
    extract(corpus, Toy(), tmp_path / "torn", progress=False)
    assert content(folder) == content(whole.folder)
    assert not store.exists()


def test_failed_segments_are_zeros_with_their_reason(corpus, tmp_path):
    encoder = Toy(bad={"s4": "prepare", "s9": "nan"})
    store = extract(corpus, encoder, tmp_path / "store", max_failed=0.1, progress=False)
    rows = store.segments.set_index("segment_id")
    assert rows.loc["s4", ["status", "reason"]].tolist() == ["failed", "its file, is torn"]
    assert rows.loc["s9", "status"] == "failed"
    assert "not numbers" in rows.loc["s9", "reason"]
    assert (rows["status"] == "failed").sum() == store.config["failed"] == 2
    assert rows.loc["s4", "length"] == 1
    assert not store.frames("s4", 1).any()
    np.testing.assert_array_equal(store.frames("s5", 0)[:, 0], Toy().encode(["s5"])[0][0, :, 0])


def test_too_many_failures_are_named_and_can_be_mended(corpus, tmp_path):
    bad = {"s4": "prepare", "s9": "nan", "s20": "prepare"}
    with pytest.raises(FeatureError, match=r"3 of 23 segments failed.*s4: its file, is torn; s9: .*; s20") as error:
        extract(corpus, Toy(bad=bad), tmp_path / "store", max_failed=0.1, progress=False)
    assert "max_failed=0.1" in str(error.value)
    mended = Toy()
    store = extract(corpus, mended, tmp_path / "store", max_failed=0.1, progress=False)
    assert set(store.segments["status"]) == {"ok"}
    whole = extract(corpus, Toy(), tmp_path / "whole", progress=False)
    assert content(store.folder) == content(whole.folder)


def test_values_beyond_half_precision_are_clipped_and_counted(corpus, tmp_path):
    store = extract(corpus, Toy(scale=3000.0), tmp_path / "store", progress=False)
    assert np.isfinite(store.layers).all()
    assert store.layers.max() == 65504
    assert store.config["clipped"] == int((np.asarray(store.layers) == 65504).sum()) > 0


def test_open_says_what_is_wrong(corpus, tmp_path):
    store = extract(corpus, Toy(), tmp_path / "store", progress=False)
    with pytest.raises(FeatureError, match="layers 0 to 2, not 3"):
        store.frames("s1", 3)
    with pytest.raises(FeatureError, match="no segment 'x1'"):
        store.array(["x1"])
    table = (store.folder / "segments.csv").read_text()
    (store.folder / "segments.csv").write_text("".join(table.splitlines(keepends=True)[:-1]))
    with pytest.raises(FeatureError, match=r"layers\.npy does not fit"):
        FeatureStore.open(store.folder)
    (store.folder / "segments.csv").write_text(table)
    config = json.loads((store.folder / "config.json").read_text())
    (store.folder / "config.json").write_text(json.dumps({**config, "version": 0}))
    with pytest.raises(FeatureError, match="version 0"):
        FeatureStore.open(store.folder)
    with pytest.raises(FeatureError, match="nowhere is not a feature store"):
        FeatureStore.open(tmp_path / "nowhere")


def test_average_over_words(corpus, tmp_path):
    store = extract(corpus, Toy(), tmp_path / "store", progress=False)
    # s4 has five frames, 4.0 to 4.4, at 0.05, 0.15, ... 0.45 s.
    words = pd.DataFrame(
        {
            "segment_id": ["s4"] * 3 + ["s0"],
            "word_index": [2, 0, 1, 0],
            "word": list("cabd"),
            "start": [5.0, 0.0, 0.26, 0.0],
            "end": [6.0, 0.2, 0.28, 0.1],
        }
    )
    averages = average_over_words(store, words, layer=1)
    assert list(averages) == ["s0", "s4"]
    assert averages["s4"].dtype == np.float32
    # Two frames in the first word; none in the second, whose middle is nearest to 0.25 s; the third lies behind.
    np.testing.assert_allclose(averages["s4"][:, 0], [104.05, 104.2, 104.4], atol=0.05)
    store.frame_rate = None
    with pytest.raises(FeatureError, match="no time"):
        average_over_words(store, words)
