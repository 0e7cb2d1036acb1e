"""A record says what a run is; its faults are refused, and its key depends on what decides the outcome alone."""

import subprocess
import sys

import numpy as np
import pytest
from small import predictions, record

from msakit.runs.arm import Protocol
from msakit.runs.record import (
    FoldInfo,
    RecordError,
    Selection,
    check_predictions,
    git_state,
    plain_json,
    run_key,
)


def test_what_a_run_is_called():
    plain = record()
    assert plain.identity == ("ando2022", "mini-mosi", "best-text", 0, None)
    assert (plain.stem, plain.title, plain.modalities) == ("seed-0", "Best", ("text", "audio"))
    folded = record(seed=3, fold=FoldInfo(index=2, count=5, kind="stratified"))
    assert folded.identity == ("ando2022", "mini-mosi", "best-text", 3, 2)
    assert folded.stem == "fold-2.seed-3"


@pytest.mark.parametrize("name", ["Best", "a/b", "..", "", "-x", "a b"])
def test_a_name_is_one_of_a_file(name):
    with pytest.raises(ValueError, match=r"arm .* cannot name a file or folder"):
        record(arm=name)
    with pytest.raises(ValueError, match=r"artifact .* cannot name a file or folder"):
        record(artifacts={name: record().predictions})


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="artifact 'predictions' cannot name a file"):
        record(artifacts={"predictions": record().predictions})
    with pytest.raises(ValueError, match="selected on the test split; only a protocol that says so may do that"):
        record(selection=Selection(split="test", metric="mae", value=0.5, epoch=1))
    leaks = record().definition.model_copy(update={"protocol": Protocol(name="as_published", stop="test")})
    record(definition=leaks, selection=Selection(split="test", metric="mae", value=0.5, epoch=1))
    with pytest.raises(ValueError, match="seed"):
        record(seed=-1)
    with pytest.raises(ValueError, match="extra"):
        record(extra=1)


def test_a_key_does_not_depend_on_the_order():
    key = run_key({"a": 1, "b": (2, 3), "c": {"x": np.float32(0.5), "y": None}})
    assert key == run_key({"c": {"y": None, "x": 0.5}, "b": [2, 3], "a": np.int64(1)})
    others = [{"a": 1, "b": (3, 2), "c": {"x": 0.5, "y": None}}, {"a": 1, "b": (2, 3), "c": {"x": 0.5, "y": 0}}]
    assert key not in {run_key(other) for other in others}


def test_plain_json_knows_numbers_and_refuses_objects(tmp_path):
    given = {1: (np.int64(2), np.array([1.5, np.nan])), "inf": float("inf"), "path": tmp_path, "flag": True}
    assert plain_json(given) == {"1": [2, [1.5, None]], "inf": None, "path": tmp_path.as_posix(), "flag": True}
    with pytest.raises(ValueError, match=r"\(object\) has no place in a record"):
        plain_json({"f": object()})


def test_predictions_that_are_not_finite_are_refused():
    for table, segment in (
        (predictions().assign(prediction=[0, 1, np.nan, 2]), "a b"),
        (predictions().assign(prediction=np.inf), "007"),
    ):
        with pytest.raises(RecordError, match=f"here: segment '{segment}' has no finite prediction"):
            check_predictions(table, "here")
    check_predictions(predictions(), "here")


def test_git_state(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    package = tmp_path / "kit"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "table.csv").write_text("1")
    assert git_state(package) == (None, None)
    git("init")
    assert git_state(package) == (None, None)  # the package is not part of this repository
    git("add", ".")
    git("commit", "-m", "all")
    commit, dirty = git_state(package)
    assert len(commit) == 40
    assert dirty is False
    (tmp_path / "results" / "table.csv").write_text("2")
    assert git_state(package) == (commit, False)
    (package / "__init__.py").write_text("x = 1")
    assert git_state(package) == (commit, True)


def test_records_are_read_without_torch():
    script = "import sys, msakit.runs.store; assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_numbers_of_a_record_are_rounded_where_it_is_asked_for():
    values = {"loss": [0.123456789, 1e-12, float("inf")], "seconds": np.float32(2.5), "epoch": 1234567}
    assert plain_json(values) == {"loss": [0.123456789, 1e-12, None], "seconds": 2.5, "epoch": 1234567}
    assert plain_json(values, 6) == {"loss": [0.123457, 1e-12, None], "seconds": 2.5, "epoch": 1234567}
