"""What a run of Ando et al. leaves beside its predictions: what its features lacked, how it weighs layers and moments.

Every run measures the state of its features and the learnt layer weights. Seed 0 of arms of best layers keeps its
trained head; that of the one of most modalities two tables for figures besides: the attention over a few test segments,
and the embeddings of the test split.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import send_to_device
from jaxtyping import Float
from sklearn.decomposition import PCA
from torch import Tensor

from msakit.data.corpus import Corpus
from msakit.encoders import load_encoder
from msakit.features import FeatureStore, extraction_report
from msakit.papers.ando2022.inputs import Source, Sources
from msakit.papers.ando2022.tables import COUNTS
from msakit.predictor import Predictor
from msakit.training.batching import FeatureBatches
from msakit.training.loop import predict
from msakit.training.scaling import Scaling

log = logging.getLogger(__name__)

# Stored embeddings are their leading principal components: the table of a run stays small enough to publish.
COMPONENTS = 8
MOST_SEGMENTS = 900
FUSED = "fused"


@torch.no_grad()
def outputs(model: Any, batches: FeatureBatches) -> dict[str, Tensor]:
    """What the model gives for the first batch."""
    batch = next(iter(batches))
    found: dict[str, Tensor] = model.eval()(send_to_device(batch, next(model.parameters()).device))
    return found


def measure(model: Any, sources: Sources, found: Mapping[str, Tensor]) -> dict[str, Any]:
    """Trainable parameters; by modality the state of the features and, where layers are mixed, their weights.

    found: `outputs` of the model.
    """
    measured: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "features": {modality: state(source.store) for modality, source in sources.items()},
    }
    mixed = {name: found[f"layer_weights_{name}"].tolist() for name in sources if f"layer_weights_{name}" in found}
    if mixed:
        measured["layer_weights"] = {name: [round(weight, 6) for weight in each] for name, each in mixed.items()}
    return measured


def state(store: FeatureStore) -> dict[str, int]:
    """Of all splits: segments and frames, segments that failed, frames and whole segments in which nothing was seen."""
    (row,) = extraction_report([store]).to_dict("records")
    return {name: int(row[name]) for name in COUNTS}


def keep(
    corpus: Corpus,
    sources: Sources,
    head: Path,
    model: Any,
    batches: FeatureBatches,
    predicted: Sequence[pd.DataFrame],
    *,
    tables: bool,
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Save the trained head; of the full arm also the tables "attention" and "embeddings" of the test split.

    Args:
        batches: of the test split, in its order.
        predicted: of validation and test (segment_id, label, predictions).
        tables: whether it is the full arm.

    Returns:
        Measurements (the share of variance of each component of the embeddings), and the tables.
    """
    save_head(model, corpus, sources, batches, head)
    if not tables:
        return {}, {}
    test = predicted[-1]
    found = {"attention": attention(model, corpus, sources, batches, test)}
    found["embeddings"], variance = embeddings(model, batches, test)
    return {"embedding_variance": variance}, {name: table for name, table in found.items() if len(table)}


