import json
import os
import random
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from small_training import run
from torch import nn

from msakit.training import checkpoint, losses
from msakit.training.checkpoint import Checkpoint, CheckpointError, resumable
from msakit.training.loop import Averaging, fit

PROGRAM = Path(__file__).with_name("small_training.py")
STEPS_AN_EPOCH = 5  # 28 rows in batches of 6


def same(a, b):
    assert a["history"] == b["history"]
    assert a["best_epoch"] == b["best_epoch"]
    assert torch.equal(a["test"], b["test"])
    assert a["weights"].keys() == b["weights"].keys()
    assert all(torch.equal(value, b["weights"][name]) for name, value in a["weights"].items())


@pytest.mark.parametrize("role", ["evaluated", "teacher"])
def test_a_killed_run_ends_like_an_unbroken_one(tmp_path, role):
    folder = tmp_path / "folder"
    settings = {"noise": 0.3, "role": role, "stem": str(folder / "run")}
    # Killed in the middle of the fourth epoch.
    doomed = json.dumps([settings | {"die_at": 3 * STEPS_AN_EPOCH + 3}])
    # With as many threads as here: how many there are decides how sums are rounded.
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    died = subprocess.run([sys.executable, PROGRAM, doomed], capture_output=True, text=True, timeout=300, env=threads)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert [file.name for file in folder.iterdir()] == ["run.1.checkpoint"]
    resumed = run(**settings)
    assert len(resumed["history"]) == 5
    assert resumed["losses"] == 2 * STEPS_AN_EPOCH  # it did go on, and not start again
    same(resumed, run(noise=0.3, role=role))
    assert list(folder.iterdir()) == []


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))

    def forward(self, batch):
        return {"prediction": self.weight * batch["x"]}


ROW = [{"x": torch.tensor([1.0]), "label": torch.tensor([2.0])}]


class Stop(Exception):
    pass


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr("msakit.training.loop.SECONDS_BETWEEN", 0.0)


@pytest.fixture
def file(tmp_path):
    """Of the first fit inside of `resumable` as `line` calls it."""
    return tmp_path / "run.1.checkpoint"


def line(model=None, stop_in=None, file=None, **settings):
    """d/dw (w - 2)^2 with lr 1/4: the distance to 2 halves at each step."""

    def on_epoch(_, epoch):
        if epoch == stop_in:
            raise Stop
        return {}

    model = model or Line()
    optimizer = torch.optim.SGD(model.parameters(), 0.25)
    settings = {"epochs": 4, "on_epoch": on_epoch} | settings
    with resumable(file.with_name("run")) if file else nullcontext():
        return fit(model, ROW, ROW, loss=losses.mse, optimizer=optimizer, **settings)


def test_the_average_is_stored_and_restored_by_hand(file):
    # Weights 1, 1.5, 1.75, 1.875; their average from the first on: 1, 1.25, 1.5, 1.6875.
    averaging = Averaging(0.5)
    with pytest.raises(Stop):
        line(averaging=averaging, stop_in=3, file=file)
    stored = torch.load(file, weights_only=True)
    assert stored["parts"]["average"] == {"n_averaged": torch.tensor(2), "module.weight": torch.tensor(1.25)}
    assert stored["parts"]["model"]["weight"] == 1.5
    model = Line()
    found = line(model, averaging=averaging, file=file)
    assert [row["valid_loss"] for row in found.history] == pytest.approx([1, 0.75**2, 0.5**2, 0.3125**2])
    assert model.weight.item() == pytest.approx(1.6875)
    assert not file.exists()


def test_every_source_of_random_numbers_goes_on(tmp_path):
    # Not by training: beartype, which checks the package in tests, draws from python's generator in between.
    checkpoint = Checkpoint(tmp_path / "run.checkpoint", {}, Accelerator(cpu=True))
    checkpoint.save({})
    draws = random.random, np.random.rand, lambda: torch.rand(()).item()
    expected = [draw() for draw in draws]
    assert checkpoint.load() == {}
    assert [draw() for draw in draws] == expected


