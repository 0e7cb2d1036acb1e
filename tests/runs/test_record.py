"""A run is stored whole or not at all, and what is read is what was written."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from msakit.runs import record as records
from msakit.runs.record import RecordError, RunRecord


def make_record(**changes):
    values = {
        "paper": "ando2022",
        "arm": "best-text",
        "seed": 0,
        "corpus": {"name": "mini-mosi", "fingerprint": "f00d", "generated": True, "counts": {"test": 4}},
        "protocol": "corrected",
        "config": {"lr": 1e-3, "layers": [1, 2]},
        "key": "k",
        "selection": {"split": "valid", "metric": "mae", "value": 0.5, "epoch": 3},
        "history": [{"epoch": 0, "train_loss": 1.0, "valid_mae": np.float32(0.5)}],
        "environment": records.environment(),
        "seconds": 1.5,
    }
    return RunRecord(**(values | changes))


def make_predictions(shift=0.0):
    label = np.array([-1.0, 0.0, 1.0, 2.0])
    return pd.DataFrame(
        {"segment_id": ["007", "NA", "a b", "ü"], "split": "test", "label": label, "prediction": label / 3 + shift}
    )


def test_round_trip(tmp_path):
    path = records.write(tmp_path, make_record(), make_predictions())
    assert path == tmp_path / "ando2022" / "mini-mosi" / "best-text" / "seed-0.json"
    record = records.read(path)
    assert record == replace(
        make_record(history=[{"epoch": 0, "train_loss": 1.0, "valid_mae": 0.5}]),
        predictions_sha256=record.predictions_sha256,
    )
    frame = records.read_predictions(path)
    assert frame["segment_id"].tolist() == ["007", "NA", "a b", "ü"]
    assert frame["prediction"].tolist() == [-0.333333, 0.0, 0.333333, 0.666667]
    assert sorted(p.name for p in path.parent.iterdir()) == ["seed-0.csv", "seed-0.json"]
    assert path.stat().st_mode & 0o044, "readable by others where the umask allows it"


def test_predictions_are_the_same_bytes_for_the_same_values(tmp_path):
    first = records.format_predictions(make_predictions())
    assert first == records.format_predictions(
        make_predictions().astype({"label": np.float32, "prediction": np.float32})
    )
    assert first.startswith(b"segment_id,split,label,prediction\n007,test,-1,-0.333333\n")


def test_what_cannot_be_stored_is_refused(tmp_path):
    for name in ("Best", "a/b", "..", "", "-x", "a b"):
        with pytest.raises(RecordError, match="cannot name a folder"):
            records.write(tmp_path, make_record(arm=name), make_predictions())
    bad = {"split": "test", "metric": "mae", "value": 1.0, "epoch": 1}
    with pytest.raises(RecordError, match="only an 'as_published' protocol"):
        records.write(tmp_path, make_record(selection=bad), make_predictions())
    with pytest.raises(RecordError, match="column split is missing"):
        records.write(tmp_path, make_record(), make_predictions().drop(columns="split"))
    with pytest.raises(RecordError, match="'NA' occurs twice"):
        records.write(tmp_path, make_record(), make_predictions().replace("007", "NA"))
    with pytest.raises(RecordError, match="either a column 'prediction'"):
        records.write(tmp_path, make_record(), make_predictions().drop(columns="prediction"))
    with pytest.raises(ValueError, match="cannot be stored in a record"):
        records.write(tmp_path, make_record(config={"f": object()}), make_predictions())
    assert list(tmp_path.iterdir()) == []


def test_schema_faults_are_all_named(tmp_path):
    assert {item.name for item in fields(RunRecord)} == set(records._TYPES)
    path = records.write(tmp_path, make_record(), make_predictions())
    good = json.loads(path.read_text())

    path.write_text(json.dumps(good | {"schema": 99}))
    with pytest.raises(RecordError, match=r"seed-0\.json: schema 99, this version reads schema 2; delete it and run"):
        records.read(path)
    values = good | {"seed": "0", "extra": 1}
    del values["key"]
    path.write_text(json.dumps(values))
    with pytest.raises(
        RecordError, match="'key' is missing; field 'extra' is unknown; field 'seed' is str, wanted int"
    ):
        records.read(path)
    path.write_text(json.dumps(good | {"corpus": {"name": "x"}}))
    with pytest.raises(RecordError, match="corpus lacks 'fingerprint'"):
        records.read(path)
    path.write_text(json.dumps(good | {"seed": 1}))
    with pytest.raises(RecordError, match=r"its record says .*seed-1"):
        records.read(path)
    path.write_text("[]")
    with pytest.raises(RecordError, match="holds a list"):
        records.read(path)


def test_torn_files(tmp_path):
    path = records.write(tmp_path, make_record(), make_predictions())
    table = path.with_suffix(".csv")
    whole, content = path.read_bytes(), table.read_bytes()

    table.write_bytes(content[:-7])
    with pytest.raises(RecordError, match=r"seed-0\.csv: sha256 .*torn or edited\); delete it and run"):
        records.read(path)
    assert not records.finished(tmp_path, "ando2022", "mini-mosi", "best-text", 0, "k")
    table.unlink()
    with pytest.raises(RecordError, match=r"seed-0\.csv is missing"):
        records.read(path)
    table.write_bytes(content)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordError, match="not readable as JSON"):
        records.read(path)
    path.unlink()
    with pytest.raises(RecordError, match="no such record"):
        records.read(path)
    assert len(records.read_all(tmp_path)) == 0  # predictions alone: not finished, no error


def test_read_all_reports_or_raises(tmp_path):
    for seed in (0, 1, 10):
        records.write(tmp_path, make_record(seed=seed), make_predictions())
    (tmp_path / "ando2022/mini-mosi/best-text/seed-1.csv").write_text("torn")
    with pytest.raises(RecordError, match=r"seed-1\.csv"):
        records.read_all(tmp_path)
    runs = records.read_all(tmp_path, on_error="report")
    assert [run.record.seed for run in runs] == [0, 10]
    assert len(runs.problems) == 1
    with pytest.raises(RecordError, match="no such folder of runs"):
        records.read_all(tmp_path / "nothing")
    with pytest.raises(ValueError, match="choose raise or report"):
        records.read_all(tmp_path, on_error="ignore")


def test_finished_compares_the_key(tmp_path):
    where = (tmp_path, "ando2022", "mini-mosi", "best-text", 0)
    assert not records.finished(*where, "k")
    records.write(tmp_path, make_record(), make_predictions())
    assert records.finished(*where, "k")
    assert not records.finished(*where, "other")


def test_keys():
    key = records.run_key({"a": 1, "b": (2, 3)}, "corpus", "code")
    assert key == records.run_key({"b": [2, 3], "a": 1}, "corpus", "code")
    others = [({"a": 1, "b": [2, 4]}, "corpus", "code"), ({"a": 1, "b": [2, 3]}, "c", "code")]
    assert key not in {records.run_key(*other) for other in others}


def test_git_state(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    package = tmp_path / "kit"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "table.csv").write_text("1")
    assert records.git_state(package) == (None, None)
    git("init")
    assert records.git_state(package) == (None, None)  # the package is not part of this repository
    git("add", ".")
    git("commit", "-m", "all")
    commit, dirty = records.git_state(package)
    assert len(commit) == 40
    assert dirty is False
    (tmp_path / "results" / "table.csv").write_text("2")
    assert records.git_state(package) == (commit, False)
    (package / "__init__.py").write_text("x = 1")
    assert records.git_state(package) == (commit, True)


def test_runs_frame_scores_and_select(tmp_path):
    for arm, shift in (("a", 0.0), ("b", 0.5)):
        for seed in (0, 1):
            records.write(tmp_path, make_record(arm=arm, seed=seed), make_predictions(shift))
    runs = records.read_all(tmp_path)
    assert runs.frame[["arm", "seed"]].to_numpy().tolist() == [["a", 0], ["a", 1], ["b", 0], ["b", 1]]
    assert runs.frame["path"].iloc[0] == "ando2022/mini-mosi/a/seed-0.json"
    scores = runs.scores(["mae", "acc2_non0"])
    assert scores.columns.tolist() == ["paper", "corpus", "arm", "seed", "metric", "value", "n"]
    assert len(scores) == 8
    assert scores.query("arm == 'a' and metric == 'mae'")["value"].iloc[0] == pytest.approx(2 * 4 / 3 / 4, abs=1e-6)
    assert scores.query("metric == 'acc2_non0'")["n"].unique().tolist() == [3]
    assert len(runs.select(arm="a")) == 2
    assert len(runs.select(arm=["a", "b"], seed=1)) == 2
    assert len(runs.select(corpus="other")) == 0
    first = next(iter(runs))
    assert runs.predictions(first) is runs.select(arm="a").predictions(first)
    with pytest.raises(RecordError, match="no prediction for split 'valid'"):
        runs.scores("mini", split="valid")


def test_classification_runs(tmp_path):
    p = np.array([0.9, 0.2, 0.3])
    frame = pd.DataFrame({"segment_id": list("abc"), "split": "test", "label": [0, 1, 0], "p_no": p, "p_yes": 1 - p})
    records.write(tmp_path, make_record(), frame)
    scores = records.read_all(tmp_path).scores("classification").set_index("metric")["value"]
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["auroc"] == 1.0


def _write_many(root, arm):
    for seed in range(8):
        records.write(root, make_record(arm=arm, seed=seed), make_predictions(seed))


def test_processes_write_at_the_same_time(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(tmp_path, arm)) for arm in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(records.read_all(tmp_path)) == 16
    assert not list(tmp_path.rglob("*.partial"))


def test_killed_between_predictions_and_record(tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from msakit.runs import record as records
        sys.path.insert(0, sys.argv[2])
        from test_records import make_predictions, make_record
        whole = records.write_atomically
        def once(path, content):
            if path.suffix == ".json":
                os.kill(os.getpid(), signal.SIGKILL)
            whole(path, content)
        records.write_atomically = once
        records.write(Path(sys.argv[1]), make_record(), make_predictions(1.0))
    """)
    where = (tmp_path, "ando2022", "mini-mosi", "best-text", 0, "k")
    path = records.write(tmp_path, make_record(), make_predictions())  # an older run of the same name
    command = [sys.executable, "-c", script, str(tmp_path), os.path.dirname(__file__)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert path.with_suffix(".csv").exists()
    assert not path.exists()
    assert not records.finished(*where)
    assert len(records.read_all(tmp_path)) == 0
    records.write(tmp_path, make_record(), make_predictions())
    assert records.finished(*where)


def test_artifacts_come_back_and_are_vouched_for(tmp_path):
    attention = pd.DataFrame({"segment_id": ["007", "007"], "seconds": [0.5, 1.0], "weight": [0.25, 0.75]})
    path = records.write(tmp_path, make_record(), make_predictions(), {"attention": attention})
    runs = records.read_all(tmp_path)
    pd.testing.assert_frame_equal(runs.artifact(runs.runs[0], "attention"), attention)
    with pytest.raises(RecordError, match=r"no artifact 'gates' .there are: attention"):
        runs.artifact(runs.runs[0], "gates")
    stored = records.artifact_path(path, "attention")
    stored.write_text(stored.read_text().replace("0.75", "0.76"))
    with pytest.raises(RecordError, match=r"seed-0\.attention\.csv: sha256"):
        records.read(path)
    with pytest.raises(RecordError, match=r"artifact '\.\./x' cannot name a file"):
        records.write(tmp_path, make_record(), make_predictions(), {"../x": attention})
