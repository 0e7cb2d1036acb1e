"""What is measured beside the predictions of Kim & Kim 2022: alignment of the modalities, shifts of words, test epochs.

Alignment and uniformity are those of Wang & Isola (ICML 2020) on unit vectors, lower is better: the mean squared
distance of partners (0 to 4), and the log of the mean of exp(-2 |x - y|^2) over pairs of segments (-8 to 0).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import send_to_device
from jaxtyping import Float
from scipy.spatial.distance import pdist
from torch import nn

from msakit.papers.kim2022.inputs import MODALITIES
from msakit.training.batching import TextBatches
from msakit.training.loop import predict

# An artifact keeps about so many numbers, 300 kB; uniformity looks at the pairs of so many segments.
MOST_NUMBERS, MOST_SEGMENTS = 40_000, 2_000

Embeddings = dict[str, Float[np.ndarray, "_segment _dim"]]


def alignment(first: Float[np.ndarray, "segment dim"], second: Float[np.ndarray, "segment dim"]) -> float:
    """Mean squared distance of partners, 0 to 4."""
    return float(np.square(first - second).sum(axis=1).mean())


def uniformity(vectors: Float[np.ndarray, "segment dim"]) -> float:
    """Log of the mean Gaussian potential over pairs of different segments, -8 to 0 (all in one place)."""
    return float(np.log(np.exp(-2 * pdist(vectors[:MOST_SEGMENTS], "sqeuclidean")).mean()))


def embeddings(model: nn.Module, batches: TextBatches, modalities: Sequence[str]) -> Embeddings:
    """The unit vectors of these modalities, in the order of the split's rows."""
    found = predict(model, batches, tuple(modalities)) if modalities else {}
    return {name: found[name] for name in MODALITIES if name in modalities}


def geometry(stages: dict[str, Embeddings]) -> dict[str, Any]:
    """`alignment` and `uniformity` of the test split: stage ("before" and "after" training) -> pair or modality."""
    if not any(stages.values()):
        return {}
    return {
        "alignment": {
            stage: {f"{a}-{b}": alignment(found[a], found[b]) for a, b in itertools.combinations(found, 2)}
            for stage, found in stages.items()
        },
        "uniformity": {
            stage: {name: uniformity(vectors) for name, vectors in found.items()} for stage, found in stages.items()
        },
    }


def embedding_table(test: pd.DataFrame, found: Embeddings) -> pd.DataFrame:
    """segment_id, modality, label, e0, e1, ...: test segments, evenly drawn where there are too many to keep."""
    count = sum(vectors.size for vectors in found.values())
    kept = np.arange(0, len(test), max(1, -(-count // MOST_NUMBERS)))
    about = test.iloc[kept][["segment_id", "label"]].reset_index(drop=True)
    tables = []
    for name, vectors in found.items():
        values = pd.DataFrame(vectors[kept], columns=[f"e{k}" for k in range(vectors.shape[1])])
        tables.append(pd.concat([about, values], axis=1))
        tables[-1].insert(1, "modality", name)
    return pd.concat(tables, ignore_index=True)


def shift_table(
    test: pd.DataFrame, model: Any, words: Sequence[tuple[list[str], list[int | None]]], batches: TextBatches
) -> pd.DataFrame:
    """segment_id, word_index, word, shift of the test split: |shift| / |word vector|, mean over the word's pieces.

    words: of each segment its words, and the word of each of its tokens.
    """
    found: list[tuple[int, int, str, float]] = []
    for batch in batches:
        lengths = model.relative_shifts(send_to_device(batch, next(model.parameters()).device)).cpu().numpy()
        for values, index in zip(lengths, batch["index"].tolist(), strict=True):
            listed, word_ids = words[index]
            owner = np.array([-1 if word is None else word for word in word_ids])
            for word in range(owner.max() + 1):
                found.append((index, word, listed[word], float(values[: len(owner)][owner == word].mean())))
    table = pd.DataFrame(sorted(found), columns=["segment_id", "word_index", "word", "shift"])
    return table.assign(segment_id=test["segment_id"].to_numpy()[table["segment_id"]])


class BestTestEpoch:
    """Keeps the test predictions of the epoch that is best on test, which no sound protocol may look at.

    MAG-BERT's script reports the largest test accuracy over epochs, of its scorer: segments labelled 0 left out, the
    sign of the prediction (0 counts as positive).  Given to the loop as `on_epoch`, this cannot influence the choice
    of the epoch; the first of equally good ones is kept.
    """

    def __init__(self, batches: TextBatches, label: np.ndarray) -> None:
        self.batches, self.label = batches, label
        self.epoch, self.accuracy = 0, -1.0
        self.prediction: np.ndarray = np.zeros(0)

    def __call__(self, model: nn.Module, epoch: int) -> dict[str, float]:
        prediction = predict(model, self.batches)["prediction"]
        counted = self.label != 0
        right = (prediction >= 0) == (self.label > 0)
        accuracy = float(right[counted].mean()) if counted.any() else float("nan")
        if not self.epoch or accuracy > self.accuracy:
            self.epoch, self.accuracy, self.prediction = epoch, accuracy, prediction
        return {"leaked_test_acc2": accuracy}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"epoch": self.epoch, "accuracy": self.accuracy, "prediction": torch.from_numpy(self.prediction)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.epoch, self.accuracy = state["epoch"], state["accuracy"]
        self.prediction = state["prediction"].numpy()

    def measurement(self) -> dict[str, Any]:
        """What the record keeps of it."""
        return {"epoch": self.epoch, "selected_on": "test", "metric": "acc2_non0_ge", "value": self.accuracy}
