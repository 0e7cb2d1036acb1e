"""Ando et al. 2022: which layer of a pre-trained encoder serves sentiment best, one modality at a time and together.

The recipe: encoders stay frozen and their features are computed once (:mod:`msakit.features`); every arm trains the
unimodal encoders and the gated decoder of :mod:`msakit.fusion.gated` on other layers of the same features. The single
layers are run first, one modality at a time; the layer with the lowest validation MAE over seeds is the modality's
"best" layer, and the arm ``best-…`` puts those together. Test is scored once, from the saved predictions.

Names of arms are ``<features>-<modalities>``, for example ``layer2-audio`` or ``weighted-text-audio-vision``.

Deviations from the authors' code: SpecAugment is seeded by the run (theirs once, at import); the best epoch has the
lowest validation MAE over segments, not over batch means; conventional features are standardised by the training
frames, because some sets come unscaled.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from msakit.data.corpus import Corpus
from msakit.encoders import load_encoder
from msakit.features import FeatureStore, extract
from msakit.fusion.gated import GatedFusion
from msakit.papers.running import Job, Outcome, prediction_table, reference_jobs, run_jobs
from msakit.records import Runs
from msakit.sources import fingerprint
from msakit.training.batching import FeatureBatches
from msakit.training.loop import fit, predict, set_seed
from msakit.training.losses import l1
from msakit.training.schedules import warmup_cosine
from msakit.training.spec_augment import SpecAugment

logger = logging.getLogger(__name__)

PAPER = "ando2022"
MODALITIES = ("text", "audio", "vision")
Frames = tuple[Float[np.ndarray, "*layer frames dim"], Int[np.ndarray, " segments"]]


@dataclass(frozen=True)
class Settings:
    """Sizes and training of one profile; the defaults are the authors' for CMU-MOSI."""

    width: int = 128  # E, of the projection and the attention
    embedding: int = 64  # Z, of one modality's embedding
    heads: int = 4  # of the self-attentive pooling
    dropout: float = 0.2
    decoder: str = "gated"  # or "concat"
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


@dataclass(frozen=True)
class Source:
    """Where one modality of an arm comes from: a feature store and a layer of it (None: all, weighted)."""

    store: FeatureStore
    layer: int | None
    conventional: bool

    def describe(self) -> dict[str, Any]:
        """What the record says of it."""
        return {
            "features": self.store.folder.name,
            "layer": "all" if self.layer is None else self.layer,
            "conventional": self.conventional,
        }


Arm = dict[str, Source]  # by modality


def extract_all(corpus: Corpus, encoders: Mapping[str, Any], root: Path | str) -> dict[str, FeatureStore]:
    """One feature store a modality.

    Args:
        encoders: by modality, what :func:`msakit.encoders.load_encoder` takes.
        root: folder of the feature stores.

    Raises:
        ValueError: a modality that the paper does not have.
    """
    unknown = sorted(set(encoders) - set(MODALITIES))
    if unknown:
        raise ValueError(f"no modality {unknown[0]!r}: choose from {', '.join(MODALITIES)}")
    return {
        modality: extract(corpus, load_encoder(encoders[modality]), root)
        for modality in MODALITIES
        if modality in encoders
    }


def single_arms(encoded: Mapping[str, FeatureStore], conventional: Mapping[str, FeatureStore]) -> dict[str, Arm]:
    """Arms that need no earlier result: conventional, each single layer, the output layers together, weighted."""
    arms: dict[str, Arm] = {}
    classic = {name: Source(store, 0, True) for name, store in conventional.items()}
    for modality, source in classic.items():
        arms[f"conventional-{modality}"] = {modality: source}
    for modality, store in encoded.items():
        for layer in range(store.n_layers):
            arms[f"layer{layer}-{modality}"] = {modality: Source(store, layer, False)}
        arms[f"weighted-{modality}"] = {modality: Source(store, None, False)}
    if len(conventional) > 1:
        arms[_together("conventional", classic)] = classic
    output = {name: Source(store, store.n_layers - 1, False) for name, store in encoded.items()}
    weighted = {name: Source(store, None, False) for name, store in encoded.items()}
    for family, chosen in (("output", output), ("weighted", weighted)):
        arm = _in_order(classic | chosen)
        if len(arm) > 1:
            arms[_together(family, arm)] = arm
    return arms


