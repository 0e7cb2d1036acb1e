from functools import partial

import pytest
import torch
from torch import nn

from msakit.training import cost
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


def test_frozen_weights_are_not_trainable():
    assert cost.parameters(Two()) == cost.Parameters(7 * 11 + 11 + 22 + 12, 122)
    assert cost.parameters(Two(frozen=True)) == cost.Parameters(122 - 88, 122)
    tied = Two()
    tied.again = tied.first
    assert cost.parameters(tied).total == 122


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

    found = cost.epoch(One(), [batch(2, 1000)], loss=mse, optimizer=partial(ADAM, foreach=False))
    # AdamW needs up to two temporary results of the weights' size in its step.
    assert 16e6 <= found.peak_memory_mb * 2**20 <= 24.5e6
    frozen = cost.epoch(One().requires_grad_(False), [batch(2, 1000)], loss=mse, optimizer=ADAM)
    assert 4e6 <= frozen.peak_memory_mb * 2**20 <= 4.1e6


def test_the_largest_batch_decides_about_memory():
    small, large = batch(2, 7), batch(20000, 7)
    found = [
        cost.epoch(Two(), batches, loss=mse, optimizer=ADAM).peak_memory_mb
        for batches in ([small], [small, large], [large, small])
    ]
    assert found[1] == found[2] > 3 * 20000 * 11 * 4 / 2**20 > found[0]


def test_an_epoch_is_timed_and_leaves_no_trace():
    class Batches:
        def __init__(self):
            self.generator = torch.Generator().manual_seed(0)

        def __iter__(self):
            for _ in range(3):
                yield {"x": torch.randn(4, 7, generator=self.generator), "label": torch.zeros(4)}

        def state_dict(self):
            return {"generator": self.generator.get_state()}

        def load_state_dict(self, state):
            self.generator.set_state(state["generator"])

    model, batches = Two(), Batches()
    before = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    found = cost.epoch(model, batches, loss=mse, optimizer=ADAM, repeats=3)
    cost.flops_per_sample(model, next(iter(Batches())), mse)
    assert found.samples == 12
    assert 0 < found.seconds < 60
    assert torch.equal(torch.get_rng_state(), before[1])
    assert all(torch.equal(value, before[0][name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(batches.generator.get_state(), torch.Generator().manual_seed(0).get_state())


def test_no_batch_is_told():
    with pytest.raises(ValueError, match="no training batch"):
        cost.epoch(Two(), [], loss=mse, optimizer=ADAM)
