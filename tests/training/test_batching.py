import mmap

import numpy as np
import pandas as pd
import pytest
import torch

from msakit.features import FeatureStore
from msakit.training.batching import FeatureBatches, TensorBatches, TextBatches, batch_order
from msakit.training.frame_source import FrameSource
from msakit.training.scaling import Scaling
from msakit.training.spec_augment import SpecAugment


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def features(layers=None):
    """Frame k of segment s in layer l holds 100 l + 10 s + k in all of its dimensions."""
    lengths = np.array([2, 3, 0, 5, 1, 2, 7])
    frames = np.concatenate([10 * s + np.arange(n) for s, n in enumerate(lengths)])[:, None] * np.ones((1, 3))
    if layers is not None:
        frames = np.stack([100 * layer + frames for layer in range(layers)])
    return frames.astype(np.float16), lengths


LABELS = np.arange(7) / 7


@pytest.mark.parametrize("layers", [None, 2])
def test_frames_and_labels_stay_together(layers):
    frames, lengths = features(layers)
    found = list(FeatureBatches({"audio": (frames, lengths)}, LABELS, 3, generator=draws()))
    assert len(found) == 3
    assert sorted(torch.cat([b["index"] for b in found]).tolist()) == list(range(7))
    for batch in found:
        assert batch["audio"].frames.dtype == torch.float32
        assert batch["audio"].lengths.tolist() == lengths[batch["index"].numpy()].tolist()
        expected = torch.cat([10 * s + torch.arange(lengths[s]) for s in batch["index"].tolist()]).float()
        for layer in range(layers or 1):
            assert torch.equal(
                (batch["audio"].frames if layers is None else batch["audio"].frames[layer])[:, 1],
                expected + 100 * layer,
            )
        assert torch.allclose(batch["label"], batch["index"] / 7)


def test_a_memory_map_serves_the_same(tmp_path):
    frames, lengths = features()
    np.save(tmp_path / "layer.npy", frames)
    mapped = np.load(tmp_path / "layer.npy", mmap_mode="r")
    for a, b in zip(
        FeatureBatches({"text": (frames, lengths)}, LABELS, 2),
        FeatureBatches({"text": (mapped, lengths)}, LABELS, 2),
        strict=True,
    ):
        assert torch.equal(a["text"].frames, b["text"].frames)


def stored(tmp_path):
    """The same frames as `features(2)` in a feature store whose segments lie in another order."""
    frames, lengths = features(2)
    order = [4, 0, 6, 2, 5, 1, 3]
    starts = np.cumsum(lengths) - lengths
    shuffled = np.concatenate([frames[:, starts[s] : starts[s] + lengths[s]] for s in order], axis=1)
    np.save(tmp_path / "layers.npy", shuffled)
    segments = pd.DataFrame({"segment_id": [f"s{s}" for s in order], "length": lengths[order], "status": "ok"})
    segments["start"] = segments["length"].cumsum() - segments["length"]
    return FeatureStore(tmp_path, np.load(tmp_path / "layers.npy", mmap_mode="r"), segments, {})


@pytest.mark.parametrize("layer", [1, None])
def test_a_store_serves_its_rows_without_being_read_whole(tmp_path, layer):
    frames, lengths = features(2)
    source = FrameSource.of(stored(tmp_path), [f"s{s}" for s in range(7)], layer)
    assert isinstance(source.frames.base, np.memmap | mmap.mmap)
    copied = frames if layer is None else frames[layer]
    for a, b in zip(
        FeatureBatches({"text": (copied, lengths)}, LABELS, 3, generator=draws(5), augment=SpecAugment()),
        FeatureBatches({"text": source}, LABELS, 3, generator=draws(5), augment=SpecAugment()),
        strict=True,
    ):
        assert torch.equal(a["text"].frames, b["text"].frames)
        assert torch.equal(a["text"].lengths, b["text"].lengths)


def test_a_store_lacks_a_segment(tmp_path):
    store = stored(tmp_path)
    with pytest.raises(ValueError, match="no segment 's9'"):
        FrameSource.of(store, ["s1", "s9"], 0)


def test_standardised_as_by_hand():
    rows = np.array([[1, 5, 0], [0, 0, 0], [3, 5, 8], [5, 5, 4]], dtype=np.float32)
    everything = Scaling.of_frames([rows[:1], rows[1:]])
    np.testing.assert_allclose(everything.mean, [2.25, 3.75, 3])
    np.testing.assert_allclose(everything.deviation**2, [3.6875, 4.6875, 11], rtol=1e-6)
    np.testing.assert_allclose(everything(rows), (rows - rows.mean(0)) / rows.std(0), rtol=1e-5)
    # Where zeros stand for nothing recorded: means 3, 5, 4; deviations sqrt(8 / 3), none (so 1), sqrt(32 / 3).
    recorded = Scaling.of_frames([rows], skip_zeros=True)
    expected = [[-2 / (8 / 3) ** 0.5, 0, -4 / (32 / 3) ** 0.5], [0, 0, 0]]
    np.testing.assert_allclose(recorded(rows[:2]), expected, rtol=1e-6)
    assert recorded(rows).dtype == np.float32
    nothing = Scaling.of_frames([np.zeros((2, 3), np.float32)], skip_zeros=True)
    assert np.array_equal(nothing(rows), rows)


