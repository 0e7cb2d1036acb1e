import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from msakit.training import losses
from msakit.training.loop import Averaging, fit, predict, set_seed, steps_of_epoch
from msakit.training.schedules import PerBatch


class Line(nn.Module):
    """prediction = weight * x: small enough to train by hand."""

    def __init__(self, weight=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.frozen = nn.Parameter(torch.tensor(7.0), requires_grad=False)

    def forward(self, batch):
        return {"prediction": self.weight * batch["x"]}


def rows(x, y, index=None):
    batch = {"x": torch.tensor(x), "label": torch.tensor(y)}
    return batch if index is None else batch | {"index": torch.tensor(index)}


def train(model, valid=None, lr=0.25, batches=None, **settings):
    settings = {"loss": losses.mse, "epochs": 4} | settings
    return fit(
        model,
        batches or [rows([1.0, 1.0], [2.0, 2.0])],
        valid or [rows([1.0], [2.0])],
        optimizer=torch.optim.SGD([model.weight], lr),
        **settings,
    )


def test_steps_by_hand():
    # d/dw (w - 2)^2 = 2 (w - 2); with lr 1/4 the distance to 2 halves at each step.
    model = Line()
    found = train(model)
    assert model.weight.item() == pytest.approx(2 - 2 / 16)
    assert [row["train_loss"] for row in found.history] == pytest.approx([4, 1, 1 / 4, 1 / 16])
    assert [row["valid_loss"] for row in found.history] == pytest.approx([1, 1 / 4, 1 / 16, 1 / 64])
    assert found.best_epoch == 4
    assert found.best is found.history[3]
    assert not model.training


def test_the_best_epoch_is_restored_and_patience_stops():
    # Validation wants w = 1, training w = 2: after epoch 1 (w = 1) every step is for the worse.
    model = Line()
    found = train(model, valid=[rows([1.0], [1.0])], epochs=9, patience=2)
    assert found.best_epoch == 1
    assert len(found.history) == 3
    assert model.weight.item() == pytest.approx(1)


@pytest.mark.parametrize(("ties", "best"), [("first", 1), ("last", 3)])
def test_ties(ties, best):
    found = train(Line(2.0), epochs=3, ties=ties)
    assert found.best_epoch == best


def test_validation_is_a_mean_over_samples():
    # After one step w = 1; the errors are 1, 1 in the first batch and 4 in the last, short one.
    found = train(Line(), valid=[rows([1.0, 1.0], [2.0, 2.0]), rows([1.0], [5.0])], epochs=1)
    assert found.history[0]["valid_loss"] == pytest.approx((1 + 1 + 16) / 3)


def test_weight_average_by_hand():
    # Weights after the steps: 1, 1.5, 1.75; the average starts at the first: .5 * 1 + .5 * 1.5 = 1.25, then 1.5.
    model, weights = Line(), []

    def on_epoch(evaluated, epoch):
        weights.append(evaluated.weight.item())
        return {"e": epoch}

    found = train(model, epochs=3, averaging=Averaging(0.5), on_epoch=on_epoch)
    assert weights == pytest.approx([1, 1.25, 1.5])
    assert [row["valid_loss"] for row in found.history] == pytest.approx([1, 0.75**2, 0.25])
    assert model.weight.item() == pytest.approx(1.5)
    assert found.history[2]["e"] == 3


def test_a_teacher_gives_its_outputs_and_nothing_else():
    # The average lags: 0 (its start), then 1 and 1.25 after the first two steps; the model itself is evaluated.
    given = []

    def loss(outputs, batch):
        if "teacher_prediction" in outputs:
            assert not outputs["teacher_prediction"].requires_grad
            given.append(outputs["teacher_prediction"][0].item())
        return losses.mse(outputs, batch)

    model = Line()
    found = train(model, epochs=3, averaging=Averaging(0.5, "teacher"), loss=loss)
    assert given == pytest.approx([0, 1, 1.25])
    assert [row["valid_loss"] for row in found.history] == pytest.approx([1, 1 / 4, 1 / 16])
    assert model.weight.item() == pytest.approx(1.75)


@pytest.mark.parametrize(("by_batch", "moved"), [(False, 1 + 1 + 0.5 + 0.5), (True, 1 + 0.5 + 0.25 + 0.125)])
def test_schedules_by_hand(by_batch, moved):
    def loss(outputs, batch):  # a gradient of 1 wherever the weight is
        return -outputs["prediction"].sum()

    model = Line()
    optimizer = torch.optim.SGD([model.weight], 1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    batches = [rows([1.0], [0.0])] * 2
    given = PerBatch(scheduler) if by_batch else scheduler
    found = fit(model, batches, batches, loss=loss, optimizer=optimizer, scheduler=given, epochs=2)
    assert model.weight.item() == pytest.approx(moved)
    assert [row["lr"] for row in found.history] == [1, 0.25 if by_batch else 0.5]


@pytest.mark.parametrize(("batches", "accumulated", "steps"), [(7, 1, 7), (7, 2, 4), (8, 2, 4), (1, 4, 1)])
def test_steps_of_an_epoch_count_what_is_accumulated(batches, accumulated, steps):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulated)
    assert steps_of_epoch(range(batches), accelerator) == steps


def test_training_and_validation_run_in_their_modes():
    modes = []

    class Watch(Line):
        def forward(self, batch):
            modes.append(self.training)
            return super().forward(batch)

    model = Watch()
    train(model, epochs=2)
    assert modes == [True, False] * 2
    modes.clear()
    train(model.train(), epochs=2, averaging=Averaging(0.5, "teacher"))
    assert modes == [True, False, False] * 2  # the model, its teacher, validation


def test_half_precision_reaches_the_loss_as_single():
    dtypes = set()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, batch):
            return {"prediction": self.layer(batch["x"]).squeeze(-1)}

    def loss(outputs, batch):
        dtypes.update(value.dtype for value in outputs.values())
        return losses.mse(outputs, batch)

    batches = [rows([[1.0, 2.0], [3.0, 4.0]], [1.0, 2.0])]
    AcceleratorState._reset_state(True)
    try:
        for averaging in (None, Averaging(0.5), Averaging(0.5, "teacher")):
            model = Net()
            fit(
                model,
                batches,
                batches,
                loss=loss,
                optimizer=torch.optim.SGD(model.parameters(), 0.01),
                epochs=1,
                accelerator=Accelerator(mixed_precision="bf16"),
                averaging=averaging,
            )
            assert predict(model, batches)["prediction"].dtype == np.float32
    finally:
        AcceleratorState._reset_state(True)
    assert dtypes == {torch.float32}


