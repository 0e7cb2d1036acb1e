"""Publishing swaps results as a whole; the check finds what was edited, lost or added since."""

import json
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from small_runs import ENVIRONMENT, paper, regression, write

from msakit.reporting import figures, publish, rebuild
from msakit.runs.record import RecordError
from msakit.runs.store import read_runs

LABEL = np.linspace(-2, 2, 8)
CLAIM = {"id": "c", "sentence": "A is better.", "source": "here [P]", "metric": "mae", "family": "f",
         "comparisons": {"plain": {"a": "a", "b": "b"}}}  # fmt: skip
PAPERS = {"kim2022": paper(claims=[CLAIM])}


def build(root, arms=("a", "b"), shift=0.0, environment=ENVIRONMENT, layers=None, seconds=1.0):
    """A built results folder: three seeds an arm, a figure, and a head of each arm."""
    for arm in arms:
        for seed in range(3):
            error = 0.1 * (seed + 1) + (shift if (arm, seed) == ("a", 1) else 0)
            write(root / "runs", arm, seed, regression(LABEL, LABEL + error), layers=(layers or {}).get(arm),
                  runtime={"environment": environment, "seconds": seconds})  # fmt: skip
    figure, _ = plt.subplots(figsize=(1, 1))
    figures.save(figure, pd.DataFrame({"arm": ["a"], "value": [0.1]}), root / "figures/kim2022", "drawn")
    plt.close(figure)
    for arm in arms:
        head = root / "heads/kim2022/mini-mosi" / arm
        head.mkdir(parents=True, exist_ok=True)
        (head / "config.json").write_text("{}")
        (head / "model.safetensors").write_bytes(f"{arm}, {seconds}".encode())
    return root


def snapshot(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def published(built, results):
    publish.publish(built, results, "mini", PAPERS)
    return results


@pytest.fixture
def results(tmp_path):
    layers = {"a": {"text": 1}, "b": {"text": 1, "audio": 2}}
    return published(build(tmp_path / "built", layers=layers), tmp_path / "results" / "mini")


def test_published_results_are_packed_and_agree(results):
    files = set(snapshot(results))
    assert files == {
        "runs/kim2022/records.jsonl", "runs/kim2022/runtime.jsonl", "runs/kim2022/predictions.parquet",
        "tables/kim2022/mini-mosi.csv", "tables/kim2022/mini-mosi.md", "figures/kim2022/drawn.png",
        "figures/kim2022/data.json", "heads/kim2022/mini-mosi/b/config.json", "heads/kim2022/mini-mosi/b/README.md",
        "heads/kim2022/mini-mosi/b/model.safetensors", "references.bib", "ro-crate-metadata.json", "manifest.json",
        "claims.json", "claims.md",
    }  # fmt: skip
    assert rebuild.check(results, PAPERS) == "7 files rebuilt from their runs, all as committed"
    assert [path.name for path in results.parent.iterdir()] == ["mini"]
    assert len(read_runs(results / "runs")) == 6


def test_predictions_load_without_the_package(results):
    frame = pd.read_parquet(results / "runs/kim2022/predictions.parquet")
    assert {"corpus", "arm", "seed", "fold", "segment_id", "video_id", "split", "label", "prediction"} <= set(frame)
    error = (frame["prediction"] - frame["label"]).abs().groupby([frame["arm"], frame["seed"]]).mean()
    assert error["a"].to_numpy() == pytest.approx([0.1, 0.2, 0.3], rel=1e-5)


def test_the_manifest_depends_on_no_machine(results):
    text = (results / "manifest.json").read_text()
    content = json.loads(text)
    assert (content["profile"], content["runs"], content["seeds"]) == ("mini", 6, {"kim2022": [0, 1, 2]})
    assert content["corpora"] == {"mini-mosi": {"fingerprint": ["f00d"], "generated": True, "task": "regression"}}
    assert (content["papers"], content["folds"]) == ({"kim2022": [1]}, {"kim2022": 0})
    assert set(content["files"]) == set(snapshot(results)) - {"manifest.json"}
    for word in ("c0ffee", "x86_64", "seconds", "2.13.0"):
        assert word not in text


def test_a_reproduction_in_which_no_number_moved_changes_no_file(results, tmp_path):
    before = snapshot(results)
    elsewhere = {**ENVIRONMENT, "machine": "arm64, 8 cores", "commit": "beef"}
    layers = {"a": {"text": 1}, "b": {"text": 1, "audio": 2}}
    published(build(tmp_path / "again", environment=elsewhere, layers=layers, seconds=77.0), results)
    assert snapshot(results) == before


def test_where_a_number_moved_the_difference_shows_exactly_that(results, tmp_path):
    before = snapshot(results)
    layers = {"a": {"text": 1}, "b": {"text": 1, "audio": 2}}
    published(build(tmp_path / "again", shift=0.05, layers=layers, seconds=77.0), results)
    after = snapshot(results)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        "runs/kim2022/records.jsonl", "runs/kim2022/runtime.jsonl", "runs/kim2022/predictions.parquet",
        "tables/kim2022/mini-mosi.csv", "tables/kim2022/mini-mosi.md", "manifest.json", "claims.json", "claims.md",
    }  # fmt: skip
    for name in ("records", "runtime"):
        one, two = (each[f"runs/kim2022/{name}.jsonl"].splitlines() for each in (before, after))
        assert [line != other for line, other in zip(one, two, strict=True)] == [
            False,
            True,
            False,
            False,
            False,
            False,
        ]


