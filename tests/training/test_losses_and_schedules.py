import math
import os
import socket

import pytest
import torch
from accelerate import Accelerator
from torch import multiprocessing, nn

from msakit.models.layers.packed import Packed
from msakit.training.losses import LOSSES, info_nce, loss_named, with_contrast
from msakit.training.schedules import PerBatch, linear_warmup_decay, warmup_cosine
from msakit.training.spec_augment import SpecAugment


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def test_regression_and_classes_by_hand():
    outputs, batch = {"prediction": torch.tensor([1.0, -2.0])}, {"label": torch.tensor([3.0, -1.0])}
    assert LOSSES["l1"](outputs, batch).item() == pytest.approx(1.5)
    assert LOSSES["mse"](outputs, batch).item() == pytest.approx(2.5)
    batch = {"label": torch.tensor([1, 0])}
    two = {"prediction": torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])}
    assert LOSSES["cross_entropy"](two, batch).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    one = {"prediction": torch.tensor([[math.log(3)], [0.0]])}  # the same odds on a single logit
    assert LOSSES["cross_entropy"](one, batch).item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_a_loss_fits_its_task():
    assert loss_named("l1", None) is LOSSES["l1"]
    assert loss_named("cross_entropy", 2) is LOSSES["cross_entropy"]
    with pytest.raises(ValueError, match=r"no loss 'mse' for 3 classes: choose from cross_entropy"):
        loss_named("mse", 3)
    with pytest.raises(ValueError, match=r"no loss 'ms' for regression: choose from l1, mse. Did you mean 'mse'\?"):
        loss_named("ms", None)


def test_info_nce_by_hand():
    # Partners at cosine 1, others at 0, temperature 1: each row is softmax(1, 0), both ways alike.
    eye = torch.eye(2)
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    assert info_nce(eye, eye, 1.0).item() == pytest.approx(right)
    assert info_nce(eye, eye, 0.5).item() == pytest.approx(math.log(1 + math.exp(-2)))
    # Smoothing .1 over N = 2: targets .95 and .05.
    assert info_nce(eye, eye, 1.0, 0.1).item() == pytest.approx(0.95 * right + 0.05 * wrong)
    # The directions differ when the columns do: a = (e1, e1), b = (e1, e2).
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    rows, columns = (right + wrong) / 2, math.log(2)
    assert info_nce(first, eye, 1.0).item() == pytest.approx((rows + columns) / 2)
    assert info_nce(torch.zeros(5, 3), torch.zeros(5, 3)).item() == pytest.approx(math.log(5))
    # Momentum keys: first meets the keys of second (swapped: wrong), second those of first (right).
    swapped = eye.flip(0)
    assert info_nce(eye, eye, 1.0, keys=(eye, swapped)).item() == pytest.approx((wrong + right) / 2)


def test_contrast_is_added_by_its_weight():
    eye = torch.eye(2)
    outputs = {"prediction": torch.zeros(2), "text": eye, "audio": eye, "vision": eye}
    batch = {"label": torch.ones(2)}
    pairs = [("text", "vision"), ("text", "audio")]
    loss = with_contrast(LOSSES["mse"], 0.5, pairs, temperature=1.0)
    assert loss(outputs, batch).item() == pytest.approx(1 + 0.5 * 2 * math.log(1 + math.exp(-1)))
    with torch.no_grad():  # validation
        assert loss(outputs, batch).item() == 1
    taught = outputs | {"teacher_text": eye, "teacher_audio": eye.flip(0), "teacher_vision": eye}
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    assert loss(taught, batch).item() == pytest.approx(1 + 0.5 * (right + (right + wrong) / 2))
    assert with_contrast(LOSSES["mse"], 0.0, pairs)({"prediction": torch.zeros(2)}, batch).item() == 1


def towers():
    torch.manual_seed(0)
    return nn.ModuleDict({"first": nn.Linear(5, 3), "second": nn.Linear(7, 3)})


class Pair(nn.Module):
    """Two projections to the unit sphere; one module, so that it can be distributed."""

    def __init__(self):
        super().__init__()
        self.towers = towers()

    def forward(self, first, second):
        given = {"first": first, "second": second}
        return tuple(nn.functional.normalize(self.towers[name](x), dim=-1) for name, x in given.items())


ROWS = torch.randn(6, 12, generator=torch.Generator().manual_seed(2))
# Not the same number on both processes; momentum keys come from other weights.
SHARES = (slice(0, 4), slice(4, 6))


def pair_loss(model, rows, with_keys):
    first, second = model(rows[:, :5], rows[:, 5:])
    keys = None
    if with_keys:
        torch.manual_seed(9)
        teacher = Pair()
        nn.init.normal_(teacher.towers["first"].weight)
        with torch.no_grad():
            keys = teacher(rows[:, :5], rows[:, 5:])
    return info_nce(first, second, 0.3, 0.1, keys)


