"""What the runs of Toledo & Marcacini's arms on one corpus share, and who trains, stops and is scored in each."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import DatasetDict, concatenate_datasets
from jaxtyping import Int

from msakit.data.corpus import Corpus
from msakit.data.folds import folds as draw_folds
from msakit.data.folds import order
from msakit.papers.toledo2022.inputs import Inputs
from msakit.papers.toledo2022.learners import Settings
from msakit.papers.toledo2022.protocol import Arm

PAPER = "toledo2022"
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class View:
    """Who trains, who stops, who is scored: a corpus with those splits, and their rows among all labelled segments."""

    corpus: Corpus
    rows: dict[str, Int[np.ndarray, " rows"]]


@dataclass(frozen=True)
class Study:
    """All that the runs on one corpus share."""

    corpus: Corpus
    table: pd.DataFrame  # all labelled segments
    inputs: Inputs
    settings: Settings
    folds: int  # 0: the corpus's own split
    root: Path

    @cached_property
    def label(self) -> Int[np.ndarray, " segments"]:
        return self.table["label"].to_numpy(int)

    def view(self, arm: Arm, seed: int) -> View:
        """The splits that an arm's run sees: fold `seed`, or the corpus's own with a part of its training split."""
        place = self.root.parent / "folds" / PAPER / self.corpus.name
        if arm.percent is None and self.folds:
            kind = arm.protocol.folds
            home = draw_folds(self.corpus, kind, self.folds, place / f"{kind}-{self.folds}.csv")
            test, watch = home == seed, home == (seed + 1) % self.folds
            watch = test if arm.protocol.stop == "test" else watch
            masks = {"train": ~test & ~watch, "valid": watch, "test": test}
        else:
            masks = {split: (self.table["split"] == split).to_numpy(copy=True) for split in SPLITS}
            if arm.protocol.stop == "test":
                masks |= {"train": masks["train"] | masks["valid"], "valid": masks["test"]}
            if arm.percent is not None:
                first = order(self.corpus, seed, place / f"order-seed-{seed}.csv") < arm.percent / 100
                masks["train"][np.flatnonzero(masks["train"])[~first]] = False
        rows = {split: np.flatnonzero(mask) for split, mask in masks.items()}
        everything = concatenate_datasets([self.corpus.splits[split] for split in SPLITS])
        splits = DatasetDict({split: everything.select(chosen) for split, chosen in rows.items()})
        return View(replace(self.corpus, splits=splits), rows)
