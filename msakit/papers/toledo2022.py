"""Toledo & Marcacini 2022: fine-tune a text and an image encoder jointly, against each alone and against frozen ones.

The recipe: tokens and pixels are prepared once; each arm trains :class:`msakit.fusion.joint.JointFusion` with AdamW and
an exponentially falling learning rate, and stops early on the validation split. Frozen encoders are run once a corpus
and their vectors reused by every seed.

This is the ``corrected`` protocol: the authors' code stops on the test fold, drops last batches, attends over a
sequence of length one and cuts raw logits at 0.5.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import softmax

from msakit.data.corpus import Corpus
from msakit.data.media import read_image
from msakit.fusion.joint import JointFusion
from msakit.papers import facts
from msakit.papers.running import Job, Outcome, prediction_table, reference_jobs, run_jobs
from msakit.records import Runs
from msakit.sources import fingerprint
from msakit.training.batching import TensorBatches, TextBatches
from msakit.training.loop import fit, predict, set_seed
from msakit.training.losses import classification

logger = logging.getLogger(__name__)

PAPER = "toledo2022"
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Settings:
    """Training of one profile; the defaults are the authors'."""

    epochs: int = 30  # at most
    patience: int = 2  # epochs without a lower validation loss
    learning_rate: float = 3e-5
    # Under frozen encoders only the head learns, and an epoch costs next to nothing: it may take more and larger steps.
    frozen_learning_rate: float | None = None  # None: the same
    frozen_epochs: int | None = None  # None: the same; patience grows in proportion
    decay_per_epoch: float = 0.9  # factor on the learning rate
    weight_decay: float = 0.01
    batch_size: int = 32
    max_tokens: int = 512

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.patience < 1 or self.batch_size < 1:
            raise ValueError(f"epochs, patience and batch_size must be at least 1: {self}")


@dataclass(frozen=True)
class Inputs:
    """One split, ready for the encoders: token ids a segment, and pixels ``[segments, 3, height, width]``."""

    token_ids: list[list[int]]
    pixel_values: Float[np.ndarray, "segments 3 height width"]
    label: np.ndarray


def prepare(corpus: Corpus, text_encoder: str, image_encoder: str, max_tokens: int) -> dict[str, Inputs]:
    """Tokenize every text and decode every image once, as the two encoders want them.

    Raises:
        msakit.data.media.MediaError: an image cannot be read; the file is named.
    """
    from transformers import AutoImageProcessor, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(text_encoder)
    # torchvision, which the default backend wants, does not go with this torch.
    processor = AutoImageProcessor.from_pretrained(image_encoder, backend="pil")
    ready = {}
    for split in SPLITS:
        rows = corpus.splits[split]
        images = [read_image(path) for path in rows["image"]]
        ready[split] = Inputs(
            tokenizer(list(rows["text"]), truncation=True, max_length=max_tokens)["input_ids"],
            processor(images, return_tensors="np")["pixel_values"].astype(np.float32),
            np.asarray(rows["label"]),
        )
    return ready


def run(
    corpus: Corpus,
    text_encoder: str,
    image_encoder: str,
    settings: Settings,
    arms: Sequence[str],
    seeds: Sequence[int],
    root: Path | str,
) -> Runs:
    """Train the named arms (see ``toledo2022.yaml``) with every seed, skipping what is recorded under ``root``."""
    known = facts(PAPER)["arms"]
    unknown = [arm for arm in arms if arm not in known]
    if unknown:
        raise ValueError(f"no arm {unknown[0]!r}: choose from {', '.join(known)}")
    inputs = prepare(corpus, text_encoder, image_encoder, settings.max_tokens)
    encoders = {"text": text_encoder, "image": image_encoder}
    frozen: dict[str, dict[str, np.ndarray]] = {}
    jobs = reference_jobs(corpus)
    for arm in arms:
        choice = {key: known[arm][key] for key in ("modalities", "frozen")}
        config = {**encoders, **choice, "attention_over": "modalities"}
        for seed in seeds:
            work = partial(train, corpus, inputs, encoders, settings, choice, seed, frozen)
            jobs.append(Job(arm, seed, config, work))
    return run_jobs(
        jobs,
        paper=PAPER,
        corpus=corpus,
        settings=asdict(settings),
        code=fingerprint("papers/toledo2022.py"),
        root=Path(root),
    )


def train(
    corpus: Corpus,
    inputs: Mapping[str, Inputs],
    encoders: Mapping[str, str],
    settings: Settings,
    choice: Mapping[str, Any],
    seed: int,
    frozen: dict[str, dict[str, np.ndarray]],
) -> Outcome:
    """One run: stop on validation loss, predict valid and test.

    Args:
        choice: ``modalities`` and ``frozen`` of the arm.
        frozen: vectors of the frozen encoders by split; filled on first use, then shared by all seeds.
    """
    generator = set_seed(seed)
    model = JointFusion.from_encoders(**encoders, n_classes=len(corpus.task.classes), **choice)
    if choice["frozen"] and not frozen:
        frozen |= {split: _vectors(model, inputs[split]) for split in SPLITS}

    def batches(split: str) -> TextBatches | TensorBatches:
        training = split == "train"
        size, order = (settings.batch_size, generator) if training else (128, None)
        if choice["frozen"]:
            return TensorBatches(frozen[split], inputs[split].label, size, generator=order)
        return _raw_batches(inputs[split], size, order)

    rate, epochs = settings.learning_rate, settings.epochs
    if choice["frozen"]:
        rate, epochs = settings.frozen_learning_rate or rate, settings.frozen_epochs or epochs
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=settings.weight_decay)
    result = fit(
        model,
        batches("train"),
        batches("valid"),
        loss=classification,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.ExponentialLR(optimizer, settings.decay_per_epoch),
        epochs=epochs,
        patience=round(settings.patience * epochs / settings.epochs),
        progress=False,
    )
    tables = [
        prediction_table(corpus, split, softmax(predict(model, batches(split))["prediction"], axis=1))
        for split in ("valid", "test")
    ]
    return Outcome(result, "cross_entropy", tables)


def _raw_batches(inputs: Inputs, size: int, generator: torch.Generator | None) -> TextBatches:
    # Pixels ride along as rows; texts of similar length go together, so that little is padded.
    pixels = {"pixel_values": inputs.pixel_values}
    return TextBatches(inputs.token_ids, inputs.label, size, dense=pixels, bucket=True, generator=generator)


def _vectors(model: JointFusion, inputs: Inputs) -> dict[str, np.ndarray]:
    """What the frozen encoders give, by the name that the model's batches know it under."""
    names = [f"{modality}_features" for modality in model.modalities]
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    rows = []
    model.eval()
    with torch.inference_mode():
        for batch in _raw_batches(inputs, 128, None):
            rows.append(batch["index"].numpy())
            for name, value in model.forward_features(batch).items():
                found[name].append(value.numpy())
    order = np.argsort(np.concatenate(rows))
    return {name: np.concatenate(values)[order] for name, values in found.items()}
