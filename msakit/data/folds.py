"""Which segments are trained on, choose the epoch, are tested: a corpus's split, folds, or a share of training.

Folds run over all labelled segments, whatever their split; no video_id is divided by stratified ones. A draw is kept as
a csv (segment_id and its fold or rank), so that the same runs are drawn again elsewhere; a file that does not fit the
corpus any more is an error, never silently drawn anew, since results of old and new folds would mix.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from msakit.data.corpus import Corpus, CorpusError
from msakit.files import write_atomically

KINDS = ("stratified", "shuffled")
SPLITS = ("train", "valid", "test")
BINS = 5  # of a number, for stratification

Rows = Int[np.ndarray, " rows"]


@dataclass(frozen=True)
class Fold:
    """Fold `index` of `count` is tested."""

    index: int
    count: int
    kind: str = "stratified"  # or "shuffled", as Toledo & Marcacini: any segment anywhere


def labelled(corpus: Corpus) -> pd.DataFrame:
    """All segments of train, valid and test, in this order, with all columns."""
    parts = [corpus.splits[split].to_pandas() for split in SPLITS if split in corpus.splits]
    return pd.concat(parts, ignore_index=True)


@dataclass(frozen=True)
class Partitions:
    """Partitions of one corpus: by split, row numbers of `labelled(corpus)`.

    folder: where draws are kept.
    """

    corpus: Corpus
    folder: Path

    @cached_property
    def table(self) -> pd.DataFrame:
        """All labelled segments."""
        return labelled(self.corpus)

    def own(self, stop: str = "valid", share: int = 100, seed: int = 0) -> dict[str, Rows]:
        """The corpus's own split.

        stop "test": the test split is used for validation too, and the validation split is trained on, as published
        code does. share: per cent of the training split to train on, a stratified subset drawn with `seed`; a smaller
        share's subset lies inside a larger one's.
        """
        masks = {split: (self.table["split"] == split).to_numpy(copy=True) for split in SPLITS}
        if stop == "test":
            masks |= {"train": masks["train"] | masks["valid"], "valid": masks["test"]}
        if share < 100:
            chosen = self._order(seed) < share / 100
            masks["train"][np.flatnonzero(self.table["split"] == "train")[~chosen]] = False
        return {split: np.flatnonzero(mask) for split, mask in masks.items()}

    def fold(self, fold: Fold, stop: str = "valid") -> dict[str, Rows]:
        """One fold is tested, the next one is for validation, the others are trained on.

        stop "test": the tested fold is used for validation too, and all others are trained on.

        Raises:
            CorpusError: the corpus is too small, or the saved draw names other segments or folds.
            ValueError: no such kind of folds.
        """
        home = self._homes(fold.kind, fold.count)
        test = home == fold.index
        valid = test if stop == "test" else home == (fold.index + 1) % fold.count
        return {split: np.flatnonzero(mask) for split, mask in zip(SPLITS, (~test & ~valid, valid, test), strict=True)}

    def _homes(self, kind: str, count: int, seed: int = 42) -> Int[np.ndarray, " segments"]:
        """The fold, 0 to count - 1, of every labelled segment."""
        if kind not in KINDS:
            raise ValueError(f"folds are {' or '.join(KINDS)}, not {kind!r}")
        table = self.table
        if count < 3 or count > len(table):
            raise CorpusError(
                f"{self.corpus.folder}: {count} folds of {len(table)} segments: ask for 3 to {len(table)}"
            )

        def draw() -> Int[np.ndarray, " segments"]:
            from sklearn.model_selection import KFold, StratifiedGroupKFold

            if kind == "shuffled":
                parts = KFold(count, shuffle=True, random_state=seed).split(table)
            else:
                # Quick where all videos are different, since then it deals out one segment after the other.
                splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
                parts = splitter.split(table, self._strata(table["label"]), table["video_id"])
            home = np.zeros(len(table), dtype=int)
            try:
                with warnings.catch_warnings():
                    # A class, or a part of the range, may have fewer segments than there are folds.
                    warnings.filterwarnings("ignore", "The least populated class", UserWarning)
                    for number, (_, test) in enumerate(parts):
                        home[test] = number
            except ValueError as error:
                raise CorpusError(f"{self.corpus.folder}: no {count} folds ({error}): ask for fewer") from error
            return home

        path = self.folder / f"{kind}-{count}.csv"
        home = _saved(path, "fold", table["segment_id"], draw)
        if home.min() < 0 or home.max() >= count:
            raise CorpusError(f"{path} has folds up to {home.max():g}, {count} are asked for: delete it to draw anew")
        return home.astype(int)

    def _order(self, seed: int) -> Float[np.ndarray, " segments"]:
        """For every training segment the share of its stratum that comes before it, in [0, 1)."""
        rows = self.table[self.table["split"] == "train"].reset_index(drop=True)

        def draw() -> Float[np.ndarray, " segments"]:
            random, rank = np.random.default_rng(seed), np.zeros(len(rows))
            for _, part in rows.groupby(self._strata(rows["label"]), sort=True):
                rank[random.permutation(part.index.to_numpy())] = np.arange(len(part)) / len(part)
            return rank.round(6)

        return _saved(self.folder / f"order-seed-{seed}.csv", "rank", rows["segment_id"], draw)

    def _strata(self, label: pd.Series) -> np.ndarray:
        """Classes as they are, numbers in equal parts of their range."""
        if self.corpus.task.kind == "classification":
            return label.to_numpy()
        edges = np.linspace(self.corpus.task.low, self.corpus.task.high, BINS + 1)[1:-1]
        return np.digitize(label.to_numpy(float), edges)


def _saved(path: Path, column: str, ids: pd.Series, draw: Callable[[], np.ndarray]) -> np.ndarray:
    if not path.is_file():
        table = pd.DataFrame({"segment_id": ids, column: draw()})
        write_atomically(path, table.to_csv(index=False, lineterminator="\n").encode())
    mend = "delete it to draw anew, or bring back the corpus that it was drawn for"
    try:
        table = pd.read_csv(path, dtype={"segment_id": str}, keep_default_na=False)
        values = table.set_index("segment_id")[column].astype(float)
    except (ValueError, KeyError) as error:
        raise CorpusError(f"{path} is not a readable draw ({error}): {mend}") from error
    missing, unknown = set(ids) - set(values.index), set(values.index) - set(ids)
    if missing or unknown or values.index.has_duplicates:
        first = next(iter(sorted(missing or unknown)), "a segment twice")
        raise CorpusError(
            f"{path} does not fit the corpus: {len(missing)} segments are not in it, {len(unknown)} are of another "
            f"corpus (first: {first!r}): {mend}"
        )
    return values.loc[list(ids)].to_numpy()
