"""Training of Ando et al.'s arms: one run of an arm with a seed, or a modality's single layers with all seeds at once.

Both give the same outcomes: the arm trained on train, its epoch kept by the validation MAE, valid and test predicted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.optim import Optimizer

from msakit.data.corpus import Corpus
from msakit.models.gated import GatedFusion
from msakit.papers.ando2022.details import Details
from msakit.papers.ando2022.inputs import Arm, Source, split_features
from msakit.papers.ando2022.recipe import details as ando_details
from msakit.runs.jobs import Outcome, prediction_table
from msakit.training.batching import FeatureBatches
from msakit.training.loop import Fit, fit, predict, set_seed
from msakit.training.losses import l1
from msakit.training.replicas import fit_replicas, start_seed
from msakit.training.schedules import warmup_cosine
from msakit.training.spec_augment import SpecAugment


@dataclass(frozen=True)
class Settings:
    """Sizes and training of one profile; the defaults are the authors' for CMU-MOSI."""

    width: int = 128  # E, of the projection and the attention
    embedding: int = 64  # Z, of one modality's embedding
    heads: int = 4  # of the self-attentive pooling
    dropout: float = 0.2
    epochs: int = 50
    warmup_epochs: int = 10  # from a tenth of the learning rate, linearly
    cosine_epochs: int = 50  # length of the cosine, which the last epoch may cut
    learning_rate: float = 1e-4
    batch_size: int = 16
    spec_augment: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(
                f"epochs must be at least 1 and batch_size at least 2, not {self.epochs}, {self.batch_size}"
            )


NOTHING = Details()
JUDGED_TOGETHER = 256  # segments of a batch that is only predicted


def train(corpus: Corpus, arm: Arm, settings: Settings, seed: int, details: Details = NOTHING) -> Outcome:
    """One run: train on train, keep the epoch with the lowest validation MAE, predict valid and test."""
    generator = set_seed(seed)
    model = _model(arm, settings)
    train_batches = FeatureBatches(
        split_features(corpus, arm.sources, "train"),
        np.asarray(corpus.splits["train"]["label"]),
        settings.batch_size,
        generator=generator,
        drop_last=True,
        augment=SpecAugment() if settings.spec_augment else None,
    )
    judged = _judged(corpus, arm)
    optimizer = _adam(settings, model.parameters())
    result = fit(
        model,
        train_batches,
        judged["valid"],
        loss=l1,
        optimizer=optimizer,
        scheduler=warmup_cosine(optimizer, settings.warmup_epochs, settings.cosine_epochs),
        epochs=settings.epochs,
        ties="last",  # as the authors' code
        progress=False,
    )
    return _outcome(corpus, arm, model, result, judged, details)


class LayerSweep:
    """The runs of a modality's single layers, trained together, as stacked parameters, when the first is asked for.

    arms: by name, each one layer of the same store. Their outcomes are those of `train`, up to rounding; an epoch's
    seconds are of all together, and the measurement "trained_together" says how many they were.
    """

    def __init__(
        self, corpus: Corpus, arms: Mapping[str, Arm], settings: Settings, seeds: Sequence[int], device: str
    ) -> None:
        self.corpus, self.arms, self.settings = corpus, dict(arms), settings
        self.seeds, self.device = tuple(seeds), device
        self.outcomes: dict[tuple[str, int], Outcome] = {}

    def outcome(self, name: str, seed: int) -> Outcome:
        """What one arm with one seed came to. It is handed out once, so that memory is given back."""
        if (name, seed) not in self.outcomes:
            self.outcomes = self._train()
        return self.outcomes.pop((name, seed))

    def _train(self) -> dict[tuple[str, int], Outcome]:
        arms, settings = list(self.arms.values()), self.settings
        (modality,) = arms[0].sources
        sources = [arm.sources[modality] for arm in arms]
        layers = tuple(source.layer for source in sources if isinstance(source.layer, int))
        stacked = {modality: Source(sources[0].store, layers, False)}
        frames = {split: split_features(self.corpus, stacked, split) for split in ("train", "valid")}
        labels = {split: np.asarray(self.corpus.splits[split]["label"]) for split in frames}
        started = [
            start_seed(seed, len(layers), partial(_model, arms[0], settings), self.device) for seed in self.seeds
        ]
        fits = fit_replicas(
            started,
            [
                FeatureBatches(
                    frames["train"],
                    labels["train"],
                    settings.batch_size,
                    generator=each.order,
                    drop_last=True,
                    augment=SpecAugment(layers_apart=False) if settings.spec_augment else None,
                )
                for each in started
            ],
            FeatureBatches(frames["valid"], labels["valid"], JUDGED_TOGETHER),
            loss=l1,
            optimizer=partial(_adam, settings),
            scheduler=partial(warmup_cosine, warmup=settings.warmup_epochs, cosine=settings.cosine_epochs),
            epochs=settings.epochs,
            ties="last",
            device=self.device,
        )
        outcomes = {}
        for place, (name, arm) in enumerate(self.arms.items()):
            judged = _judged(self.corpus, arm)
            for seed, each, fitted in zip(self.seeds, started, fits, strict=True):
                done = _outcome(self.corpus, arm, each.models[place], fitted[place], judged, NOTHING)
                done.measurements["trained_together"] = len(arms) * len(started)
                outcomes[name, seed] = done
        return outcomes


def _model(arm: Arm, settings: Settings) -> GatedFusion:
    return GatedFusion(
        dims={name: source.store.dim for name, source in arm.sources.items()},
        n_layers={name: source.mixed for name, source in arm.sources.items() if source.mixed is not None},
        width=settings.width,
        embedding=settings.embedding,
        heads=settings.heads,
        dropout=settings.dropout,
        decoder=arm.decoder,
    )


def _adam(settings: Settings, parameters: Iterable[Tensor]) -> Optimizer:
    return torch.optim.Adam(parameters, lr=settings.learning_rate, fused=True)


def _judged(corpus: Corpus, arm: Arm) -> dict[str, FeatureBatches]:
    """Batches of the splits that are predicted, in their order."""
    return {
        split: FeatureBatches(
            split_features(corpus, arm.sources, split), np.asarray(corpus.splits[split]["label"]), JUDGED_TOGETHER
        )
        for split in ("valid", "test")
    }


def _outcome(
    corpus: Corpus, arm: Arm, model: GatedFusion, result: Fit, judged: Mapping[str, FeatureBatches], details: Details
) -> Outcome:
    gated = arm.decoder == "gated" and len(arm.sources) > 1
    tables = []
    for split, batches in judged.items():
        found = predict(model, batches, ("prediction", "gates") if gated else ("prediction",))
        table = prediction_table(corpus, split, found["prediction"])
        for place, name in enumerate(model.modalities if gated else ()):
            table[f"gate_{name}"] = found["gates"][:, place]
        tables.append(table)
    measured = ando_details.measure(model, arm)
    artifacts: dict[str, pd.DataFrame] = {}
    if details.tables:
        artifacts, variance = ando_details.tables(model, corpus, arm, judged["test"], tables[1])
        measured["embedding_variance"] = variance
    if details.head is not None:
        ando_details.save_head(model, corpus, arm, details.arm, details.head)
    return Outcome(result, "mae", tables, measured, artifacts)
