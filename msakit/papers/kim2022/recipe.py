"""Kim & Kim 2022, CMSBERT-CLR (reconstructed): shift each word by its audio and vision, in the utterance's context.

The recipe: audio and vision are laid on word pieces (:mod:`msakit.papers.kim2022.inputs`); the text encoder is
fine-tuned with the shift of :mod:`msakit.models.shifted_bert` inside. Each arm of ``paper.yaml`` names its parts: MAG's
shift, the contexts of CMS, the pairs of the contrastive loss, label smoothing of its targets, EMA evaluation or a
momentum teacher; controls get the audio and vision of other segments.

Training follows MAG-BERT: AdamW without decay on biases and norms, linear warm-up over a tenth of the steps, then
linear decay, squared error (cross entropy of classes). The epoch is chosen by the validation loss of the task alone, so
that arms with and without the contrastive loss are chosen alike. MAG-BERT's own script reports the best test epoch: for
regression its predictions are kept beside ours, as `prediction_best_test_epoch`, to show the gap. It has no rule for
classes, so nothing is kept there.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from msakit.data.corpus import Corpus
from msakit.models import build_model
from msakit.papers import arms_of, facts
from msakit.papers.kim2022.details import BestTestEpoch, embedding_table, embeddings, geometry, shift_table
from msakit.papers.kim2022.inputs import Inputs
from msakit.runs.arm import Arm
from msakit.runs.experiment import MEAN, Case, Experiment
from msakit.runs.jobs import Outcome
from msakit.runs.store import Runs
from msakit.strict import Strict
from msakit.training.loop import Averaging, fit, predict, set_seed, steps_of_epoch
from msakit.training.losses import loss_named, with_contrast
from msakit.training.schedules import linear_warmup_decay

PAPER = "kim2022"
VERSION = 1  # raised by hand whenever numbers move


class Settings(Strict):
    """Training and sizes; the defaults are MAG-BERT's, and the reconstruction's where it has none."""

    epochs: int = Field(40, ge=1)
    batch_size: int = Field(48, ge=2)
    learning_rate: float = Field(1e-5, gt=0)
    weight_decay: float = Field(0.01, ge=0)  # none on biases and norms
    warmup: float = Field(0.1, ge=0, le=1)  # share of all steps
    max_tokens: int = Field(50, ge=3)
    beta: float = Field(1.0, ge=0)  # the shift is at most so many times the word's own length
    shift_dropout: float = Field(0.5, ge=0, lt=1)
    head_dropout: float = Field(0.1, ge=0, lt=1)
    projection: int = Field(128, ge=1)  # size of the space of the contrastive loss
    average: Literal["none", "ema", "teacher"] = "none"  # EMA evaluation, or keys of the contrastive loss
    average_decay: float = Field(0.999, ge=0, le=1)  # a step, of EMA evaluation
    momentum_decay: float = Field(0.995, ge=0, le=1)  # a step, of the momentum teacher
    frames: int = Field(50, ge=1)  # equal parts of an utterance that the soft alignment attends to


def run(
    corpus: Corpus,
    arms: Mapping[str, Arm],
    encoders: Mapping[str, Any],
    settings: Settings,
    seeds: Sequence[int],
    root: Path | str,
    *,
    folds: int = 0,
    test_folds: Sequence[int] | None = None,
    features: Path | str = "build/features",
) -> Runs:
    """Train the arms with every seed, and on every fold, skipping what is recorded under ``root``.

    Args:
        encoders: name to specification, see :class:`msakit.papers.kim2022.inputs.Inputs`.
        folds, test_folds: see :class:`msakit.runs.experiment.Experiment`.
        features: folder of the feature stores.

    Raises:
        ValueError: an arm that cannot be trained on this corpus with these encoders and settings.
    """
    experiment = Experiment(PAPER, VERSION, corpus, settings, seeds, Path(root), folds, test_folds)
    inputs = Inputs(corpus, list(experiment.table["segment_id"]), encoders, features)
    for name, arm in arms.items():
        if arm.model == MEAN:
            continue
        inputs.of(arm)
        if fault := lacks(encoders)(arm) or _fault(arm, experiment.settings_of(arm)):
            raise ValueError(f"arm {name!r} cannot be trained here: {fault}")
    cases = [case for name, arm in arms.items() for case in experiment.cases(name, arm)]
    return experiment.run(cases, inputs.features, partial(train, experiment, inputs), keeps=keeps_artifacts)


def lacks(encoders: Mapping[str, Any]) -> Callable[[Arm], str | None]:
    """For `msakit.papers.choose_arms`: what an arm asks for and the corpus does not have (its encoder is None)."""

    def missing(arm: Arm) -> str | None:
        absent = [name for name, each in arm.inputs.items() if encoders.get(each.encoder) is None]
        if contrast := [name for name in contrasted(arm) if name in absent or name not in arm.inputs]:
            return f"its contrastive loss compares {contrast[0]}, which is not given"
        if "text" in absent or 0 < len(absent) == len(arm.inputs) - 1:
            return f"it reads {', '.join(absent)}, which is not given"
        return None

    return missing


def _fault(arm: Arm, settings: Settings) -> str | None:
    if settings.average == "teacher" and not contrasted(arm):
        return "a momentum teacher serves the contrastive loss: give it one"
    return "this recipe leaves out no batch: set drop_last to false" if arm.protocol.drop_last else None


def contrasted(arm: Arm) -> tuple[str, ...]:
    """The modalities whose embeddings the contrastive loss compares."""
    pairs = arm.loss.contrastive.pairs if arm.loss.contrastive else []
    return tuple(dict.fromkeys(modality for pair in pairs for modality in pair.split("-")))


def keeps_artifacts(case: Case) -> bool:
    """Whether shifts and embeddings are kept for figures: of the first run of listed arms and of a reader's own."""
    listed = case.name in facts(PAPER)["artifacts"] or case.name not in arms_of(PAPER)
    return listed and case.seed == 0 and (case.fold is None or case.fold.index == 0)


