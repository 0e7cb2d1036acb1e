"""Tables and figures of Kim & Kim from runs whose every number is known."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made_runs import regression, write_run

from msakit.papers.kim2022.recipe import tables as report
from msakit.runs.record import read_all

KIND = ["plain", "plain", "ambiguous", "ambiguous", "sarcastic", "sarcastic"]
LABEL = np.array([1.0, 0.0, 2.0, -2.0, 1.0, -1.0])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    generator = np.random.default_rng(0)

    def put(arm, seed, prediction, leaks=None, **changes):
        table = regression(LABEL, prediction, kind=KIND)
        if leaks is not None:
            table["prediction_best_test_epoch"] = leaks
        write_run(root, "kim2022", "mini-mosi", arm, seed, table, **changes)

    for seed in (0, 1):
        # Off by 1 everywhere; on the ambiguous segments MAG is off by 0.5 and CMS exact.
        put("text-only", seed, LABEL + 1)
        put("mag", seed, LABEL + np.array([1, 1, 0.5, 0.5, 1, 1]), artifacts=shifts(0.1) if seed == 0 else None)
        # As published: off by 0.5 on the segment that is labelled zero alone, which that scorer leaves out.
        put("cms", seed, LABEL + np.array([1, 1, 0, 0, 1, 1]), leaks=LABEL + np.array([0, 0.5, 0, 0, 0, 0]),
            artifacts=shifts(0.3) if seed == 0 else None)  # fmt: skip
        put("cms-clr", seed, LABEL, artifacts=embeddings(generator) if seed == 0 else None)
        space = {"before": {"text-audio": 1.0}, "after": {"text-audio": 0.5 + seed}}
        uniform = {"before": {"text": -1.0}, "after": {"text": -2.0}}
        put("cms-clr-smooth", seed, LABEL + 0.25, measurements={"alignment": space, "uniformity": uniform},
            config={"contrastive": 0.1, "temperature": 0.07, "smoothing": 0.1},
            history=[{"epoch": 1, "valid_loss": 1.0}, {"epoch": 2, "valid_loss": 0.5}])  # fmt: skip
        put("cms-clr-smooth.lambda-0.5", seed, LABEL + 0.75)
    return read_all(root)


def shifts(length):
    words = ["that", "was", "sick"]
    rows = [(s, i, word, length * (i + 1)) for s in ("s0", "s2") for i, word in enumerate(words)]
    return {"shifts": pd.DataFrame(rows, columns=["segment_id", "word_index", "word", "shift"])}


def embeddings(generator):
    rows = [(f"s{i}", m, LABEL[i], *generator.normal(size=4)) for m in ("text", "audio", "vision") for i in range(6)]
    return {"embeddings": pd.DataFrame(rows, columns=["segment_id", "modality", "label", "e0", "e1", "e2", "e3"])}


def test_scoring_both_ways(runs):
    (row,) = report.scoring(runs).to_dict("records")
    assert row["arm"] == report.titles()["cms"]
    assert row["MAE ↓ corrected"] == pytest.approx(4 / 6)
    assert row["MAE ↓ as published (leaks)"] == 0
    assert row["MAE ↓ gap"] == pytest.approx(-4 / 6)
    assert row["MAE ↓ gap s.d."] == 0


def test_kinds_apart_and_tested_in_pairs(runs):
    frame = report.kind_tests(runs).set_index(["kind", "arm"])
    mag, cms = report.titles()["mag"], report.titles()["cms"]
    assert frame.loc[("ambiguous", mag), "MAE ↓"] == 0.5
    assert frame.loc[("ambiguous", cms), "difference"] == -0.5
    # Two segments: four ways of signs, two of which are as far apart.
    assert frame.loc[("ambiguous", cms), "p"] == 0.5
    assert frame.loc[("sarcastic", cms), "difference"] == 0
    assert frame.loc[("plain", cms), "segments"] == 2
    # Six tests, of which the two smallest p are 0.5: six times that, at most 1.
    assert frame.loc[("ambiguous", cms), "p (Holm)"] == 1.0


def test_sweep_holds_the_arm_itself(runs):
    frame = report.sweep_table(runs)
    # At zero stands CMS without the contrastive loss.
    assert list(frame["value"]) == [0.0, 0.1, 0.5]
    assert list(frame["own"]) == ["", "own", ""]
    assert list(frame["MAE ↓"]) == [pytest.approx(4 / 6), 0.25, 0.75]


def test_space_before_and_after(runs):
    frame = report.space_table(runs).set_index("quantity")
    assert frame.loc["alignment", "after"] == 1.0
    assert frame.loc["alignment", "after s.d."] == pytest.approx(np.std([0.5, 1.5], ddof=1))
    assert frame.loc["uniformity", "after"] == -2.0


def test_tables_say_what_must_be_said(runs):
    made = report.tables(runs)
    assert set(made) == {"mini-mosi", *(f"mini-mosi-{name}" for name in ("scoring", "kinds", "sweep", "space"))}
    for table in made.values():
        assert any("RECONSTRUCTED" in note for note in table.notes)
        assert any("enerated data" in note for note in table.notes)
    assert any("(leaks)" in note for note in made["mini-mosi-scoring"].notes)


def test_figures_are_drawn_and_hold_their_data(runs, tmp_path):
    made = report.figures(runs, tmp_path)
    names = {path.stem.removeprefix("mini-mosi-") for path in tmp_path.glob("*.png")}
    assert names == {"arms", "convergence", "shifts", "space", "alignment", "sweep", "kinds"}
    assert len(made) == len(names)
    drawn = pd.read_csv(tmp_path / "mini-mosi-shifts.csv").sort_values("segment_id", ascending=False)
    assert set(drawn.loc[drawn["marked"], "word"]) == {"sick"}
    assert drawn["heading"].iloc[0] == "s2: label +2.0, ambiguous"
    for figure in made:
        plt.close(figure)