def test_standardised_by_other_rows_as_by_hand(monkeypatch):
    monkeypatch.setattr("msakit.training.frame_source.CHUNK_FRAMES", 2)
    frames = np.array([[1, 5, 0], [3, 5, 8], [5, 5, 4], [100, 7, 0]], dtype=np.float16)
    train = FrameSource(frames, np.array([2, 0]), np.array([1, 2]))  # the first three, out of order
    source = FrameSource(frames, np.array([3, 1]), np.array([1, 1])).standardised(train)
    (batch,) = FeatureBatches({"audio": source}, LABELS[:2], 2)
    # Means 3, 5, 4; population deviations sqrt(8 / 3), none (so 1), sqrt(32 / 3).
    expected = [[97 / (8 / 3) ** 0.5, 2, -4 / (32 / 3) ** 0.5], [0, 0, 4 / (32 / 3) ** 0.5]]
    torch.testing.assert_close(batch["audio"].frames, torch.tensor(expected))


def test_masks_and_order_do_not_depend_on_how_many_batches_are_gathered_at_once(monkeypatch):
    def epoch(layers, ahead):
        monkeypatch.setattr("msakit.training.batching.AHEAD", ahead)
        frames, lengths = features(layers)
        given = {"text": (np.tile(frames, 20), lengths), "audio": (frames, lengths)}
        return list(FeatureBatches(given, LABELS, 2, generator=draws(5), augment=SpecAugment()))

    for layers in (None, 2):
        for a, b in zip(epoch(layers, 1), epoch(layers, 6), strict=True):
            assert torch.equal(a["index"], b["index"])
            assert torch.equal(a["label"], b["label"])
            for name in ("text", "audio"):
                assert torch.equal(a[name].frames, b[name].frames)
                for x, y in zip((*a[name].layout, a[name].lengths), (*b[name].layout, b[name].lengths), strict=True):
                    assert torch.equal(torch.as_tensor(x), torch.as_tensor(y))


def test_order_depends_on_the_generator_alone():
    def epochs(seed):
        batches = TensorBatches({"x": np.arange(14.0).reshape(7, 2)}, LABELS, 2, generator=draws(seed))
        return [[b["index"].tolist() for b in batches] for _ in range(2)]

    assert epochs(1) == epochs(1)
    assert epochs(1) != epochs(2)
    assert epochs(1)[0] != epochs(1)[1]


def test_drop_last_and_bucketing():
    lengths = torch.randint(1, 100, (103,), generator=draws())
    batches = batch_order(103, 10, draws(), drop_last=True, lengths=lengths)
    assert [len(b) for b in batches] == [10] * 10
    spread = [int(lengths[b].max() - lengths[b].min()) for b in batches]
    assert max(spread) < 40
    assert [lengths[b].float().mean() for b in batches] != sorted(lengths[b].float().mean() for b in batches)
    plain = batch_order(103, 10, lengths=lengths)
    assert torch.equal(torch.cat(plain), lengths.argsort(stable=True))
    assert len(TensorBatches({}, LABELS, 3, drop_last=True)) == 2


def test_text_is_padded_to_the_longest_of_the_batch():
    tokens = [[5, 6], [7, 8, 9], [4]]
    audio = [np.full((len(t), 2), t[0]) for t in tokens]
    batches = TextBatches(tokens, [0, 1, 1], 2, per_token={"audio": audio}, dense={"image": np.eye(3)}, pad_id=3)
    first, second = batches
    assert first["input_ids"].tolist() == [[5, 6, 3], [7, 8, 9]]
    assert first["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert first["audio"][:, :, 0].tolist() == [[5, 5, 0], [7, 7, 7]]
    assert first["image"].dtype == torch.float32
    assert first["image"].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert second["input_ids"].tolist() == [[4]]
    assert second["label"].dtype == torch.int64
    published = next(iter(TextBatches(tokens, [0, 1, 1], 2, pad_to=8)))
    assert published["input_ids"].shape == (2, 8)


def test_mismatches_are_refused():
    frames, lengths = features()
    with pytest.raises(ValueError, match="text has 7 rows, the labels 6"):
        FeatureBatches({"text": (frames, lengths)}, LABELS[:6], 2)
    with pytest.raises(ValueError, match="the lengths add up to 20, but 19 frames"):
        FeatureBatches({"audio": (frames[1:], lengths)}, LABELS, 2)


def test_the_order_goes_on_from_a_state():
    arrays = {"x": np.arange(14.0).reshape(7, 2)}
    batches = TextBatches([[1]] * 7, LABELS, 2, dense=arrays, bucket=True, generator=draws(3))
    list(batches)
    state = batches.state_dict()
    later = [batch["index"].tolist() for batch in batches]
    batches.load_state_dict(state)
    assert [batch["index"].tolist() for batch in batches] == later
    assert TensorBatches(arrays, LABELS, 2).state_dict() == {}
