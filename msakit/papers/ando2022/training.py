"""Training of Ando et al.'s arms: one run, or the single layers of an encoder with all seeds at once.

Both give the same outcomes: trained on train, the epoch kept by the validation loss, valid and test predicted.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from msakit.models import build_model
from msakit.papers.ando2022 import details
from msakit.papers.ando2022.inputs import Source, Sources, frames_of
from msakit.runs.experiment import Case, Experiment
from msakit.runs.jobs import Outcome
from msakit.strict import Strict
from msakit.training.batching import FeatureBatches
from msakit.training.loop import Fit, fit, predict, set_seed
from msakit.training.losses import loss_named
from msakit.training.replicas import fit_replicas, start_seed
from msakit.training.schedules import warmup_cosine
from msakit.training.spec_augment import SpecAugment

EVAL_BATCH_SIZE = 256


class Settings(Strict):
    """Sizes and training; the defaults are the authors' for CMU-MOSI."""

    width: int = Field(128, ge=1)  # E, of the projection and the attention
    embedding: int = Field(64, ge=1)  # Z, of one modality's embedding
    heads: int = Field(4, ge=1)  # of the self-attentive pooling
    dropout: float = Field(0.2, ge=0, lt=1)
    epochs: int = Field(50, ge=1)
    warmup_epochs: int = Field(10, ge=0)  # from a tenth of the learning rate, linearly
    cosine_epochs: int = Field(50, ge=1)  # length of the cosine, which the last epoch may cut
    learning_rate: float = Field(1e-4, gt=0)
    batch_size: int = Field(16, ge=2)
    spec_augment: bool = True


@dataclass(frozen=True)
class Training:
    """One run to be: what is trained on which rows of which features."""

    experiment: Experiment
    case: Case
    sources: Sources

    @property
    def settings(self) -> Settings:
        settings: Settings = self.experiment.settings_of(self.case.arm)
        return settings

    @property
    def loss(self) -> str:
        """Its name: L1 for numbers, cross entropy for classes, unless the arm has another one."""
        return self.case.arm.loss.name or ("l1" if self.experiment.n_classes is None else "cross_entropy")

    def model(self) -> Any:
        """A new model, drawn from torch's generator."""
        arm, kinds = self.case.arm, {modality: source.kind for modality, source in self.sources.items()}
        sizes = self.settings.model_dump(include={"width", "embedding", "heads", "dropout"})
        return build_model(arm.model, kinds, self.experiment.n_classes, arm.args, sizes)

    def common(self) -> dict[str, Any]:
        """What `fit` and `fit_replicas` are told alike."""
        loss = loss_named(self.loss, self.experiment.n_classes)
        return {"loss": loss, "epochs": self.settings.epochs, "ties": "last"}  # ties as the authors' code

    def adam(self, parameters: Iterable[Tensor]) -> Optimizer:
        return torch.optim.Adam(parameters, lr=self.settings.learning_rate, fused=True)

    def schedule(self, optimizer: Optimizer) -> Any:
        return warmup_cosine(optimizer, self.settings.warmup_epochs, self.settings.cosine_epochs)

    def batches(self, split: str, **options: Any) -> FeatureBatches:
        """Of one split, in its order."""
        ids, rows = self.experiment.table["segment_id"].to_numpy(str), self.case.rows
        features = {
            modality: frames_of(source, list(ids[rows[split]]), list(ids[rows["train"]]))
            for modality, source in self.sources.items()
        }
        size = options.pop("batch_size", EVAL_BATCH_SIZE)
        return FeatureBatches(features, self.experiment.label[rows[split]], size, **options)

    def shuffled(self, generator: torch.Generator, augment: SpecAugment) -> FeatureBatches:
        """Of the training split."""
        settings = self.settings
        options = {"augment": augment if settings.spec_augment else None, "batch_size": settings.batch_size}
        return self.batches("train", generator=generator, drop_last=True, **options)


After = Callable[[nn.Module, FeatureBatches, list[Any]], tuple[dict[str, Any], dict[str, Any]]]


def train(training: Training, after: After | None = None) -> Outcome:
    """One run: train on train, keep the epoch with the lowest validation loss, predict valid and test.

    after: is given the model, the test split's batches and the tables of predictions, and gives back what is to be
    measured and stored besides (`msakit.runs.jobs.Outcome`).
    """
    generator = set_seed(training.case.random_seed)
    model = training.model()
    batches, valid = training.shuffled(generator, SpecAugment()), training.batches("valid")
    optimizer = training.adam(model.parameters())
    schedule = training.schedule(optimizer)
    result = fit(model, batches, valid, optimizer=optimizer, scheduler=schedule, **training.common())
    return _outcome(training, model, result, valid, after)


class LayerSweep:
    """The runs of one encoder's single layers on one fold, trained together, as stacked parameters, when one is due.

    trainings: of every layer with every seed, all of them of one partition. Their outcomes are those of `train`, up to
    rounding; an epoch's seconds are of all together, and the measurement "trained_together" says how many they were.
    """

    def __init__(self, trainings: Sequence[Training], device: str) -> None:
        self.trainings, self.device = list(trainings), device
        self.outcomes: dict[tuple[str, int], Outcome] = {}

    def outcome(self, case: Case) -> Outcome:
        """That of one run. It is handed out once, so that memory is given back."""
        if (case.name, case.seed) not in self.outcomes:
            self.outcomes = self._train()
        return self.outcomes.pop((case.name, case.seed))

    def _train(self) -> dict[tuple[str, int], Outcome]:
        first = self.trainings[0]
        ((modality, source),) = first.sources.items()
        names = list(dict.fromkeys(each.case.name for each in self.trainings))
        layers = {each.case.name: each.sources[modality].layer for each in self.trainings}
        every = tuple(layer for layer in layers.values() if isinstance(layer, int))
        together = Training(first.experiment, first.case, {modality: Source(source.encoder, source.store, every)})
        seeds = {each.case.seed: each.case.random_seed for each in self.trainings}
        started = [start_seed(drawn, len(names), first.model, self.device) for drawn in seeds.values()]
        fits = fit_replicas(
            started,
            [together.shuffled(each.order, SpecAugment(layers_apart=False)) for each in started],
            together.batches("valid"),
            optimizer=first.adam,
            scheduler=first.schedule,
            device=self.device,
            **first.common(),
        )
        outcomes = {}
        for each in self.trainings:
            seed, layer = list(seeds).index(each.case.seed), names.index(each.case.name)
            outcome = _outcome(each, started[seed].models[layer], fits[seed][layer], each.batches("valid"))
            outcome.measurements["trained_together"] = len(self.trainings)
            outcomes[each.case.name, each.case.seed] = outcome
        return outcomes


def _outcome(training: Training, model: Any, result: Fit, valid: FeatureBatches, after: After | None = None) -> Outcome:
    test = training.batches("test")
    outputs = details.outputs(model, test)
    gated = len(training.sources) > 1 and "gates" in outputs
    tables = []
    for split, batches in {"valid": valid, "test": test}.items():
        found = predict(model, batches, ("prediction", "gates") if gated else ("prediction",))
        table = training.experiment.predictions(training.case, split, found["prediction"])
        for column, name in enumerate(model.modalities if gated else ()):
            table[f"gate_{name}"] = found["gates"][:, column]
        tables.append(table)
    more, artifacts = after(model, test, tables) if after else ({}, {})
    measurements = training.experiment.sizes(training.case) | details.measure(model, training.sources, outputs) | more
    metric = {"l1": "mae"}.get(training.loss, training.loss)
    return Outcome(result, metric, tables, measurements, artifacts=artifacts)
