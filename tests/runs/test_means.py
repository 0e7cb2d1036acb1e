"""Arms that average others: their parts decide whether they are made anew, in variants too."""

from types import SimpleNamespace

import numpy as np
import pytest

from msakit.runs.arm import read_arms, with_variants
from msakit.runs.experiment import Experiment
from msakit.runs.jobs import Outcome
from msakit.runs.record import Feature
from msakit.strict import Strict


class Settings(Strict):
    epochs: int = 1


ARMS = read_arms(
    {
        "late": {"title": "Late fusion", "model": "mean", "args": {"of": ["one", "two"]}},
        "one": {"title": "One", "model": "joint", "inputs": {"text": "text"}},
        "two": {"title": "Two", "model": "joint", "inputs": {"image": "image"}},
    }
)


@pytest.fixture
def run(tiny_corpora, tmp_path):
    """Train some arms with these settings; a run predicts its number of epochs."""

    def run(epochs, arms=ARMS):
        root = tmp_path / "runs"
        experiment = Experiment("toledo2022", 1, tiny_corpora["mini-mosi"], Settings(epochs=epochs), [0], root)
        trained = []

        def train(case):
            trained.append(case.name)
            value = float(experiment.settings_of(case.arm).epochs)
            tables = [experiment.predictions(case, "test", np.full(len(case.rows["test"]), value))]
            return Outcome(None, "", tables, experiment.sizes(case))

        def features(arm):
            return {modality: Feature(encoder=each.encoder) for modality, each in arm.inputs.items()}

        cases = [case for name, arm in arms.items() for case in experiment.cases(name, arm)]
        runs = experiment.run(cases, features, train)
        return SimpleNamespace(trained=trained, runs=runs)

    return run


def late(found, arm="late"):
    (run,) = found.runs.select(arm=arm)
    return run


def test_a_mean_reads_what_its_parts_read_and_follows_them(run):
    first = run(1)
    assert late(first).record.modalities == ("text", "image")
    assert set(late(first).test["prediction"]) == {1.0}
    assert run(1).trained == []
    # The parts are trained anew with other settings: so is their mean, which has no settings of its own.
    second = run(3)
    assert sorted(second.trained) == ["one", "two"]
    assert set(late(second).test["prediction"]) == {3.0}


def test_a_mean_of_an_arm_that_is_not_there_is_refused(run):
    with pytest.raises(ValueError, match=r"late is the mean of one, two, but .*two.* is not there: add that arm"):
        run(1, {name: arm for name, arm in ARMS.items() if name != "two"})


def test_a_variant_of_a_mean_averages_the_variants_of_its_parts(run):
    found = run(1, with_variants(ARMS, {"long": {"settings": {"epochs": 5}}}))
    assert set(late(found).test["prediction"]) == {1.0}
    assert set(late(found, "late@long").test["prediction"]) == {5.0}
