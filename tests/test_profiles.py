"""Profiles are read strictly; what their notebooks need follows from the parameters."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from typer.testing import CliRunner

from msakit import cli
from msakit.data.catalogue import AbsentError
from msakit.profiles import FOLDER, load_profile

SHIPPED = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.fixture(autouse=True)
def data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSAKIT_CMU_MOSI", "../my data/mosi")


def write(folder: Path, content: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profiles_are_found_by_their_name(name: str):
    profile = load_profile(name)
    assert profile.profile == name
    assert profile == load_profile(FOLDER / f"{name}.yaml")
    assert set(profile.notebooks) <= {"ando2022", "toledo2022", "kim2022"}
    assert set(profile.jobs) <= set(profile.notebooks)


def test_the_default_profile_keeps_the_default_products_and_those_of_published_sizes_take_onednn():
    assert {name: load_profile(name).matmul for name in ("mini", "mini-full", "paper", "cmu-mosi")} == {
        "mini": "default", "mini-full": "default", "paper": "onednn", "cmu-mosi": "onednn",
    }  # fmt: skip


def test_a_placeholder_is_filled_in_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    assert load_profile("cmu-mosi").parameters("kim2022")["corpora"] == ["../my data/mosi"]
    monkeypatch.delenv("MSAKIT_CMU_MOSI")
    with pytest.raises(
        ValueError, match=r"cmu-mosi\.yaml wants \{cmu_mosi\}: set MSAKIT_CMU_MOSI, or pass --config cmu_mosi="
    ):
        load_profile("cmu-mosi")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"profile": "x", "notebooks": {}, "offlin": True},
            r"mine\.yaml: no field 'offlin': .* Did you mean 'offline'",
        ),
        ({"profile": "x", "notebooks": {}, "matmul": "mkl"}, "field 'matmul' should be 'default' or 'onednn'"),
        ({"profile": "x", "notebooks": {}, "offline": "yes"}, "field 'offline' should be a valid boolean"),
        ({"profile": "x"}, "field 'notebooks' is missing"),
        ([1], "it should be a valid dictionary"),
    ],
)
def test_a_faulty_profile_is_refused_with_the_fault(content: object, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        load_profile(write(tmp_path, content))


def test_a_name_that_is_none_is_answered_with_the_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"no profile 'mini-ful': choose from .*mini-full.* Did you mean 'mini-full'"):
        load_profile("mini-ful")
    (tmp_path / "torn.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="not readable as YAML"):
        load_profile(tmp_path / "torn.yaml")
    monkeypatch.setattr("msakit.profiles.FOLDER", tmp_path / "site-packages")
    with pytest.raises(ValueError, match=r"of a checkout, is not there, or give a path"):
        load_profile("mini")


def test_what_a_profile_needs_follows_from_its_parameters(tmp_path: Path):
    notebooks = {
        "one": {
            "corpora": ["data/a", "mini-mosi"],
            "encoders": {
                "text": {"kind": "text", "path": "bert-large-uncased"},
                "audio": "audio:microsoft/wavlm-large",
                "vision": {"kind": "vision", "path": "build/encoders/clip"},
                "conventional-audio": "acoustic-set",
                "conventional-text": "bag-of-embeddings:build/encoders/word-vectors",
            },
            "settings": {"epochs": 3},
            "by_corpus": {"b": {"encoders": {"conventional-audio": {"kind": "precomputed", "path": "data/b-sdk"}}}},
        },
        "two": {
            "corpora": ["mini-posts", "data/a"],
            "encoders": {"text": "own/model", "image": {"path": "build/encoders/clip"}, "audio": {"array": "audio"},
                         "visualbert": {"path": "vb", "tokenizer": "bert-base-uncased"}, "vision": None,
                         "clip": "package:installed/model"},
        },
    }  # fmt: skip
    profile = load_profile(write(tmp_path, {"profile": "mine", "notebooks": notebooks}))
    assert profile.needs() == [
        "data/a", "bert-large-uncased", "microsoft/wavlm-large", "data/b-sdk", "own/model", "vb", "bert-base-uncased",
    ]  # fmt: skip
    assert profile.inputs("one")[:3] == ["data/a", "mini-mosi", "bert-large-uncased"]
    assert [name for name in profile.inputs("two") if name.startswith("build")] == ["build/encoders/clip"]


def test_the_paper_profile_is_checked_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    needed = load_profile("paper").needs()
    assert "microsoft/wavlm-large" in needed
    shown = CliRunner().invoke(cli.app, ["data", "require", "paper"])
    assert isinstance(shown.exception, AbsentError)
    for name in needed:
        assert name in str(shown.exception)
    # All that the profile names is known to the catalogue.
    assert "does not know it" not in str(shown.exception)
    # The mini profile needs nothing that is not made here.
    assert load_profile("mini").needs() == []
    assert CliRunner().invoke(cli.app, ["data", "require", "mini"]).exit_code == 0