def test_a_model_that_is_fitted_again_is_again_in_half_precision():
    dtypes = []

    class Net(Line):
        def forward(self, batch):
            dtypes.append(nn.functional.linear(batch["x"][:, None], self.weight[None]).dtype)
            return super().forward(batch)

    model, batches = Net(), [rows([1.0, 2.0], [1.0, 2.0])]
    AcceleratorState._reset_state(True)
    try:
        for _ in range(2):
            optimizer = torch.optim.SGD(model.parameters(), 0.01)
            accelerator = Accelerator(cpu=True, mixed_precision="bf16")
            fit(model, batches, batches, loss=losses.mse, optimizer=optimizer, epochs=1, accelerator=accelerator)
    finally:
        AcceleratorState._reset_state(True)
    assert set(dtypes) == {torch.bfloat16}


def test_predict_restores_the_order_and_the_mode():
    model = Line(2.0).train()
    found = predict(model, [rows([3.0, 1.0], [0.3, 0.1], [3, 1]), rows([2.0, 0.0], [0.2, 0.0], [2, 0])])
    assert found["prediction"].tolist() == [0, 2, 4, 6]
    assert np.allclose(found["label"], [0, 0.1, 0.2, 0.3])
    assert model.training


def test_the_same_seed_repeats_and_seeds_everything():
    def draw(seed):
        source = set_seed(seed)
        return torch.rand(3, generator=source).tolist(), torch.rand(3).tolist(), np.random.rand(3).tolist()

    assert draw(5) == draw(5)
    assert draw(5)[0] != draw(6)[0]


def test_mistakes_are_refused():
    with pytest.raises(FloatingPointError, match="epoch 1"):
        train(Line(), batches=[rows([float("nan")], [1.0])])
    with pytest.raises(ValueError, match="no training batch"):
        train(Line(), batches=iter([]))
    with pytest.raises(ValueError, match="no validation batch"):
        train(Line(), valid=iter([]))
