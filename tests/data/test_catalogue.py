"""What is published elsewhere is listed with its state; all that is absent is named at once."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from msakit import cli
from msakit.data.catalogue import CATALOGUE, AbsentError, require
from msakit.data.importers import IMPORTERS


@pytest.fixture(autouse=True)
def nothing_here(tmp_path, monkeypatch):
    """An empty project and an empty hub cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def corpus(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "segments.csv").write_text("segment_id\n")


def test_every_item_has_terms_and_how_to_fetch_it_and_where_to_put_it():
    assert len(CATALOGUE) >= 18
    for item in CATALOGUE.values():
        assert all((item.what, item.terms, item.fetch, item.put)), item.name
        assert item.kind in ("corpus", "checkpoint")
        if item.kind == "corpus":
            command = item.put.split()
            assert command[:2] == ["msakit", "import"]
            assert command[2] in IMPORTERS
            assert command[4] == f"data/{item.name}"
    wanted = ("cmu-mosi", "cmu-mosei", "meld", "ch-sims", "mvsa-single", "mvsa-multiple", "hateful-memes")
    models = ("openai/clip-vit-large-patch14", "microsoft/wavlm-large", "bert-large-uncased", "microsoft/resnet-50")
    assert {*wanted, *models, "distilbert-base-uncased"} <= set(CATALOGUE)


def test_states_follow_the_files(tmp_path):
    assert not any(item.found() for item in CATALOGUE.values())
    corpus(tmp_path / "data" / "cmu-mosi")
    snapshot = tmp_path / "hub" / "models--microsoft--wavlm-large" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "checkpoints" / "resnet-50").mkdir(parents=True)
    (tmp_path / "checkpoints" / "resnet-50" / "config.json").write_text("{}")
    here = {item.name: str(item.found()) for item in CATALOGUE.values() if item.found()}
    assert set(here) == {"cmu-mosi", "microsoft/wavlm-large", "microsoft/resnet-50"}
    assert here["cmu-mosi"] == "data/cmu-mosi"
    shown = CliRunner().invoke(cli.app, ["data", "list"])
    assert shown.exit_code == 0
    assert "cmu-mosi (corpus): present" in shown.stdout
    assert "hateful-memes (corpus): absent" in shown.stdout
    assert all(f"terms: {item.terms}" in shown.stdout for item in CATALOGUE.values())


def test_every_known_score_says_where_it_is_from():
    scores = [score for item in CATALOGUE.values() for score in item.scores]
    assert len(scores) >= 5
    for score in scores:
        assert score["source"].startswith(("multimodal: ", "floor: "))
        assert score["metric"] in ("mae", "corr")
        assert ("best" in score) != ("worst" in score)
    assert CATALOGUE["mag-mosi"].scores == CATALOGUE["cmu-mosi"].scores


def test_all_that_is_absent_is_named_at_once(tmp_path):
    corpus(tmp_path / "data" / "cmu-mosi")
    require(["data/cmu-mosi"])
    with pytest.raises(AbsentError) as caught:
        require(["data/cmu-mosi", "elsewhere/mag-mosi", "microsoft/wavlm-large", "data/own", "bert-larg-uncased"])
    head, *lines = str(caught.value).splitlines()
    assert head.startswith("4 corpora and checkpoints are not here")
    assert len(lines) == 4
    assert "terms: research use" in lines[0]
    assert "msakit import mag mosi.pkl elsewhere/mag-mosi" in lines[0]
    assert "terms: CC BY-SA 3.0; fetch https://huggingface.co/microsoft/wavlm-large" in lines[1]
    assert "'data/own': no such folder" in lines[2]
    assert "Did you mean 'bert-large-uncased'?" in lines[3]


def test_a_checkpoint_in_a_folder_counts_by_its_path_not_by_its_id(tmp_path):
    folder = tmp_path / "checkpoints" / "bert-base-uncased"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    require(["checkpoints/bert-base-uncased"])
    with pytest.raises(AbsentError, match="and that path in the profile"):
        require(["bert-base-uncased"])
