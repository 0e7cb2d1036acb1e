"""The test that counts seeds and videos: by hand, against scipy where one source of chance is left, by simulation."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from msakit.evaluation.comparisons import Predicted, Scored, compare, score_runs


def arm(values, left_out=None, name="a", segments="s", **changes):
    values = np.asarray(values, dtype=float)
    left_out = None if left_out is None else np.asarray(left_out, dtype=float)
    n_videos = 0 if left_out is None else len(left_out)
    return Scored(name, "mae", values, left_out, segments, 10, n_videos, **changes)


def in_folds(values, name="a", division="stratified-4", test_to_train=1 / 3, folds=None):
    folds = np.arange(len(values)) if folds is None else np.array(folds)
    return arm(values, None, name, folds=folds, division=division, test_to_train=test_to_train)


def run(prediction, label, videos=None, fold=None, sizes=None, first=0):
    ids = np.array([f"s{first + index}" for index in range(len(label))])
    return Predicted(np.asarray(prediction, float), np.asarray(label, float), ids,
                  ids if videos is None else np.asarray(videos), fold, sizes)  # fmt: skip


def test_by_hand():
    a, b = arm([1.0, 2.0, 3.0], [2.0, 2.5, 1.5]), arm([4.0, 6.0, 8.0], [6.0, 6.0, 6.0])
    got = compare([(1, a), (-1, b)])
    by_seed, by_video = 1 / 3 + 4 / 3, 2 / 3 * 0.5
    assert (got.difference, got.unit, got.n_runs, got.n_videos) == (-4, "seeds and videos", (3, 3), 3)
    assert (got.se_seeds**2, got.se_videos**2) == (pytest.approx(by_seed), pytest.approx(by_video))
    df = (by_seed + by_video) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2 + by_video**2 / 2)
    assert got.df == pytest.approx(df)
    assert got.p == pytest.approx(2 * stats.t.sf(4 / np.sqrt(by_seed + by_video), df))
    assert got.high - got.low == pytest.approx(2 * stats.t.ppf(0.975, df) * got.se)
    # Against another null than zero, only p moves.
    assert compare([(1, a), (-1, b)], null=-4.0).p == pytest.approx(1.0)


def test_with_one_source_of_chance_it_is_welch_or_the_paired_t_test():
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=6), generator.normal(1, 3, size=9)
    got = compare([(1, arm(x, [0.0] * 5)), (-1, arm(y, [0.0] * 5))])
    theirs = stats.ttest_ind(x, y, equal_var=False)
    assert (got.p, got.df) == (pytest.approx(theirs.pvalue), pytest.approx(theirs.df))
    # A mean over videos of one segment each: leaving one out gives the paired t-test over segments.
    x, y = generator.normal(size=12), generator.normal(0.5, size=12)
    sides = [arm([v.mean()] * 3, (v.sum() - v) / 11) for v in (x, y)]
    got = compare([(1, sides[0]), (-1, sides[1])])
    theirs = stats.ttest_rel(x, y)
    assert (got.p, got.df) == (pytest.approx(theirs.pvalue), pytest.approx(11))
    # And of a single arm, the t-interval of a mean.
    alone = compare([(1, sides[0])])
    low, high = stats.t.interval(0.95, 11, x.mean(), stats.sem(x))
    assert (alone.difference, alone.low, alone.high) == pytest.approx((x.mean(), low, high))


def test_folds_are_compared_fold_by_fold_with_the_corrected_variance():
    a, b = in_folds([0.9, 0.8, 0.85, 0.7]), in_folds([0.8, 0.75, 0.7, 0.7])
    got = compare([(1, a), (-1, b)])
    d = np.array([0.1, 0.05, 0.15, 0.0])
    se = np.sqrt((1 / 4 + 1 / 3) * d.var(ddof=1))
    assert (got.unit, got.n_runs, got.df) == ("folds", (4, 4), 3)
    assert (got.difference, got.se) == (pytest.approx(d.mean()), pytest.approx(se))
    assert got.p == pytest.approx(2 * stats.t.sf(d.mean() / se, 3))
    # Of the folds that both have.
    fewer = compare([(1, a), (-1, in_folds([0.75, 0.7, 0.9], folds=[1, 2, 7]))])
    assert (fewer.difference, fewer.n_runs) == (pytest.approx(0.1), (2, 2))


def test_the_correction_takes_the_sizes_that_the_runs_had():
    """Of ten folds one is tested on and one more is held out for validation: n_test / n_train is 1/8, not 1/9."""

    def folds(shift, train):
        return [
            run(np.full(12, shift + k / 10), np.zeros(12), fold=k, sizes=(train, 12), first=12 * k) for k in range(10)
        ]

    sides = [score_runs(name, "mae", folds(shift, 96), "stratified-10") for name, shift in (("a", 1.0), ("b", 2.0))]
    assert [side.test_to_train for side in sides] == [0.125, 0.125]
    assert (sides[0].n_segments, sides[0].n_videos) == (120, 120)
    moved = replace(sides[1], values=sides[1].values + np.linspace(0, 0.3, 10))
    d = sides[0].values - moved.values
    assert compare([(1, sides[0]), (-1, moved)]).se == pytest.approx(np.sqrt((1 / 10 + 1 / 8) * d.var(ddof=1)))
    # Where one arm trained on nine folds, as under stopping on the test fold, the larger of the two corrections counts.
    leaky = score_runs("c", "mae", folds(3.0, 108), "stratified-10")
    mixed = compare([(1, moved), (-1, leaky)])
    assert mixed.se == pytest.approx(np.sqrt((1 / 10 + 1 / 8) * (moved.values - leaky.values).var(ddof=1)))
    with pytest.raises(ValueError, match="runs in folds want a fold and their sizes each"):
        score_runs("a", "mae", [run([0.0], [0.0], fold=0), run([0.0], [0.0], fold=1)], "stratified-10")


def test_folds_of_other_divisions_are_not_paired():
    a = in_folds([0.9, 0.8, 0.85, 0.7])
    b = in_folds([0.8, 0.75, 0.7, 0.6], division="shuffled-4", test_to_train=1 / 2)
    got = compare([(1, a), (-1, b)])
    parts = [(1 / 4 + 1 / 3) * a.values.var(ddof=1), (1 / 4 + 1 / 2) * b.values.var(ddof=1)]
    assert (got.unit, got.n_runs) == ("folds, unpaired", (4, 4))
    assert got.se == pytest.approx(np.sqrt(sum(parts)))
    assert got.df == pytest.approx(sum(parts) ** 2 / sum(part**2 / 3 for part in parts))
    with pytest.raises(ValueError, match="some were run in folds and some were not"):
        compare([(1, a), (-1, arm([1.0, 2.0], [1.0, 1.0]))])


def test_several_seeds_of_a_fold_are_averaged_within_it():
    runs = [run([k + seed], [0.0], fold=k, sizes=(4, 1), first=k) for k in range(3) for seed in (0, 1)]
    got = score_runs("a", "mae", runs, "stratified-3")
    assert (got.values.tolist(), got.folds.tolist()) == ([0.5, 1.5, 2.5], [0, 1, 2])
    assert (got.n_segments, got.left_out) == (3, None)


def test_a_difference_of_differences():
    arms = [arm([mean - 1, mean, mean + 1], [mean] * 4) for mean in (5.0, 3.0, 2.0, 1.0)]
    got = compare(list(zip((1, -1, -1, 1), arms, strict=True)))
    assert (got.difference, got.se) == (1.0, pytest.approx(np.sqrt(4 / 3)))


def test_undefined():
    one = compare([(1, arm([0.5], [0.5, 0.6])), (-1, arm([0.4, 0.5], [0.5, 0.4]))])
    assert one.difference == pytest.approx(0.05)
    assert np.isnan([one.p, one.low, one.se]).all()
    reference = compare([(1, arm([0.5], [0.5, 0.6], trained=False)), (-1, arm([0.4, 0.5], [0.5, 0.4]))])
    assert 0 < reference.p < 1
    same = arm([0.5, 0.5], [0.5, 0.5])
    assert np.isnan(compare([(1, same), (-1, same)]).p)
    with pytest.raises(ValueError, match="a, b were tested on different segments"):
        compare([(1, same), (-1, arm([1.0, 1.0], [1.0, 1.0], name="b", segments="t"))])


def test_scoring_leaves_each_video_out():
    generator = np.random.default_rng(2)
    label = generator.normal(size=8)
    predictions = generator.normal(size=(2, 8))
    videos = [f"v{index // 2}" for index in range(8)]
    got = score_runs("a", "mae", [run(prediction, label, videos) for prediction in predictions])
    assert (got.n_segments, got.n_videos, got.folds) == (8, 4, None)
    error = np.abs(predictions - label)
    assert got.values == pytest.approx(error.mean(axis=1))
    by_hand = [np.delete(error, [2 * v, 2 * v + 1], axis=1).mean() for v in range(4)]
    assert got.left_out == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="arm 'b' has no runs"):
        score_runs("b", "mae", [])
    with pytest.raises(ValueError, match="seeds of arm 'a' were tested on different segments"):
        score_runs("a", "mae", [run(label, label), run(label, label, first=1)])


def test_a_video_is_what_the_table_says_whatever_the_ids_look_like():
    """Ids such as those of the CSD files, `<video>[<clip>]`, once made each segment a video of its own."""
    label = np.zeros(4)
    ids = np.array(["a[0]", "a[1]", "b[0]", "b[1]"])
    got = score_runs("a", "mae", [Predicted(label + 1, label, ids, np.array(["a", "a", "b", "b"]))])
    assert (got.n_videos, len(got.left_out)) == (2, 2)
