"""Ando et al. 2022: which layer of a pre-trained encoder serves sentiment best, one modality at a time and together.

The recipe: encoders stay frozen and their features are computed once (:mod:`msakit.features`); every arm trains the
unimodal encoders and a decoder of :mod:`msakit.models.gated` on other features. ``ando2022.yaml`` names the arms,
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
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch

from msakit.data.corpus import Corpus
from msakit.features import FeatureStore
from msakit.papers.ando2022.details import Details
from msakit.papers.ando2022.inputs import (
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
from msakit.papers.ando2022.training import NOTHING, LayerSweep, Settings, train
from msakit.runs import record as records
from msakit.runs.jobs import Job, Outcome, reference_jobs, run_jobs
from msakit.runs.record import Runs
from msakit.sources import fingerprint
from msakit.training.loop import Fit

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
    sweep_on: str | None = None,
) -> Runs:
    """Train every arm with every seed, skipping what is recorded under ``root``; gives back all present runs.

    The heads of seed 0 of the gated arms ``best-…`` are saved under ``heads`` beside ``root``, able to judge new clips
    (:class:`msakit.predictor.Predictor`).

    Args:
        layers: hidden states to look at, see `Inputs`.
        arms: names or patterns, see `choose_arms`.
        sweep_on: the device on which a modality's single layers train together, all seeds at once (`LayerSweep`);
            by default a GPU if there is one, otherwise each run is trained by itself.
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
    if sweep_on is None and torch.cuda.is_available():
        sweep_on = "cuda"
    study = _Study(corpus, settings, tuple(seeds), root, _sweeps(corpus, first, settings, seeds, sweep_on))
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
    sweeps: Mapping[str, LayerSweep] = field(default_factory=dict)  # by the name of each arm that trains with others

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
                if name in self.sweeps:
                    made.append(Job(name, seed, arm.describe(), partial(self.sweeps[name].outcome, name, seed)))
                elif same == name or kept:
                    train_it = partial(train, self.corpus, arm, self.settings, seed, details)
                    made.append(Job(name, seed, arm.describe(), train_it))
                else:
                    take_over = partial(_recorded, self.root, self.corpus, same, seed)
                    made.append(Job(name, seed, {**arm.describe(), "same_as": same}, take_over))
        return made


def _sweeps(
    corpus: Corpus, arms: Mapping[str, Arm], settings: Settings, seeds: Sequence[int], device: str | None
) -> dict[str, LayerSweep]:
    """The single layers of each modality as one sweep, by arm; none without a device for them."""
    by_modality: dict[str, dict[str, Arm]] = {}
    for name, arm in arms.items():
        if device is not None and (single := re.match(LAYER_ARM, name)):
            by_modality.setdefault(single["modality"], {})[name] = arm
    sweeps = [LayerSweep(corpus, single, settings, seeds, str(device)) for single in by_modality.values()]
    return {name: sweep for sweep in sweeps for name in sweep.arms}


def _recorded(root: Path, corpus: Corpus, arm: str, seed: int) -> Outcome:
    """What another arm of the same inputs has on record; its run is there, for jobs run in order."""
    path = records.run_path(root, PAPER, corpus.name, arm, seed)
    record, predictions = records.read(path), records.read_predictions(path)
    if record.selection is None:
        raise ValueError(f"{path}: nothing was selected in it, so it was not trained; delete it and run again")
    epoch = int(record.selection["epoch"])
    fitted = Fit(epoch, record.history, float(record.seconds), record.history[epoch - 1])
    return Outcome(fitted, str(record.selection["metric"]), [predictions], record.measurements)
