"""Tables and figures of Kim & Kim from runs whose every number is known."""

import copy
import json
import random

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from small_runs import classes, regression, write

from msakit import papers
from msakit.evaluation import statistics
from msakit.papers.kim2022 import figures as drawn
from msakit.papers.kim2022 import tables as report
from msakit.reporting.contract import Paper
from msakit.reporting.figures import read_data
from msakit.reporting.scores import compare
from msakit.reporting.tables import to_markdown
from msakit.runs.store import read_runs

PAPER = papers.load("kim2022")
KIND = ["plain", "plain", "ambiguous", "ambiguous", "sarcastic", "sarcastic"]
VIDEO = ["a", "a", "a", "b", "b", "b"]
LABEL = np.array([1.0, 0.0, 2.0, -2.0, 1.0, -1.0])
SPACE = {"alignment": {"before": {"text-audio": 1.0}, "after": {"text-audio": 0.5}},
         "uniformity": {"before": {"text": -1.0}, "after": {"text": -2.0}}}  # fmt: skip


def shifts(length):
    words = ["that", "was", "sick"]
    rows = [(s, i, word, length * (i + 1)) for s in ("s0", "s2") for i, word in enumerate(words)]
    return {"shifts": pd.DataFrame(rows, columns=["segment_id", "word_index", "word", "shift"])}


def embeddings():
    random = np.random.default_rng(0)
    rows = [(f"s{i}", m, LABEL[i], *random.normal(size=4)) for m in ("text", "audio", "vision") for i in range(6)]
    return {"embeddings": pd.DataFrame(rows, columns=["segment_id", "modality", "label", "e0", "e1", "e2", "e3"])}


def record(root, paper=PAPER, other=lambda name: name):
    """Two seeds of a few arms under `root`; other: what an arm is called."""

    def put(arm, seed, prediction, leaks=None, **changes):
        table = regression(LABEL, prediction, kind=KIND, video_id=VIDEO)
        if leaks is not None:
            table["prediction_best_test_epoch"] = leaks
        definition = changes.pop("definition", None) or paper.arms[other(arm)].model_dump(exclude={"settings"})
        write(root, other(arm), seed, table, **definition, **changes)

    for seed in (0, 1):
        first = seed == 0
        # Off by 1 everywhere; on the ambiguous segments MAG is off by 0.5 or 0.6 and CMS by 0.1 or not at all.
        put("text-only", seed, LABEL + 1)
        put("mag", seed, LABEL + np.array([1, 1, 0.5, 0.6, 1, 1]), artifacts=shifts(0.1) if first else None)
        # As published: off by 0.5 on the segment that is labelled zero alone, which that scorer leaves out.
        put("cms", seed, LABEL + np.array([1, 1, 0.1 * seed, 0, 1, 1]), LABEL + np.array([0, 0.5, 0, 0, 0, 0]),
            artifacts=shifts(0.3) if first else None)  # fmt: skip
        put("cms-clr", seed, LABEL, artifacts=embeddings() if first else None)
        space = copy.deepcopy(SPACE)
        space["alignment"]["after"]["text-audio"] += seed
        put("cms-clr-smooth", seed, LABEL + 0.25, measurements=space,
            selection={"split": "valid", "metric": "mse", "value": 0.5, "epoch": 2},
            history=[{"epoch": 1, "valid_loss": 1.0}, {"epoch": 2, "valid_loss": 0.5}])  # fmt: skip
        put("cms-clr-smooth.lambda-0.3", seed, LABEL + 0.75)
        put("mine", seed, LABEL + 0.9, definition={
            "title": "My own shift", "model": "mine.py:Mine", "like": other("mag"), "args": {"size": 3},
        })  # fmt: skip
    return read_runs(root)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return record(tmp_path_factory.mktemp("runs"))


def title(arm):
    return PAPER.arms[arm].title


def test_an_arm_that_no_list_knows_stands_in_the_tables_after_the_others(runs):
    table = report.tables(runs)["mini-mosi"]
    shown = list(dict.fromkeys(table.frame["title"]))
    assert shown == [*map(title, ("text-only", "mag", "cms", "cms-clr", "cms-clr-smooth")), "My own shift"]
    assert any("Points of the sweeps" in note for note in table.notes)
    kinds = report.kind_table(runs, PAPER)
    assert set(kinds.loc[kinds["arm"] == "My own shift", "against"]) == {title("mag")}


