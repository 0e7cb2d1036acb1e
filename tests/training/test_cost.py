from functools import partial

import numpy as np
import torch
from torch import nn

from msakit.training import cost
from msakit.training.batching import TensorBatches
from msakit.training.losses import mse

ADAM = partial(torch.optim.AdamW, lr=0.1)


class Two(nn.Module):
    """7 -> 11 -> 1, the first layer with or without training."""

    def __init__(self, frozen=False):
        super().__init__()
        self.first, self.norm, self.last = (
            nn.Linear(7, 11).requires_grad_(not frozen),
            nn.BatchNorm1d(11),
            nn.Linear(11, 1),
        )

    def forward(self, batch):
        return {"prediction": self.last(self.norm(self.first(batch["x"])).relu()).squeeze(-1)}


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(4, 4, bias=False)

    def forward(self, batch):
        x = self.project(batch["x"])
        mixed = nn.functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])
        return {"prediction": mixed.sum((1, 2, 3))}


def batch(rows=5, *shape):
    return {"x": torch.randn(rows, *(shape or (7,))), "label": torch.randn(rows)}


def batches(rows, width=7, size=None):
    return TensorBatches({"x": np.ones((rows, width), np.float32)}, np.zeros(rows), size or rows)


def test_operations_of_linear_layers_by_hand():
    # A linear layer: 2 in out forward, the same for the gradient of its weights, and of its input where one is needed.
    first, last = 2 * 7 * 11, 2 * 11
    assert cost.flops_per_sample(Two(), batch(), mse) == first * 2 + last * 3
    # The norm above the frozen layer is trained, so the last layer still needs its input's gradient.
    assert cost.flops_per_sample(Two(frozen=True), batch(), mse) == first + last * 3
    assert cost.flops_per_sample(Two().requires_grad_(False), batch(3), mse) == first + last


def test_attention_is_counted_by_hand():
    # Three tokens of 4: two products of 2 * 3 * 3 * 4 forward, and twice that backward; the layer's weights 2 * 3 * 16.
    assert cost.flops_per_sample(Attends(), batch(5, 3, 4), mse) == 3 * 2 * (2 * 9 * 4) + 2 * (2 * 3 * 16)


def test_memory_by_hand():
    # One weight matrix, its gradient and Adam's two moments: 4 x 4 bytes a number, and activations of few rows.
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1000, 1000, bias=False)

        def forward(self, batch):
            return {"prediction": self.layer(batch["x"]).sum(-1)}

    _, peak = cost.epoch(One(), batches(2, 1000), loss=mse, optimizer=partial(ADAM, foreach=False))
    # AdamW needs up to two temporary results of the weights' size in its step.
    assert 16e6 <= peak * 2**20 <= 24.5e6


def test_the_largest_batch_decides_about_memory():
    found = [cost.epoch(Two(), each, loss=mse, optimizer=ADAM)[1] for each in (batches(2), batches(20002, size=20000))]
    assert found[1] > 3 * 20000 * 11 * 4 / 2**20 > found[0]


def test_an_epoch_is_timed_and_leaves_no_trace():
    model, generator = Two(), torch.Generator().manual_seed(0)
    shuffled = TensorBatches({"x": np.ones((12, 7), np.float32)}, np.zeros(12), 4, generator=generator)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    seconds, _ = cost.epoch(model, shuffled, loss=mse, optimizer=ADAM)
    cost.flops_per_sample(model, next(iter(batches(4))), mse)
    assert 0 < seconds < 60
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
