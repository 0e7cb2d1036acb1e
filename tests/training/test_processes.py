"""Several processes and accumulated gradients give what one process gives on the same batches put together."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_training import run

PROGRAM = Path(__file__).with_name("small_training.py")


def in_processes(count, *settings):
    """Run the program in several processes that find each other as torch's and accelerate's launchers arrange it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, PROGRAM, json.dumps(settings)]
    started = [
        subprocess.Popen(
            command, env=os.environ | meet | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE
        )
        for rank in range(count)
    ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in started:
            process.kill()


def close(found, expected):
    assert len(found["history"]) == len(expected["history"]) == 5
    for ours, theirs in zip(found["history"], expected["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert found["best_epoch"] == expected["best_epoch"]
    for name, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["test"], expected["test"], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def one():
    """One process, batches of 8: 8, 8, 8 and 4 rows."""
    return run(batch=8, role="evaluated")


def test_accumulated_batches_equal_one_batch(one):
    close(run(batch=2, accumulate=4, role="evaluated"), one)


def test_two_processes_contrast_with_the_rows_of_both(tmp_path):
    alone = run(batch=8, contrast=0.5)
    in_processes(2, {"out": str(tmp_path / "both"), "batch": 4, "contrast": 0.5})
    # In the last step of an epoch one process is left without a batch: its rows are nobody's negatives.
    close(torch.load(tmp_path / "both", weights_only=True), alone)


def test_two_processes_give_the_losses_of_one(one, tmp_path):
    plain, rest, stem = (str(tmp_path / name) for name in ("plain", "rest", "stem"))
    accumulating = {"batch": 2, "accumulate": 2, "role": "evaluated", "stem": stem}
    in_processes(
        2,
        {"out": plain, "batch": 4, "role": "evaluated"},
        # Fails in the third epoch, with the checkpoint of the second; then goes on from there.
        accumulating | {"stop_in": 3},
        accumulating | {"out": rest},
    )
    found = {name: torch.load(tmp_path / name, weights_only=True) for name in ("plain", "rest")}
    # 28 rows are 7 batches of 4: in the last step one process is left without, and nothing is left out.
    close(found["plain"], one)
    assert found["rest"]["losses"] == 3 * 7  # epochs 3 to 5, each with 14 batches, half of them here
    close(found["rest"], one)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["plain", "rest"]