def shown_segments(test: pd.DataFrame) -> list[int]:
    """Rows of the segments that the figure of attention shows.

    Of numbers the lowest and the highest label, and the one that is missed by most of the others; of classes those
    whose own class is most and least probable, and the one in the middle.
    """
    if "prediction" not in test:
        probabilities = test[[name for name in test if str(name).startswith("p_")]].to_numpy(float)
        order = np.argsort(-probabilities[np.arange(len(test)), test["label"].to_numpy(int)], kind="stable")
        return list(dict.fromkeys(int(order[row]) for row in (0, len(order) // 2, -1)))
    label, error = test["label"], (test["prediction"] - test["label"]).abs()
    ends = [int(label.argmin()), int(label.argmax())]
    missed = int(error.where(~np.isin(np.arange(len(test)), ends), -1.0).argmax())
    return list(dict.fromkeys((*ends, missed)))


def attention(
    model: Any, corpus: Corpus, sources: Sources, batches: FeatureBatches, test: pd.DataFrame
) -> pd.DataFrame:
    """Attention of each frame, mean over heads, so that a segment's frames sum to 1 in each modality.

    Columns: segment_id, modality, position (of the frame), seconds (its middle from the segment's start; empty where
    nothing tells), word (where word timings do), weight. Empty for a model without attention.
    """
    rows = shown_segments(test)
    parts = []
    for modality, source in sources.items():
        weights = _weights(model, batches, modality, rows)
        segments = [str(test["segment_id"].iloc[row]) for row in weights]
        spoken = spoken_words(corpus, source, segments) if modality == "text" else {}
        for segment, part in zip(segments, weights.values(), strict=True):
            seconds, words = spoken.get(segment, (middles(source.store, len(part)), [""] * len(part)))
            columns = {"position": range(len(part)), "seconds": seconds, "word": words, "weight": part}
            parts.append(pd.DataFrame({"segment_id": segment, "modality": modality, **columns}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


@torch.no_grad()
def _weights(
    model: Any, batches: FeatureBatches, modality: str, rows: Sequence[int]
) -> dict[int, Float[np.ndarray, " frames"]]:
    """By row of the test split, in the order of `rows`, the attention of its frames."""
    found: dict[int, np.ndarray] = {}
    for batch in batches:
        index = batch["index"].tolist()
        if set(index) & set(rows):
            given = model.eval()(send_to_device(batch, next(model.parameters()).device)).get(f"attention_{modality}")
            if given is None:
                return {}
            parts = given.mean(1).cpu().split(batch[modality].lengths.tolist())
            found |= {row: part.numpy() for row, part in zip(index, parts, strict=True) if row in rows}
    return {row: found[row] for row in rows}


def middles(store: FeatureStore, frames: int) -> Float[np.ndarray, " frames"]:
    """The middle of each frame in seconds; nan where frames have no rate."""
    if store.frame_rate is None:
        return np.full(frames, np.nan)
    return float(store.config["encoder"].get("first_frame_seconds", 0.0)) + np.arange(frames) / store.frame_rate


def spoken_words(
    corpus: Corpus, source: Source, segment_ids: Sequence[str]
) -> dict[str, tuple[Float[np.ndarray, " _token"], list[str]]]:
    """By segment, the middle in seconds of the word that each token belongs to, and the word; nan and "" for others.

    Empty without word timings, or where the encoder's tokenizer cannot say which letters a token stands for.
    """
    timings, spec = corpus.words(), source.store.config.get("spec")
    if timings is None or spec is None or source.feature.conventional:
        return {}
    encoder = load_encoder(spec)
    if not encoder.tokenizer.is_fast:
        return {}
    texts = corpus.table().set_index("segment_id")["text"]
    found = {}
    for segment in segment_ids:
        text = str(texts[segment])
        words = list(located(text, timings[timings["segment_id"] == segment].sort_values("word_index")))
        tokens = encoder.tokenizer(text, truncation=True, max_length=encoder.max_length, return_offsets_mapping=True)
        spans = tokens["offset_mapping"]
        seconds, names = np.full(len(spans), np.nan), [""] * len(spans)
        for token, (begin, end) in enumerate(spans):
            for word, start, stop, low, high in words:
                if begin < stop and start < end:
                    seconds[token], names[token] = (low + high) / 2, word
        found[segment] = seconds, names
    return found


def located(text: str, words: pd.DataFrame) -> Iterator[tuple[str, int, int, float, float]]:
    """(word, first and one-past-last character in the text, start and end in seconds) of the words that are in it."""
    after = 0
    for word, low, high in zip(words["word"].astype(str), words["start"], words["end"], strict=True):
        start = text.lower().find(word.lower(), after)
        if start >= 0:
            after = start + len(word)
            yield word, start, after, float(low), float(high)


def embeddings(model: Any, batches: FeatureBatches, test: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, list[float]]]:
    """Leading principal components of each modality's embedding, and of what the decoder makes of them all.

    Columns: segment_id, modality (or "fused"), label, e0, e1, …; evenly spaced segments where there are many. With
    them, by modality, the share of the variance that each component has. Empty for a model without embeddings.
    """
    given = outputs(model, batches)
    names = [name for name in (*model.modalities, FUSED) if name in given]
    found = predict(model, batches, tuple(names))
    kept = np.unique(np.linspace(0, len(test) - 1, min(len(test), MOST_SEGMENTS)).astype(int))
    rows, variance = [], {}
    for name in names:
        values = found[name].astype(np.float64)
        pca = PCA(min(COMPONENTS, *values.shape), svd_solver="full", random_state=0).fit(values)
        variance[name] = [round(float(share), 4) for share in np.nan_to_num(pca.explained_variance_ratio_)]
        part = pd.DataFrame(pca.transform(values)[kept], columns=[f"e{k}" for k in range(pca.n_components_)])
        part.insert(0, "label", test["label"].to_numpy()[kept])
        part.insert(0, "modality", name)
        part.insert(0, "segment_id", test["segment_id"].to_numpy()[kept])
        rows.append(part)
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(), variance


def save_head(model: Any, corpus: Corpus, sources: Sources, batches: FeatureBatches, folder: Path) -> None:
    """Save a trained head with what it needs for new clips; left out where its encoders cannot be made again."""
    stores = {modality: source.store for modality, source in sources.items()}
    if not all(store.config.get("spec") for store in stores.values()):
        log.warning("no head is saved in %s: its features do not say how their encoders were made", folder)
        return
    layers = {modality: source.layer for modality, source in sources.items()}
    scales = {modality: batches.features[modality].scale for modality in sources}
    scaling = {name: Scaling(scale[0].numpy(), scale[1].numpy()) for name, scale in scales.items() if scale is not None}
    about = {"paper": "ando2022", "corpus": corpus.name, "generated": corpus.generated, "arm": folder.name, "seed": 0}
    predictor = Predictor.from_stores(model, stores, layers, scaling=scaling, classes=corpus.task.classes, about=about)
    predictor.save_pretrained(folder)
