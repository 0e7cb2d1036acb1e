import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from small_training import run
from torch import nn

from msakit.training import checkpoint, losses
from msakit.training.checkpoint import Checkpoint, CheckpointError, resumable
from msakit.training.loop import fit

PROGRAM = Path(__file__).with_name("small_training.py")
STEPS_AN_EPOCH = 5  # 28 rows in batches of 6


def same(a, b):
    assert a["history"] == b["history"]
    assert a["best_epoch"] == b["best_epoch"]
    assert torch.equal(a["test"], b["test"])
    assert a["weights"].keys() == b["weights"].keys()
    assert all(torch.equal(value, b["weights"][name]) for name, value in a["weights"].items())


@pytest.mark.parametrize(("average", "every", "kept"), [("judge", 1, 3), ("teacher", 2, 2)])
def test_a_killed_run_ends_like_an_unbroken_one(tmp_path, average, every, kept):
    file = tmp_path / "folder" / "run.checkpoint"
    settings = {"noise": 0.3, "average": average, "checkpoint": str(file), "every": every}
    # Killed in the middle of the fourth epoch.
    doomed = json.dumps([settings | {"die_at": 3 * STEPS_AN_EPOCH + 3}])
    # With as many threads as here: how many there are decides how sums are rounded.
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    died = subprocess.run([sys.executable, PROGRAM, doomed], capture_output=True, text=True, timeout=300, env=threads)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert [f.name for f in file.parent.iterdir()] == ["run.checkpoint"]
    resumed = run(**settings)
    assert len(resumed["history"]) == 5
    assert resumed["losses"] == (5 - kept) * STEPS_AN_EPOCH  # it did go on, and not start again
    same(resumed, run(noise=0.3, average=average))
    assert list(file.parent.iterdir()) == []


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))

    def forward(self, batch):
        return {"prediction": self.weight * batch["x"]}


ROW = [{"x": torch.tensor([1.0]), "label": torch.tensor([2.0])}]


class Stop(Exception):
    pass


def line(model=None, stop_after=None, **settings):
    """d/dw (w - 2)^2 with lr 1/4: the distance to 2 halves at each step."""

    def on_epoch(_, epoch):
        if epoch == stop_after:
            raise Stop
        return {}

    model = model or Line()
    optimizer = torch.optim.SGD(model.parameters(), 0.25)
    settings = {"epochs": 4, "on_epoch": on_epoch} | settings
    return fit(model, ROW, ROW, loss=losses.mse, optimizer=optimizer, progress=False, **settings)


def test_the_average_is_stored_and_restored_by_hand(tmp_path):
    # Weights 1, 1.5, 1.75, 1.875; their average from the first on: 1, 1.25, 1.5, 1.6875.
    file = tmp_path / "run.checkpoint"
    with pytest.raises(Stop):
        line(average=0.5, stop_after=3, checkpoint=file)
    stored = torch.load(file, weights_only=True)
    assert stored["parts"]["average"] == {"n_averaged": torch.tensor(2), "module.weight": torch.tensor(1.25)}
    assert stored["parts"]["model"]["weight"] == 1.5
    model = Line()
    found = line(model, average=0.5, checkpoint=file, keep_checkpoint=True)
    assert [row["valid_loss"] for row in found.history] == pytest.approx([1, 0.75**2, 0.5**2, 0.3125**2])
    assert model.weight.item() == pytest.approx(1.6875)
    assert torch.load(file, weights_only=True)["parts"]["average"]["module.weight"] == pytest.approx(1.6875)
    # What is finished is not trained again, and keeps its best epoch and its time.
    again = Line()
    same_again = line(again, average=0.5, checkpoint=file)
    assert same_again == found
    assert again.weight.item() == model.weight.item()
    assert not file.exists()


def test_every_source_of_random_numbers_goes_on(tmp_path):
    # Not by training: beartype, which checks the package in tests, draws from python's generator in between.
    kept = Checkpoint(tmp_path / "run.checkpoint", {}, Accelerator(cpu=True))
    kept.save({})
    draws = random.random, np.random.rand, lambda: torch.rand(()).item()
    expected = [draw() for draw in draws]
    assert kept.load() == {}
    assert [draw() for draw in draws] == expected


