"""A run is stored whole or not at all, what is read is what was written, and both forms read alike."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from small import CLASSES, of_classes, predictions, record, runtime

from msakit.runs.record import FoldInfo, RecordError
from msakit.runs.store import find_run, pack, read_run, read_runs, set_aside, write_run

ATTENTION = pd.DataFrame({"segment_id": ["007", "007"], "word": ["1", "NA"], "weight": [0.25, 1 / 3]})


@pytest.fixture
def root(tmp_path):
    """Runs of every kind: seeds and folds, numbers and classes, columns and artifacts that others lack."""
    root = tmp_path / "built" / "runs"
    write_run(root, record(seed=10), runtime(), predictions())
    write_run(
        root, record(seed=2), runtime(), predictions(0.5, kind=["007", "1.50", "", "x"]), {"attention": ATTENTION}
    )
    for index in (10, 2):
        fold = FoldInfo(index=index, count=11, kind="stratified")
        write_run(root, record("folded", fold=fold), None, predictions(gate_text=[0.125, 0.5, 1e-38, 1 / 3]))
    changes = {"corpus": "Memes_1", "task": CLASSES, "selection": None}
    labelled = pd.DataFrame({"segment_id": ["a"], "word": [7], "label": ["no"], "weight": [1.0]})
    write_run(root, record("memes", **changes), runtime(seconds=9.0), of_classes(), {"attention": labelled})
    write_run(root, record(paper="kim2022"), runtime(), predictions())
    return root


@pytest.fixture
def packed(root, tmp_path):
    pack(read_runs(root), tmp_path / "packed")
    return tmp_path / "packed"


def only(runs, **wanted):
    (run,) = runs.select(**wanted)
    return run


def read_tables(path):
    run = read_run(path)
    return run.predictions, run.artifact("attention")


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_of_a_run(root):
    names = sorted(path.name for path in (root / "ando2022" / "mini-mosi" / "best-text").iterdir())
    assert names == [
        "seed-10.json", "seed-10.parquet", "seed-10.runtime.json",
        "seed-2.attention.parquet", "seed-2.json", "seed-2.parquet", "seed-2.runtime.json",
    ]  # fmt: skip
    folded = sorted(path.name for path in (root / "ando2022" / "mini-mosi" / "folded").iterdir())
    assert folded == ["fold-10.seed-0.json", "fold-10.seed-0.parquet", "fold-2.seed-0.json", "fold-2.seed-0.parquet"]


@pytest.mark.parametrize("form", ["root", "packed"])
def test_what_is_read_is_what_was_written(form, request):
    runs = read_runs(request.getfixturevalue(form))
    assert [run.record.identity for run in runs] == [
        ("ando2022", "Memes_1", "memes", 0, None),
        ("ando2022", "mini-mosi", "best-text", 2, None),
        ("ando2022", "mini-mosi", "best-text", 10, None),
        ("ando2022", "mini-mosi", "folded", 0, 2),
        ("ando2022", "mini-mosi", "folded", 0, 10),
        ("kim2022", "mini-mosi", "best-text", 0, None),
    ]
    run = only(runs, seed=2)
    written = record(seed=2)
    assert run.record == written.model_copy(
        update={"predictions": run.record.predictions, "artifacts": run.record.artifacts}
    )
    assert run.record.modalities == ("text", "audio"), "in the order of the arm, not of the alphabet"
    assert list(run.record.definition.args) == ["width", "decoder"]
    assert run.runtime == runtime()
    table = run.predictions
    assert table["segment_id"].tolist() == ["007", "NA", "a b", "ü"]
    assert table["video_id"].tolist() == ["1.50", "1.50", "null", "x, y"]
    assert table["kind"].fillna("").tolist() == ["007", "1.50", "", "x"]
    assert table["prediction"].tolist() == [0.166667, 0.5, 0.833333, 1.16667]
    pd.testing.assert_frame_equal(run.artifact("attention"), ATTENTION.assign(weight=[0.25, 0.333333]))
    tiny = only(runs, fold=2)
    assert tiny.runtime is None
    assert tiny.predictions["gate_text"].tolist() == [0.125, 0.5, 0.0, 0.333333]
    assert "gate_text" not in table
    memes = only(runs, corpus="Memes_1")
    assert memes.predictions["label"].dtype == np.int64
    assert table["label"].dtype == np.float64
    assert memes.predictions["p_no"].tolist() == [0.9, 0.2, 0.333333]
    assert memes.artifact("attention").to_numpy().tolist() == [["a", 7, "no", 1.0]]


def test_both_forms_read_alike(root, packed):
    one, other = read_runs(root), read_runs(packed)
    pd.testing.assert_frame_equal(one.frame, other.frame)
    for built, published in zip(one, other, strict=True):
        assert (built.record, built.runtime) == (published.record, published.runtime)
        pd.testing.assert_frame_equal(built.predictions, published.predictions)
        for name in built.record.artifacts:
            pd.testing.assert_frame_equal(built.artifact(name), published.artifact(name))


def test_packed_runs_need_no_package(packed):
    table = pd.read_parquet(packed / "ando2022" / "predictions.parquet")
    records = pd.read_json(packed / "ando2022" / "records.jsonl", lines=True, dtype={"seed": int})
    assert len(records) == 5
    mine = table.query("corpus == 'mini-mosi' and arm == 'best-text' and seed == 2 and fold.isna()")
    assert mine["segment_id"].tolist() == ["007", "NA", "a b", "ü"]
    np.testing.assert_allclose((mine["prediction"] - mine["label"]).abs().mean(), 2 / 3, atol=1e-6)
    assert set(table.query("arm == 'folded'")["fold"]) == {2, 10}
    assert table.query("corpus == 'Memes_1'")["prediction"].isna().all()
    assert sorted(path.name for path in (packed / "ando2022").iterdir()) == [
        "attention.parquet", "predictions.parquet", "records.jsonl", "runtime.jsonl",
    ]  # fmt: skip


def test_packing_twice_gives_the_same_bytes(root, packed, tmp_path):
    pack(read_runs(root), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(packed)
    pack(read_runs(packed), tmp_path / "repacked")
    assert contents(tmp_path / "repacked") == contents(packed)


def test_how_unchanged_runs_ran_is_kept(root, packed, tmp_path):
    """A reproduction elsewhere takes other times; only of a run that came out otherwise do they count."""
    for run in read_runs(root):
        if run.record.paper == "ando2022":
            table = run.predictions.assign(prediction=0.0) if run.record.seed == 10 else run.predictions
            extra = {name: run.artifact(name) for name in run.record.artifacts}
            write_run(root, run.record, runtime(seconds=77.0), table, extra)
    pack(read_runs(root), tmp_path / "new", previous=read_runs(packed))
    seconds = read_runs(tmp_path / "new").select(paper="ando2022").frame.set_index(["arm", "seed"])["seconds"]
    assert seconds["best-text", 10] == 77.0
    assert (seconds["best-text", 2], seconds["memes", 0]) == (1.5, 9.0)
    assert (seconds["folded"] == 77.0).all(), "of these nothing was known before"
    old, new = contents(packed), contents(tmp_path / "new")
    assert {name for name in old if old[name] != new[name]} == {
        "ando2022/predictions.parquet", "ando2022/records.jsonl", "ando2022/runtime.jsonl",
    }  # fmt: skip


def test_files_that_hold_the_same_runs_are_kept(root, packed, tmp_path):
    """Another version of a library writes the same table as other bytes."""
    path = packed / "ando2022" / "predictions.parquet"
    pd.read_parquet(path).to_parquet(path, compression="gzip")
    whole = contents(packed)
    pack(read_runs(root), tmp_path / "kept", previous=read_runs(packed))
    assert contents(tmp_path / "kept") == whole
    path.write_bytes(path.read_bytes()[:-9])
    pack(read_runs(root), tmp_path / "anew", previous=read_runs(packed))
    assert contents(tmp_path / "anew").keys() == whole.keys()
    (tmp_path / "one").mkdir()
    pack(read_runs(root).select(arm="memes"), tmp_path / "one", previous=read_runs(tmp_path / "kept"))
    assert [run.record.arm for run in read_runs(tmp_path / "one")] == ["memes"]
    for folder in ("anew", "one"):
        for run in read_runs(tmp_path / folder):
            run.tables()


def test_large_seeds_and_empty_tables_are_packed(tmp_path):
    write_run(tmp_path / "a", record(seed=2**40), runtime(), predictions(), {"attention": ATTENTION.head(0)})
    write_run(tmp_path / "a", record(seed=1), runtime(), predictions(), {"attention": ATTENTION})
    pack(read_runs(tmp_path / "a"), tmp_path / "b")
    runs = read_runs(tmp_path / "b")
    assert [len(run.artifact("attention")) for run in runs] == [2, 0]
    assert [run.record.seed for run in runs] == [1, 2**40]


def test_text_is_given_back_as_text_and_numbers_as_numbers(tmp_path):
    words = ["01", "NA", "nan", "1e5", "", "True"]
    weight = [1e-40, -1.5, np.nan, 3.25e7, 0.1, 12]
    table = pd.DataFrame({"word": words, "digits": ["007"] * 6, "weight": weight, "n": 7, "whole": 1.0})
    run = read_run(write_run(tmp_path, record(), runtime(), predictions(), {"words": table}))
    info, found = run.record.artifacts["words"], run.artifact("words")
    assert (info.columns, info.text) == (list(table), ["word", "digits"])
    assert found["word"].fillna("").tolist() == words
    assert found["digits"].tolist() == ["007"] * 6
    assert found["weight"].fillna(-9).tolist() == [0.0, -1.5, -9, 3.25e7, 0.1, 12.0], "single precision has no 1e-40"
    assert found[["n", "whole"]].dtypes.tolist() == [np.int64, np.float64]
    again = read_run(write_run(tmp_path, record(seed=1), runtime(), predictions(), {"words": found}))
    assert again.record.artifacts["words"] == info


def test_torn_files_are_refused(root):
    path = root / "ando2022" / "mini-mosi" / "best-text" / "seed-2.json"
    whole = {file: file.read_bytes() for file in path.parent.iterdir()}
    wanted = read_run(path).record
    other = write_run(root.with_name("other"), wanted, None, read_run(path).predictions.assign(prediction=0.0))
    edited = other.with_suffix(".parquet").read_bytes()
    for name, content, message in (
        ("seed-2.parquet", edited, "its table 'predictions' is not the one recorded"),
        ("seed-2.parquet", whole[path.with_name("seed-2.parquet")][:-9], "table 'predictions' is not readable"),
        ("seed-2.parquet", None, "its table 'predictions' is not readable"),
        ("seed-2.attention.parquet", whole[path.with_name("seed-2.parquet")], "its table 'attention' is not readable"),
        ("seed-2.json", whole[path][: len(whole[path]) // 2], r"seed-2\.json: not readable"),
        ("seed-2.json", b"[]", "record: it should be a valid dictionary"),
        ("seed-2.json", b'{"schema": 2}', "no field 'schema': there are schema_version, "),
        ("seed-2.json", whole[path].replace(b'"seed": 2', b'"seed": "2"'), "'seed' should be a valid integer, not '2'"),
        ("seed-2.json", whole[path].replace(b'"seed": 2', b'"seed": 1'), r"its record says .*seed-1\.json"),
    ):
        file = path.with_name(name)
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        assert find_run(root, wanted) is None, message
        with pytest.raises(RecordError, match=f"{message}.*delete it and run"):
            read_tables(path)
        file.write_bytes(whole[file])
    assert find_run(root, wanted).record == wanted
    path.unlink()
    assert find_run(root, wanted) is None
    assert len(read_runs(root)) == 5  # tables alone: not finished, no error
    with pytest.raises(RecordError, match="no such record"):
        read_run(path)


def test_a_table_edited_in_the_packed_form_is_refused(packed):
    path = packed / "ando2022" / "predictions.parquet"
    table = pd.read_parquet(path)
    table.loc[(table["arm"] == "best-text") & (table["seed"] == 2), "prediction"] += 0.001
    table.to_parquet(path)
    runs = read_runs(packed)
    with pytest.raises(RecordError, match=r"records\.jsonl, line 2: its table 'predictions' is not the one recorded"):
        _ = only(runs, seed=2).predictions
    assert len(only(runs, seed=10).predictions) == 4
    table.drop(columns="video_id").to_parquet(path)
    with pytest.raises(RecordError, match=r"not readable as parquet .*video_id.*; publish the results again"):
        _ = only(read_runs(packed), seed=10).predictions
    for content in (path.read_bytes()[:-100], b""):
        path.write_bytes(content)
        with pytest.raises(RecordError, match=r"predictions\.parquet: not readable as parquet"):
            _ = only(read_runs(packed), seed=10).predictions


def test_problems_are_raised_or_reported(root, packed):
    (root / "kim2022/mini-mosi/best-text/seed-0.json").write_text("torn")
    with pytest.raises(RecordError, match=r"kim2022.*seed-0\.json"):
        read_runs(root)
    runs = read_runs(root, on_error="report")
    assert (len(runs), len(runs.problems)) == (5, 1)
    lines = packed / "ando2022" / "records.jsonl"
    lines.write_bytes(lines.read_bytes().replace(b'"seed": 2', b'"seed": "2"'))
    runs = read_runs(packed, on_error="report")
    assert (len(runs), len(runs.problems)) == (5, 1), "one line is lost, not its paper"
    with pytest.raises(RecordError, match="no such folder of runs"):
        read_runs(root / "nothing")


def test_a_run_is_there_once(root, packed):
    shutil.copytree(packed / "kim2022", root / "kim2022", dirs_exist_ok=True)
    with pytest.raises(RecordError, match="are the same run: delete one of the two"):
        read_runs(root)


def test_how_runs_ran_may_be_lost_without_harm(packed, root, caplog):
    path = packed / "ando2022" / "runtime.jsonl"
    path.write_bytes(path.read_bytes() + b"\n")
    assert [run.runtime for run in read_runs(packed).select(paper="ando2022")] == [None] * 5
    assert "6 lines for 5 records" in caplog.text
    (root / "kim2022/mini-mosi/best-text/seed-0.runtime.json").write_text('{"seconds": "x"}')
    run = only(read_runs(root), paper="kim2022")
    assert run.runtime is None
    assert len(run.predictions) == 4


def test_a_line_of_a_record_is_one_line(tmp_path):
    title = "A\u2028B\x85C\nD"
    definition = record().definition.model_copy(update={"title": title})
    write_run(tmp_path / "a", record(definition=definition), runtime(), predictions())
    pack(read_runs(tmp_path / "a"), tmp_path / "b")
    (run,) = read_runs(tmp_path / "b")
    assert run.record.title == title


def test_what_cannot_be_stored_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"seed-0\.json: segment '007' has no finite prediction"):
        write_run(tmp_path, record(), runtime(), predictions(np.nan))
    with pytest.raises(ValueError, match="has no place in a record"):
        write_run(tmp_path, record(settings={"f": object()}), runtime(), predictions())
    with pytest.raises(RecordError, match=r"artifact '\.\./x' cannot name a file"):
        write_run(tmp_path, record(), runtime(), predictions(), {"../x": ATTENTION})
    assert list(tmp_path.iterdir()) == []


def test_set_aside_keeps_all_files_under_the_key(root, tmp_path):
    run = only(read_runs(root), seed=2)
    set_aside(run, root, tmp_path / "superseded")
    names = sorted(path.name for path in (tmp_path / "superseded/ando2022/mini-mosi/best-text").iterdir())
    stem = f"seed-2.{run.record.key[:12]}"
    assert names == [f"{stem}.attention.parquet", f"{stem}.json", f"{stem}.parquet", f"{stem}.runtime.json"]
    assert len(read_runs(root)) == 5


def test_runs_are_chosen_by_what_they_are(root):
    runs = read_runs(root)
    assert runs.arms == ("memes", "best-text", "folded")
    assert len(runs.select(arm="folded")) == 2
    assert len(runs.select(arm=["folded", "memes"], seed=0)) == 3
    assert len(runs.select(corpus="other")) == len(runs.select(reference=True)) == 0
    assert len(runs.select(reference=False, fold=[2, 3])) == 1
    frame = runs.frame.set_index("arm")
    assert frame.loc["folded", "fold"].tolist() == [2, 10]
    assert frame.loc["memes", "fold"] is pd.NA
    assert frame.loc["memes", ["task", "protocol", "epochs"]].tolist() == ["classification", "corrected", 2]
    assert frame.loc["best-text", ["selection_metric", "seconds"]].iloc[0].tolist() == ["mae", 1.5]
    assert runs.select(arm="x").frame.columns.tolist() == runs.frame.columns.tolist()
    with pytest.raises(ValueError, match="runs cannot be selected by 'sed': choose from paper"):
        runs.select(sed=1)
    assert only(runs, seed=2).split("valid").empty
    with pytest.raises(RecordError, match=r"no artifact 'gates' .there are: attention"):
        only(runs, seed=2).artifact("gates")


def _write_many(root, arm):
    for seed in range(8):
        write_run(root, record(arm, seed), runtime(), predictions(seed))


def test_processes_write_at_the_same_time(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(tmp_path, arm)) for arm in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(read_runs(tmp_path)) == 16
    assert not list(tmp_path.rglob("*.partial*"))


@pytest.mark.parametrize("moment", ["before", "while"])
def test_killed_before_or_while_the_record_is_written(moment, tmp_path):
    script = """
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from small import predictions, record, runtime
        from msakit import files
        from msakit.runs import store
        whole, replace = store.write_atomically, os.replace
        def kill_at(wanted):
            def write(path, content):
                if path.suffix == ".json" and "runtime" not in path.name:
                    if wanted == "before":
                        os.kill(os.getpid(), signal.SIGKILL)
                    os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
                whole(path, content)
            return write
        store.write_atomically = kill_at(sys.argv[3])
        store.write_run(Path(sys.argv[1]), record(), runtime(), predictions(1.0))
    """
    path = write_run(tmp_path, record(), runtime(), predictions())  # an older run of the same name
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), os.path.dirname(__file__), moment]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert path.with_suffix(".parquet").exists()
    assert not path.exists(), "the old record must not vouch for the new predictions"
    assert find_run(tmp_path, record()) is None
    assert len(read_runs(tmp_path)) == 0
    write_run(tmp_path, record(), runtime(), predictions())
    assert find_run(tmp_path, record()) is not None
    assert json.loads(path.read_bytes())["arm"] == "best-text"