def test_scoring_both_ways(runs):
    (row,) = report.scoring(runs, PAPER).to_dict("records")
    assert row["arm"] == title("cms")
    assert row["seeds"] == 2
    ours = np.array([4, 4.1]) / 6
    assert row["MAE ↓ corrected"] == pytest.approx(ours.mean())
    assert row["MAE ↓ as published (leaks)"] == 0
    assert row["MAE ↓ gap"] == pytest.approx(-ours.mean())
    assert row["MAE ↓ gap s.d."] == pytest.approx(ours.std(ddof=1))


def test_kinds_are_tested_over_seeds_and_videos_as_the_ledger_tests(runs):
    frame = report.kind_table(runs, PAPER)
    rows = frame.set_index(["kind", "arm"])
    assert rows.loc[("ambiguous", title("mag")), "mae"] == pytest.approx(0.55)
    row = rows.loc[("ambiguous", title("cms"))]
    ledger = compare(runs, "cms", "mag", "mae", lambda table: table["kind"] == "ambiguous")
    assert ledger.unit == "seeds and videos"
    assert (row["difference"], row["low"], row["high"], row["p"]) == pytest.approx(
        (ledger.difference, ledger.low, ledger.high, ledger.p)
    )
    # By hand: leaving a video out leaves one segment of the two; and the seeds of CMS differ by 0.05.
    left_out = np.array([-0.6, 0.05 - 0.5])
    se = np.sqrt(0.5 * ((left_out - left_out.mean()) ** 2).sum() + 0.05**2 / 2 / 2)
    assert ledger.se == pytest.approx(se)
    assert (row["segments"], row["seeds"]) == (2, 2)
    tested = frame["p"].notna()
    np.testing.assert_allclose(frame.loc[tested, "p (Holm)"], statistics.holm(frame.loc[tested, "p"].to_numpy()))
    assert list(frame["against"][:4]) == ["", title("text-only"), title("mag"), title("mag")]
    assert list(dict.fromkeys(frame["kind"])) == list(report.KINDS)


def test_bars_of_kinds_have_the_interval_of_that_rule_and_say_how_many_segments(runs, tmp_path):
    made = drawn.figures(runs, tmp_path)
    data = read_data(tmp_path)["mini-mosi-kinds"].set_index(["group", "arm"])
    found = report.kind_scores(runs, PAPER).set_index(["group", "arm"])
    for column in ("mean", "low", "high"):
        np.testing.assert_allclose(data[column], found[column], rtol=1e-5)
    (figure,) = (each for each in made if any(axes.get_xlabel() == "Kind of segment" for axes in each.axes))
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert ticks == [f"{kind}\n(n = 2)" for kind in report.KINDS]
    plt.close("all")


def test_sweep_holds_the_arm_itself_and_the_arm_without_that_part(runs):
    frame = report.sweep_table(runs, PAPER)
    assert list(frame["value"]) == [0.0, 0.1, 0.3]
    assert list(frame["own"]) == ["", "own", ""]
    assert list(frame["mae"]) == [pytest.approx(4.05 / 6), 0.25, 0.75]
    assert set(frame["setting"]) == {"λ, weight of the contrastive loss"}


def test_a_point_that_a_reader_adds_stands_in_the_sweep(runs, tmp_path):
    record(tmp_path)
    own = PAPER.arms["cms-clr-smooth.lambda-0.3"].model_dump(exclude={"settings"})
    own["loss"]["contrastive"]["weight"] = 0.5
    write(tmp_path, "heavier", 0, regression(LABEL, LABEL + 0.5), **own)
    frame = report.sweep_table(read_runs(tmp_path), PAPER)
    assert list(frame["value"]) == [0.0, 0.1, 0.3, 0.5]


def test_a_variant_of_a_point_is_not_mixed_with_it(runs, tmp_path):
    record(tmp_path)
    point = "cms-clr-smooth.lambda-0.3"
    variant = PAPER.arms[point].model_dump(exclude={"settings"}) | {"like": point, "title": "Point [slow]"}
    write(tmp_path, f"{point}@slow", 0, regression(LABEL, LABEL + 3), **variant)
    both = read_runs(tmp_path)
    pd.testing.assert_frame_equal(report.sweep_table(both, PAPER), report.sweep_table(runs, PAPER))
    assert f"{point}@slow" in set(report.tables(both)["mini-mosi"].frame["arm"])


def test_space_before_and_after(runs):
    frame = report.space_table(runs, PAPER).set_index("quantity")
    assert frame.loc["alignment", "after"] == 1.0
    assert frame.loc["alignment", "after s.d."] == pytest.approx(np.std([0.5, 1.5], ddof=1))
    assert frame.loc["uniformity", "after"] == -2.0


