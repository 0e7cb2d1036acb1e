"""Ando et al. 2022: which layer of a pre-trained encoder serves sentiment best, one modality at a time and together.

The recipe: encoders stay frozen and their features are computed once (:mod:`msakit.features`); every arm trains the
unimodal encoders and a decoder of :mod:`msakit.fusion.gated` on other features. ``ando2022.yaml`` names the arms,
``<features>-<modalities>``, and `Inputs.arm` says what each is made of. The single layers are run first, one modality
at a time; the layer with the lowest validation MAE over seeds is the modality's "best" layer, and the arms ``best-…``
put those together. Test is scored once, from the saved predictions.

Two names may stand for one training: ``output-text`` is the single layer at the end, ``best-text`` the one that
validation chose. It is done once and recorded under both.

Deviations from the authors' code: SpecAugment is seeded by the run (theirs once, at import); the best epoch has the
lowest validation MAE over segments, not over batch means; conventional features are standardised by the training
frames, because some sets come unscaled; the rule by which they chose "mid-best" layers is not known.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from msakit import records
from msakit.data.corpus import Corpus
from msakit.features import FeatureStore
from msakit.fusion.gated import GatedFusion
from msakit.papers import ando_details
from msakit.papers.ando_details import Details
from msakit.papers.ando_inputs import (
    LAYER_ARM,
    MODALITIES,
    PAPER,
    Arm,
    Inputs,
    Source,
    choose_arms,
    extract_all,
    split_features,
)
from msakit.papers.running import Job, Outcome, prediction_table, reference_jobs, run_jobs
from msakit.records import Runs
from msakit.sources import fingerprint
from msakit.training.batching import FeatureBatches
from msakit.training.loop import Fit, fit, predict, set_seed
from msakit.training.losses import l1
from msakit.training.schedules import warmup_cosine
from msakit.training.spec_augment import SpecAugment

logger = logging.getLogger(__name__)

__all__ = [
    "LAYER_ARM",
    "MODALITIES",
    "PAPER",
    "Settings",
    "Source",
    "best_layers",
    "extract_all",
    "run",
    "split_features",
    "train",
]

NOTHING = Details()


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


def best_layers(runs: Runs) -> dict[str, int]:
    """By modality, the single layer with the lowest mean validation MAE over seeds (the earlier one of equals)."""
    scores = runs.scores("mae", split="valid")
    parts = scores["arm"].str.extract(LAYER_ARM)
    single = scores.assign(layer=parts["layer"].astype(float), modality=parts["modality"]).dropna(subset="layer")
    means = single.groupby(["modality", "layer"], as_index=False)["value"].mean()
    lowest = means.loc[means.groupby("modality")["value"].idxmin()]
    return {str(name): int(layer) for name, layer in zip(lowest["modality"], lowest["layer"], strict=True)}


def run(
    corpus: Corpus,
    encoded: Mapping[str, FeatureStore],
    conventional: Mapping[str, FeatureStore],
    settings: Settings,
    seeds: Sequence[int],
    root: Path | str,
    *,
    layers: Sequence[int] | None = None,
    arms: Sequence[str] | None = None,
) -> Runs:
    """Train every arm with every seed, skipping what is recorded under ``root``; gives back all present runs.

    The heads of seed 0 of the gated arms ``best-…`` are saved under ``heads`` beside ``root``, able to judge new clips
    (:class:`msakit.predictor.Predictor`).

    Args:
        layers: hidden states to look at, see `Inputs`.
        arms: names or patterns, see `choose_arms`.
    """
    root, inputs = Path(root), Inputs(encoded, conventional, layers)
    names = choose_arms(inputs, arms)
    do = partial(
        run_jobs,
        paper=PAPER,
        corpus=corpus,
        settings=asdict(settings),
        code=fingerprint("papers/ando2022.py"),
        root=root,
    )
    first = {name: arm for name in names if not name.startswith("best-") and (arm := inputs.arm(name))}
    study = _Study(corpus, settings, tuple(seeds), root)
    runs = do([*reference_jobs(corpus), *study.jobs(first)])
    chosen = [name for name in names if name.startswith("best-")]
    if not chosen:
        return runs
    best = best_layers(runs)
    logger.info("best layers on validation: %s", best)
    return do(study.jobs({name: arm for name in chosen if (arm := inputs.arm(name, best))}, first))


@dataclass(frozen=True)
class _Study:
    """What the jobs of one call of `run` share."""

    corpus: Corpus
    settings: Settings
    seeds: tuple[int, ...]
    root: Path

    def jobs(self, arms: Mapping[str, Arm], earlier: Mapping[str, Arm] | None = None) -> list[Job]:
        """One job an arm and seed. An arm that equals one before it is recorded from that one's run."""
        known: dict[str, str] = {}
        for name, arm in (earlier or {}).items():
            known.setdefault(json.dumps(arm.describe()), name)
        gated = [name for name in arms if name.startswith("best-") and arms[name].decoder == "gated"]
        detailed = max(gated, key=lambda name: len(arms[name].sources), default="")
        heads = self.root.parent / "heads" / PAPER / self.corpus.name
        made = []
        for name, arm in arms.items():
            same = known.setdefault(json.dumps(arm.describe()), name)
            for seed in self.seeds:
                # A run that keeps more than its predictions is trained in any case.
                kept = seed == 0 and name in gated
                details = Details(name, name == detailed, heads / name) if kept else NOTHING
                if same == name or kept:
                    train_it = partial(train, self.corpus, arm, self.settings, seed, details)
                    made.append(Job(name, seed, arm.describe(), train_it))
                else:
                    take_over = partial(_recorded, self.root, self.corpus, same, seed)
                    made.append(Job(name, seed, {**arm.describe(), "same_as": same}, take_over))
        return made