def test_patience_outlives_a_kill(file):
    perfect = Line()  # no step changes it: the first epoch stays the best
    torch.nn.init.constant_(perfect.weight, 2.0)
    with pytest.raises(Stop):
        line(perfect, stop_in=3, patience=2, epochs=9, file=file)
    found = line(perfect, patience=2, epochs=9, file=file)
    assert (found.best_epoch, len(found.history)) == (1, 3)


def test_a_foreign_or_damaged_file_is_refused(file):
    with pytest.raises(Stop):
        line(stop_in=2, file=file)
    with pytest.raises(CheckpointError, match=r"run\.1\.checkpoint: no checkpoint of this fit .*delete it"):
        line(averaging=Averaging(0.5), file=file)

    class Other(Line):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.tensor(0.0))

    with pytest.raises(CheckpointError, match="bias is trained in one of the two models only"):
        line(Other(), file=file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="delete it"):
        line(file=file)


def test_what_counts_the_epochs_goes_on_too(file):
    class Count:
        def __init__(self, stop_in=None):
            self.epochs, self.stop_in = 0, stop_in

        def __call__(self, model, epoch):
            if epoch == self.stop_in:
                raise Stop
            self.epochs += 1
            return {"epochs": self.epochs}

        def state_dict(self):
            return {"epochs": self.epochs}

        def load_state_dict(self, state):
            self.epochs = state["epochs"]

    with pytest.raises(Stop):
        line(on_epoch=Count(stop_in=3), file=file)
    found = line(on_epoch=Count(), file=file)
    assert [row["epochs"] for row in found.history] == [1, 2, 3, 4]


def test_batches_that_cannot_be_put_back_are_refused(tmp_path):
    optimizer = torch.optim.SGD(Line().parameters(), 0.25)
    with pytest.raises(ValueError, match="train is a list_iterator without state_dict"), resumable(tmp_path / "run"):
        fit(Line(), iter(ROW), ROW, loss=losses.mse, optimizer=optimizer, epochs=1)


def test_nothing_but_tensors_and_plain_values_is_constructed(tmp_path, file):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "folder"),)

    torch.save({"parts": {}, "random": [], "notes": Evil()}, file)
    with pytest.raises(CheckpointError, match="delete it"):
        line(file=file)
    assert not (tmp_path / "folder").exists()


def test_a_kill_while_writing_leaves_the_checkpoint_before(tmp_path, monkeypatch, file):
    write = torch.save

    def half(value, path):
        if len(value["notes"]["history"]) == 3:
            Path(path).write_bytes(b"half")
            monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # killed: nobody tidies up
            raise Stop
        write(value, path)

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Stop):
        line(file=file)
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 2
    assert len(torch.load(file, weights_only=True)["notes"]["history"]) == 2
    assert len(line(file=file).history) == 4
    assert list(tmp_path.iterdir()) == []


def test_a_job_of_several_fits_is_resumable(tmp_path, monkeypatch):
    stem, files = tmp_path / "seed-0.abc", []

    def job(stop_in=None):
        first = line(on_epoch=lambda *_: files.append(sorted(f.name for f in tmp_path.iterdir())) or {})
        return first, line(stop_in=stop_in)

    with pytest.raises(Stop), resumable(stem):
        job(stop_in=3)
    assert checkpoint.next_path() is None
    assert files == [[], *[["seed-0.abc.1.checkpoint"]] * 3]
    assert [file.name for file in tmp_path.iterdir()] == ["seed-0.abc.2.checkpoint"]
    with resumable(stem):
        first, second = job()
    seconds = {"seconds": 0.0}
    assert [row | seconds for row in first.history] == [row | seconds for row in second.history]
    assert list(tmp_path.iterdir()) == []
    # By default only what has lasted a minute is worth a file, or a line of the log.
    monkeypatch.undo()
    with pytest.raises(Stop), resumable(stem):
        job(stop_in=3)
    assert list(tmp_path.iterdir()) == []


def test_a_long_training_gives_a_sign_of_life(caplog):
    with caplog.at_level("INFO", "msakit.training.loop"):
        line()
    assert "epoch 3 of 4: validation loss 0.0625, best 0.0625" in caplog.messages