def test_tables_state_what_they_rest_on(runs):
    made = report.tables(runs)
    assert set(made) == {"mini-mosi", *(f"mini-mosi-{name}" for name in ("scoring", "kinds", "sweep", "space"))}
    for table in made.values():
        assert any("RECONSTRUCTED" in note for note in table.notes)
        assert any("enerated data" in note for note in table.notes)
    assert any("(leaks)" in note for note in made["mini-mosi-scoring"].notes)
    assert any("seeds and test videos together" in note for note in made["mini-mosi-kinds"].notes)


def test_figures_are_drawn_and_hold_their_data(runs, tmp_path):
    made = drawn.figures(runs, tmp_path)
    data = read_data(tmp_path)
    assert {name.removeprefix("mini-mosi-") for name in data} == {
        "arms", "convergence", "shifts", "space", "alignment", "sweep", "kinds",
    }  # fmt: skip
    assert len(made) == len(data) == len(list(tmp_path.glob("*.png")))
    strips = data["mini-mosi-shifts"].sort_values("segment_id", ascending=False)
    assert set(strips.loc[strips["marked"], "word"]) == {"sick"}
    assert strips["heading"].iloc[0] == "s2: label +2.0, ambiguous"
    assert "mine" in set(data["mini-mosi-arms"]["arm"])
    plt.close("all")


def test_classes_in_folds_have_their_own_metrics_and_units(tmp_path):
    label = np.array([0, 1, 2, 0, 1, 2])
    for fold in (0, 1, 2):
        for arm, sure in (("text-only", 0.4), ("mag", 0.6 - 0.1 * fold), ("cms-clr", 0.8)):
            table = np.full((6, 3), (1 - sure) / 2)
            table[np.arange(6), np.where(np.arange(6) < 2 + fold, label, 0)] = sure
            ids = [f"f{fold}s{i}" for i in range(6)]
            space = {"segments": {"train": 24, "valid": 6, "test": 6}, **(SPACE if arm == "cms-clr" else {})}
            kept = {"embeddings": embeddings()["embeddings"].assign(label=0)} if (arm, fold) == ("cms-clr", 0) else None
            write(tmp_path, arm, 0, classes(label, table, ["bad", "even", "good"], ids=ids, kind=KIND), fold=(fold, 3),
                  measurements=space, artifacts=kept, **PAPER.arms[arm].model_dump(exclude={"settings"}))  # fmt: skip
    runs = read_runs(tmp_path)
    made = report.tables(runs)
    assert set(made) == {"mini-mosi", "mini-mosi-kinds", "mini-mosi-space"}
    assert tuple(made["mini-mosi"].frame["metric"].unique()) == ("accuracy", "f1_macro", "auroc")
    assert not any("MAE" in note for note in made["mini-mosi"].notes)
    kinds = made["mini-mosi-kinds"].frame
    assert list(kinds["folds"].unique()) == [3]
    assert list(kinds.columns[:5]) == ["kind", "segments", "arm", "folds", "accuracy"]
    drawn.figures(runs, tmp_path / "figures")
    assert {"mini-mosi-arms", "mini-mosi-space", "mini-mosi-kinds", "mini-mosi-alignment"} <= set(
        read_data(tmp_path / "figures")
    )
    plt.close("all")


def test_nothing_is_read_off_an_arms_name(runs, tmp_path, monkeypatch):
    draw = random.Random(0)
    names = {name: "".join(draw.choices("abcdefghij", k=12)) for name in (*PAPER.arms, "mine")}
    # Whole texts alone: names of arms occur in the facts as keys and values of their own.
    facts = _renamed(json.loads(json.dumps(PAPER.facts)), names)
    paper = Paper("kim2022", facts, PAPER.published, PAPER.tables, PAPER.figures)
    expected = report.tables(runs)
    monkeypatch.setattr(papers, "load", lambda name: paper)
    found = report.tables(record(tmp_path, paper, names.get))
    assert set(found) == set(expected)
    for name, table in expected.items():
        assert to_markdown(found[name]) == to_markdown(table)


def _renamed(part, names, key=""):
    if isinstance(part, dict):
        # The values of an arm's arguments are no names.
        return {names.get(k, k): v if k in ("args", "inputs") else _renamed(v, names, k) for k, v in part.items()}
    if isinstance(part, list):
        return [_renamed(each, names, key) for each in part]
    return names.get(part, part) if isinstance(part, str) and key not in ("title", "group") else part