def best_arm(
    encoded: Mapping[str, FeatureStore], conventional: Mapping[str, FeatureStore], best: Mapping[str, int]
) -> dict[str, Arm]:
    """The arm of each modality's best layer; empty with one modality, where the single layer is that arm."""
    classic = {name: Source(store, 0, True) for name, store in conventional.items()}
    arm = _in_order(classic | {name: Source(store, best[name], False) for name, store in encoded.items()})
    return {_together("best", arm): arm} if len(arm) > 1 else {}


def _in_order(arm: Arm) -> Arm:
    return {name: arm[name] for name in MODALITIES if name in arm}


def _together(family: str, arm: Mapping[str, Source]) -> str:
    return "-".join((family, *(name for name in MODALITIES if name in arm)))


def best_layers(runs: Runs) -> dict[str, int]:
    """By modality, the single layer with the lowest mean validation MAE over seeds (the earlier one of equals)."""
    scores = runs.scores("mae", split="valid")
    parts = scores["arm"].str.extract(r"^layer(?P<layer>\d+)-(?P<modality>\w+)$")
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
) -> Runs:
    """Train every arm with every seed, skipping what is recorded under ``root``; gives back all present runs."""
    root = Path(root)
    do = partial(
        run_jobs,
        paper=PAPER,
        corpus=corpus,
        settings=asdict(settings),
        code=fingerprint("papers/ando2022.py"),
        root=root,
    )
    jobs = partial(_jobs, corpus, settings, seeds)
    runs = do([*reference_jobs(corpus), *jobs(single_arms(encoded, conventional))])
    best = best_layers(runs)
    logger.info("best layers on validation: %s", best)
    return do(jobs(best_arm(encoded, conventional, best)))


def _jobs(corpus: Corpus, settings: Settings, seeds: Sequence[int], arms: Mapping[str, Arm]) -> list[Job]:
    described = {name: {modality: source.describe() for modality, source in arm.items()} for name, arm in arms.items()}
    return [
        Job(name, seed, {"inputs": described[name]}, partial(train, corpus, arm, settings, seed))
        for name, arm in arms.items()
        for seed in seeds
    ]


def train(corpus: Corpus, arm: Arm, settings: Settings, seed: int) -> Outcome:
    """One run: train on train, keep the epoch with the lowest validation MAE, predict valid and test."""
    generator = set_seed(seed)
    features = {split: split_features(corpus, arm, split) for split in ("train", "valid", "test")}
    model = GatedFusion(
        dims={name: source.store.dim for name, source in arm.items()},
        n_layers={name: source.store.n_layers for name, source in arm.items() if source.layer is None},
        width=settings.width,
        embedding=settings.embedding,
        heads=settings.heads,
        dropout=settings.dropout,
        decoder=settings.decoder,
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
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
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
    tables = [
        prediction_table(corpus, split, predict(model, batches[split])["prediction"]) for split in ("valid", "test")
    ]
    return Outcome(result, "mae", tables)


def split_features(corpus: Corpus, arm: Arm, split: str) -> dict[str, Frames]:
    """Frames and lengths of one split by modality; conventional features are standardised by the training frames."""
    ids = list(corpus.splits[split]["segment_id"])
    taken: dict[str, Frames] = {}
    for name, source in arm.items():
        frames, lengths = source.store.take(ids, source.layer)
        if source.conventional:
            known = source.store.take(list(corpus.splits["train"]["segment_id"]), source.layer)[0].astype(np.float32)
            deviation = known.std(0)
            frames = (frames - known.mean(0)) / np.where(deviation > 0, deviation, 1)
        taken[name] = (frames.astype(np.float32) if source.conventional else frames, lengths)
    return taken
