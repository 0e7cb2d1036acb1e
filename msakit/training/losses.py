"""Losses as plain functions loss(outputs, batch) -> scalar, the form that the training loop takes.

The contrastive loss is the symmetric InfoNCE of CLIP on in-batch negatives; with several processes, on those of all of
them.  Label smoothing acts on its targets, (1 - eps) I + eps / N: the right partner keeps most of the mass, the rest is
spread over the whole batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F

from msakit.suggestions import did_you_mean

Loss = Callable[[dict[str, Tensor], dict[str, Any]], Tensor]


def l1(outputs: dict[str, Tensor], batch: dict[str, Any]) -> Float[Tensor, ""]:
    """Mean absolute error, in units of the label."""
    return F.l1_loss(outputs["prediction"], batch["label"].to(outputs["prediction"].dtype))


def mse(outputs: dict[str, Tensor], batch: dict[str, Any]) -> Float[Tensor, ""]:
    """Mean squared error, in squared units of the label."""
    return F.mse_loss(outputs["prediction"], batch["label"].to(outputs["prediction"].dtype))


def cross_entropy(outputs: dict[str, Tensor], batch: dict[str, Any]) -> Float[Tensor, ""]:
    """Of logits "batch classes", in nats; with one logit, its binary form for labels 0 and 1."""
    logits, label = outputs["prediction"], batch["label"]
    if logits.shape[-1] == 1:
        return F.binary_cross_entropy_with_logits(logits.squeeze(-1), label.to(logits.dtype))
    return F.cross_entropy(logits, label.long())


def gathered(rows: Float[Tensor, "batch dim"]) -> tuple[Float[Tensor, "all dim"], int]:
    """The rows of all processes, in the order of their ranks, and where the own ones begin; gradients flow back to
    the process that each row came from.  Without a process group the rows themselves, and 0."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return rows, 0
    sizes = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    counts = [int(size) for size in sizes]
    # Processes may hold batches of different size (the last of an epoch): gathering wants them equal.
    parts = all_gather(F.pad(rows, (0, 0, 0, max(counts) - len(rows))))
    everything = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
    return everything, sum(counts[: distributed.get_rank()])


def info_nce(
    first: Float[Tensor, "batch dim"],
    second: Float[Tensor, "batch dim"],
    temperature: float = 0.07,
    smoothing: float = 0.0,
    keys: tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]] | None = None,
    counts: bool = True,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of L2-normalised embeddings whose rows belong together; in nats, log(batch) at chance.

    keys: the same two embeddings from a momentum encoder; each query is then compared with those of the other side.
    With several processes each compares its rows with those of all; the mean over processes, weighted by their rows
    as the training loop weights them, is then the loss of the joint batch.  counts: False for a process that was left
    without a batch and takes part in the gathering alone: its rows are nobody's negatives, and its loss is 0.
    """
    first_keys, second_keys = keys or (first, second)
    all_seconds, start = gathered(second_keys if counts else second_keys[:0])
    all_firsts, _ = gathered(first_keys if counts else first_keys[:0])
    if not counts:
        # Still a function of what was gathered, because all processes take part in its gradient.
        return 0 * (first.sum() + second.sum() + all_firsts.sum() + all_seconds.sum())
    target = start + torch.arange(len(first), device=first.device)
    # torch smooths exactly as wanted: (1 - eps) on the target plus eps / N everywhere.
    return (
        F.cross_entropy(first @ all_seconds.T / temperature, target, label_smoothing=smoothing)
        + F.cross_entropy(second @ all_firsts.T / temperature, target, label_smoothing=smoothing)
    ) / 2


def with_contrast(
    base: Loss,
    weight: float,
    pairs: Sequence[tuple[str, str]],
    temperature: float = 0.07,
    smoothing: float = 0.0,
) -> Loss:
    """base + weight * the sum of InfoNCE over pairs of the model's embeddings; weight 0 leaves the base alone.

    So does validation, known by having no gradient: the contrastive loss has no part in choosing the epoch.
    Where the loop says that a batch does not count ("counts"), its rows are left out of what others are compared with.
    Where it adds a momentum encoder's embeddings ("teacher_text", …; `loop.Averaging`), they are the keys.
    """

    def loss(outputs: dict[str, Tensor], batch: dict[str, Any]) -> Tensor:
        total = base(outputs, batch)
        for first, second in pairs if weight and torch.is_grad_enabled() else ():
            names = f"teacher_{first}", f"teacher_{second}"
            keys = (outputs[names[0]], outputs[names[1]]) if names[0] in outputs else None
            pair = outputs[first], outputs[second]
            total = total + weight * info_nce(*pair, temperature, smoothing, keys, batch.get("counts", True))
        return total

    return loss


LOSSES: dict[str, Loss] = {"l1": l1, "mse": mse, "cross_entropy": cross_entropy}


def loss_named(name: str, n_classes: int | None) -> Loss:
    """A loss of LOSSES for this task; n_classes: None for regression.

    Raises ValueError for an unknown name, or for a loss of the other kind of task.
    """
    fitting = [each for each in LOSSES if (each == "cross_entropy") == (n_classes is not None)]
    if name not in fitting:
        task = "regression" if n_classes is None else f"{n_classes} classes"
        raise ValueError(f"no loss {name!r} for {task}: choose from {', '.join(fitting)}.{did_you_mean(name, fitting)}")
    return LOSSES[name]
