"""Kim & Kim 2022, CMSBERT-CLR (reconstructed): shift each word by its voice and face, with the whole utterance in view.

The recipe: audio and vision are laid on word pieces (:mod:`msakit.papers.kim2022.inputs`); the text encoder is fine-tuned
with the shift of :mod:`msakit.models.shifted_bert` inside. Each arm of ``kim2022.yaml`` names its parts: MAG's shift,
the contexts of CMS, the pairs of the contrastive loss, label smoothing on its targets, weight averaging or momentum
encoders; controls get the audio and vision of other segments.

Training follows MAG-BERT: AdamW without decay on biases and norms, linear warm-up over a tenth of the steps, then
linear decay, squared error. The epoch is chosen by validation loss of the regression alone, so that arms with and
without the contrastive loss are judged alike. MAG-BERT's own script reports the best test epoch: its predictions are
kept beside ours, as `prediction_best_test_epoch`, to show the gap.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from msakit.data.corpus import Corpus
from msakit.encoders import resolve_path
from msakit.models.mag import NONVERBAL
from msakit.models.shifted_bert import ShiftedBert
from msakit.papers import facts
from msakit.papers.kim2022.details import BestTestEpoch, embedding_table, embeddings, geometry, shift_table
from msakit.papers.kim2022.inputs import Inputs, prepare
from msakit.papers.kim2022.words import Source, describe
from msakit.runs.jobs import Job, Outcome, prediction_table, reference_jobs, run_jobs
from msakit.runs.record import Runs
from msakit.sources import fingerprint
from msakit.training.loop import fit, predict, set_seed, steps_of_epoch
from msakit.training.losses import mse, with_contrast
from msakit.training.schedules import linear_warmup_decay

logger = logging.getLogger(__name__)

PAPER = "kim2022"
PAIRS = ("text-audio", "text-vision", "audio-vision")
AVERAGES = ("none", "ema", "momentum")
ALIGNMENTS = ("words", "soft")
# Arms whose seed 0 also keeps its shifts and embeddings, for the figures.
DETAILED = ("mag", "cms", "cms-clr", "cms-clr-all", "cms-clr-smooth", "cms-clr-smooth-ema")


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
    projection: int = 128  # size of the space of the contrastive loss
    average_decay: float = 0.999  # of the moving average of weights, a step
    momentum_decay: float = 0.995  # of the momentum encoders, a step
    frames: int = 50  # equal parts of an utterance that the soft alignment sees

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(
                f"epochs must be at least 1 and batch_size at least 2, not {self.epochs}, {self.batch_size}"
            )


@dataclass(frozen=True)
class Arm:
    """The parts of one arm, as ``kim2022.yaml`` names them."""

    shift: str | None  # mag or cms; null for text alone
    width: int = 1  # of mag: gated shifts a modality
    contexts: str = "both"  # of cms, see msakit.models.cms
    pooling: str = "attention"  # of the contexts
    layer: int = 0  # encoder layer whose input is shifted
    alignment: str = "words"  # or "soft": no word times are used
    contrastive: float = 0.0  # weight of the contrastive loss, λ
    pairs: tuple[str, ...] = ("text-audio", "text-vision")  # of the contrastive loss
    temperature: float = 0.07  # τ
    smoothing: float = 0.0  # of the contrastive targets, ε
    clr_text: str = "pre"  # text side before the shift, or behind it: "post"
    average: str = "none"  # or "ema": the moving average is evaluated; "momentum": it gives the contrastive keys
    shuffled: bool = False  # control: audio and vision of another segment

    def __post_init__(self) -> None:
        for value, choices, what in (
            (self.average, AVERAGES, "average"),
            (self.alignment, ALIGNMENTS, "alignment"),
            *((pair, PAIRS, "pairs") for pair in self.pairs),
        ):
            if value not in choices:
                raise ValueError(f"{what} of an arm names {value!r}: choose from {', '.join(choices)}")
        if self.average == "momentum" and not self.contrastive:
            raise ValueError("momentum encoders serve the contrastive loss: give the arm a weight for it")

    @property
    def contrast(self) -> tuple[str, ...]:
        """The modalities that the contrastive loss embeds."""
        return tuple(dict.fromkeys(name for pair in self.pairs for name in pair.split("-"))) if self.contrastive else ()


def arms_of_paper() -> dict[str, Arm]:
    """Every arm of ``kim2022.yaml``, by name."""
    made = {}
    for name, parts in facts(PAPER)["arms"].items():
        values: dict[str, Any] = {
            key: tuple(value) if key == "pairs" else value for key, value in parts.items() if key != "title"
        }
        made[name] = Arm(**values)
    return made


def run(
    corpus: Corpus,
    text_encoder: str,
    sources: Mapping[str, Source],
    settings: Settings,
    arms: Sequence[str],
    seeds: Sequence[int],
    root: Path | str,
) -> Runs:
    """Train the named arms with every seed, skipping what is recorded under ``root``.

    Args:
        arms: names in ``kim2022.yaml``; none stands for all of them.
        sources: of audio and of vision, as far as the corpus has them.

    Raises:
        ValueError: an unknown arm or modality, classes in place of a sentiment, or arms that need audio or vision that
            are not there.
    """
    known = arms_of_paper()
    unknown = [arm for arm in arms if arm not in known]
    if unknown:
        raise ValueError(f"no arm {unknown[0]!r}: choose from {', '.join(known)}")
    chosen = {name: known[name] for name in arms or known}
    shifting = [name for name, arm in chosen.items() if arm.shift]
    if shifting and not sources:
        raise ValueError(f"arm {shifting[0]!r} shifts words by audio or vision: give at least one of them")
    if corpus.task.kind != "regression":
        raise ValueError(f"{corpus.folder} has classes, but the method predicts a sentiment: take a corpus of numbers")
    others = sorted(set(sources) - set(NONVERBAL))
    if others:
        raise ValueError(f"no modality {others[0]!r} beside the text: choose from {', '.join(NONVERBAL)}")
    for name, arm in chosen.items():
        missing = sorted(set(arm.contrast) - {"text", *sources})
        if missing:
            raise ValueError(f"arm {name!r} contrasts {missing[0]}, which is not given: leave the arm out, or give it")
    inputs = prepare(
        corpus,
        text_encoder,
        sources,
        settings.max_tokens,
        aligned=any(arm.shift and arm.alignment == "words" for arm in chosen.values()),
        parts=settings.frames if any(arm.alignment == "soft" for arm in chosen.values()) else 0,
    )
    jobs = reference_jobs(corpus)
    described = {name: describe(source) for name, source in sources.items()}
    for name, arm in chosen.items():
        config = {**asdict(arm), "text_encoder": text_encoder, "inputs": described}
        for seed in seeds:
            detailed = name in DETAILED and seed == 0
            make = partial(train, corpus, inputs, text_encoder, settings, arm, seed, detailed=detailed)
            jobs.append(Job(name, seed, config, make))
    return run_jobs(
        jobs,
        paper=PAPER,
        corpus=corpus,
        settings=asdict(settings),
        code=fingerprint("papers/kim2022.py"),
        root=Path(root),
    )


def build(inputs: Inputs, text_encoder: str, settings: Settings, arm: Arm) -> ShiftedBert:
    """The untrained model of an arm on the pre-trained encoder."""
    soft = arm.alignment == "soft"
    arrays: Mapping[str, Any] = inputs.frames if soft else inputs.on_words
    dims = {f"d_{name}": arrays[name][0].shape[-1] if arm.shift and name in arrays else 0 for name in NONVERBAL}
    return ShiftedBert.from_encoder(
        resolve_path(text_encoder),
        **dims,
        shift=arm.shift,
        layer=arm.layer,
        beta=settings.beta,
        shift_dropout=settings.shift_dropout,
        width=arm.width,
        contexts=arm.contexts,
        context_pooling=arm.pooling,
        soft=soft,
        contrast=arm.contrast,
        clr_text=arm.clr_text,
        projection=settings.projection,
        head_dropout=settings.head_dropout,
    )


def train(
    corpus: Corpus,
    inputs: Mapping[str, Inputs],
    text_encoder: str,
    settings: Settings,
    arm: Arm,
    seed: int,
    *,
    detailed: bool = False,
) -> Outcome:
    """One run of an arm; detailed: with the artifacts `shifts` and `embeddings` of the test split."""
    generator = set_seed(seed)
    model = build(inputs["train"], text_encoder, settings, arm)
    batches = {
        split: ready.batches(
            settings.batch_size if split == "train" else 256,
            soft=arm.alignment == "soft" and arm.shift is not None,
            shuffle=np.random.default_rng(seed) if arm.shuffled else None,
            generator=generator if split == "train" else None,
        )
        for split, ready in inputs.items()
    }
    pairs = tuple((pair.split("-")[0], pair.split("-")[1]) for pair in arm.pairs)
    stages = {"before": embeddings(model, batches["test"])}
    optimizer = torch.optim.AdamW(decayed_groups(model, settings.weight_decay), lr=settings.learning_rate, fused=True)
    decays = {"none": None, "ema": settings.average_decay, "momentum": settings.momentum_decay}
    leaked = BestTestEpoch(batches["test"], inputs["test"].label)
    result = fit(
        model,
        batches["train"],
        batches["valid"],
        loss=with_contrast(mse, arm.contrastive, pairs, arm.temperature, arm.smoothing),
        optimizer=optimizer,
        scheduler=linear_warmup_decay(optimizer, settings.epochs * steps_of_epoch(batches["train"]), settings.warmup),
        scheduler_step="batch",
        epochs=settings.epochs,
        average=decays[arm.average],
        average_as="teacher" if arm.average == "momentum" else "judge",
        on_epoch=leaked,
        progress=False,
    )
    stages["after"] = embeddings(model, batches["test"])
    artifacts = {}
    # Words of a real corpus stay out of what is published.
    if detailed and arm.shift and corpus.generated:
        artifacts["shifts"] = shift_table(corpus, model, inputs["test"], batches["test"])
    if detailed and stages["after"]:
        artifacts["embeddings"] = embedding_table(corpus, stages["after"])
    return Outcome(
        result,
        "mse",
        [
            _predictions(corpus, "valid", model, batches),
            _predictions(corpus, "test", model, batches, leaked.prediction),
        ],
        {
            "as_published": leaked.measurement(),
            **geometry(stages),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "truncated": {split: ready.cut for split, ready in inputs.items()},
        },
        artifacts,
    )


def _predictions(
    corpus: Corpus, split: str, model: nn.Module, batches: Mapping[str, Any], leaked: np.ndarray | None = None
) -> pd.DataFrame:
    """With the corpus's kind of each segment, and on test the predictions of the best test epoch."""
    table = prediction_table(corpus, split, predict(model, batches[split])["prediction"])
    if "kind" in corpus.splits[split].column_names:
        table["kind"] = list(corpus.splits[split]["kind"])
    return table if leaked is None else table.assign(prediction_best_test_epoch=leaked)


def decayed_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: weight decay on matrices, none on biases and norms (vectors)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
