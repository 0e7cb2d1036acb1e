"""Which segment stands in which fold, and which are the first few per cent: drawn once, saved, and read again.

Folds run over all labelled segments, whatever their split, and subsets over the training split of a corpus.  A draw is
a csv (segment_id and its place) that is written at once or not at all; a file that does not fit the corpus any more is
an error, never silently drawn anew, since results of old and new folds would mix.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from msakit.data.corpus import Corpus, CorpusError

KINDS = ("shuffled", "stratified")


def labelled(corpus: Corpus) -> pd.DataFrame:
    """All segments of train, valid and test, in this order, with all columns."""
    parts = [corpus.splits[split].to_pandas() for split in ("train", "valid", "test") if split in corpus.splits]
    return pd.concat(parts, ignore_index=True)


def folds(corpus: Corpus, kind: str, count: int, path: Path, seed: int = 42) -> Int[np.ndarray, " segments"]:
    """The fold, 0 to count - 1, of every labelled segment, in the order of `labelled`; saved at `path`.

    kind: "shuffled" (as Toledo & Marcacini: any segment anywhere) or "stratified" (each fold has the classes' shares,
    and segments of one video_id, such as posts with one image, stand in one fold).
    Raises CorpusError for a saved file that names other segments or folds, or a corpus too small.
    """
    if kind not in KINDS:
        raise ValueError(f"folds are {' or '.join(KINDS)}, not {kind!r}")
    table = labelled(corpus)
    if count < 3 or count > len(table):
        raise CorpusError(f"{corpus.folder}: {count} folds of {len(table)} segments: ask for 3 to {len(table)}")

    def draw() -> Int[np.ndarray, " segments"]:
        from sklearn.model_selection import KFold, StratifiedGroupKFold

        if kind == "shuffled":
            parts = KFold(count, shuffle=True, random_state=seed).split(table)
        else:
            # Quick where all videos are different, since then it deals out one segment after the other.
            splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
            parts = splitter.split(table, table["label"], table["video_id"])
        home = np.zeros(len(table), dtype=int)
        for number, (_, test) in enumerate(parts):
            home[test] = number
        return home

    place = _saved(path, "fold", table["segment_id"], draw)
    if place.min() < 0 or place.max() >= count:
        raise CorpusError(f"{path} has folds up to {place.max():g}, {count} are asked for: delete it to draw anew")
    return place.astype(int)


def order(corpus: Corpus, seed: int, path: Path) -> Float[np.ndarray, " segments"]:
    """For every training segment the share of its class that comes before it, in [0, 1); saved at `path`.

    Those below a share s are a stratified subset; a smaller share's subset lies inside a larger one's.
    """
    rows = corpus.splits["train"].to_pandas()

    def draw() -> Float[np.ndarray, " segments"]:
        random, place = np.random.default_rng(seed), np.zeros(len(rows))
        for _, part in rows.groupby("label", sort=True):
            place[random.permutation(part.index.to_numpy())] = np.arange(len(part)) / len(part)
        return place.round(6)

    return _saved(path, "place", rows["segment_id"], draw)


def _saved(path: Path, column: str, ids: pd.Series, draw: Callable[[], np.ndarray]) -> np.ndarray:
    if not path.is_file():
        table = pd.DataFrame({"segment_id": ids, column: draw()})
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        table.to_csv(partial, index=False, lineterminator="\n")
        os.replace(partial, path)
    mend = "delete it to draw anew, or bring back the corpus that it was drawn for"
    try:
        table = pd.read_csv(path, dtype={"segment_id": str}, keep_default_na=False)
        place = table.set_index("segment_id")[column].astype(float)
    except (ValueError, KeyError) as error:
        raise CorpusError(f"{path} is not a readable draw ({error}): {mend}") from error
    missing, strange = set(ids) - set(place.index), set(place.index) - set(ids)
    if missing or strange or place.index.has_duplicates:
        first = next(iter(sorted(missing or strange)), "a segment twice")
        raise CorpusError(
            f"{path} does not fit the corpus: {len(missing)} segments are not in it, {len(strange)} are of another "
            f"corpus (first: {first!r}): {mend}"
        )
    return place.loc[list(ids)].to_numpy()
