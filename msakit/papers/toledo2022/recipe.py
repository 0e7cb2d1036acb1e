"""Toledo & Marcacini 2022: fine-tune a text and an image encoder jointly, against each alone, frozen ones, and rivals.

Each arm trains its model with AdamW and an exponentially falling rate until the validation loss has stopped falling:
cross entropy for classes, mean absolute error for numbers, unless the arm names its loss. In folds, arms are scored on
the folds of all labelled segments under their own protocol (``paper.yaml`` says what the published one does); arms of
`low_resource` train on nested, stratified subsets of the corpus's own training split in any case.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from pydantic import Field
from torch import nn

from msakit.data.corpus import Corpus
from msakit.encoders.outputs import text_vectors
from msakit.encoders.tokens import tokenize
from msakit.models import Pretrained, build_model
from msakit.models.clip import ClipClassifier, zero_shot
from msakit.papers import arms_of, facts
from msakit.papers.toledo2022 import artifacts, costs
from msakit.papers.toledo2022.inputs import ZERO_SHOT, Inputs
from msakit.runs.arm import MEAN, Arm, Protocol, args_of
from msakit.runs.experiment import Case, Experiment
from msakit.runs.jobs import Outcome
from msakit.runs.store import Runs
from msakit.strict import Strict
from msakit.training.batching import TensorBatches, TextBatches
from msakit.training.loop import fit, predict, set_seed
from msakit.training.losses import loss_named

PAPER, VERSION = "toledo2022", 1
EVAL_BATCH_SIZE = 256
ENDS = ("low", "high")  # of a range of numbers, what prompts are written for in place of classes
SELECTED_BY = {"l1": "mae"}  # loss -> the metric that its validation mean is, where it has another name


class Settings(Strict):
    """Training of one profile; the defaults are the authors'."""

    epochs: int = Field(30, ge=1)  # at most
    patience: int = Field(2, ge=1)  # epochs without a lower validation loss
    learning_rate: float = Field(3e-5, gt=0)
    # Where all encoders are frozen an epoch costs next to nothing: it may take more and larger steps.
    frozen_learning_rate: float | None = Field(None, gt=0)  # None: the same
    frozen_epochs: int | None = Field(None, ge=1)  # None: the same; patience grows in proportion
    rate_factor: float = Field(1.0, gt=0)  # on either rate, for single arms
    decay_per_epoch: float = Field(0.9, gt=0, le=1)  # factor on the learning rate
    weight_decay: float = Field(0.01, ge=0)
    batch_size: int = Field(32, ge=1)
    max_tokens: int = Field(512, ge=1)  # fewer where an encoder has fewer positions
    least_batches: int = Field(1, ge=1)  # an epoch passes over a small subset as often as it takes for so many batches
    precision: Literal["no", "bf16", "fp16"] = "no"  # mixed precision of training


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
    share_seeds: Sequence[int] | None = None,
    features: Path | str = "build/features",
) -> Runs:
    """Train the arms, skipping what is recorded under `root`; gives back their runs and those of the references.

    Args:
        arms: as `msakit.papers.choose_arms` gives them, and `low_resource`.
        encoders: name -> path, or what :class:`msakit.papers.toledo2022.inputs.EncoderSpec` says.
        folds: 0 for the corpus's own split; otherwise every arm is scored on each of the folds, or of `test_folds`.
        share_seeds: of arms that keep to the corpus's own split in any case, as far as they are among the tested folds
            (or, without folds, the seeds), so that folds dealt out over several jobs share this work, too; None for all
            of these.
        features: folder of the feature stores.

    Raises:
        ValueError: an arm whose encoder is not given or whose model does not take its inputs, a tested fold that there
            is not, the mean of an arm that is not there.
    """
    experiment = Experiment(PAPER, VERSION, corpus, settings, seeds, Path(root), folds, test_folds)
    device = Accelerator(mixed_precision=settings.precision).device
    inputs = Inputs(corpus, encoders, settings.max_tokens, Path(features), device)
    dealt = list(seeds) if not folds else list(range(folds) if test_folds is None else test_folds)
    cases = []
    for name, arm in arms.items():
        if arm.loss.contrastive is not None:
            raise ValueError(f"arm {name!r} has a contrastive loss, which this recipe does not train with")
        if arm.model == ZERO_SHOT:
            arm = arm.model_copy(update={"args": {"prompts": prompts(corpus)} | arm.args})
        own_split = arm.protocol.folds == "none" or arm.protocol.share < 100
        wanted = [seed for seed in dealt if share_seeds is None or seed in share_seeds]
        cases += list(experiment.cases(name, arm, wanted if own_split else None))
    return experiment.run(cases, inputs.features, partial(train, experiment, inputs), keeps=artifacts.keeps)


