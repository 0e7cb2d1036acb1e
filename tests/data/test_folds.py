"""Partitions: no video is divided, draws are kept and must fit, shares are nested."""

import numpy as np
import pandas as pd
import pytest
from text_corpora import SIZES, text_corpus

from msakit.data.corpus import CorpusError, load_corpus
from msakit.data.folds import BINS, Fold, Partitions, labelled

TOTAL = sum(SIZES.values())


@pytest.fixture(params=["numbers", "classes"])
def corpus(request, tmp_path):
    return text_corpus(tmp_path / "corpus", classes=request.param == "classes")


@pytest.fixture
def partitions(corpus, tmp_path):
    return Partitions(corpus, tmp_path / "folds")


def homes(partitions, kind, count):
    """The fold that each segment is tested in."""
    home = np.full(len(partitions.table), -1)
    for index in range(count):
        home[partitions.fold(Fold(index, count, kind))["test"]] = index
    return home


@pytest.mark.parametrize("kind", ["stratified", "shuffled"])
def test_each_segment_is_tested_once_and_in_one_part_of_each_fold(partitions, kind):
    home = homes(partitions, kind, 4)
    assert home.min() == 0
    for index in range(4):
        rows = partitions.fold(Fold(index, 4, kind))
        assert sorted(np.concatenate(list(rows.values()))) == list(range(TOTAL))
        assert set(home[rows["valid"]]) == {(index + 1) % 4}
        leaky = partitions.fold(Fold(index, 4, kind), stop="test")
        assert list(leaky["valid"]) == list(leaky["test"]) == list(rows["test"])
        assert sorted(leaky["train"]) == sorted([*rows["train"], *rows["valid"]])


def test_no_video_is_divided_by_stratified_folds(partitions):
    video = partitions.table["video_id"]
    assert (video.groupby(video).size() == 2).all()
    assert (pd.Series(homes(partitions, "stratified", 4)).groupby(video).nunique() == 1).all()
    assert (pd.Series(homes(partitions, "shuffled", 4)).groupby(video).nunique() > 1).any()


def test_folds_have_the_shares_of_classes_and_of_parts_of_the_range(tmp_path):
    table = pd.DataFrame({"video_id": [str(n) for n in range(120)], "clip_id": "1", "text": "x"})
    table.insert(0, "segment_id", table["video_id"])
    table["split"] = np.resize(["train", "train", "valid", "test"], 120)
    table["label"] = np.linspace(-3, 3, 120).round(2)
    (tmp_path / "c").mkdir()
    table.to_csv(tmp_path / "c" / "segments.csv", index=False)
    partitions = Partitions(load_corpus(tmp_path / "c"), tmp_path / "folds")
    part = np.minimum(((partitions.table["label"] + 3) / 6 * BINS).astype(int), BINS - 1)
    counts = pd.crosstab(homes(partitions, "stratified", 4), part)
    assert (counts.max() - counts.min()).max() <= 1
    assert (pd.crosstab(homes(partitions, "shuffled", 4), part).max() > 7).any()


def test_shuffled_folds_are_those_of_the_published_code(partitions):
    from sklearn.model_selection import KFold

    home = homes(partitions, "shuffled", 10)
    for number, (_, test) in enumerate(KFold(10, shuffle=True, random_state=42).split(np.zeros(TOTAL))):
        assert set(np.flatnonzero(home == number)) == set(test)


def test_the_own_split(partitions):
    rows = partitions.own()
    assert {split: len(rows[split]) for split in rows} == SIZES
    assert set(partitions.table.iloc[rows["valid"]]["split"]) == {"valid"}
    leaky = partitions.own(stop="test", share=50, seed=1)
    assert list(leaky["valid"]) == list(leaky["test"]) == list(rows["test"])
    part = partitions.own(share=50, seed=1)["train"]
    assert sorted(leaky["train"]) == sorted([*part, *rows["valid"]]), "a share is one of the training split"


def test_shares_are_nested_stratified_and_never_empty(partitions, corpus):
    label = labelled(corpus)["label"]
    strata = label if corpus.task.kind == "classification" else np.digitize(label, np.linspace(-3, 3, BINS + 1)[1:-1])
    whole = pd.Series(np.asarray(strata)[partitions.own()["train"]]).value_counts()
    smaller = set()
    for share in (1, 5, 10, 25, 50, 99, 100):
        rows = partitions.own(share=share)["train"]
        assert smaller <= set(rows)
        smaller = set(rows)
        counts = pd.Series(np.asarray(strata)[rows]).value_counts()
        # Rounded up within each stratum, so that none is without an example.
        assert counts.to_dict() == np.ceil(whole * share / 100 - 1e-9).to_dict()
    assert set(partitions.own(share=50, seed=1)["train"]) != set(partitions.own(share=50)["train"])


def test_draws_are_kept_and_read_again(partitions, tmp_path):
    first = homes(partitions, "stratified", 4)
    partitions.own(share=10, seed=3)
    folder = tmp_path / "folds"
    assert sorted(path.name for path in folder.iterdir()) == ["order-seed-3.csv", "stratified-4.csv"]
    path = folder / "stratified-4.csv"
    table = pd.read_csv(path, dtype={"segment_id": str}, keep_default_na=False)
    assert table["segment_id"].tolist() == partitions.table["segment_id"].tolist()
    table.assign(fold=(table["fold"] + 1) % 4).sample(frac=1, random_state=0).to_csv(path, index=False)
    assert list(homes(partitions, "stratified", 4)) == list((first + 1) % 4)


def test_draws_that_do_not_fit_are_refused(partitions, tmp_path):
    homes(partitions, "shuffled", 4)
    path, other = tmp_path / "folds" / "shuffled-4.csv", tmp_path / "folds" / "shuffled-3.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)

    def refused(changed, message, count=4):
        changed.to_csv(path if count == 4 else other, index=False)
        with pytest.raises(CorpusError, match=message):
            partitions.fold(Fold(0, count, "shuffled"))

    refused(table, r"shuffled-3\.csv has folds up to 3, 3 are asked for: delete it", 3)
    ids = table["segment_id"] + "x"
    refused(
        table.assign(segment_id=ids), f"does not fit the corpus: {TOTAL} segments .* {TOTAL} are of another.*: delete"
    )
    refused(table.head(60), f"{TOTAL - 60} segments are not in it, 0 are of another")
    refused(pd.concat([table, table.head(1)]), r"first: 'a segment twice'")
    refused(table[["segment_id"]], r"shuffled-4\.csv is not a readable draw .*: delete it")
    refused(table.assign(fold=""), r"shuffled-4\.csv is not a readable draw")


def test_what_cannot_be_divided_is_refused(partitions, corpus, tmp_path):
    with pytest.raises(ValueError, match="folds are stratified or shuffled, not 'random'"):
        partitions.fold(Fold(0, 4, "random"))
    for count in (2, TOTAL + 1):
        with pytest.raises(CorpusError, match=f"{count} folds of {TOTAL} segments: ask for 3 to {TOTAL}"):
            partitions.fold(Fold(0, count))
    table = pd.read_csv(corpus.folder / "segments.csv", dtype=str, keep_default_na=False)
    table.assign(video_id=table["split"]).to_csv(corpus.folder / "segments.csv", index=False)
    few = Partitions(load_corpus(corpus.folder), tmp_path / "few")
    with pytest.raises(CorpusError, match=r"no 4 folds .*groups: 3\.\): ask for fewer"):
        few.fold(Fold(0, 4))
    assert not list((tmp_path / "few").glob("*")), "nothing is kept of it"