def train(corpus: Corpus, arm: Arm, settings: Settings, seed: int, details: Details = NOTHING) -> Outcome:
    """One run: train on train, keep the epoch with the lowest validation MAE, predict valid and test."""
    generator = set_seed(seed)
    features = {split: split_features(corpus, arm.sources, split) for split in ("train", "valid", "test")}
    model = GatedFusion(
        dims={name: source.store.dim for name, source in arm.sources.items()},
        n_layers={name: source.mixed for name, source in arm.sources.items() if source.mixed is not None},
        width=settings.width,
        embedding=settings.embedding,
        heads=settings.heads,
        dropout=settings.dropout,
        decoder=arm.decoder,
    )
    augment = SpecAugment() if settings.spec_augment else None
    labels = {split: np.asarray(corpus.splits[split]["label"]) for split in features}
    batches = {
        "train": FeatureBatches(
            features["train"],
            labels["train"],
            settings.batch_size,
            generator=generator,
            drop_last=True,
            augment=augment,
        )
    } | {split: FeatureBatches(features[split], labels[split], 256) for split in ("valid", "test")}
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    result = fit(
        model,
        batches["train"],
        batches["valid"],
        loss=l1,
        optimizer=optimizer,
        scheduler=warmup_cosine(optimizer, settings.warmup_epochs, settings.cosine_epochs),
        epochs=settings.epochs,
        ties="last",  # as the authors' code
        progress=False,
    )
    gated = arm.decoder == "gated" and len(arm.sources) > 1
    tables = []
    for split in ("valid", "test"):
        found = predict(model, batches[split], ("prediction", "gates") if gated else ("prediction",))
        table = prediction_table(corpus, split, found["prediction"])
        for place, name in enumerate(model.modalities if gated else ()):
            table[f"gate_{name}"] = found["gates"][:, place]
        tables.append(table)
    measured = ando_details.measure(model, arm)
    artifacts: dict[str, pd.DataFrame] = {}
    if details.tables:
        artifacts, variance = ando_details.tables(model, corpus, arm, batches["test"], tables[1])
        measured["embedding_variance"] = variance
    if details.head is not None:
        ando_details.save_head(model, corpus, arm, details.arm, details.head)
    return Outcome(result, "mae", tables, measured, artifacts)


def _recorded(root: Path, corpus: Corpus, arm: str, seed: int) -> Outcome:
    """What another arm of the same inputs has on record; its run is there, for jobs run in order."""
    path = records.run_path(root, PAPER, corpus.name, arm, seed)
    record, predictions = records.read(path), records.read_predictions(path)
    if record.selection is None:
        raise ValueError(f"{path}: nothing was selected in it, so it was not trained; delete it and run again")
    epoch = int(record.selection["epoch"])
    fitted = Fit(epoch, record.history, float(record.seconds), record.history[epoch - 1])
    return Outcome(fitted, str(record.selection["metric"]), [predictions], record.measurements)
