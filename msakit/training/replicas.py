"""A layer sweep as one training: the same model on every hidden layer, with every seed, as stacked parameters.

The layers of one seed have the same segments in the same order, with the same masks and the same units dropped: all
that differs is the features.  So a batch is read once for all layers ("layer frames dim"), torch.func maps the model,
unchanged, over layers and seeds, and one Adam step moves all parameters at once.  Each replica ends with the weights
that a run of its own would have given (up to rounding); a test holds it to that.  Between seeds batches differ in
length: shorter ones are filled with frames that belong to no segment.

Any model of the contract (:mod:`msakit.models`) will do that reads one modality as `Frames` of one layer, whose only
randomness is :class:`msakit.models.layers.dropout.Dropout` on frames or on segments, and whose weights alone change in
training (no running statistics).  What torch.func cannot map fails with torch's own message.

It is meant for a GPU, which one small model leaves idle while kernels are launched: here 24 layers x 5 seeds share the
launches of one model.  How much that gains has not been measured on a device.  On a CPU, which a single run already
keeps busy, train the runs one by one.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from torch.optim import Optimizer

from msakit.models.layers.dropout import Dropout, dropout_mask
from msakit.models.layers.packed import Layout, Packed, layout_of
from msakit.training.batching import FeatureBatches
from msakit.training.loop import Fit, set_seed
from msakit.training.losses import Loss


@dataclass(frozen=True)
class Seed:
    """The replicas of one seed: a model for each layer, and what the seed decides for all of them."""

    models: list[Any]  # one a layer, equal to begin with
    order: torch.Generator  # for the batches: their order and SpecAugment(layers_apart=False)
    dropout: torch.Generator  # in the state in which a run of its own begins to draw


def start_seed(seed: int, layers: int, build: Callable[[], Any], device: torch.device | str = "cpu") -> Seed:
    """What `set_seed(seed)`, then `build()`, gives a run of its own, for each of the layers."""
    order = set_seed(seed)
    model = build()
    dropout = torch.Generator(device).manual_seed(seed)
    if dropout.device.type == "cpu":
        # Here initial weights and dropout come from one generator, there each device has its own.
        dropout.set_state(torch.get_rng_state())
    return Seed([copy.deepcopy(model) for _ in range(layers)], order, dropout)


def fit_replicas(
    seeds: Sequence[Seed],
    train: Sequence[FeatureBatches],
    valid: FeatureBatches,
    *,
    loss: Loss,
    optimizer: Callable[[Iterable[Tensor]], Optimizer],
    epochs: int,
    scheduler: Callable[[Optimizer], Any] | None = None,
    ties: Literal["first", "last"] = "first",
    device: torch.device | str = "cpu",
) -> list[list[Fit]]:
    """Train all replicas; each model is left with the weights of its own best epoch by validation loss, in eval mode.

    Args:
        train: one a seed, of the same rows, with its `order` as generator and frames "layer frames dim" of one
            modality; drop the last batch, so that all have the same rows a batch. valid: for all seeds.
        optimizer: makes it from parameters; it must treat each element on its own, as Adam does.
        scheduler: makes it from the optimizer; stepped once an epoch.
        ties: whether the "first" or the "last" of equally good epochs is kept.

    Returns:
        By seed and layer. Seconds are of all replicas together.

    Raises:
        ValueError: models that cannot be stacked, or no training batch.
        FloatingPointError: a replica's loss is not finite.
    """
    ((modality, features),) = train[0].features.items()
    stacked = _Stacked(seeds, modality, features.frames.shape[-1], loss, torch.device(device))
    adam = optimizer(stacked.parameters.values())
    schedule = scheduler(adam) if scheduler is not None else None
    best = {name: value.detach().clone() for name, value in stacked.parameters.items()}
    lowest = torch.full((len(seeds), len(seeds[0].models)), math.inf)
    history: list[tuple[float, Tensor, Tensor, float, float]] = []
    chosen = torch.zeros(lowest.shape, dtype=torch.long)
    for epoch in range(1, epochs + 1):
        began, rate = time.perf_counter(), adam.param_groups[0]["lr"]
        trained = stacked.train_epoch(train, adam)
        if schedule is not None:
            schedule.step()
        validated = stacked.validate(valid)
        if not (trained.isfinite().all() and validated.isfinite().all()):
            raise FloatingPointError(f"epoch {epoch}: the loss of a replica is not finite; lower the learning rate")
        better = validated <= lowest if ties == "last" else validated < lowest
        lowest, chosen = torch.where(better, validated, lowest), torch.where(better, epoch, chosen)
        for name, value in stacked.parameters.items():
            mask = better.to(value.device).view(*better.shape, *[1] * (value.dim() - 2))
            best[name] = torch.where(mask, value.detach(), best[name])
        history.append((float(epoch), trained, validated, rate, time.perf_counter() - began))
    fits: list[list[Fit]] = []
    for s, each in enumerate(seeds):
        fits.append([])
        for k, model in enumerate(each.models):
            model.load_state_dict({name: value[s, k] for name, value in best.items()}, strict=False)
            model.eval()
            rows = [
                {"epoch": e, "train_loss": float(t[s, k]), "valid_loss": float(v[s, k]), "lr": rate, "seconds": seconds}
                for e, t, v, rate, seconds in history
            ]
            fits[-1].append(Fit(int(chosen[s, k]), rows))
    return fits


class _Stacked:
    """The parameters of all replicas, "seed layer ...", and the model mapped over them."""

    def __init__(self, seeds: Sequence[Seed], modality: str, dim: int, loss: Loss, device: torch.device) -> None:
        self.seeds, self.modality, self.loss, self.device = seeds, modality, loss, device
        self.model = copy.deepcopy(seeds[0].models[0]).to(device)
        flat, _ = stack_module_state([model for seed in seeds for model in seed.models])
        self.parameters = {
            name: value.detach().unflatten(0, (len(seeds), -1)).to(device).requires_grad_()
            for name, value in flat.items()
        }
        # Those that draw, in the order in which they do.
        self.dropouts = _dropouts(self.model, modality, dim, device)
        for name in self.dropouts:
            self.model.set_submodule(name, _GivenDropout())

    def train_epoch(self, train: Sequence[FeatureBatches], optimizer: Optimizer) -> Float[Tensor, "seed layer"]:
        """Mean loss of each replica over the epoch's samples."""
        self.model.train()
        total, count = torch.zeros((), device=self.device), 0
        for batches in zip(*train, strict=True):
            optimizer.zero_grad()
            losses = self._losses(*self._together(batches), over_seeds=0)
            losses.sum().backward()  # replicas share nothing: each gets the gradient of its own loss
            optimizer.step()
            rows = len(batches[0]["label"])
            total, count = total + losses.detach() * rows, count + rows
        if not count:
            raise ValueError("no training batch: is the batch larger than the training split, with drop_last?")
        return (total / count).cpu()

    @torch.no_grad()
    def validate(self, valid: FeatureBatches) -> Float[Tensor, "seed layer"]:
        """Mean loss of each replica over all samples."""
        self.model.eval()
        total, count = torch.zeros((), device=self.device), 0
        for batch in valid:
            rows, packed = len(batch["label"]), batch[self.modality]
            given = {"frames": packed.frames, "lengths": packed.lengths, "label": batch["label"]}
            given |= {"owner": packed.layout.owner, "position": packed.layout.position}
            given = {name: value.to(self.device) for name, value in given.items()}
            total = total + self._losses(given, {}, packed.layout.longest, over_seeds=None) * rows
            count += rows
        return (total / count).cpu()

    def _losses(
        self, batch: dict[str, Tensor], masks: dict[str, Tensor], longest: int, over_seeds: int | None
    ) -> Float[Tensor, "seed layer"]:
        """over_seeds: the axis of the seeds in what is given, None where all see the same."""

        def one(
            parameters: dict[str, Tensor], frames: Tensor, batch: dict[str, Tensor], masks: dict[str, Tensor]
        ) -> Tensor:
            layout = Layout(batch["owner"], batch["position"], longest)
            given = {self.modality: Packed(frames, batch["lengths"], layout), "label": batch["label"]}
            return self.loss(functional_call(self.model, parameters | masks, (given,)), given)

        frames = batch.pop("frames")
        over_layers = vmap(one, in_dims=(0, 0, None, None))
        together = vmap(over_layers, in_dims=(0, over_seeds, over_seeds, over_seeds))
        return together(self.parameters, frames, batch, masks)

    def _together(self, batches: Sequence[dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Tensor], int]:
        """The seeds' batches stacked, their dropout masks by the model's names, and the slots of a segment."""
        packed: list[Packed] = [batch[self.modality] for batch in batches]
        layouts = [each.layout or layout_of(each.lengths) for each in packed]
        # One more slot than the longest segment has: there lie the frames that belong to no segment.
        longest = max(layout.longest for layout in layouts) + 1
        frames = max(each.frames.shape[-2] for each in packed)
        stacked = {
            "frames": torch.stack([pad(each.frames, (0, 0, 0, frames - each.frames.shape[-2])) for each in packed]),
            "lengths": torch.stack([each.lengths for each in packed]),
            "owner": pad_sequence([layout.owner for layout in layouts], batch_first=True),
            "position": pad_sequence([layout.position for layout in layouts], True, longest - 1),
            "label": torch.stack([batch["label"] for batch in batches]),
        }
        masks = {}
        for name, (on_frames, units, p) in self.dropouts.items():
            drawn = []
            for seed, each in zip(self.seeds, packed, strict=True):
                rows = each.frames.shape[-2] if on_frames else len(each.lengths)
                drawn.append(dropout_mask(torch.Size((rows, *units)), p, self.device, seed.dropout))
            masks[f"{name}.mask"] = pad_sequence(drawn, batch_first=True)
        return {name: value.to(self.device) for name, value in stacked.items()}, masks, longest