def one_of_two(rank, port, with_keys, results):
    """A process of a group of two: its share of the rows, weighted as the training loop weights it."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(Pair())
    rows = ROWS[SHARES[rank]]
    loss = pair_loss(model, rows, with_keys) * (len(rows) / len(ROWS) * accelerator.num_processes)
    accelerator.backward(loss)
    gradients = {name: p.grad.numpy() for name, p in accelerator.unwrap_model(model).named_parameters()}
    results.put((rank, float(loss), gradients))
    accelerator.wait_for_everyone()
    accelerator.end_training()


@pytest.mark.parametrize("with_keys", [False, True])
def test_two_processes_equal_one_on_the_joint_batch(with_keys):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads of OpenMP may hang in them
    results = context.Queue()
    # Daemons: where one fails, the test does not wait for the other.
    group = [context.Process(target=one_of_two, args=(rank, port, with_keys, results), daemon=True) for rank in (0, 1)]
    for process in group:
        process.start()
    found = sorted(results.get(timeout=300) for _ in group)
    for process in group:
        process.join(300)
        assert process.exitcode == 0
    model = Pair()
    loss = pair_loss(model, ROWS, with_keys)
    loss.backward()
    assert sum(value for _, value, _ in found) / 2 == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        for _, _, gradients in found:
            torch.testing.assert_close(torch.from_numpy(gradients[name]), parameter.grad, rtol=1e-4, atol=1e-6)
    # Local negatives alone would be another loss.
    local = sum(pair_loss(model, ROWS[share], with_keys) * len(ROWS[share]) for share in SHARES) / len(ROWS)
    assert abs(local.item() - loss.item()) > 0.05


def rates(scheduler, optimizer, count):
    found = []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_published_warmup_and_cut_cosine():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], 1e-4)
    found = rates(warmup_cosine(optimizer), optimizer, 61)
    assert found[0] == pytest.approx(1e-5)
    assert found[5] == pytest.approx(5.5e-5)
    assert found[10] == pytest.approx(1e-4)
    assert found[35] == pytest.approx(5.5e-5)
    assert found[50] == pytest.approx(1.9e-5, abs=0.05e-5)  # where 50 epochs cut it
    assert found[60] == pytest.approx(1e-5)


def test_linear_warmup_and_decay():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    schedule = linear_warmup_decay(optimizer, 20)
    assert isinstance(schedule, PerBatch)
    found = rates(schedule.scheduler, optimizer, 20)
    assert found[:3] == pytest.approx([0, 0.5, 1])
    assert found[11] == pytest.approx(0.5)
    assert found[19] == pytest.approx(1 / 18)


def frames(lengths, dim, layers=()):
    return Packed(torch.randn(*layers, sum(lengths), dim, generator=source(1)), torch.tensor(lengths))


def masked(augment, packed, generator):
    drawn = augment.draw(len(packed.lengths), packed.frames.shape[:-2].numel(), generator)
    return augment.mask(packed, drawn)


def test_masks_are_stripes_of_the_segments_mean():
    packed = frames([40, 1, 7], 100, (2,))
    found = masked(SpecAugment(), packed, source())
    changed = found.frames != packed.frames
    assert changed.any()
    assert not changed.all()
    for layer in range(2):
        for start, end in ((0, 40), (40, 41), (41, 48)):
            before, after, hit = (x[layer, start:end] for x in (packed.frames, found.frames, changed))
            torch.testing.assert_close(after[hit], before.mean().expand(int(hit.sum())))
            # Outside whole hidden rows, what is hidden is the same in each frame; no more than the settings allow.
            rows = hit.all(1)
            assert rows.sum() <= 2 * 7
            assert not rows[-1]
            assert hit[~rows].any(0).sum() <= 10 * 1
            assert torch.equal(hit[~rows].any(0), hit[~rows].all(0))
    assert not torch.equal(changed[0], changed[1])  # each layer draws its own


def hidden(augment, length, dim, axis, draws):
    """Each mask that was drawn for segments of one shape, as the positions that it hides."""
    packed = frames([length] * draws, dim)
    changed = (masked(augment, packed, source()).frames != packed.frames).view(draws, length, dim).all(2 - axis)
    return {tuple(row.nonzero().flatten().tolist()) for row in changed}


def published(size, limit):
    """Widths below the limit, starts before the last position that the width leaves."""
    return {tuple(range(start, start + width)) for width in range(limit) for start in range(size - width)}


@pytest.mark.parametrize(("size", "limit"), [(9, 1), (10, 2), (14, 2), (15, 3), (19, 3), (20, 4)])
def test_masks_of_time_are_those_of_the_published_procedure(size, limit):
    augment = SpecAugment(feature_masks=0, time_masks=1)
    assert hidden(augment, size, 3, 0, 3000) == published(size, limit)


@pytest.mark.parametrize(("size", "limit"), [(49, 0), (64, 1), (100, 2), (150, 3)])
def test_masks_of_dimensions_are_those_of_the_published_procedure(size, limit):
    augment = SpecAugment(feature_masks=1, time_masks=0)
    assert hidden(augment, 2, size, 1, 9000) == published(size, limit) | {()}


def test_texts_of_under_ten_tokens_lose_no_token():
    packed, draw = frames(list(range(1, 10)), 64), source()
    assert all(torch.equal(masked(SpecAugment(), packed, draw).frames, packed.frames) for _ in range(50))


def test_the_last_frame_is_never_hidden():
    packed, draw = frames([25, 30], 8), source()
    changed = sum((masked(SpecAugment(), packed, draw).frames != packed.frames).all(1).long() for _ in range(300))
    assert changed[[24, 54]].tolist() == [0, 0]
    assert changed[[0, 23, 25, 53]].min() > 0


def test_spec_augment_repeats_by_seed():
    packed = frames([13, 0, 5], 50)
    first, again, other = (masked(SpecAugment(), packed, source(s)).frames for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
