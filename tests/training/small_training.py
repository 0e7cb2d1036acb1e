"""A small training run as a program of its own: tests kill it, and start it in several processes.

    python small_training.py '[{"out": FILE, …}, …]'

calls `run` with each of these settings, which writes (torch.save) the history, the best epoch, the weights and the
test predictions.  Every epoch is checkpointed where a stem is given.
"""

import json
import os
import signal
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from msakit.training import loop, losses
from msakit.training.batching import TextBatches
from msakit.training.checkpoint import resumable
from msakit.training.loop import Averaging, fit, predict, set_seed, steps_of_epoch
from msakit.training.schedules import linear_warmup_decay

ROWS, DIM = 42, 6


class Net(nn.Module):
    """Frozen embedding, layers with running statistics and dropout, and noise from numpy's generator."""

    def __init__(self, noise: float):
        super().__init__()
        self.noise = noise
        self.embed = nn.Embedding(20, DIM).requires_grad_(False)
        norm = nn.BatchNorm1d(DIM) if noise else nn.Identity()
        # A bias before the norm would have no gradient but rounding, which Adam would blow up.
        first = nn.Linear(2 * DIM, DIM, bias=not noise)
        self.layers = nn.Sequential(first, norm, nn.ReLU(), nn.Dropout(noise), nn.Linear(DIM, 1))

    def forward(self, batch):
        words = self.embed(batch["input_ids"]) * batch["attention_mask"][..., None]
        x = torch.cat([words.sum(1), batch["x"]], -1)
        if self.training and self.noise:
            x = x * (1 + self.noise * np.random.rand())
        sides = {"text": words.sum(1), "audio": self.layers[0](x)}
        sides = {name: nn.functional.normalize(value, dim=-1) for name, value in sides.items()}
        return {"prediction": self.layers(x).squeeze(-1)} | sides


def make_batches(rows: slice, size: int, generator=None) -> TextBatches:
    draw = np.random.default_rng(1)
    ids = [draw.integers(1, 20, n).tolist() for n in draw.integers(1, 9, ROWS)]
    x = draw.standard_normal((ROWS, DIM), dtype=np.float32)
    label = x @ draw.standard_normal(DIM) + np.array([len(i) for i in ids]) / 4
    return TextBatches(ids[rows], label[rows], size, dense={"x": x[rows]}, generator=generator)


class Stop(Exception):
    pass


def run(
    *,
    out: Path | None = None,
    stem: Path | None = None,
    die_at: int | None = None,  # number of the training loss at which to be killed, from 1
    stop_in: int | None = None,  # epoch that fails, before its checkpoint is written
    role: str | None = None,  # of the averaged weights
    noise: float = 0.0,
    batch: int = 6,
    accumulate: int = 1,
    epochs: int = 5,
    contrast: float = 0.0,
) -> dict[str, Any]:
    calls = 0
    with_contrast = losses.with_contrast(losses.mse, contrast, [("text", "audio")], smoothing=0.1)

    def loss(outputs, batch):
        nonlocal calls
        calls += torch.is_grad_enabled()
        if calls == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        value = with_contrast(outputs, batch)
        if "teacher_prediction" in outputs:
            value = value + nn.functional.mse_loss(outputs["prediction"], outputs["teacher_prediction"])
        return value

    def on_epoch(_, epoch):
        if epoch == stop_in:
            raise Stop
        return {}

    generator = set_seed(3)
    model = Net(noise)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.05)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    train_batches = make_batches(slice(0, 28), batch, generator)
    loop.SECONDS_BETWEEN = 0.0
    with resumable(Path(stem)) if stem else nullcontext():
        found = fit(
            model,
            train_batches,
            make_batches(slice(28, 35), 4),
            loss=loss,
            optimizer=optimizer,
            scheduler=linear_warmup_decay(optimizer, 10 * steps_of_epoch(train_batches, accelerator)),
            epochs=epochs,
            averaging=Averaging(0.8, role) if role else None,
            patience=3,
            on_epoch=on_epoch,
            accelerator=accelerator,
        )
    test = predict(model, make_batches(slice(35, ROWS), 4))["prediction"]
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in found.history]
    result = {"history": rows, "best_epoch": found.best_epoch, "weights": model.state_dict(), "losses": calls}
    result |= {"test": torch.from_numpy(test)}
    if out is not None and accelerator.is_main_process:
        torch.save(result, out)
    return result


if __name__ == "__main__":
    for settings in json.loads(sys.argv[1]):
        with suppress(Stop):
            run(**settings)