def test_a_head_whose_runs_moved_is_published_anew(results, tmp_path):
    weights = results / "heads/kim2022/mini-mosi/b/model.safetensors"
    assert weights.read_bytes() == b"b, 1.0"
    built = build(tmp_path / "again", layers={"a": {"text": 1}, "b": {"text": 2, "audio": 2}}, seconds=2.0)
    published(built, results)
    assert weights.read_bytes() == b"b, 2.0"
    # The same runs, but a head of another make.
    built = build(tmp_path / "again", layers={"a": {"text": 1}, "b": {"text": 2, "audio": 2}}, seconds=3.0)
    (built / "heads/kim2022/mini-mosi/b/config.json").write_text('{"new": true}')
    published(built, results)
    assert weights.read_bytes() == b"b, 3.0"


def test_an_edited_table_shows_with_a_diff(results):
    path = results / "tables/kim2022/mini-mosi.md"
    path.write_text(path.read_text().replace("0.200 ± 0.100", "0.100 ± 0.100"))
    with pytest.raises(rebuild.CheckError) as caught:
        rebuild.check(results, PAPERS)
    message = str(caught.value)
    assert "2 differences; publish the results again" in message
    assert "tables/kim2022/mini-mosi.md: differs\n  --- committed\n  +++ rebuilt" in message
    assert "  -| a " in message
    assert "mini-mosi.md: sha256 is not the manifest's" in message


def test_what_is_missing_or_too_much_shows(results):
    (results / "tables/kim2022/mini-mosi.csv").unlink()
    (results / "tables/kim2022/typed.md").write_text("numbers")
    (results / "figures/kim2022/data.json").write_text("{}")
    with pytest.raises(rebuild.CheckError) as caught:
        rebuild.check(results, PAPERS)
    for fault in ("mini-mosi.csv: missing", "typed.md: no run gives this", "typed.md: not in the manifest",
                  "mini-mosi.csv: in the manifest, but not there", "data.json: sha256 is not"):  # fmt: skip
        assert fault in str(caught.value)
    (results / "manifest.json").unlink()
    with pytest.raises(rebuild.CheckError, match=r"manifest\.json: missing"):
        rebuild.check(results, PAPERS)


@pytest.mark.parametrize(
    "name",
    ["claims.json", "claims.md", "references.bib", "ro-crate-metadata.json", "heads/kim2022/mini-mosi/b/README.md"],
)
def test_exports_are_rebuilt_too(results, name):
    path = results / name
    path.write_text(path.read_text().replace("mini", "maxi").replace("NumPy", "Numpy"), encoding="utf-8")
    with pytest.raises(rebuild.CheckError, match=rf"{name}: differs(.|\n)*{name}: sha256 is not the manifest's"):
        rebuild.check(results, PAPERS)
    path.unlink()
    with pytest.raises(rebuild.CheckError, match=rf"{name}: missing"):
        rebuild.check(results, PAPERS)


def test_an_edited_prediction_is_refused(results):
    path = results / "runs/kim2022/predictions.parquet"
    frame = pd.read_parquet(path)
    frame.loc[frame["arm"] == "a", "prediction"] = 0.0
    frame.to_parquet(path, index=False)
    with pytest.raises(RecordError, match="torn or edited"):
        rebuild.check(results, PAPERS)


def test_line_ends_count(results):
    path = results / "tables/kim2022/mini-mosi.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(rebuild.CheckError, match="line ends"):
        rebuild.check(results, PAPERS)


def test_unknown_papers_and_empty_results(results, tmp_path):
    with pytest.raises(ValueError, match="unknown paper 'kim2022'; there are: other"):
        rebuild.check(results, {"other": paper("other")})
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    with pytest.raises(rebuild.CheckError, match="nothing was checked"):
        rebuild.check(tmp_path / "empty", PAPERS)


def test_publish_replaces_the_tree_and_keeps_the_rest(results, tmp_path):
    (results / "notes.md").write_text("by hand")
    (results / "report").mkdir()
    (results / "report/index.html").write_text("page")
    built = build(tmp_path / "second", arms=("c",))
    shutil.rmtree(built / "figures")
    (built / "figures/kim2022").mkdir(parents=True)
    (built / "figures/kim2022/no-data.png").write_bytes(b"x")
    (built / "superseded").mkdir()
    published(built, results)
    assert set(read_runs(results / "runs").arms) == {"c"}
    assert not (results / "figures").exists(), "a picture without its data is not published"
    assert not (results / "superseded").exists()
    assert "| c " in next((results / "tables").rglob("*.md")).read_text()
    assert (results / "notes.md").read_text() == "by hand"
    assert (results / "report/index.html").read_text() == "page"


def test_publish_refuses_bad_runs_and_recovers(results, tmp_path):
    built = build(tmp_path / "third", arms=("c",))
    path = next((built / "runs").rglob("seed-0.parquet"))
    content = path.read_bytes()
    path.write_text("torn")
    with pytest.raises(RecordError, match="not readable as parquet"):
        published(built, results)
    assert len(read_runs(results / "runs")) == 6, "what was published before stays"
    path.write_bytes(content)
    # A stop between the two renames leaves only <results>.old, and perhaps a stale partial tree.
    (results / "notes.md").write_text("by hand")
    results.rename(results.with_name("mini.old"))
    results.with_name("mini.partial").mkdir(exist_ok=True)
    published(built, results)
    assert (results / "notes.md").exists()
    assert set(read_runs(results / "runs").arms) == {"c"}
    assert [path.name for path in results.parent.iterdir()] == ["mini"]