def low_resource(arms: Mapping[str, Arm], shares: Sequence[int]) -> dict[str, Arm]:
    """Each arm again on parts of the corpus's own training split, as ``<arm>.share-<per cent>``."""
    found = {}
    for share in shares:
        names = {name: f"{name}.share-{share}" for name in arms}
        for name, arm in arms.items():
            protocol = arm.protocol.model_copy(update={"folds": "none", "share": share})
            title, args = f"{arm.title}, {share} % of the training split", args_of(arm, names)
            update = {"title": title, "args": args, "protocol": protocol, "like": name}
            found[names[name]] = arm.model_copy(update=update)
    return found


def lacks(encoders: Mapping[str, Any]) -> Callable[[Arm], str | None]:
    """For `msakit.papers.choose_arms`: the encoder that an arm, or a part of a mean, reads and that is not given."""
    known = arms_of(PAPER)

    def missing(arm: Arm) -> str | None:
        parts = [known[name] for name in arm.args["of"] if name in known] if arm.model == MEAN else [arm]
        names = [each.encoder for part in parts for each in part.inputs.values() if not encoders.get(each.encoder)]
        return f"the encoder {names[0]!r} is not given" if names else None

    return missing


def train(experiment: Experiment, inputs: Inputs, case: Case) -> Outcome:
    """One run: stop on the validation part, predict it and the test part."""
    arm, settings = case.arm, experiment.settings_of(case.arm)
    if arm.model == ZERO_SHOT:
        return _zero_shot(experiment, inputs, case)
    name = arm.loss.name or ("l1" if experiment.n_classes is None else "cross_entropy")
    loss, kinds = loss_named(name, experiment.n_classes), inputs.kinds(arm)
    serve = partial(inputs.batches, arm, experiment.label)
    rate, epochs = settings.learning_rate, settings.epochs
    if all(each.frozen for each in arm.inputs.values()):
        rate, epochs = settings.frozen_learning_rate or rate, settings.frozen_epochs or epochs
    rate *= settings.rate_factor

    def optimizer(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=settings.weight_decay, fused=True)

    generator = set_seed(case.random_seed)
    model = build_model(arm.model, kinds, experiment.n_classes, arm.args).to(inputs.device)
    keeps = artifacts.keeps(case)
    stages = [artifacts.embeddings(experiment, case, model, serve, "before")] if keeps else []
    steps = optimizer([parameter for parameter in model.parameters() if parameter.requires_grad])
    drop_last = arm.protocol.drop_last
    training = serve(case.rows["train"], settings.batch_size, generator=generator, drop_last=drop_last)
    training.repeats = -(-settings.least_batches // max(1, len(training)))

    def evaluation(split: str) -> TextBatches | TensorBatches:
        if drop_last:  # the published code shuffles what it scores, too
            return serve(case.rows[split], settings.batch_size, generator=generator, drop_last=True)
        return serve(case.rows[split], EVAL_BATCH_SIZE)

    result = fit(
        model,
        training,
        evaluation("valid"),
        loss=loss,
        optimizer=steps,
        scheduler=torch.optim.lr_scheduler.ExponentialLR(steps, settings.decay_per_epoch),
        epochs=epochs,
        patience=max(1, round(settings.patience * epochs / settings.epochs)),
        accelerator=Accelerator(mixed_precision=settings.precision),
    )
    tables = []
    # Where the test fold stops the training, it is all there is to predict.
    for split in ("test",) if arm.protocol.leaks else ("valid", "test"):
        found = predict(model, evaluation(split))
        scored = replace(case, rows={split: case.rows[split][found["index"]]})  # dropped segments have no prediction
        tables.append(experiment.predictions(scored, split, found["prediction"]))
    kept = {}
    if keeps:
        stages.append(artifacts.embeddings(experiment, case, model, serve, "after"))
        kept["embeddings"] = pd.concat(stages)
        if experiment.corpus.generated:
            kept["examples"] = artifacts.examples(experiment, case)
    counted, timed = costs.measure(experiment, inputs, case, model, loss, optimizer) if _costs(case) else ({}, {})
    counted |= costs.parameters(model) | inputs.truncated(arm) | experiment.sizes(case)
    return Outcome(result, SELECTED_BY.get(name, name), tables, counted, timed, kept)


def _costs(case: Case) -> bool:
    """Whether a run measures what its arm costs: the first one of each arm under the sound protocol."""
    return case.random_seed == 0 and case.arm.protocol == Protocol()


def _zero_shot(experiment: Experiment, inputs: Inputs, case: Case) -> Outcome:
    """CLIP's probabilities of the classes by their prompts; for numbers, the place between the ends of their range."""
    task, encoders = experiment.corpus.task, {each.encoder for each in case.arm.inputs.values()}
    classes = task.classes or ENDS
    if set(case.arm.inputs) != {"text", "image"} or len(encoders) > 1:
        raise ValueError(f"{case.name}: zero-shot compares text and image by one dual encoder, not {case.arm.inputs}")
    if list(case.arm.args["prompts"]) != list(classes):
        raise ValueError(f"{case.name} wants prompts for {', '.join(classes)}, in this order")
    spec = inputs.spec(encoders.pop())
    given = Pretrained(spec.path, frozen=True)
    model = ClipClassifier.build({"text": given, "image": given}, experiment.n_classes)
    embedded = []
    with torch.inference_mode():
        for texts in case.arm.args["prompts"].values():
            tokens = tokenize(spec.path, texts, inputs.max_tokens, tokenizer=spec.tokenizer)
            (batch,) = TextBatches(tokens.ids, np.zeros(len(texts)), len(texts), pad_id=tokens.pad_id)
            embedded.append(text_vectors(model.clip, batch["input_ids"], batch["attention_mask"]))
    temperature = float((-model.clip.logit_scale).exp())
    tables = []
    for split in ("valid", "test"):
        found = inputs.dense(case.arm, case.rows[split])
        image, text = (torch.from_numpy(found[f"{name}_features"]).float() for name in ("image", "text"))
        values = zero_shot(image, text, embedded, temperature).numpy()
        logits = np.log(np.maximum(values, np.finfo(np.float32).tiny))
        if experiment.n_classes is None:
            logits = task.low + (task.high - task.low) * values[:, 1]
        tables.append(experiment.predictions(case, split, logits))
    counted = inputs.truncated(case.arm) | experiment.sizes(case)
    if _costs(case):
        loss = loss_named("l1" if experiment.n_classes is None else "cross_entropy", experiment.n_classes)
        counted |= costs.measure(experiment, inputs, case, model, loss, None)[0]
    return Outcome(None, "", tables, {**costs.parameters(model), "trainable_parameters": 0} | counted)


def prompts(corpus: Corpus) -> dict[str, list[str]]:
    """What CLIP compares a post with, by class: written for the corpus, or for its classes, or made of their names."""
    written = facts(PAPER)["prompts"]
    classes = corpus.task.classes or ENDS
    found = written.get(corpus.name) or written.get(", ".join(classes)) or {c: [f"a {c} post."] for c in classes}
    return {name: found[name] for name in classes}
