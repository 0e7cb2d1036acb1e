"""Two results folders: what moved, what is noise, what cannot be compared."""

import json

import numpy as np
import pytest
from scipy import stats
from small_runs import METRICS, paper, regression
from small_runs import write as write_run
from typer.testing import CliRunner

from msakit import cli, papers
from msakit.reporting.compare import BEYOND, SAME, WITHIN
from msakit.reporting.compare import compare as compare_of
from msakit.runs.store import pack, read_runs

LABEL = np.linspace(-2, 2, 41)
COUNT = len(METRICS["regression"])
PAPERS = {"kim2022": paper()}


def compare(before, after):
    return compare_of(before, after, PAPERS)


def store(root, arm, seed, prediction, **changes):
    write_run(root / "runs", arm, seed, regression(LABEL, prediction), **changes)


def write(root, shift=0.0, seeds=3, arms=("a", "b", "c"), spread=0.05, oracle=0.1, **changes):
    """Arms whose MAE is 0.5, with some spread over seeds, and an oracle; `shift` moves arm a alone."""
    for arm in arms:
        for seed in range(seeds):
            error = 0.5 + spread * (seed - (seeds - 1) / 2) + (shift if arm == "a" else 0.0)
            store(root, arm, seed, LABEL + error, **changes)
    # No name tells that it is a reference.
    store(root, "best", 0, LABEL + oracle, reference=True, **changes)
    return root


def verdicts(found, arm="a"):
    return found.numbers[found.numbers["arm"] == arm].set_index("metric")["verdict"].to_dict()


def test_the_same_results_are_the_same(tmp_path):
    found = compare(write(tmp_path / "x"), write(tmp_path / "y"))
    assert len(found.numbers) == 4 * COUNT
    assert set(found.numbers["verdict"]) == {SAME}
    assert (found.beyond, found.faults) == (False, ())
    assert len(found.lines()) == 1
    assert len(found.lines(everything=True)) == 1 + 1 + 2 + 4 * COUNT


def test_a_move_is_weighed_against_the_seeds(tmp_path):
    before = write(tmp_path / "x")
    near = compare(before, write(tmp_path / "near", shift=0.08))
    assert verdicts(near)["mae"] == WITHIN
    assert not near.beyond
    far = compare(before, write(tmp_path / "far", shift=0.5))
    assert (verdicts(far)["mae"], verdicts(far, "b")["mae"]) == (BEYOND, SAME)
    assert far.beyond
    number = far.numbers.set_index(["arm", "metric"]).loc["a", "mae"]
    assert (number.before, number.after) == (pytest.approx(0.5), pytest.approx(1.0))
    assert (number.n_before, number.n_after) == (3, 3)
    # Pooled over three arms of three seeds, twice: 12 degrees of freedom; 0.01 two-sided over all numbers.
    assert number.noise == pytest.approx(
        stats.t.ppf(1 - 0.01 / 2 / len(far.numbers), 12) * 0.05 * np.sqrt(2 / 3), rel=1e-4
    )
    assert any(line.startswith("kim2022/mini-mosi/a") and "+0.5000" in line for line in far.lines())


def test_one_calm_arm_is_compared_by_the_spread_of_all(tmp_path):
    def folder(name, shift):
        root = write(tmp_path / name, arms=("b", "c"), spread=0.2)
        for seed in range(3):
            store(root, "a", seed, LABEL + 0.5 + shift)
        return root

    assert verdicts(compare(folder("x", 0.0), folder("y", 0.1)))["mae"] == WITHIN


def test_what_no_seed_changes_must_be_the_same(tmp_path):
    found = compare(write(tmp_path / "x"), write(tmp_path / "y", oracle=0.101))
    assert verdicts(found, "best")["mae"] == BEYOND


def test_what_cannot_be_compared_is_named_and_counts(tmp_path):
    before = write(tmp_path / "x")
    missing = compare(before, write(tmp_path / "missing", arms=("a", "b")))
    assert missing.faults == (f"kim2022 on mini-mosi: c in {before} only",)
    assert missing.beyond
    other = compare(before, write(tmp_path / "other", fingerprint="beef"))
    assert "the corpora differ (fingerprints f00d and beef)" in other.faults[0]
    assert other.numbers.empty
    elsewhere = compare(before, write(tmp_path / "elsewhere", corpus="mine"))
    assert [fault.split(" in ")[0] for fault in elsewhere.faults] == ["kim2022 on mini-mosi", "kim2022 on mine"]
    old = write(tmp_path / "old")
    path = next((old / "runs").rglob("a/seed-1.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 1}))
    found = compare(before, old)
    assert "schema" in found.faults[0]
    numbers = found.numbers[found.numbers["arm"] == "a"]
    assert set(zip(numbers["n_before"], numbers["n_after"], strict=True)) == {(3, 2)}


def test_a_run_that_collapsed_on_one_side_counts(tmp_path):
    before, after = write(tmp_path / "x"), write(tmp_path / "y")
    store(after, "a", 0, np.ones(41))
    found = compare(before, after)
    assert verdicts(found)["corr"] == BEYOND


def test_published_and_built_runs_are_compared(tmp_path):
    built = write(tmp_path / "built")
    pack(read_runs(built / "runs"), tmp_path / "published" / "runs")
    found = compare(tmp_path / "published", built)
    assert len(found.numbers) == 4 * COUNT
    assert set(found.numbers["verdict"]) == {SAME}


def test_an_unknown_paper_is_compared_by_the_metrics_that_fit(tmp_path):
    found = compare_of(write(tmp_path / "x"), write(tmp_path / "y"), {})
    assert {"mae", "acc7_round"} < set(found.numbers["metric"])


def test_the_command_has_its_exit_code(tmp_path, monkeypatch):
    monkeypatch.setattr(papers, "load_all", lambda: PAPERS)
    before = str(write(tmp_path / "x"))
    run = CliRunner().invoke
    same = run(cli.app, ["compare", before, str(write(tmp_path / "y", shift=0.08))])
    assert same.exit_code == 0
    assert "within seed noise" in same.output
    moved = run(cli.app, ["compare", before, str(write(tmp_path / "z", shift=0.5))])
    assert moved.exit_code == 3
    assert "beyond seed noise" in moved.output
