"""What a run of Ando et al. leaves beside its predictions: what its features lacked, how it weighs layers and moments.

Every run measures the state of its features and the learnt layer weights. Seed 0 of the arms ``best-…``
keeps its trained head; that of the widest one two tables for the figures besides: the attention over a few test
segments, and the embeddings of the test split.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import send_to_device
from jaxtyping import Float
from sklearn.decomposition import PCA

from msakit.data.corpus import Corpus
from msakit.encoders import load_encoder
from msakit.features import extraction_report
from msakit.models.gated import GatedFusion, UnimodalEncoder
from msakit.papers.ando2022.inputs import PAPER, Arm, Source, take
from msakit.predictor import Predictor, Scaling
from msakit.training.batching import FeatureBatches
from msakit.training.loop import predict

log = logging.getLogger(__name__)

# Stored embeddings are their leading principal components: the table of a run stays small enough to publish.
COMPONENTS = 8
MOST_SEGMENTS = 900
FUSED = "fused"


@dataclass(frozen=True)
class Details:
    """What one run is to keep."""

    arm: str = ""
    tables: bool = False  # attention and embeddings
    head: Path | None = None  # folder to save the trained head in


def measure(model: GatedFusion, arm: Arm) -> dict[str, Any]:
    """Trainable parameters; by modality the state of the features and, where layers are mixed, their weights."""
    measured: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "features": {modality: state(source) for modality, source in arm.sources.items()},
    }
    mixed = {
        name: encoder.mix.weights().detach().tolist()
        for name, encoder in model.encoders.items()
        if isinstance(encoder, UnimodalEncoder) and encoder.mix is not None
    }
    if mixed:
        measured["layer_weights"] = {name: [round(weight, 6) for weight in each] for name, each in mixed.items()}
    return measured


def state(source: Source) -> dict[str, int]:
    """Of all splits: segments and frames, segments that failed, frames and whole segments in which nothing was seen."""
    (row,) = extraction_report([source.store]).to_dict("records")
    return {name: int(row[name]) for name in ("segments", "failed", "frames", "blank_frames", "blank_segments")}


def tables(
    model: GatedFusion, corpus: Corpus, arm: Arm, batches: FeatureBatches, test: pd.DataFrame
) -> tuple[dict[str, pd.DataFrame], dict[str, list[float]]]:
    """The tables "attention" and "embeddings" of the test split, and the share of variance of each component.

    Args:
        batches: of the test split, in its order.
        test: its predictions (segment_id, label, prediction).
    """
    embedded, variance = embeddings(model, batches, test)
    return {"attention": attention(model, corpus, arm, telling_segments(test)), "embeddings": embedded}, variance


def telling_segments(test: pd.DataFrame) -> list[str]:
    """The segments with the lowest and the highest label, and the one that is missed by most of the others."""
    label, error = test["label"], (test["prediction"] - test["label"]).abs()
    ends = [int(label.argmin()), int(label.argmax())]
    missed = int(error.where(~np.isin(np.arange(len(test)), ends), -1.0).argmax())
    return list(dict.fromkeys(str(test["segment_id"].iloc[place]) for place in (*ends, missed)))


def attention(model: GatedFusion, corpus: Corpus, arm: Arm, segment_ids: Sequence[str]) -> pd.DataFrame:
    """Attention of each frame, mean over heads, so that a segment's frames sum to 1 in each modality.

    Columns: segment_id, modality, position (of the frame), seconds (its middle from the segment's start; empty where
    nothing tells), word (where word timings do), weight.
    """
    features = take(corpus, arm.sources, segment_ids)
    batch = next(iter(FeatureBatches(features, np.zeros(len(segment_ids)), len(segment_ids))))
    with torch.no_grad():
        found = model.eval()(send_to_device(batch, next(model.parameters()).device))
    rows = []
    for modality, source in arm.sources.items():
        weights = found[f"attention_{modality}"].mean(1).cpu().numpy()
        stops = np.cumsum(features[modality].lengths)
        spoken = spoken_words(corpus, source, segment_ids) if modality == "text" else {}
        for segment, part in zip(segment_ids, np.split(weights, stops[:-1]), strict=True):
            seconds, words = spoken.get(segment, (middles(source, len(part)), [""] * len(part)))
            rows.append(
                pd.DataFrame(
                    {
                        "segment_id": segment,
                        "modality": modality,
                        "position": range(len(part)),
                        "seconds": seconds,
                        "word": words,
                        "weight": part,
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


def middles(source: Source, frames: int) -> Float[np.ndarray, " frames"]:
    """The middle of each frame in seconds; nan where frames have no rate."""
    rate = source.store.frame_rate
    if rate is None:
        return np.full(frames, np.nan)
    return float(source.store.config["encoder"].get("first_frame_seconds", 0.0)) + np.arange(frames) / rate


def spoken_words(
    corpus: Corpus, source: Source, segment_ids: Sequence[str]
) -> dict[str, tuple[Float[np.ndarray, " _token"], list[str]]]:
    """By segment, the middle in seconds of the word that each token belongs to, and the word; nan and "" for others.

    Empty without word timings, or where the encoder's tokenizer cannot say which letters a token stands for.
    """
    timings, spec = corpus.words(), source.store.config.get("spec")
    if timings is None or spec is None or source.conventional:
        return {}
    encoder = load_encoder(spec)
    if not encoder.tokenizer.is_fast:
        return {}
    texts = corpus.table().set_index("segment_id")["text"]
    found = {}
    for segment in segment_ids:
        text = str(texts[segment])
        words = located(text, timings[timings["segment_id"] == segment].sort_values("word_index"))
        tokens = encoder.tokenizer(text, truncation=True, max_length=encoder.max_length, return_offsets_mapping=True)
        spans = tokens["offset_mapping"]
        seconds, said = np.full(len(spans), np.nan), [""] * len(spans)
        for place, (begin, end) in enumerate(spans):
            for word, start, stop, low, high in words:
                if begin < stop and start < end:
                    seconds[place], said[place] = (low + high) / 2, word
        found[segment] = seconds, said
    return found


def located(text: str, words: pd.DataFrame) -> list[tuple[str, int, int, float, float]]:
    """(word, first and one-past-last character in the text, start and end in seconds) of the words that are in it."""
    found, place = [], 0
    for word, low, high in zip(words["word"].astype(str), words["start"], words["end"], strict=True):
        start = text.lower().find(word.lower(), place)
        if start >= 0:
            place = start + len(word)
            found.append((word, start, place, float(low), float(high)))
    return found


def embeddings(
    model: GatedFusion, batches: FeatureBatches, test: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, list[float]]]:
    """Leading principal components of each modality's embedding, and of what the decoder makes of them all.

    Columns: segment_id, modality (or "fused"), label, e0, e1, …; evenly spaced segments where there are many. With
    them, by modality, the share of the variance that each component has.
    """
    names = {**{name: name for name in model.modalities}, "z": FUSED}
    found = predict(model, batches, tuple(names))
    kept = np.unique(np.linspace(0, len(test) - 1, min(len(test), MOST_SEGMENTS)).astype(int))
    rows, variance = [], {}
    for key, name in names.items():
        values = found[key].astype(np.float64)
        pca = PCA(min(COMPONENTS, *values.shape), svd_solver="full", random_state=0).fit(values)
        variance[name] = [round(float(share), 4) for share in np.nan_to_num(pca.explained_variance_ratio_)]
        part = pd.DataFrame(pca.transform(values)[kept], columns=[f"e{k}" for k in range(pca.n_components_)])
        part.insert(0, "label", test["label"].to_numpy()[kept])
        part.insert(0, "modality", name)
        part.insert(0, "segment_id", test["segment_id"].to_numpy()[kept])
        rows.append(part)
    return pd.concat(rows, ignore_index=True), variance


def save_head(model: GatedFusion, corpus: Corpus, arm: Arm, name: str, folder: Path) -> None:
    """Save a trained head with what it needs to judge new clips; left out where the encoders cannot be made again."""
    stores = {modality: source.store for modality, source in arm.sources.items()}
    if not all(store.config.get("spec") for store in stores.values()):
        log.warning("no head is saved in %s: its features do not say how their encoders were made", folder)
        return
    layers = {modality: source.layer for modality, source in arm.sources.items() if isinstance(source.layer, int)}
    scaling = {
        modality: Scaling(frames.mean, frames.deviation)
        for modality, frames in take(corpus, arm.sources, []).items()
        if frames.mean is not None and frames.deviation is not None
    }
    about = {"paper": PAPER, "corpus": corpus.name, "generated": corpus.generated, "arm": name, "seed": 0}
    Predictor.from_stores(model, stores, layers, scaling, about).save_pretrained(folder)
