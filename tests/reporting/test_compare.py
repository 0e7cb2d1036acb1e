"""Two results folders: what moved, what is noise, what cannot be compared."""

import json

import numpy as np
import pytest
from test_tables import store
from typer.testing import CliRunner

from msakit.cli import app
from msakit.papers import facts
from msakit.reporting.compare import BEYOND, SAME, WITHIN, compare

LABEL = np.linspace(-2, 2, 41)
METRICS = len(facts("ando2022")["metrics"])
IDS = [f"v{index}_0" for index in range(41)]


def write(root, shift=0.0, seeds=3, arms=("a", "b", "c"), spread=0.05, oracle=0.1, **changes):
    """Arms whose MAE is 0.5, with some spread over seeds, and an oracle; `shift` moves arm a alone."""
    for arm in arms:
        for seed in range(seeds):
            error = 0.5 + spread * (seed - (seeds - 1) / 2) + shift * (arm == "a")
            store(root / "runs", arm, seed, LABEL + error, LABEL, IDS, **changes)
    store(root / "runs", "oracle", 0, LABEL + oracle, LABEL, IDS, **changes)
    return root


def verdicts(found, arm="a"):
    return {number.metric: number.verdict for number in found.numbers if number.arm == arm}


def test_the_same_results_are_the_same(tmp_path):
    found = compare(write(tmp_path / "x"), write(tmp_path / "y"))
    assert len(found.numbers) == 4 * METRICS
    assert {number.verdict for number in found.numbers} == {SAME}
    assert (found.beyond, found.faults) == (False, ())
    assert len(found.lines()) == 1
    assert len(found.lines(everything=True)) == 1 + 1 + 2 + 4 * METRICS


def test_a_move_is_weighed_against_the_seeds(tmp_path):
    before = write(tmp_path / "x")
    near = compare(before, write(tmp_path / "near", shift=0.08))
    assert verdicts(near)["mae"] == WITHIN
    assert not near.beyond
    far = compare(before, write(tmp_path / "far", shift=0.5))
    assert (verdicts(far)["mae"], verdicts(far, "b")["mae"]) == (BEYOND, SAME)
    assert far.beyond
    (number,) = [number for number in far.numbers if (number.arm, number.metric) == ("a", "mae")]
    assert (number.before, number.after, number.n) == (pytest.approx(0.5), pytest.approx(1.0), (3, 3))
    # Pooled over three arms of three seeds, twice: 12 degrees of freedom; 0.01 two-sided over all numbers.
    from scipy import stats

    assert number.noise == pytest.approx(
        stats.t.ppf(1 - 0.01 / 2 / len(far.numbers), 12) * 0.05 * np.sqrt(2 / 3), rel=1e-4
    )
    assert any(line.startswith("ando2022/mini-mosi/a") and "+0.5000" in line for line in far.lines())


def test_one_calm_arm_is_judged_by_its_neighbours(tmp_path):
    def made(name, shift):
        folder = write(tmp_path / name, arms=("b", "c"), spread=0.2)
        for seed in range(3):
            store(folder / "runs", "a", seed, LABEL + 0.5 + shift, LABEL, IDS)
        return folder

    assert verdicts(compare(made("x", 0.0), made("y", 0.1)))["mae"] == WITHIN


def test_what_no_seed_changes_must_be_the_same(tmp_path):
    found = compare(write(tmp_path / "x"), write(tmp_path / "y", oracle=0.101))
    assert verdicts(found, "oracle")["mae"] == BEYOND


def test_what_cannot_be_compared_is_said_and_counts(tmp_path):
    before = write(tmp_path / "x")
    missing = compare(before, write(tmp_path / "missing", arms=("a", "b")))
    assert missing.faults == (f"ando2022 on mini-mosi: c in {before} only",)
    assert missing.beyond
    other = compare(before, write(tmp_path / "other", fingerprint="beef"))
    assert "the corpora differ (fingerprints f00d and beef)" in other.faults[0]
    assert not other.numbers
    elsewhere = compare(before, write(tmp_path / "elsewhere", corpus="mine"))
    assert [fault.split(" is in")[0] for fault in elsewhere.faults] == ["ando2022 on mini-mosi", "ando2022 on mine"]
    old = write(tmp_path / "old")
    path = next((old / "runs").rglob("a/seed-1.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 1}))
    found = compare(before, old)
    assert "schema 1, this version reads schema" in found.faults[0]
    assert {number.n for number in found.numbers if number.arm == "a"} == {(3, 2)}


def test_a_run_that_collapsed_on_one_side_counts(tmp_path):
    before, after = write(tmp_path / "x"), write(tmp_path / "y")
    store(after / "runs", "a", 0, np.ones(41), LABEL, IDS)
    found = compare(before, after)
    assert verdicts(found)["corr"] == BEYOND


def test_the_command_says_it_by_its_exit_code(tmp_path):
    before = str(write(tmp_path / "x"))
    run = CliRunner().invoke
    same = run(app, ["compare", before, str(write(tmp_path / "y", shift=0.08))])
    assert same.exit_code == 0
    assert "within seed noise" in same.output
    moved = run(app, ["compare", before, str(write(tmp_path / "z", shift=0.5))])
    assert moved.exit_code == 3
    assert "beyond seed noise" in moved.output
