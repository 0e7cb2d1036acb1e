"""Learning-rate schedules of the papers, as torch schedulers.

Ando et al. step once an epoch: a linear warm-up from 1e-5 to 1e-4 over 10 epochs, then a cosine towards 1e-5 that is
50 epochs long and so is cut after 40 of the 50 epochs in all, at about 1.9e-5.  Kim & Kim (reconstructed) inherit the
linear warm-up and decay of transformers, stepped once a batch.
"""

import math
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import get_linear_schedule_with_warmup


@dataclass(frozen=True)
class PerBatch:
    """A schedule that is stepped with the optimizer; a scheduler by itself is stepped once an epoch."""

    scheduler: LRScheduler


def warmup_cosine(optimizer: Optimizer, warmup: int = 10, cosine: int = 50, floor: float = 0.1) -> LambdaLR:
    """Per epoch: floor*lr -> lr linearly over `warmup` epochs, then half a cosine of `cosine` epochs down to floor*lr.

    The defaults with an optimizer at lr 1e-4 are the published schedule.  `floor` is a fraction of lr.
    """

    def factor(epoch: int) -> float:
        if epoch < warmup:
            return floor + (1 - floor) * epoch / warmup
        progress = min((epoch - warmup) / cosine, 1.0)
        return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


def linear_warmup_decay(optimizer: Optimizer, steps: int, warmup: float = 0.1) -> PerBatch:
    """Per batch: 0 -> lr over the first `warmup` fraction of `steps`, then linearly to 0 at the last step."""
    return PerBatch(get_linear_schedule_with_warmup(optimizer, round(warmup * steps), steps))
