"""What the profiles ask for, and the paper's, every arm, on stand-ins: the published layouts, a small BERT, one epoch.

The profile and the notebook are taken as they are; only paths and sizes are replaced.
"""

from pathlib import Path
from typing import Any

import nbformat
import pytest

from msakit.data.importers import import_corpus
from msakit.notebook import differences, resolve, template_declarations, with_preset
from msakit.papers import arms_of, choose_arms
from msakit.papers.kim2022 import recipe
from msakit.profiles import load_profile
from msakit.reporting.scores import scores
from msakit.runs.store import read_runs
from msakit.strict import parse

from .conftest import mag_pickle

NOTEBOOK = Path(__file__).parents[3] / "notebooks/experiments/kim2022.ipynb"
SIZES = {"train": 8, "dev": 4, "test": 5}
WIDTHS = {"mag-mosi": {"vision": 47, "audio": 74}, "mag-mosei": {"vision": 35, "audio": 74}}
# What the notebook does before it tabulates: corpora, runs.
RUN_CELLS = ("cell-05", "cell-08")


def parameters(profile: str, **given: Any) -> dict[str, Any]:
    """The notebook's parameters with that preset."""
    declared = template_declarations(NOTEBOOK)
    values = resolve(declared, {"preset": profile, **given})
    return with_preset(declared, values, load_profile(profile).parameters("kim2022"), profile)


def test_the_notebook_as_it_is_stored_trains_as_the_mini_profile_does():
    declared = template_declarations(NOTEBOOK)
    shipped = parameters(declared["preset"].default)
    assert shipped["preset"] == "mini"
    settings = parse(recipe.Settings, shipped["settings"], "settings")
    expected = {"epochs": 8, "batch_size": 24, "learning_rate": 1e-3, "average_decay": 0.98, "momentum_decay": 0.98,
                "projection": 32}  # fmt: skip
    assert settings == recipe.Settings(**expected)
    assert "learning_rate 0.001 (1e-05)" in differences(settings)
    assert (shipped["corpora"], shipped["seeds"]) == (["mini-mosi"], [0, 1, 2])
    assert shipped["encoders"] == {"text": "build/encoders/bert", "audio": "acoustic-set", "vision": "visual-set"}
    # A reader's own value stands, and the others stay.
    changed = parameters("mini", settings={"epochs": 2}, arms=["mag"])
    assert changed["settings"] == shipped["settings"] | {"epochs": 2}
    assert changed["arms"] == ["mag"]


@pytest.mark.parametrize(("profile", "count"), [("mini", 18), ("mini-full", 31), ("paper", 31), ("cmu-mosi", 3)])
def test_every_profile_asks_for_arms_and_settings_that_there_are(profile, count, monkeypatch):
    monkeypatch.setenv("MSAKIT_CMU_MOSI", "/data/cmu-mosi")
    given = parameters(profile)
    parse(recipe.Settings, given["settings"], profile)
    arms = choose_arms("kim2022", given["arms"], lacks=recipe.lacks(given["encoders"]))
    assert len(arms) == count


def test_the_paper_profile_asks_for_the_published_setup():
    given = parameters("paper")
    assert parse(recipe.Settings, given["settings"], "settings") == recipe.Settings()
    assert (recipe.Settings().epochs, recipe.Settings().batch_size, recipe.Settings().max_tokens) == (40, 48, 50)
    assert len(set(given["seeds"])) >= 10
    assert given["encoders"]["text"] == "bert-base-uncased"
    assert [Path(name).name for name in given["corpora"]] == list(WIDTHS)


@pytest.fixture(scope="module")
def standins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mag-mosi and mag-mosei as imported."""
    folder = tmp_path_factory.mktemp("stand-ins")
    for name, widths in WIDTHS.items():
        import_corpus("mag", mag_pickle(folder / f"{name}.pkl", widths, SIZES), folder / name, name=name)
    return folder


# The second corpus differs in one width only: what reads it is tried on these.
FEW = ["text-only", "mag", "cms-clr-smooth-ema"]


def test_every_arm_of_the_paper_profile_runs_as_the_notebook_runs_it(standins, bert, tmp_path):
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
    given = parameters("paper")
    for corpus, arms in zip(given["corpora"], (given["arms"], FEW), strict=True):
        small = {"epochs": 1, "batch_size": 4, "projection": 4}
        given |= {
            "corpora": [str(standins / Path(corpus).name)],
            "encoders": given["encoders"] | {"text": bert},
            "arms": arms,
            "seeds": given["seeds"][:1],
            "chosen": parse(recipe.Settings, given["settings"] | small, "settings"),
            "cache": str(tmp_path),
            "features": str(tmp_path),
            "results": str(tmp_path / "results"),
            "kim2022": recipe,
        }
        for name in RUN_CELLS:
            exec(cells[name], given)
    runs = read_runs(tmp_path / "results/runs")
    every = list(arms_of("kim2022"))
    for corpus, arms in (("mag-mosi", every), ("mag-mosei", FEW)):
        assert set(runs.select(corpus=corpus).arms) == {"constant", *arms}
    for run in runs.select(reference=False):
        assert len(run.record.history) == 1
        assert run.test["prediction"].notna().all()
        assert len(run.test) == SIZES["test"]
        # Words of a real corpus are not published.
        assert "shifts" not in run.record.artifacts
    # Two steps at the published rate move little, but not nothing.
    apart = ["text-only", "mag", "mag-wide", "cms", "cms-clr", "cms-shuffled", "cms.soft", "cms.layer-2"]
    assert scores(runs.select(corpus="mag-mosi", arm=apart), "mae")["value"].nunique() == len(apart)
