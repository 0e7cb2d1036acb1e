"""Tiny runs of every kind of arm give the numbers that are stored beside this file with the recipe's version.

Where numbers move, raise `VERSION` in the recipe: finished runs are then trained anew. `python -m pytest` of this file
writes the numbers of a new version; delete the file to have those of the present one written.
"""

import json
from pathlib import Path

import pytest

from msakit.papers.toledo2022 import recipe

from .conftest import MAIN

GOLDEN = Path(__file__).with_name("golden.json")
TOLERANCE = 1e-3  # of the mean prediction and the validation loss: machines round otherwise


@pytest.fixture(scope="module")
def found(posts, folded):
    """arm -> mean test probability of the first class, and validation loss of the chosen epoch."""
    chosen = [run for run in posts.select(arm=list(MAIN), seed=0)]
    chosen += [run for run in folded.select(reference=False, seed=0) if run.record.arm not in MAIN and first(run)]
    numbers = {}
    for run in chosen:
        column = next(name for name in run.test if name.startswith("p_"))
        selection = run.record.selection
        numbers[run.record.arm] = [round(float(run.test[column].mean()), 5), selection and round(selection.value, 5)]
    return numbers


def first(run):
    return run.record.fold is None or run.record.fold.index == 0


def test_numbers_are_those_of_the_recipes_version(found):
    stored = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {"version": None}
    if stored["version"] != recipe.VERSION:
        GOLDEN.write_text(json.dumps({"version": recipe.VERSION, "arms": found}, indent=1) + "\n")
        pytest.fail(f"{GOLDEN} now holds the numbers of version {recipe.VERSION}: look at them and commit them")
    assert set(found) == set(stored["arms"])
    for arm, numbers in found.items():
        moved = f"{arm}: numbers moved; mend that, or raise VERSION in the recipe and run this test twice"
        assert numbers == pytest.approx(stored["arms"][arm], abs=TOLERANCE), moved
