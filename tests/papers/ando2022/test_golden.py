"""Tiny runs of every kind of arm give the numbers that are stored beside this file with the recipe's version.

Where numbers move, raise `VERSION` in the recipe: finished runs are then trained anew. This test writes the numbers of
a new version; delete the file to have those of the present one written.
"""

import json
from pathlib import Path

import pytest

from msakit.papers.ando2022 import recipe

GOLDEN = Path(__file__).with_name("golden.json")
TOLERANCE = 1e-3  # of the mean prediction and the validation loss: machines round otherwise
# In the place of the best layers of three modalities: of layers this much alike, rounding may choose another one.
INPUTS = {"text": {"encoder": "text", "layer": 1}, "audio": {"encoder": "audio", "layer": 0},
          "vision": {"encoder": "vision", "layer": 0}}  # fmt: skip
OWN = {
    "gate": {"title": "Gate", "model": "gated", "inputs": INPUTS},
    "concat": {"title": "Concatenation", "model": "gated", "args": {"decoder": "concat"}, "inputs": INPUTS},
}


@pytest.fixture(scope="module")
def found(ando, classes, tmp_path_factory):
    """By corpus and arm: mean of the first column of predictions on test, validation loss of the chosen epoch."""
    arms = ["layer1-text", "best-text", "convbert-text-audio", "weighted-text"]
    root = tmp_path_factory.mktemp("golden") / "runs"
    sure = [arm for arm in ando.runs.arms if not arm.startswith(("best-text-", "best-audio", "best-vision"))]
    runs = [*ando.runs.select(arm=sure, seed=0), *ando.run(root, [], own=OWN, seeds=[0])]
    runs += [*classes.run(root, arms, {"batch_size": 8}, [0], folds=4, test_folds=[2])]
    means = {}
    for run in runs:
        if run.record.selection is not None:
            column = next(name for name in run.test if name.startswith("p"))
            numbers = [float(run.test[column].mean()), run.record.selection.value]
            means[f"{run.record.corpus.name}, {run.record.arm}"] = [round(number, 5) for number in numbers]
    return means


def test_numbers_are_those_of_the_recipes_version(found):
    stored = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {"version": None}
    if stored["version"] != recipe.VERSION:
        GOLDEN.write_text(json.dumps({"version": recipe.VERSION, "arms": found}, indent=1) + "\n")
        pytest.fail(f"{GOLDEN} now holds the numbers of version {recipe.VERSION}: look at them and commit them")
    assert set(found) == set(stored["arms"])
    for arm, numbers in found.items():
        moved = f"{arm}: numbers moved; mend that, or raise VERSION in the recipe and run this test twice"
        assert numbers == pytest.approx(stored["arms"][arm], abs=TOLERANCE), moved
