"""Ando et al. 2022: which layer of a pre-trained encoder serves sentiment best, one modality at a time and together.

Encoders stay frozen and their features are computed once (:mod:`msakit.features`); every arm trains the unimodal
encoders and a decoder of :mod:`msakit.models.gated`, or any other model that takes `Frames`, on other features. Single
layers are trained first, one modality at a time; the layer with the lowest validation loss over seeds is the encoder's
"best" layer, and arms that ask for it follow. In folds the choice is made anew for each fold, by its own validation
segments. Test is scored once, from the saved predictions.

Numbers are trained with the L1 loss, classes with cross entropy.

Deviations from the authors' code: SpecAugment is seeded by the run (theirs once, at import); the best epoch has the
lowest validation loss over segments, not over batch means; conventional features are standardised by the training
frames, because some sets come unscaled; the rule by which they chose "mid-best" layers is not known.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from msakit.data.corpus import Corpus
from msakit.features import FeatureStore
from msakit.papers import facts
from msakit.papers.ando2022 import details
from msakit.papers.ando2022.arms import single_layer
from msakit.papers.ando2022.inputs import Inputs, extract_all
from msakit.papers.ando2022.layers import best_layers, single_layer_of, takes_best
from msakit.papers.ando2022.training import LayerSweep, Settings, Training, train
from msakit.runs.arm import MEAN, Arm, read_arms
from msakit.runs.experiment import Case, Experiment
from msakit.runs.jobs import Outcome
from msakit.runs.record import Feature, Record
from msakit.runs.store import Runs, ordered

logger = logging.getLogger(__name__)

PAPER = "ando2022"
VERSION = 1  # to be raised whenever numbers move


def run(
    corpus: Corpus,
    arms: Mapping[str, Arm],
    encoders: Mapping[str, FeatureStore | dict[str, Any] | str],
    settings: Settings,
    seeds: Sequence[int],
    root: Path | str,
    *,
    folds: int = 0,
    test_folds: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    features_root: Path | str = "build/features",
    sweep_on: str | None = None,
) -> Runs:
    """Train every arm with every seed, skipping what is recorded under ``root``; gives back their runs.

    An arm with ``layer: best`` brings the single layers that its choice rests on, trained with the experiment's own
    settings whatever the arm's are. The heads of seed 0 of such arms are
    saved under ``heads`` beside ``root``, for new clips (:class:`msakit.predictor.Predictor`).

    Args:
        encoders: by name, a feature store, or what :func:`msakit.encoders.load_encoder` takes; then features are kept
            under ``features_root``.
        folds, test_folds: see :class:`msakit.runs.experiment.Experiment`.
        layers: hidden states to look at, see `Inputs`.
        sweep_on: the device on which an encoder's single layers train together, all seeds at once (`LayerSweep`);
            by default a GPU if there is one, otherwise each run is trained by itself.

    Raises:
        ValueError: an arm whose encoder or layer is not there, or a choice that this recipe does not have.
    """
    inputs = Inputs(extract_all(corpus, encoders, features_root), layers)
    experiment = Experiment(PAPER, VERSION, corpus, settings, tuple(seeds), Path(root), folds, test_folds)
    arms = {**_candidates(arms, inputs), **arms}
    for name, arm in arms.items():
        if (reason := inputs.lacks(arm)) is not None:
            raise ValueError(f"arm {name!r} cannot be trained here: {reason}")
    cases = [case for name, arm in arms.items() for case in experiment.cases(name, arm)]
    if sweep_on is None and torch.cuda.is_available():
        sweep_on = "cuda"
    # A mean comes after what it averages, which may be arms of best layers.
    first = [case for case in cases if not _waits(case.arm)]
    study = _Study(experiment, inputs, {} if sweep_on is None else _sweeps(experiment, first, inputs, sweep_on))
    runs = study.run(first, {})
    best = best_layers(runs)
    found = {run.record.identity: run for run in runs}
    for fold in dict.fromkeys(_fold(case) for case in cases if _waits(case.arm)):
        chosen = best.get(fold, {})
        logger.info("best layers on validation%s: %s", "" if fold < 0 else f", fold {fold}", chosen)
        later = study.run([case for case in cases if _fold(case) == fold], chosen)
        found |= {run.record.identity: run for run in later}
    return Runs(ordered(found.values()), experiment.root)


@dataclass(frozen=True)
class _Study:
    """How the cases of one call of `run` are trained."""

    experiment: Experiment
    inputs: Inputs
    sweeps: Mapping[tuple[str, int, int], LayerSweep]  # by arm, seed and fold

    def run(self, cases: Sequence[Case], best: Mapping[str, int]) -> Runs:
        """best: by encoder, the layer that validation chose."""

        def features(arm: Arm) -> dict[str, Feature]:
            return {modality: source.feature for modality, source in self.inputs.sources(arm, best).items()}

        kept = [case for case in cases if _keeps(case)]
        fullest = max(kept, key=lambda case: len(case.arm.inputs), default=None)

        def outcome(case: Case) -> Outcome:
            sweep = self.sweeps.get((case.name, case.seed, _fold(case)))
            if sweep is not None:
                return sweep.outcome(case)
            sources = self.inputs.sources(case.arm, best)
            after = None
            if _keeps(case):
                corpus = self.experiment.corpus
                head = self.experiment.root.parent / "heads" / PAPER / corpus.name / case.name
                after = partial(details.keep, corpus, sources, head, tables=case is fullest)
            return train(Training(self.experiment, case, sources), after)

        return self.experiment.run(cases, features, outcome, keeps=_keeps)


def _waits(arm: Arm) -> bool:
    """Whether an arm can be trained only when the single layers are."""
    return takes_best(arm) or arm.model == MEAN


def _keeps(case: Case) -> bool:
    """Whether the trained head is kept: of seed 0 of the best layers, gated; of folds, the first."""
    gated = case.arm.args.get("decoder", "gated") == "gated"
    return takes_best(case.arm) and gated and case.seed == 0 and _fold(case) <= 0


def _fold(of: Case | Record) -> int:
    """The tested fold; -1 on the corpus's own split."""
    return -1 if of.fold is None else of.fold.index


def _candidates(arms: Mapping[str, Arm], inputs: Inputs) -> dict[str, Arm]:
    """The single layers that ``layer: best`` is chosen among and that are not asked for themselves."""
    there = {single_layer_of(arm) for arm in arms.values()}
    found = dict(
        single_layer(facts(PAPER), modality, given.encoder, layer)
        for arm in arms.values()
        for modality, given in arm.inputs.items()
        if given.layer == "best" and given.encoder in inputs.stores
        for layer in inputs.layers_of(given.encoder)
        if (given.encoder, layer) not in there
    )
    return read_arms(found, arms, "single layers to choose the best one from")


def _sweeps(
    experiment: Experiment, cases: Sequence[Case], inputs: Inputs, device: str
) -> dict[tuple[str, int, int], LayerSweep]:
    """The single layers of each encoder and fold as one sweep, by arm, seed and fold."""
    together: dict[tuple[str, int], list[Training]] = {}
    for case in cases:
        if (single := single_layer_of(case.arm)) is not None:
            training = Training(experiment, case, inputs.sources(case.arm, {}))
            together.setdefault((single[0], _fold(case)), []).append(training)
    sweeps = [LayerSweep(trainings, device) for trainings in together.values()]
    return {(each.case.name, each.case.seed, _fold(each.case)): sweep for sweep in sweeps for each in sweep.trainings}
