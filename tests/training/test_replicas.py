"""Stacked training of all layers and seeds against runs of their own, through the ordinary loop."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from msakit.models.gated import GatedFusion
from msakit.models.layers.dropout import Dropout
from msakit.training.batching import FeatureBatches
from msakit.training.loop import fit, set_seed
from msakit.training.losses import cross_entropy, l1
from msakit.training.replicas import fit_replicas, start_seed
from msakit.training.schedules import warmup_cosine
from msakit.training.spec_augment import SpecAugment

LAYERS, DIM, SEEDS, EPOCHS = 3, 64, (0, 7), 6


def features(rows, seed):
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 9, rows)
    return random.standard_normal((LAYERS, int(lengths.sum()), DIM)).astype(np.float16), lengths


TRAIN, VALID = features(23, 1), features(10, 2)


def labels(frames, lengths):
    """To be found in the first layer alone."""
    ends = lengths.cumsum()
    return np.array([frames[0, end - n : end, :8].sum() / 4 for end, n in zip(ends, lengths, strict=True)])


LABELS = {"train": labels(*TRAIN), "valid": labels(*VALID)}


def build():
    return GatedFusion({"audio": DIM}, width=8, embedding=6, heads=2)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=4e-3)


def alone(layer, seed, build=build):
    """A run of its own, as the recipe trains it."""
    generator = set_seed(seed)
    model = build()
    train, valid = (({"audio": (frames[layer], lengths)}) for frames, lengths in (TRAIN, VALID))
    batches = FeatureBatches(train, LABELS["train"], 4, generator=generator, drop_last=True, augment=SpecAugment())
    optimizer = adam(model.parameters())
    done = fit(
        model,
        batches,
        FeatureBatches(valid, LABELS["valid"], 4),
        loss=l1,
        optimizer=optimizer,
        scheduler=warmup_cosine(optimizer, 2, 4),
        epochs=EPOCHS,
        ties="last",
    )
    return model, done


def together(which=SEEDS, build=build, **change):
    started = [start_seed(seed, LAYERS, build) for seed in which]
    augment = SpecAugment(layers_apart=False)
    train = [
        FeatureBatches({"audio": TRAIN}, LABELS["train"], 4, generator=s.order, drop_last=True, augment=augment)
        for s in started
    ]
    given = {
        "seeds": started,
        "train": train,
        "valid": FeatureBatches({"audio": VALID}, LABELS["valid"], 4),
        "loss": l1,
        "optimizer": adam,
        "scheduler": partial(warmup_cosine, warmup=2, cosine=4),
        "epochs": EPOCHS,
        "ties": "last",
    } | change
    return given["seeds"], fit_replicas(**given)


def test_each_replica_equals_its_own_run():
    started, fits = together()
    epochs = set()
    for s, seed in enumerate(SEEDS):
        for layer in range(LAYERS):
            model, done = alone(layer, seed)
            for name, value in model.state_dict().items():
                torch.testing.assert_close(
                    started[s].models[layer].state_dict()[name],
                    value,
                    rtol=1e-4,
                    atol=1e-5,
                    msg=f"{seed} {layer} {name}",
                )
            found = fits[s][layer]
            assert found.best_epoch == done.best_epoch
            epochs.add(done.best_epoch)
            for key in ("epoch", "train_loss", "valid_loss", "lr"):
                assert [row[key] for row in found.history] == pytest.approx(
                    [row[key] for row in done.history], rel=1e-4
                )
            assert found.best == found.history[found.best_epoch - 1]
            assert not started[s].models[layer].training
    assert len(epochs) > 1  # not all end at the same epoch: each keeps its own


def test_replicas_differ_by_layer_and_by_seed():
    started, _ = together()
    weights = [model.decoder.gates.weight for seed in started for model in seed.models]
    for k, first in enumerate(weights):
        assert not any(torch.allclose(first, other) for other in weights[k + 1 :])


def test_one_seed_is_not_moved_by_another():
    pair, single = together()[0][1], together(SEEDS[1:])[0][0]
    for a, b in zip(pair.models, single.models, strict=True):
        for name, value in a.state_dict().items():
            torch.testing.assert_close(value, b.state_dict()[name], rtol=1e-4, atol=1e-5)


class Mean(nn.Module):
    """A model of the contract with dropout elsewhere: on segments, then on frames, then none."""

    modalities = ("audio",)

    def __init__(self, part=None):
        super().__init__()
        self.project = nn.Linear(DIM, 5)
        self.drop = nn.ModuleList([Dropout(0.3), Dropout(0.4), Dropout(0.0), part or nn.Identity()])
        self.score, self.output = nn.Linear(1, 5), nn.Linear(5, 1)

    def forward(self, batch):
        frames, lengths, layout = batch["audio"]
        scale = self.score(self.drop[0](lengths[:, None].float() / 9))
        owner = layout.owner
        hidden = self.drop[1](self.project(frames).relu())
        slots = torch.zeros(len(lengths), layout.longest, 5, device=hidden.device).flatten(0, 1)
        slots = slots.index_copy(0, owner * layout.longest + layout.position, hidden)
        pooled = slots.view(len(lengths), layout.longest, 5).sum(1) * scale
        return {"prediction": self.output(self.drop[3](self.drop[2](pooled))).squeeze(-1)}


def test_any_model_of_one_modality_can_be_stacked():
    started, fits = together(build=Mean)
    for s, seed in enumerate(SEEDS):
        for layer in range(LAYERS):
            model, done = alone(layer, seed, Mean)
            for name, value in model.state_dict().items():
                torch.testing.assert_close(started[s].models[layer].state_dict()[name], value, rtol=1e-4, atol=1e-5)
            assert fits[s][layer].best_epoch == done.best_epoch


@pytest.mark.parametrize(
    ("part", "reason"),
    [(nn.Dropout(0.5), "torch's dropout drop.3"), (nn.BatchNorm1d(5), "running statistics")],
)
def test_what_cannot_be_stacked_says_why(part, reason):
    with pytest.raises(ValueError, match=rf"Mean cannot be stacked \(it has {reason}\): train its runs one by one"):
        together((0,), build=lambda: Mean(part))


@pytest.mark.gpu
def test_replicas_train_on_a_device():
    started = [start_seed(seed, LAYERS, build, "cuda") for seed in SEEDS]
    augment = partial(SpecAugment, layers_apart=False)
    train = [
        FeatureBatches({"audio": TRAIN}, LABELS["train"], 4, generator=s.order, drop_last=True, augment=augment())
        for s in started
    ]
    valid = FeatureBatches({"audio": VALID}, LABELS["valid"], 4)
    _, fits = together(seeds=started, train=train, valid=valid, device="cuda")
    assert all(np.isfinite(row["valid_loss"]) for seed in fits for done in seed for row in done.history)


def test_a_loss_that_is_not_finite_is_refused():
    broken = start_seed(0, LAYERS, build)
    torch.nn.init.constant_(broken.models[1].decoder.gates.bias, float("nan"))
    with pytest.raises(FloatingPointError, match="epoch 1"):
        together((0,), seeds=[broken])


def test_replicas_learn_classes_as_their_own_runs_do():
    classes = {split: np.digitize(label, [-0.3, 0.3]) for split, label in LABELS.items()}

    def build():
        return GatedFusion({"audio": DIM}, width=8, embedding=6, heads=2, n_classes=3)

    started = [start_seed(3, LAYERS, build)]
    batches = FeatureBatches({"audio": TRAIN}, classes["train"], 4, generator=started[0].order, drop_last=True)
    valid = FeatureBatches({"audio": VALID}, classes["valid"], 4)
    _, fits = together(seeds=started, train=[batches], valid=valid, loss=cross_entropy)
    for layer in range(LAYERS):
        generator = set_seed(3)
        model = build()
        optimizer = adam(model.parameters())
        own = FeatureBatches(
            {"audio": (TRAIN[0][layer], TRAIN[1])}, classes["train"], 4, generator=generator, drop_last=True
        )
        own_valid = FeatureBatches({"audio": (VALID[0][layer], VALID[1])}, classes["valid"], 4)
        scheduler = warmup_cosine(optimizer, 2, 4)
        done = fit(model, own, own_valid, loss=cross_entropy, optimizer=optimizer, scheduler=scheduler, epochs=EPOCHS,
                   ties="last")  # fmt: skip
        assert [row["valid_loss"] for row in fits[0][layer].history] == pytest.approx(
            [row["valid_loss"] for row in done.history], rel=1e-4
        )
