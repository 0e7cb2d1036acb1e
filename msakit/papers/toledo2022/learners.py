"""What each trained arm is: its model on pre-trained encoders, its batches, and how long and how fast it learns.

Only the first four are the paper's; it names CLIP and VisualBERT as rivals without their code or numbers, so theirs are
this kit's, under the same optimiser, schedule and stopping.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import nn

from msakit.models.clip import ClipClassifier
from msakit.models.joint import JointFusion
from msakit.models.visualbert import VisualBertClassifier
from msakit.papers.toledo2022.inputs import Inputs
from msakit.papers.toledo2022.protocol import Protocol
from msakit.training.batching import TensorBatches, TextBatches

Rows = Int[np.ndarray, " rows"]
Labels = Int[np.ndarray, " segments"]


@dataclass(frozen=True)
class Settings:
    """Training of one profile; the defaults are the authors'."""

    epochs: int = 30  # at most
    patience: int = 2  # epochs without a lower validation loss
    learning_rate: float = 3e-5
    # The rivals' own rates.
    clip_learning_rate: float | None = None  # None: the same
    visualbert_learning_rate: float | None = None  # None: the same
    # Under frozen encoders only the head learns, and an epoch costs next to nothing: it may take more and larger steps.
    frozen_learning_rate: float | None = None  # None: the same
    probe_learning_rate: float | None = None  # of the linear probe; None: as frozen
    frozen_epochs: int | None = None  # None: the same; patience grows in proportion
    decay_per_epoch: float = 0.9  # factor on the learning rate
    weight_decay: float = 0.01
    batch_size: int = 32
    max_tokens: int = 512  # fewer where an encoder has fewer positions
    # An epoch passes over a small subset as often as it takes for so many batches.
    least_batches: int = 1
    precision: str = "no"  # or bf16, fp16: mixed precision of training

    def __post_init__(self) -> None:
        if min(self.epochs, self.patience, self.batch_size, self.least_batches) < 1:
            raise ValueError(f"epochs, patience, batch_size and least_batches must be at least 1: {self}")
        if self.precision not in ("no", "bf16", "fp16"):
            raise ValueError(f"precision is {self.precision!r}; choose no, bf16 or fp16")


@dataclass(frozen=True)
class Learner:
    """A model ready to be trained. batches(rows, batch_size=…, generator=…, drop_last=…) serves rows of the corpus."""

    model: nn.Module
    batches: Callable[..., TextBatches | TensorBatches]
    rate: float
    epochs: int
    patience: int


def build(
    arm: Mapping[str, Any], inputs: Inputs, label: Labels, classes: int, protocol: Protocol, settings: Settings
) -> Learner:
    """The learner of an arm of ``toledo2022.yaml``, which says its `family` and options.

    label: class of every segment of the inputs. Call `set_seed` before: the model's new layers are drawn here.
    """
    head = {"n_classes": classes, "single_logit": classes == 2}
    rate, epochs = settings.learning_rate, settings.epochs
    still = arm.get("frozen", False)
    if still:
        rate, epochs = settings.frozen_learning_rate or rate, settings.frozen_epochs or epochs
    serve: Callable[..., TextBatches | TensorBatches]
    model: nn.Module
    if arm["family"] == "joint":
        part = arm["modalities"]
        model = joint = JointFusion.from_encoders(
            inputs.encoders.text,
            inputs.encoders.image,
            modalities=part,
            frozen=still,
            attention_over=protocol.attention,
            **head,
        )
        if still:
            serve = partial(_dense, inputs.frozen("joint", joint))
        elif part == "image":
            serve = partial(_dense, {"pixel_values": inputs.pixels})
        else:
            pixels = {"pixel_values": inputs.pixels} if part == "both" else {}
            serve = partial(_texts, inputs.tokens, pixels)
    elif arm["family"] == "clip":
        model = clip = ClipClassifier.from_encoder(inputs.encoders.clip, frozen=still, **head)
        rate = (settings.probe_learning_rate or rate) if still else settings.clip_learning_rate or rate
        if still:
            serve = partial(_dense, inputs.frozen("clip", clip))
        else:
            serve = partial(_texts, inputs.clip_tokens, {"pixel_values": inputs.clip_pixels})
    elif arm["family"] == "visualbert":
        cells = inputs.cells
        model = VisualBertClassifier.from_encoder(inputs.encoders.visualbert, cells.shape[-1], **head)
        rate = settings.visualbert_learning_rate or rate
        serve = partial(_texts, inputs.visualbert_tokens, {"visual_embeds": cells})
    else:
        raise ValueError(f"no family {arm['family']!r}: choose from joint, clip, visualbert")
    patience = max(1, round(settings.patience * epochs / settings.epochs))
    return Learner(model, lambda rows, **options: serve(label, rows, **options), rate, epochs, patience)


def _texts(tokens: Any, dense: Mapping[str, np.ndarray], label: Labels, rows: Rows, **options: Any) -> TextBatches:
    return tokens.batches(rows, {name: values[rows] for name, values in dense.items()}, label=label[rows], **options)


def _dense(arrays: Mapping[str, np.ndarray], label: Labels, rows: Rows, **options: Any) -> TensorBatches:
    return TensorBatches({name: values[rows] for name, values in arrays.items()}, label[rows], **options)


class Repeated:
    """Batches of a small subset, passed over several times an epoch."""

    def __init__(self, batches: TextBatches | TensorBatches, times: int) -> None:
        self.batches, self.times = batches, times

    def __len__(self) -> int:
        return self.times * len(self.batches)

    def __iter__(self) -> Any:
        for _ in range(self.times):
            yield from self.batches

    def state_dict(self) -> dict[str, Any]:
        """What decides the order of the epochs to come."""
        return self.batches.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.batches.load_state_dict(state)


def optimizer(learner: Learner, settings: Settings) -> torch.optim.Optimizer:
    """AdamW over what is trained."""
    trained = [parameter for parameter in learner.model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=learner.rate, weight_decay=settings.weight_decay, fused=True)
