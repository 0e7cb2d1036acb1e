"""Kim & Kim 2022, CMSBERT-CLR (reconstructed): shift each word by its voice and face, with the whole utterance in view.

The recipe: audio and vision are averaged over the time of each word and laid on its word pieces; the text encoder is
fine-tuned with the shift of :mod:`msakit.fusion.shifted_bert` inside. Each arm of ``kim2022.yaml`` adds one part:
MAG's shift, the contexts of CMS, the contrastive loss, label smoothing on its targets, weight averaging.

Training follows MAG-BERT: AdamW without decay on biases and norms, linear warm-up over a tenth of the steps, then
linear decay, squared error. The epoch is chosen by validation loss of the regression alone, so that arms with and
without the contrastive loss are judged alike (MAG-BERT's own scripts report the best test epoch).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from msakit.data.corpus import Corpus, CorpusError
from msakit.features import FeatureStore, average_over_words
from msakit.fusion.shifted_bert import ShiftedBert
from msakit.fusion.word_pieces import align_to_pieces
from msakit.papers import facts
from msakit.papers.running import Job, Outcome, prediction_table, reference_jobs, run_jobs
from msakit.records import Runs
from msakit.sources import fingerprint
from msakit.training.batching import TextBatches
from msakit.training.loop import fit, predict, set_seed
from msakit.training.losses import mse, with_contrast
from msakit.training.schedules import linear_warmup_decay

logger = logging.getLogger(__name__)

PAPER = "kim2022"
SPLITS = ("train", "valid", "test")
NONVERBAL = ("audio", "vision")


@dataclass(frozen=True)
class Settings:
    """Sizes and training of one profile; the defaults are MAG-BERT's, and the reconstruction's where it has none."""

    epochs: int = 40
    batch_size: int = 48
    learning_rate: float = 1e-5
    weight_decay: float = 0.01  # none on biases and norms
    warmup: float = 0.1  # share of all steps
    max_tokens: int = 50
    beta: float = 1.0  # the shift is at most so many times the word's own length
    shift_dropout: float = 0.5
    head_dropout: float = 0.1
    temperature: float = 0.07  # of the contrastive loss
    average_decay: float = 0.999  # of the moving average of weights, a step

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(
                f"epochs must be at least 1 and batch_size at least 2, not {self.epochs}, {self.batch_size}"
            )


@dataclass(frozen=True)
class Inputs:
    """One split on word pieces: token ids, and one vector a token for audio and for vision (zero on special tokens)."""

    token_ids: list[list[int]]
    nonverbal: dict[str, list[Float[np.ndarray, "_token _dim"]]]  # ragged: the axes are not bound
    label: np.ndarray


def prepare(
    corpus: Corpus, text_encoder: str, stores: Mapping[str, FeatureStore], max_tokens: int
) -> dict[str, Inputs]:
    """Words to word pieces, audio and vision along with them; both standardised by the words of the training split.

    Raises:
        CorpusError: the corpus has no word timings.
    """
    from transformers import AutoTokenizer

    words = corpus.words()
    if words is None:
        raise CorpusError(
            f"{corpus.folder} has no words.csv: word-level shifting needs the times of the words; "
            "add segment_id, word_index, word, start, end (seconds), for example from a forced aligner"
        )
    tokenizer = AutoTokenizer.from_pretrained(text_encoder)
    texts = {str(name): list(part["word"]) for name, part in words.groupby("segment_id", sort=False)}
    known = set(corpus.splits["train"]["segment_id"])
    vectors = {name: _standardised(average_over_words(stores[name], words), known) for name in NONVERBAL}
    ready, cut = {}, 0
    for split in SPLITS:
        rows = corpus.splits[split]
        token_ids: list[list[int]] = []
        nonverbal: dict[str, list[np.ndarray]] = {name: [] for name in NONVERBAL}
        for segment in rows["segment_id"]:
            tokens = tokenizer(texts[segment], is_split_into_words=True, truncation=True, max_length=max_tokens)
            places = tokens.word_ids()
            cut += max((place for place in places if place is not None), default=-1) + 1 < len(texts[segment])
            token_ids.append(tokens["input_ids"])
            for name in NONVERBAL:
                nonverbal[name].append(align_to_pieces(places, vectors[name][segment]))
        ready[split] = Inputs(token_ids, nonverbal, np.asarray(rows["label"]))
    if cut:
        logger.warning("%d segments have more than %d word pieces; what is beyond is not read", cut, max_tokens)
    return ready


def _standardised(vectors: dict[str, np.ndarray], known: set[str]) -> dict[str, np.ndarray]:
    frames = np.concatenate([values for segment, values in vectors.items() if segment in known])
    mean, deviation = frames.mean(0), frames.std(0)
    scale = np.where(deviation > 0, deviation, 1)
    return {segment: ((values - mean) / scale).astype(np.float32) for segment, values in vectors.items()}


def run(
    corpus: Corpus,
    text_encoder: str,
    stores: Mapping[str, FeatureStore],
    settings: Settings,
    arms: Sequence[str],
    seeds: Sequence[int],
    root: Path | str,
) -> Runs:
    """Train the named arms (see ``kim2022.yaml``) with every seed, skipping what is recorded under ``root``."""
    known = facts(PAPER)["arms"]
    unknown = [arm for arm in arms if arm not in known]
    if unknown:
        raise ValueError(f"no arm {unknown[0]!r}: choose from {', '.join(known)}")
    inputs = prepare(corpus, text_encoder, stores, settings.max_tokens)
    jobs = reference_jobs(corpus)
    for arm in arms:
        parts = {key: value for key, value in known[arm].items() if key != "title"}
        sources = {name: stores[name].folder.name for name in NONVERBAL}
        config = {**parts, "text_encoder": text_encoder, "inputs": sources}
        for seed in seeds:
            jobs.append(Job(arm, seed, config, partial(train, corpus, inputs, text_encoder, settings, parts, seed)))
    return run_jobs(
        jobs,
        paper=PAPER,
        corpus=corpus,
        settings=asdict(settings),
        code=fingerprint("papers/kim2022.py"),
        root=Path(root),
    )


def train(
    corpus: Corpus,
    inputs: Mapping[str, Inputs],
    text_encoder: str,
    settings: Settings,
    parts: Mapping[str, Any],
    seed: int,
) -> Outcome:
    """One run of an arm.

    Args:
        parts: ``shift`` (null, mag or cms) and, where the arm has them, ``contrastive`` (weight of the contrastive
            loss), ``smoothing`` (of its targets) and ``average`` (true: evaluate the moving average of the weights).
    """
    generator = set_seed(seed)
    weight = parts.get("contrastive", 0.0)
    model = ShiftedBert.from_encoder(
        text_encoder,
        *(inputs["train"].nonverbal[name][0].shape[1] for name in NONVERBAL),
        shift=parts["shift"],
        beta=settings.beta,
        shift_dropout=settings.shift_dropout,
        head_dropout=settings.head_dropout,
        contrast=weight > 0,
    )
    batches = {
        split: TextBatches(
            ready.token_ids,
            ready.label,
            settings.batch_size if split == "train" else 256,
            per_token=ready.nonverbal,
            bucket=True,
            generator=generator if split == "train" else None,
        )
        for split, ready in inputs.items()
    }
    contrastive = with_contrast(mse, weight, temperature=settings.temperature, smoothing=parts.get("smoothing", 0.0))

    def loss(outputs: dict[str, torch.Tensor], batch: dict[str, Any]) -> torch.Tensor:
        # Validation judges the regression alone: the contrastive term has no part in choosing the epoch.
        return (contrastive if torch.is_grad_enabled() else mse)(outputs, batch)

    optimizer = torch.optim.AdamW(decayed_groups(model, settings.weight_decay), lr=settings.learning_rate)
    result = fit(
        model,
        batches["train"],
        batches["valid"],
        loss=loss,
        optimizer=optimizer,
        scheduler=linear_warmup_decay(optimizer, settings.epochs * len(batches["train"]), settings.warmup),
        scheduler_step="batch",
        epochs=settings.epochs,
        average=settings.average_decay if parts.get("average") else None,
        progress=False,
    )
    tables = [prediction_table(corpus, split, predict(model, batches[split])["prediction"]) for split in SPLITS[1:]]
    return Outcome(result, "mse", tables)


def decayed_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: weight decay on matrices, none on biases and norms (vectors)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