def train(experiment: Experiment, inputs: Inputs, case: Case) -> Outcome:
    """One run of an arm."""
    arm, settings, n_classes = case.arm, experiment.settings_of(case.arm), experiment.n_classes
    generator = set_seed(case.random_seed)
    contrast, contrastive = contrasted(arm), arm.loss.contrastive
    shared = settings.model_dump(include={"beta", "shift_dropout", "head_dropout", "projection"})
    kinds = inputs.kinds(arm, settings)
    model = build_model(arm.model, kinds, n_classes, arm.args, defaults={**shared, "contrast": contrast})
    batches = inputs.batches(case, experiment.label, settings, generator)
    loss_name = arm.loss.name or ("mse" if n_classes is None else "cross_entropy")
    loss = loss_named(loss_name, n_classes)
    if contrastive is not None:
        pairs = [(pair.split("-")[0], pair.split("-")[1]) for pair in contrastive.pairs]
        loss = with_contrast(loss, contrastive.weight, pairs, contrastive.temperature, contrastive.smoothing)
    ema, teacher = Averaging(settings.average_decay), Averaging(settings.momentum_decay, "teacher")
    optimizer = torch.optim.AdamW(decayed_groups(model, settings.weight_decay), lr=settings.learning_rate, fused=True)
    best_on_test = None if n_classes else BestTestEpoch(batches["test"], experiment.label[case.rows["test"]])
    stages = {"before": embeddings(model, batches["test"], contrast)}
    result = fit(
        model,
        batches["train"],
        batches["valid"],
        loss=loss,
        optimizer=optimizer,
        scheduler=linear_warmup_decay(optimizer, settings.epochs * steps_of_epoch(batches["train"]), settings.warmup),
        epochs=settings.epochs,
        averaging={"none": None, "ema": ema, "teacher": teacher}[settings.average],
        on_epoch=best_on_test,
    )
    stages["after"] = embeddings(model, batches["test"], contrast)
    tables = [
        experiment.predictions(case, split, predict(model, batches[split])["prediction"])
        for split in (["test"] if arm.protocol.leaks else ["valid", "test"])
    ]
    tokens = inputs.tokens(arm, settings)
    measurements = {
        **geometry(stages),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "truncated_texts": tokens.truncated,
        "most_tokens": tokens.limit,
        **experiment.sizes(case),
    }
    if best_on_test is not None:
        tables[-1]["prediction_best_test_epoch"] = best_on_test.prediction
        measurements["as_published"] = best_on_test.measurement()
    artifacts = {}
    if keeps_artifacts(case):
        test = experiment.table.iloc[case.rows["test"]]
        # Words of a real corpus stay out of what is published.
        if experiment.corpus.generated and hasattr(model, "relative_shifts") and len(kinds) > 1:
            words = [(inputs.words[row], (tokens.word_ids or [])[row]) for row in case.rows["test"]]
            artifacts["shifts"] = shift_table(test, model, words, batches["test"])
        if contrast:
            artifacts["embeddings"] = embedding_table(test, stages["after"])
    return Outcome(result, loss_name, tables, measurements, artifacts=artifacts)


def decayed_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: weight decay on matrices, none on biases and norms (vectors)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
