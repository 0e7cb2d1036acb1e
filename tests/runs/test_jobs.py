"""Jobs become runs once: finished ones are skipped, a kill goes on, what is defined otherwise is made anew."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from small import predictions, record

from msakit import process
from msakit.runs.arm import Arm
from msakit.runs.jobs import Job, Outcome, run_jobs
from msakit.runs.record import FoldInfo, TableInfo
from msakit.runs.store import read_run, read_runs, run_path
from msakit.training.loop import Fit

HISTORY = [
    {"epoch": 1.0, "train_loss": 1.0, "valid_loss": 0.75, "accuracy": float("nan"), "seconds": 0.25},
    {"epoch": 2.0, "train_loss": 0.5, "valid_loss": 0.5, "accuracy": 0.5, "seconds": 0.125},
]


def to_be(arm="best-text", seed=0, **changes):
    """A record as it is known before the training."""
    blank = {"selection": None, "history": [], "measurements": {}, "predictions": TableInfo(sha256="", columns=[])}
    return record(arm, seed, **(blank | changes))


@pytest.fixture
def run(tmp_path):
    """Run some records' jobs; gives back the runs, and the names of those that were trained."""
    root = tmp_path / "built" / "runs"

    def run(*records, shift=0.0, outcome=None):
        trained = []

        def train(wanted):
            trained.append(f"{wanted.arm} {wanted.stem}")
            if outcome is not None:
                return outcome(wanted)
            fit = Fit(2, [dict(row) for row in HISTORY])
            return Outcome(fit, "mae", [predictions(shift)], {"parameters": np.int64(3)}, {"seconds_per_epoch": 0.25})

        jobs = [Job(each, None if each.same_as else lambda each=each: train(each)) for each in records]
        return run_jobs(jobs, root), trained

    run.root = root
    return run


def test_what_came_out_is_apart_from_how_it_ran(run):
    (found,), trained = run(to_be())
    assert trained == ["best-text seed-0"]
    kept = found.record
    assert kept.selection.model_dump() == {"split": "valid", "metric": "mae", "value": 0.5, "epoch": 2}
    assert kept.history == [
        {"epoch": 1.0, "train_loss": 1.0, "valid_loss": 0.75, "accuracy": None},
        {"epoch": 2.0, "train_loss": 0.5, "valid_loss": 0.5, "accuracy": 0.5},
    ]
    assert kept.measurements == {"parameters": 3}
    assert found.runtime.epoch_seconds == [0.25, 0.125]
    assert found.runtime.timings == {"seconds_per_epoch": 0.25}
    assert found.runtime.seconds >= 0
    assert {"python", "torch", "commit", "dirty", "machine"} <= set(found.runtime.environment)
    assert found.runtime.environment["device"] in ("cpu", "cuda", "mps")


def test_finished_runs_are_skipped(run):
    first, trained = run(to_be(), to_be(seed=1))
    assert len(trained) == 2
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*.*")}
    again, trained = run(to_be(), to_be(seed=1))
    assert trained == []
    assert [each.record for each in again] == [each.record for each in first]
    assert {path: path.stat().st_mtime_ns for path in run.root.rglob("*.*")} == before
    table = run_path(run.root, to_be()).with_suffix(".parquet")
    table.write_bytes(table.read_bytes()[:-5])
    assert run(to_be(), to_be(seed=1))[1] == ["best-text seed-0"], "a torn run is made anew"


def test_a_run_defined_otherwise_is_made_anew_and_no_other(run):
    fold = FoldInfo(index=0, count=3, kind="stratified")
    others = [to_be(seed=1), to_be("mag"), to_be(fold=fold), to_be(corpus="other"), to_be(paper="kim2022")]
    run(to_be(), *others)
    found, trained = run(to_be(key="other-key-0123456789"), *others, shift=1.0)
    assert trained == ["best-text seed-0"]
    assert len(found) == 6
    assert len(read_runs(run.root)) == 6
    aside = [path.relative_to(run.root.parent).as_posix() for path in (run.root.parent / "superseded").rglob("*.*")]
    folder = "superseded/ando2022/mini-mosi/best-text/seed-0.key-best-tex"
    assert sorted(aside) == [f"{folder}.json", f"{folder}.parquet", f"{folder}.runtime.json"]
    # Runs that this call does not name stay, whatever made them.
    run(to_be("new"))
    assert len(read_runs(run.root)) == 7


def test_only_the_named_runs_are_read(run):
    """Other processes may be writing theirs."""
    run(to_be(), to_be("mag"))
    run_path(run.root, to_be("mag")).write_text("half a rec")
    found, trained = run(to_be())
    assert [each.record.arm for each in found] == ["best-text"]
    assert trained == []
    assert len(run_jobs([], run.root)) == 0