def _dropouts(
    model: nn.Module, modality: str, dim: int, device: torch.device
) -> dict[str, tuple[bool, list[int], float]]:
    """By name, what a dropout draws in a training step, found out on three segments with seven frames: whether for each
    frame or for each segment, for how many units, with which probability.

    Raises ValueError for a model whose replicas cannot be stacked, with the reason.
    """
    found: dict[str, tuple[bool, list[int], float]] = {}
    lengths = torch.tensor([2, 3, 2], device=device)

    def note(name: str, dropout: Dropout, given: tuple[Tensor, ...]) -> None:
        rows, *units = given[0].shape
        if name in found or rows not in (3, 7):
            raise ValueError(f"its dropout {name} acts on {[rows, *units]}, or twice: once, on frames or segments")
        found[name] = rows == 7, units, dropout.p

    parts = list(model.named_modules())
    other = [name for name, part in parts if isinstance(part, nn.modules.dropout._DropoutNd) and part.p]
    try:
        if other or next(model.buffers(), None) is not None:
            raise ValueError("it has " + (f"torch's dropout {other[0]}" if other else "running statistics"))
        watched = [(name, part) for name, part in parts if isinstance(part, Dropout) and part.p]
        handles = [part.register_forward_pre_hook(partial(note, name)) for name, part in watched]
        with torch.random.fork_rng(), torch.no_grad():
            frames = torch.zeros(7, dim, device=device)
            model.train()({modality: Packed(frames, lengths, layout_of(lengths))})
        for handle in handles:
            handle.remove()
    except ValueError as error:
        raise ValueError(f"{type(model).__name__} cannot be stacked ({error}): train its runs one by one") from error
    return found


class _GivenDropout(nn.Module):
    """Dropout with a mask from outside, in the buffer `mask`."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(()))

    def forward(self, values: Tensor) -> Tensor:
        return values * self.mask if self.training else values
