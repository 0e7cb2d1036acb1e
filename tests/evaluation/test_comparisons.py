"""The test that counts seeds and videos: by hand, against scipy where one source of chance is left, by simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from msakit.evaluation import contrasts
from msakit.evaluation.contrasts import Scored, contrast, scored
from msakit.runs import record as records


def arm(values, left_out=None, name="a", tested_on=None, **changes):
    values = np.asarray(values, dtype=float)
    left_out = None if left_out is None else np.asarray(left_out, dtype=float)
    tested_on = ("s",) * len(values) if tested_on is None else tested_on
    given = {"n_segments": 10, "n_videos": 0 if left_out is None else len(left_out), **changes}
    return Scored(name, "mae", tuple(range(len(values))), values, left_out, tested_on, **given)


def store(root, name, seed, prediction, label, ids=None, corpus="c", **changes):
    ids = [f"v{index // 2}_{index % 2}" for index in range(len(label))] if ids is None else ids
    frame = pd.DataFrame({"segment_id": ids, "split": "test", "label": label, "prediction": prediction})
    record = records.RunRecord(
        paper=changes.pop("paper", "ando2022"), arm=name, seed=seed, key="k", config={}, history=[], seconds=1.0,
        environment=dict.fromkeys(("python", "torch", "transformers", "platform", "machine", "device", "commit",
                                   "dirty")),
        corpus={"name": corpus, "fingerprint": "f", "generated": True, "counts": {}}, protocol="corrected",
        selection=None, **changes,
    )  # fmt: skip
    return records.write(root, record, frame)


def test_by_hand():
    a, b = arm([1.0, 2.0, 3.0], [2.0, 2.5, 1.5]), arm([4.0, 6.0, 8.0], [6.0, 6.0, 6.0])
    got = contrast([(1, a), (-1, b)])
    by_seed, by_video = 1 / 3 + 4 / 3, 2 / 3 * 0.5
    assert (got.difference, got.unit, got.n_seeds, got.n_videos) == (-4, "seeds and videos", (3, 3), 3)
    assert (got.se_seeds**2, got.se_videos**2) == (pytest.approx(by_seed), pytest.approx(by_video))
    df = (by_seed + by_video) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2 + by_video**2 / 2)
    assert got.df == pytest.approx(df)
    assert got.p == pytest.approx(2 * stats.t.sf(4 / np.sqrt(by_seed + by_video), df))
    assert got.high - got.low == pytest.approx(2 * stats.t.ppf(0.975, df) * got.se)
    # Against another null than zero, only p moves.
    assert contrast([(1, a), (-1, b)], null=-4.0).p == pytest.approx(1.0)


def test_with_one_source_of_chance_it_is_welch_or_the_paired_t_test():
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=6), generator.normal(1, 3, size=9)
    got = contrast([(1, arm(x, [0.0] * 5)), (-1, arm(y, [0.0] * 5))])
    theirs = stats.ttest_ind(x, y, equal_var=False)
    assert (got.p, got.df) == (pytest.approx(theirs.pvalue), pytest.approx(theirs.df))
    # A mean over videos of one segment each: leaving one out gives the paired t-test over segments.
    x, y = generator.normal(size=12), generator.normal(0.5, size=12)
    sides = [arm([v.mean()] * 3, (v.sum() - v) / 11) for v in (x, y)]
    got = contrast([(1, sides[0]), (-1, sides[1])])
    theirs = stats.ttest_rel(x, y)
    assert (got.p, got.df) == (pytest.approx(theirs.pvalue), pytest.approx(11))


def test_folds_are_compared_fold_by_fold_with_the_corrected_variance():
    folds = ("f0", "f1", "f2", "f3")
    a, b = arm([0.9, 0.8, 0.85, 0.7], tested_on=folds), arm([0.8, 0.75, 0.7, 0.7], tested_on=folds)
    got = contrast([(1, a), (-1, b)])
    d = np.array([0.1, 0.05, 0.15, 0.0])
    se = np.sqrt((1 / 4 + 1 / 3) * d.var(ddof=1))
    assert (got.unit, got.n_seeds, got.df) == ("folds", (4, 4), 3)
    assert (got.difference, got.se) == (pytest.approx(d.mean()), pytest.approx(se))
    assert got.p == pytest.approx(2 * stats.t.sf(d.mean() / se, 3))
    with pytest.raises(ValueError, match="fold 0 of a, b differs in its segments"):
        contrast([(1, a), (-1, arm([1, 1, 1, 1], name="b", tested_on=("x", "f1", "f2", "f3")))])


def test_a_difference_of_differences():
    arms = [arm([mean - 1, mean, mean + 1], [mean] * 4) for mean in (5.0, 3.0, 2.0, 1.0)]
    got = contrast(list(zip((1, -1, -1, 1), arms, strict=True)))
    assert (got.difference, got.se) == (1.0, pytest.approx(np.sqrt(4 / 3)))


def test_undefined():
    one = contrast([(1, arm([0.5], [0.5, 0.6])), (-1, arm([0.4, 0.5], [0.5, 0.4]))])
    assert one.difference == pytest.approx(0.05)
    assert np.isnan([one.p, one.low, one.se]).all()
    reference = contrast([(1, arm([0.5], [0.5, 0.6], trained=False)), (-1, arm([0.4, 0.5], [0.5, 0.4]))])
    assert 0 < reference.p < 1
    same = arm([0.5, 0.5], [0.5, 0.5])
    assert np.isnan(contrast([(1, same), (-1, same)]).p)
    with pytest.raises(ValueError, match="a, b were tested on different segments"):
        contrast([(1, same), (-1, arm([1.0, 1.0], [1.0, 1.0], name="b", tested_on=("t", "t")))])


def test_scored_leaves_each_video_out(tmp_path):
    generator = np.random.default_rng(2)
    label = generator.normal(size=8)
    predictions = generator.normal(size=(2, 8))
    for seed, prediction in enumerate(predictions):
        store(tmp_path, "a", seed, prediction, label)
    runs = records.read_all(tmp_path)
    got = scored(runs, "a", "mae")
    assert (got.seeds, got.n_segments, got.n_videos, got.folds) == ((0, 1), 8, 4, False)
    # Six significant digits are stored.
    error = np.abs(predictions - label)
    assert got.values == pytest.approx(error.mean(axis=1), abs=1e-4)
    by_hand = [np.delete(error, [2 * v, 2 * v + 1], axis=1).mean() for v in range(4)]
    assert got.left_out == pytest.approx(by_hand, abs=1e-4)
    with pytest.raises(ValueError, match="no run of arm 'b'"):
        scored(runs, "b", "mae")


def test_folds_are_seen_in_the_records(tmp_path):
    for fold in range(3):
        ids = [f"p-{fold}{index}" for index in range(4)]
        store(tmp_path, "a", fold, np.ones(4), np.zeros(4), ids)
    got = scored(records.read_all(tmp_path), "a", "mae")
    assert got.folds
    assert (got.left_out, got.n_segments, got.n_videos) == (None, 12, 12)


def test_videos():
    frame = pd.DataFrame({"segment_id": ["a_b_1", "a_b_2", "c-9"]})
    assert contrasts.videos_of(frame).tolist() == ["a_b", "a_b", "c-9"]
    assert contrasts.videos_of(frame.assign(video_id=[7, 7, 8])).tolist() == ["7", "7", "8"]
