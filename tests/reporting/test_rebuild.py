"""Publishing swaps results as a whole; the check finds what was edited, lost or added since."""

import json
import sys
import types

import pytest
from test_tables import write_run

from msakit.reporting import manifest, publish, rebuild, tables
from msakit.runs.record import RecordError, read_all

PAPERS = {"ando2022": "made_up_paper"}


def made_up_tables(runs):
    arms = {arm: arm.upper() for arm in runs.frame["arm"].unique()}
    return {"main": tables.summarise(runs, "main", "Main", arms, "mini")}


@pytest.fixture
def results(tmp_path, monkeypatch):
    module = types.ModuleType("made_up_paper")
    module.tables = made_up_tables
    monkeypatch.setitem(sys.modules, "made_up_paper", module)
    built = tmp_path / "built"
    for seed in range(3):
        write_run(built / "runs", "a", seed, 0.1 * (seed + 1))
    rebuild.write_tables(built, PAPERS)
    (built / "figures").mkdir()
    (built / "figures" / "f.csv").write_text("x\n1\n")
    publish.publish(built, tmp_path / "results" / "mini", "mini", PAPERS)
    return tmp_path / "results" / "mini"


def test_published_results_agree(results):
    assert rebuild.check(results, PAPERS) == "7 files rebuilt from their runs, all as committed"
    assert [path.name for path in results.parent.iterdir()] == ["mini"]


def test_manifest(results):
    content = json.loads((results / "manifest.json").read_text())
    assert (content["profile"], content["runs"], content["seeds"]) == ("mini", 3, {"ando2022": [0, 1, 2]})
    assert content["seconds"] == 3.0
    assert content["corpora"] == {"mini-mosi": {"fingerprint": ["f00d"], "generated": True}}
    assert len(content["files"]) == 3 * 2 + 3 + 1 + 4
    assert content["versions"]["torch"].startswith("2.")
    assert manifest.manifest(results, "mini", note="more")["note"] == "more"


def test_an_edited_table_shows_with_a_diff(results):
    path = results / "tables/ando2022/main.md"
    path.write_text(path.read_text().replace("0.200 ± 0.100", "0.100 ± 0.100"))
    with pytest.raises(rebuild.CheckError) as caught:
        rebuild.check(results, PAPERS)
    message = str(caught.value)
    assert "2 differences; publish the results again" in message
    assert "tables/ando2022/main.md: differs\n  --- committed\n  +++ rebuilt" in message
    assert "  -| A " in message
    assert "main.md: sha256 is not the manifest's" in message


def test_what_is_missing_or_too_much_shows(results):
    (results / "tables/ando2022/main.csv").unlink()
    (results / "tables/ando2022/typed.md").write_text("numbers")
    (results / "figures/f.csv").write_text("x\n2\n")
    with pytest.raises(rebuild.CheckError) as caught:
        rebuild.check(results, PAPERS)
    for fault in ("main.csv: missing", "typed.md: no run gives this", "typed.md: not in the manifest",
                  "main.csv: in the manifest, but not there", "figures/f.csv: sha256 is not"):  # fmt: skip
        assert fault in str(caught.value)
    (results / "manifest.json").unlink()
    with pytest.raises(rebuild.CheckError, match=r"manifest\.json: missing"):
        rebuild.check(results, PAPERS)


@pytest.mark.parametrize("name", ["claims.json", "claims.md", "references.bib", "ro-crate-metadata.json"])
def test_claims_and_exports_are_rebuilt_too(results, name):
    path = results / name
    path.write_text(path.read_text().replace("mini", "maxi").replace("NumPy", "Numpy"))
    with pytest.raises(rebuild.CheckError, match=rf"{name}: differs(.|\n)*{name}: sha256 is not the manifest's"):
        rebuild.check(results, PAPERS)
    path.unlink()
    with pytest.raises(rebuild.CheckError, match=rf"{name}: missing"):
        rebuild.check(results, PAPERS)


def test_line_ends_count(results):
    path = results / "tables/ando2022/main.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(rebuild.CheckError, match="line ends"):
        rebuild.check(results, PAPERS)


def test_unknown_papers_and_empty_results(results, tmp_path):
    with pytest.raises(rebuild.CheckError, match="unknown paper 'ando2022'; there are: other"):
        rebuild.check(results, {"other": "x"})
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    with pytest.raises(rebuild.CheckError, match="nothing was checked"):
        rebuild.check(tmp_path / "empty", PAPERS)


def test_publish_replaces_the_tree_and_keeps_the_rest(results, tmp_path):
    (results / "notes.md").write_text("by hand")
    built = tmp_path / "second"
    write_run(built / "runs", "b", 0)
    rebuild.write_tables(built, PAPERS)
    publish.publish(built, results, "mini", PAPERS)
    assert [run.record.arm for run in read_all(results / "runs")] == ["b"]
    assert not (results / "figures").exists()
    assert "B" in next((results / "tables").rglob("*.md")).read_text()
    assert (results / "notes.md").read_text() == "by hand"


def test_publish_refuses_tables_that_the_runs_do_not_give(results, tmp_path):
    built = tmp_path / "second"
    for seed in range(2):
        write_run(built / "runs", "b", seed)
    rebuild.write_tables(built, PAPERS)
    next((built / "runs").rglob("seed-1.json")).unlink()
    with pytest.raises(rebuild.CheckError, match="differs"):
        publish.publish(built, results, "mini", PAPERS)
    assert len(read_all(results / "runs")) == 3, "what was published before stays"


def test_publish_refuses_bad_runs_and_recovers(results, tmp_path):
    built = tmp_path / "third"
    path = write_run(built / "runs", "c", 0)
    path.with_suffix(".csv").write_text("torn")
    with pytest.raises(RecordError, match="torn or edited"):
        publish.publish(built, results, "mini", PAPERS)
    assert len(read_all(results / "runs")) == 3
    # A stop between the two renames leaves only <results>.old, and perhaps a stale partial tree.
    (results / "notes.md").write_text("by hand")
    results.rename(results.with_name("mini.old"))
    results.with_name("mini.partial").mkdir()
    write_run(built / "runs", "c", 0)
    rebuild.write_tables(built, PAPERS)
    publish.publish(built, results, "mini", PAPERS)
    assert (results / "notes.md").exists()
    assert [run.record.arm for run in read_all(results / "runs")] == ["c"]
    assert [path.name for path in results.parent.iterdir()] == ["mini"]