def test_another_title_trains_nothing_and_is_recorded(run):
    run(to_be())
    renamed = to_be(definition=to_be().definition.model_copy(update={"title": "Better name", "group": "Group"}))
    (found,), trained = run(renamed)
    assert trained == []
    assert found.record.title == "Better name"
    stored = read_run(run_path(run.root, renamed))
    assert (stored.record.title, stored.record.definition.group) == ("Better name", "Group")
    assert stored.record.history, "all else is kept"
    assert len(stored.predictions) == 4


def test_equal_training_is_copied_whole(run):
    other = to_be("twin", key=to_be().key, same_as="best-text", definition=Arm(title="Twin", model="gated"))
    found, trained = run(to_be(), other)
    assert trained == ["best-text seed-0"]
    source, twin = found
    assert (twin.record.title, twin.record.same_as, twin.record.arm) == ("Twin", "best-text", "twin")
    for name in ("selection", "history", "measurements", "predictions"):
        assert getattr(twin.record, name) == getattr(source.record, name), name
    assert twin.runtime == source.runtime
    # How the source ran may be lost; what came out is not.
    run_path(run.root, to_be()).with_name("seed-0.runtime.json").unlink()
    run_path(run.root, other).unlink()
    found, trained = run(to_be(), other)
    assert trained == []
    assert found.runs[1].record.history == source.record.history
    assert found.runs[1].runtime is None


def test_peak_memory_is_that_of_the_run(run):
    process.reset_peak_memory()
    if process.peak_memory_mb() is None:
        pytest.skip("this system does not tell the peak of memory")

    def outcome(wanted):
        size = 200 * 2**17 if wanted.seed == 0 else 1
        block = np.ones(size)  # 200 MiB of float64
        return Outcome(None, "", [predictions(block[0])])

    large, small = run(to_be(), to_be(seed=1), outcome=outcome)[0]
    assert large.runtime.peak_memory_mb - small.runtime.peak_memory_mb > 150


def test_a_kill_goes_on(tmp_path):
    """Stored runs are kept, the one under way goes on from its last epoch, to the result of an unbroken run."""
    script = """
        import os, signal, sys
        from functools import partial
        from pathlib import Path
        import numpy as np, torch
        sys.path.insert(0, sys.argv[2])
        from small import predictions
        from test_jobs import to_be
        from msakit.runs.jobs import Job, Outcome, run_jobs
        from msakit.training import loop
        from msakit.training.batching import TensorBatches

        loop.SECONDS_BETWEEN = -1.0  # a checkpoint each epoch
        folder, kill_in = Path(sys.argv[1]), int(sys.argv[3])
        log = open(folder / "log", "w", buffering=1)

        class Linear(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(2, 1)
            def forward(self, batch):
                return {"prediction": self.layer(batch["x"])[:, 0]}

        def train(seed):
            print("run", seed, file=log)
            generator = loop.set_seed(seed)
            x = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
            batches = [TensorBatches({"x": x}, x[:, 0], 4, generator=g) for g in (generator, None)]
            model = Linear()
            def watch(model, epoch):
                print("epoch", epoch, file=log)
                if seed == 1 and epoch == kill_in:
                    os.kill(os.getpid(), signal.SIGKILL)
                return {}
            loss = lambda outputs, batch: ((outputs["prediction"] - batch["label"]) ** 2).mean()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            fit = loop.fit(model, *batches, loss=loss, optimizer=optimizer, epochs=4, on_epoch=watch)
            return Outcome(fit, "mse", [predictions(float(model.layer.weight[0, 0]))])

        jobs = [Job(to_be(seed=seed), partial(train, seed)) for seed in (0, 1)]
        run_jobs(jobs, folder / "broken" / "runs")
        run_jobs(jobs, folder / "unbroken" / "runs")
    """

    def call(kill_in):
        arguments = [str(tmp_path), os.path.dirname(__file__), str(kill_in)]
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), *arguments], check=False)
        return done.returncode, (tmp_path / "log").read_text().splitlines()

    epochs = [f"epoch {number}" for number in range(1, 5)]
    assert call(kill_in=3) == (-signal.SIGKILL, ["run 0", *epochs, "run 1", *epochs[:3]])
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    assert len(read_runs(broken / "runs")) == 1
    assert list((broken / "checkpoints").iterdir())
    code, lines = call(kill_in=0)
    assert (code, lines[:3]) == (0, ["run 1", *epochs[2:]])
    assert not list((broken / "checkpoints").iterdir())
    one, other = read_runs(broken / "runs"), read_runs(unbroken / "runs")
    assert [run.record for run in one] == [run.record for run in other]
