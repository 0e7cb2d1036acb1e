"""Toledo & Marcacini 2022: fine-tune a text and an image encoder jointly, against each alone, frozen ones, and rivals.

The recipe.  Texts and images are prepared once (:mod:`msakit.papers.toledo2022.inputs`); each arm trains its model
(:mod:`msakit.papers.toledo2022.learners`) with AdamW and an exponentially falling rate until the validation loss has
stopped falling.  With `folds`, run k of an arm is scored on fold k of all labelled segments, under the corrected or the
published protocol, or with one switch of it (:mod:`msakit.papers.toledo2022.protocol`); without, seeds differ on the
corpus's own split.  Low-resource arms train on nested, stratified subsets of the corpus's own training split.

Late fusion trains nothing: it is the mean of the probabilities that the runs of the two single modalities stored. So
is the switch of the threshold, which concerns the scoring of runs that are stored already.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from datasets import DatasetDict, concatenate_datasets
from jaxtyping import Float
from scipy.special import expit, softmax

from msakit.data.corpus import Corpus
from msakit.data.folds import labelled
from msakit.models.clip import ClipClassifier
from msakit.papers import facts
from msakit.papers.toledo2022.costs import measure
from msakit.papers.toledo2022.details import embeddings, examples
from msakit.papers.toledo2022.inputs import Encoders, Inputs
from msakit.papers.toledo2022.learners import Learner, Repeated, Settings, build, optimizer
from msakit.papers.toledo2022.protocol import CORRECTED, SHARE, Arm, Protocol, parse
from msakit.papers.toledo2022.study import PAPER, SPLITS, Study, View
from msakit.runs.jobs import Job, Outcome, prediction_table, reference_jobs, run_jobs
from msakit.runs.record import Runs, read_predictions, run_path
from msakit.sources import fingerprint
from msakit.training import cost
from msakit.training.loop import fit, predict, set_seed
from msakit.training.losses import classification

logger = logging.getLogger(__name__)

LOOK = 256  # segments predicted at once
Costs = Callable[[], dict[str, dict[str, Any]]]


def run(
    corpus: Corpus,
    encoders: Encoders,
    settings: Settings,
    arms: Sequence[str],
    seeds: Sequence[int],
    root: Path | str,
    *,
    folds: int = 0,
    shares: Sequence[int] = (),
    share_arms: Sequence[str] = ("frozen", "joint", "clip-probe"),
    share_seeds: Sequence[int] = (0, 1, 2),
) -> Runs:
    """Train the named arms (see ``toledo2022.yaml``) with every seed, skipping what is recorded under ``root``.

    Args:
        folds: run k is scored on fold k, so seeds are fold numbers; 0 for the corpus's own split.
        shares: per cent of the training split on which the `share_arms` are trained besides, with those of the
            `share_seeds` that are among the seeds, so that seeds scattered over several jobs share this work too.

    Raises:
        ValueError: an unknown arm, a seed that is no fold, an encoder that an arm needs and that is not given.
    """
    known = facts(PAPER)["arms"]
    wanted = [parse(name, list(known)) for name in arms]
    small = [parse(f"{name}{SHARE}{percent}", list(known)) for name in share_arms for percent in shares]
    _check(corpus, encoders, [*wanted, *small], seeds, folds, known)
    accelerator = Accelerator(mixed_precision=settings.precision)
    table = labelled(corpus)
    inputs = Inputs(table, encoders, settings.max_tokens, accelerator.device)
    study = Study(corpus, table, inputs, settings, folds, Path(root))
    costs = cache(partial(measure, study, sorted({arm.base for arm in wanted if arm.protocol == CORRECTED})))
    # What is derived from stored runs comes after them.
    for some in (wanted, small):
        some.sort(key=lambda arm: (bool(_sources(arm, known)), arm.protocol.threshold == "logits"))
    jobs = []
    for seed in seeds if folds else [0]:
        jobs += [replace(job, seed=seed) for job in reference_jobs(study.view(Arm("", ""), seed).corpus)]
    for arm, seed in [(a, s) for s in seeds for a in wanted] + [
        (a, s) for s in share_seeds if s in seeds for a in small
    ]:
        config = {"encoders": asdict(encoders), **asdict(arm.protocol), **known[arm.base]}
        del config["title"]
        if arm.percent is not None:
            config["percent"] = arm.percent
        if known[arm.base].get("zero_shot"):
            config["prompts"] = prompts(corpus)
        jobs.append(Job(arm.name, seed, config, partial(train, study, arm, seed, costs), protocol=arm.label))
    everything = DatasetDict(all=concatenate_datasets([corpus.splits[split] for split in SPLITS]))
    return run_jobs(
        jobs,
        paper=PAPER,
        corpus=replace(corpus, splits=everything) if folds else corpus,
        settings={**asdict(settings), "fold_count": folds},
        code=fingerprint("papers/toledo2022.py"),
        root=Path(root),
    )


def train(study: Study, arm: Arm, seed: int, costs: Costs) -> Outcome:
    """One run: stop on the validation part, predict it and the test part.

    costs: what the arms cost, measured when the first run asks.
    """
    known = facts(PAPER)["arms"]
    view = study.view(arm, seed)
    sources = _sources(arm, known)
    if sources:
        return _derived(study, arm, seed, sources, costs)
    if known[arm.base].get("zero_shot"):
        return _guessed(study, arm, seed, view, costs)
    settings = study.settings
    generator = set_seed(seed)
    learner = build(known[arm.base], study.inputs, study.label, len(study.corpus.task.classes), arm.protocol, settings)
    first = arm.name == "joint" and seed == 0
    before = embeddings(study, learner, view, "before") if first else None
    steps = optimizer(learner, settings)
    training = learner.batches(
        view.rows["train"], batch_size=settings.batch_size, generator=generator, drop_last=arm.protocol.drop_last
    )
    result = fit(
        learner.model,
        Repeated(training, -(-settings.least_batches // max(1, len(training)))),
        _looks(learner, view, "valid", arm.protocol, settings, generator),
        loss=classification,
        optimizer=steps,
        scheduler=torch.optim.lr_scheduler.ExponentialLR(steps, settings.decay_per_epoch),
        epochs=learner.epochs,
        patience=learner.patience,
        accelerator=Accelerator(mixed_precision=settings.precision),
        progress=False,
    )
    tables = []
    # Where the test fold stops the training, it is all there is to predict.
    for split in ("test",) if arm.protocol.stop == "test" else ("valid", "test"):
        found = predict(learner.model, _looks(learner, view, split, arm.protocol, settings, generator))
        values = np.full((len(view.rows[split]), len(study.corpus.task.classes)), np.nan)
        values[found["index"]] = probabilities(found["prediction"])
        scored = np.isfinite(values).all(axis=1)  # dropped segments have no prediction
        tables.append(prediction_table(view.corpus, split, values)[scored])
    sizes = cost.parameters(learner.model)
    measured = {
        "trainable_parameters": sizes.trainable,
        "total_parameters": sizes.total,
        "epochs": len(result.history),
        **_measured(study, arm, seed, view, costs),
    }
    artifacts = {}
    if before is not None:
        artifacts["embeddings"] = pd.concat([before, embeddings(study, learner, view, "after")])
        if study.corpus.generated:
            artifacts["examples"] = examples(view)
    return Outcome(result, "cross_entropy", tables, measured, artifacts)


def probabilities(prediction: Float[np.ndarray, "segments outputs"]) -> Float[np.ndarray, "segments classes"]:
    """Of logits, or of the one logit of two classes (the second's)."""
    if prediction.shape[1] == 1:
        return np.concatenate([expit(-prediction), expit(prediction)], axis=1)
    return softmax(prediction, axis=1)


def prompts(corpus: Corpus) -> dict[str, list[str]]:
    """What CLIP compares a post with, by class: written for the corpus, or for its classes, or made of their names."""
    written = facts(PAPER)["prompts"]
    classes = corpus.task.classes
    found = written.get(corpus.name) or written.get(", ".join(classes)) or {c: [f"a {c} post."] for c in classes}
    return {name: found[name] for name in classes}


def _check(
    corpus: Corpus,
    encoders: Encoders,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    folds: int,
    known: Mapping[str, Any],
) -> None:
    if corpus.task.kind != "classification":
        raise ValueError(f"{corpus.folder} is labelled with numbers; this recipe is for classes")
    wrong = [seed for seed in seeds if folds and seed >= folds]
    if wrong:
        raise ValueError(f"seed {wrong[0]} is no fold: with {folds} folds seeds are 0 to {folds - 1}")
    for arm in arms:
        family = known[arm.base].get("family")
        if family in ("clip", "visualbert") and not getattr(encoders, family):
            raise ValueError(f"arm {arm.name!r} needs a {family} checkpoint: give its folder or hub id as {family}")


def _sources(arm: Arm, known: Mapping[str, Any]) -> list[str]:
    """The arms whose stored probabilities an arm averages; none for an arm that is trained."""
    if arm.label == "as_published_threshold":
        return [arm.base]
    return [arm.of(name) for name in known[arm.base].get("mean_of", [])]


def _derived(study: Study, arm: Arm, seed: int, sources: Sequence[str], costs: Costs) -> Outcome:
    """The mean of stored probabilities."""
    paths = [run_path(study.root, PAPER, study.corpus.name, source, seed) for source in sources]
    for path, source in zip(paths, sources, strict=True):
        if not path.exists():
            raise ValueError(f"{arm.name} rests on the stored predictions of {source}, seed {seed}: add that arm")
    tables = [read_predictions(path).set_index(["segment_id", "split"]) for path in paths]
    # Under the published protocol each run has dropped other segments.
    shared = tables[0].index[tables[0].index.isin(tables[-1].index)]
    mean = tables[0].loc[shared].copy()
    columns = [f"p_{name}" for name in study.corpus.task.classes]
    mean[columns] = np.mean([table.loc[shared, columns].to_numpy() for table in tables], axis=0)
    measured = _measured(study, arm, seed, study.view(arm, seed), costs)
    return Outcome(None, "", [mean.reset_index()], measured)


def _guessed(study: Study, arm: Arm, seed: int, view: View, costs: Costs) -> Outcome:
    """CLIP's probabilities without training."""
    model = ClipClassifier.from_encoder(study.inputs.encoders.clip, frozen=True)
    values = study.inputs.guess(model, prompts(study.corpus))
    tables = [prediction_table(view.corpus, split, values[view.rows[split]]) for split in ("valid", "test")]
    sizes = {"trainable_parameters": 0, "total_parameters": cost.parameters(model.clip).total, "epochs": 0}
    return Outcome(None, "", tables, {**sizes, **_measured(study, arm, seed, view, costs)})


def _looks(
    learner: Learner, view: View, split: str, protocol: Protocol, settings: Settings, generator: torch.Generator
) -> Any:
    """Batches that are looked at only; the published code shuffles them too and drops the last one."""
    if protocol.drop_last:
        return learner.batches(view.rows[split], batch_size=settings.batch_size, generator=generator, drop_last=True)
    return learner.batches(view.rows[split], batch_size=LOOK)


def _measured(study: Study, arm: Arm, seed: int, view: View, costs: Costs) -> dict[str, Any]:
    """Sizes of the parts, and, once an arm, what it costs."""
    sizes = {"segments": {split: len(rows) for split, rows in view.rows.items()}}
    once = arm.protocol == CORRECTED and arm.percent is None and seed == 0
    return {**sizes, **costs()[arm.base]} if once else sizes