def test_patience_outlives_a_kill(tmp_path):
    file = tmp_path / "run.checkpoint"
    common = {"metrics": {"same": lambda prediction, label: 1.0}, "select": ("same", "min"), "patience": 2}
    with pytest.raises(Stop):
        line(**common, stop_after=3, epochs=9, checkpoint=file)
    found = line(**common, epochs=9, checkpoint=file, keep_checkpoint=True)
    assert (found.best_epoch, len(found.history)) == (1, 3)
    assert line(**common, epochs=9, checkpoint=file) == found


def test_a_foreign_or_damaged_file_is_told(tmp_path):
    file = tmp_path / "run.checkpoint"
    with pytest.raises(Stop):
        line(stop_after=2, checkpoint=file)
    with pytest.raises(CheckpointError, match=r"run\.checkpoint: no checkpoint of this fit .*delete it"):
        line(average=0.5, checkpoint=file)

    class Other(Line):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.tensor(0.0))

    with pytest.raises(CheckpointError, match="bias is trained in one of the two models only"):
        line(Other(), checkpoint=file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="delete it"):
        line(checkpoint=file)


def test_what_watches_the_epochs_is_kept_too(tmp_path):
    class Count:
        def __init__(self, stop_after=None):
            self.epochs, self.stop_after = 0, stop_after

        def __call__(self, model, epoch):
            if epoch == self.stop_after:
                raise Stop
            self.epochs += 1
            return {"epochs": self.epochs}

        def state_dict(self):
            return {"epochs": self.epochs}

        def load_state_dict(self, state):
            self.epochs = state["epochs"]

    file = tmp_path / "run.checkpoint"
    with pytest.raises(Stop):
        line(on_epoch=Count(stop_after=3), checkpoint=file)
    found = line(on_epoch=Count(), checkpoint=file)
    assert [row["epochs"] for row in found.history] == [1, 2, 3, 4]


def test_batches_that_cannot_be_put_back_are_told(tmp_path):
    optimizer = torch.optim.SGD(Line().parameters(), 0.25)
    settings = {"loss": losses.mse, "optimizer": optimizer, "epochs": 1, "checkpoint": tmp_path / "run.checkpoint"}
    with pytest.raises(ValueError, match="train is a list_iterator without state_dict"):
        fit(Line(), iter(ROW), ROW, **settings)


def test_nothing_but_tensors_and_plain_values_is_constructed(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    file = tmp_path / "run.checkpoint"
    torch.save({"parts": {}, "random": [], "notes": Evil()}, file)
    with pytest.raises(CheckpointError, match="delete it"):
        line(checkpoint=file)
    assert not (tmp_path / "made").exists()


def test_a_kill_while_writing_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    file, write = tmp_path / "run.checkpoint", torch.save

    def half(value, path):
        if value["notes"]["best_epoch"] == 3:
            Path(path).write_bytes(b"half")
            raise Stop
        write(value, path)

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Stop):
        line(checkpoint=file)
    monkeypatch.undo()
    assert torch.load(file, weights_only=True)["notes"]["best_epoch"] == 2
    assert len(line(checkpoint=file).history) == 4
    assert list(tmp_path.iterdir()) == []


def test_a_job_of_several_fits_is_resumable_from_outside(tmp_path, monkeypatch):
    monkeypatch.setattr("msakit.training.loop.SECONDS_BETWEEN", 0.0)
    stem, seen = tmp_path / "seed-0.abc", []

    def job(stop_after=None):
        first = line(on_epoch=lambda *_: seen.append(sorted(f.name for f in tmp_path.iterdir())) or {})
        return first, line(stop_after=stop_after)

    with pytest.raises(Stop), resumable(stem):
        job(stop_after=3)
    assert checkpoint.next_place() is None
    assert seen == [[], *[["seed-0.abc.1.checkpoint"]] * 3]
    assert [file.name for file in tmp_path.iterdir()] == ["seed-0.abc.2.checkpoint"]
    with resumable(stem):
        first, second = job()
    seconds = {"seconds": 0.0}
    assert [row | seconds for row in first.history] == [row | seconds for row in second.history]
    assert list(tmp_path.iterdir()) == []
    # By default only what has lasted a minute is worth a file.
    monkeypatch.undo()
    with pytest.raises(Stop), resumable(stem):
        job(stop_after=3)
    assert list(tmp_path.iterdir()) == []
