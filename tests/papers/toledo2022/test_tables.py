"""Tables and figures of Toledo & Marcacini from runs whose every number is known."""

import base64
import json
import random
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support
from small_runs import classes, regression, write

from msakit import papers
from msakit.evaluation import comparisons
from msakit.papers.toledo2022 import figures as drawn
from msakit.papers.toledo2022 import tables as report
from msakit.reporting.contract import Paper
from msakit.reporting.tables import to_markdown
from msakit.runs.store import read_runs

PAPER = papers.load("toledo2022")
NAMES = ("harmless", "hateful")
LABEL = np.array([0, 0, 1, 1])
# Probabilities of the second class, and what follows: at 0.5 one mistake, on logits (0.62) two.
SOUND = np.array([0.1, 0.6, 0.7, 0.9])
# Of the four segments, in other folds other ids.
SAID = {"text_label": ["harmless", "hateful", "hateful", "harmless"],
        "image_label": ["harmless", "harmless", "harmless", "hateful"]}  # fmt: skip
COST = {"trainable_parameters": 1_000_000, "total_parameters": 2_000_000, "flops_per_sample": 100.0,
        "flops_per_prediction": 50.0}  # fmt: skip
TIME = {"seconds_per_epoch": 2.0, "epoch_peak_memory_mb": 50.0}
SIZES = {"segments": {"train": 32, "valid": 4, "test": 4}}


def definition(arm):
    return PAPER.arms[arm].model_dump(exclude={"settings"})


def put(root, arm, fold, second, *, given=None, names=NAMES, label=LABEL, **changes):
    """One run in folds; second: probabilities of the second class, or of all classes."""
    second = np.asarray(second, float)
    table = second if second.ndim == 2 else np.stack([1 - second, second], axis=1)
    ids = [f"f{fold}s{index}" for index in range(len(label))]
    said = SAID if len(label) == 4 else {}
    measured = SIZES | changes.pop("measurements", {})
    write(root, arm, 0, classes(label, table, names, ids=ids, **said), paper="toledo2022", corpus="mini-memes",
          fold=(fold, 10), measurements=measured, **(given or definition(arm)), **changes)  # fmt: skip


def own_split(root, arm, seed, second, given, **changes):
    table = classes(LABEL, np.stack([1 - np.asarray(second), second], axis=1), NAMES, **SAID)
    write(root, arm, seed, table, paper="toledo2022", corpus="mini-memes", measurements=SIZES, **given, **changes)


def share(arm, percent):
    return definition(arm) | {"like": arm, "title": f"{arm} {percent}", "protocol": {"folds": "none", "share": percent}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "runs"
    for fold in (0, 1, 2):
        first = fold == 0
        history = [{"epoch": 1.0, "valid_loss": 1.0}] * (3 + fold)
        how = {"timings": TIME} if first else {}
        put(root, "text-only", fold, SOUND, measurements=COST if first else {}, runtime=how, history=history)
        put(root, "image-only", fold, SOUND, measurements=COST if first else {}, runtime=how, history=history)
        put(root, "late-fusion", fold, SOUND)
        vectors = {"embeddings": embeddings(), "examples": pictures()} if first else None
        cost = COST | {"flops_per_sample": 250.0} if first else {}
        put(root, "joint", fold, SOUND, measurements=cost, runtime=how, artifacts=vectors, history=history)
        put(root, "joint.as-published", fold, [0.1, 0.55, 0.55, 0.9])
        put(root, "joint.only-drop-last", fold, [0.1, 0.2, 0.7, 0.9] if fold else [0.1, 0.2, 0.2, 0.9])
        put(root, "joint.only-threshold", fold, SOUND, same_as="joint")
    for seed in (0, 1):
        for percent in (10, 100):
            own_split(root, f"joint.share-{percent}", seed, SOUND if percent == 100 else [0.9] * 4,
                      share("joint", percent))  # fmt: skip
    return root


@pytest.fixture(scope="module")
def runs(root):
    return read_runs(root)


def embeddings():
    generator = np.random.default_rng(0)
    rows = [
        (f"s{i}", stage, NAMES[LABEL[i]], *generator.normal(size=3)) for stage in ("before", "after") for i in range(4)
    ]
    return pd.DataFrame(rows, columns=["segment_id", "stage", "label", "e0", "e1", "e2"])


def pictures():
    def encoded(shade):
        file = BytesIO()
        Image.new("RGB", (4, 4), (shade, 0, 0)).save(file, "png")
        return base64.b64encode(file.getvalue()).decode()

    return pd.DataFrame({"segment_id": ["f0s0", "f0s1"], "text": ["a", "b"], "image": [encoded(9), encoded(99)]})


# --- protocols ----------------------------------------------------------------------------------------------------


def protocols(runs):
    frame = report.protocol_table(runs, PAPER)
    return frame[frame["arm"] == PAPER.arms["joint"].title].set_index("protocol")


def test_the_published_protocol_is_scored_by_its_own_threshold(runs):
    frame = protocols(runs)
    assert frame.loc["corrected", "Accuracy ↑"] == 0.75
    # 0.55 is below 0.62: the hateful one is missed, the harmless one right; at 0.5 it would be the other way round.
    assert frame.loc["as published, all of it (leaks)", "Accuracy ↑"] == 0.75
    assert frame.loc["last batches dropped, of the test fold too", "Accuracy ↑"] == pytest.approx(11 / 12)
    assert frame.loc["threshold 0.5 on logits", "Accuracy ↑"] == 1.0
    assert list(frame["folds"]) == [3] * 4


def test_rows_of_shared_folds_are_compared_fold_by_fold_and_shuffled_ones_are_not(runs):
    frame = protocols(runs)
    row = frame.loc["last batches dropped, of the test fold too"]
    by_fold = np.array([0.0, 0.25, 0.25])  # 0.75, 1.0, 1.0 less 0.75 in each
    assert row["gap of Accuracy"] == pytest.approx(by_fold.mean())
    half = row["high"] - row["gap of Accuracy"]
    # Nadeau & Bengio with the recorded sizes: 1/k + n_test / n_train.
    from scipy import stats

    expected = stats.t.ppf(0.975, 2) * np.sqrt((1 / 3 + 4 / 32) * by_fold.var(ddof=1))
    assert half == pytest.approx(expected)
    sides = [report.scored(runs, arm, "accuracy") for arm in ("joint.as-published", "joint")]
    found = comparisons.compare([(1, sides[0]), (-1, sides[1])])
    assert found.unit == comparisons.UNPAIRED_FOLDS


def three(fold):
    return np.full((4, 3), 0.2) + 0.4 * np.eye(3)[[0, 1, 2, fold % 3]]


def test_a_threshold_is_not_tested_on_three_classes(tmp_path):
    label, names = np.array([0, 1, 2, 0]), ("negative", "neutral", "positive")
    for fold in (0, 1, 2):
        given = {"names": names, "label": label}
        put(tmp_path, "joint", fold, three(fold), **given)
        put(tmp_path, "joint.only-threshold", fold, three(fold), same_as="joint", **given)
        put(tmp_path, "joint.only-stop", fold, three(fold + 1), **given)
    frame = report.protocol_table(read_runs(tmp_path), PAPER).set_index("protocol")
    assert frame.loc["threshold 0.5 on logits", ["gap of Accuracy", "low", "high", "p", "p (Holm)"]].isna().all()
    tested = frame.loc["early stopping on the test fold (leaks)"]
    assert np.isfinite(tested[["gap of Accuracy", "low", "high", "p"]].astype(float)).all()
    assert tested["p (Holm)"] == tested["p"]  # the only member of the family
    assert any("two classes alone" in note for note in report.GAPS)


def test_a_protocol_on_seeds_that_drop_other_segments_is_listed_without_a_test(tmp_path):
    for seed in (0, 1):
        own = {"paper": "toledo2022", "corpus": "mini-memes", "measurements": SIZES}
        whole = classes(LABEL, np.stack([1 - SOUND, SOUND], axis=1), NAMES)
        write(tmp_path, "joint", seed, whole, **definition("joint"), **own)
        dropped = whole.drop(index=seed).reset_index(drop=True)
        write(tmp_path, "joint.only-drop-last", seed, dropped, **definition("joint.only-drop-last"), **own)
    frame = report.protocol_table(read_runs(tmp_path), PAPER).set_index("protocol")
    row = frame.loc["last batches dropped, of the test fold too"]
    assert row["gap of Accuracy"] == pytest.approx((2 / 3 + 1) / 2 - 0.75)
    assert "p" not in frame
    assert list(frame["seeds"]) == [2, 2]


def test_an_arm_of_a_protocol_of_its_own_stands_under_its_own_title(runs, root, tmp_path):
    given = definition("joint") | {"title": "Mine, no batch lost", "like": "nothing", "protocol": {"drop_last": True}}
    put(tmp_path, "mine", 0, SOUND, given=given)
    frame = report.protocol_table(read_runs(tmp_path), PAPER)
    assert list(frame["arm"]) == ["Mine, no batch lost"]
    assert list(frame["Accuracy ↑"]) == [0.75]


# --- the other tables ---------------------------------------------------------------------------------------------


def test_every_recorded_arm_is_in_some_table(runs, root, tmp_path):
    for fold in (0, 1):
        put(tmp_path, "mine", fold, SOUND, given=definition("joint") | {"title": "My own", "like": "joint"})
    mine = read_runs(tmp_path)
    made = report.tables(mine)
    assert list(made["mini-memes"].frame["title"].unique()) == ["My own"]
    made = report.tables(runs)
    shown = set(made["mini-memes"].frame["title"])
    assert shown == {PAPER.arms[arm].title for arm in ("text-only", "image-only", "late-fusion", "joint")}
    assert len(made["mini-memes-protocols"].frame) == 4
    assert len(made["mini-memes-shares"].frame) == 2


def test_every_class_has_its_row(runs):
    frame = report.class_table(runs, PAPER)
    expected = precision_recall_fscore_support(LABEL, (SOUND > 0.5).astype(int))
    joint = frame[frame["arm"] == PAPER.arms["joint"].title]
    for index, column in enumerate(("precision ↑", "recall ↑", "F1 ↑")):
        np.testing.assert_allclose(joint[column], expected[index])
    assert list(joint["class"]) == list(NAMES)


def test_what_is_counted_is_apart_from_what_was_timed(runs):
    base = PAPER.arms["text-only"].title
    counted = report.cost_table(runs, PAPER, report.COUNTED).set_index("arm")
    joint = counted.loc[PAPER.arms["joint"].title]
    assert joint[f"operations a sample (× {base})"] == 2.5
    assert joint[f"operations a prediction (× {base})"] == 1.0
    assert joint["trainable parameters (M)"] == 1.0
    assert joint["epochs"] == 4.0
    assert not any("time" in name or "memory" in name for name in counted)
    timed = report.cost_table(runs, PAPER, report.TIMED).set_index("arm")
    assert timed.loc[PAPER.arms["joint"].title, "time an epoch (s)"] == 2.0
    assert timed.loc[PAPER.arms["joint"].title, f"time an epoch (× {base})"] == 1.0
    assert not any("operations" in name or "parameters" in name for name in timed)


def test_late_fusion_costs_what_its_parts_cost(runs):
    late = report.costs(runs, PAPER).set_index("arm").loc["late-fusion"]
    assert late["flops_per_sample"] == 200.0
    assert late["seconds_per_epoch"] == 4.0
    assert late["epoch_peak_memory_mb"] == 50.0
    assert np.isnan(late["epochs"])


def test_without_measured_costs_there_is_no_cost_table_and_no_cost_figure(tmp_path):
    for fold in (0, 1):
        put(tmp_path / "runs", "joint", fold, SOUND)
    later = read_runs(tmp_path / "runs")
    assert not {name for name in report.tables(later) if "cost" in name or "timing" in name}
    for figure in drawn.figures(later, tmp_path / "figures"):
        plt.close(figure)
    assert not (tmp_path / "figures/mini-memes-cost.png").exists()


def test_shares_in_order(runs):
    frame = report.share_table(runs, PAPER)
    assert list(frame["share of training data (%)"]) == [10, 100]
    assert list(frame["Accuracy ↑"]) == [0.5, 0.75]
    assert set(frame["arm"]) == {PAPER.arms["joint"].title}


def test_intervals_of_rates_end_where_rates_end():
    rows = [("a", "A", 5, seed, value) for seed, value in enumerate((0.2, 0.9))]
    frame = pd.DataFrame(rows, columns=["arm", "title", "share", "seed", "value"])
    (rate,) = report.share_means(frame, "accuracy").to_dict("records")
    assert (rate["low"], rate["high"]) == (0.0, 1.0)
    (error,) = report.share_means(frame, "mae").to_dict("records")
    assert error["low"] < 0 < 1 < error["high"]


def test_numbers_have_their_tables_and_figures(tmp_path):
    label = np.array([-1.0, 0.0, 1.0, 2.0])
    for seed in (0, 1, 2):
        first = {"measurements": SIZES | COST} if seed == 0 else {"measurements": SIZES}
        for arm, shift in (("text-only", 0.5), ("joint", 0.2), ("joint.as-published", 0.1)):
            predictions = regression(label, label + shift * np.array([1, -1, 1, 1 + seed]))
            given = definition(arm) | {"paper": "toledo2022", "corpus": "numbers"}
            write(tmp_path / "runs", arm, seed, predictions, **given, **first)
    numbers = read_runs(tmp_path / "runs")
    made = report.tables(numbers)
    assert set(made) == {"numbers", "numbers-protocols", "numbers-cost"}
    assert {"mae", "corr"} <= set(made["numbers"].frame["metric"])
    assert made["numbers-protocols"].frame["gap of MAE"].notna().sum() == 1
    for figure in drawn.figures(numbers, tmp_path / "figures"):
        plt.close(figure)
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == {
        "numbers-arms", "numbers-cost", "numbers-protocols"
    }  # fmt: skip


# --- figures ------------------------------------------------------------------------------------------------------


def test_who_is_right_where_they_differ(runs):
    frame = drawn.agreement_scores(runs, PAPER).query("arm == 'joint'").set_index("group")
    assert frame.loc[drawn.AGREE, "mean"] == 1.0
    assert frame.loc["differ, the text is right", "mean"] == 1.0
    # Of the second and the fourth segment, which the image has right, one is mistaken at 0.5.
    assert frame.loc["differ, the image is right", "mean"] == 0.5
    assert frame.loc["differ, the image is right", "n_segments"] == 6  # of all folds


def test_frontier():
    cost, score = np.array([1.0, 2.0, 2.0, 3.0]), np.array([0.5, 0.7, 0.6, 0.7])
    assert list(drawn.on_frontier(cost, score)) == [True, True, False, False]


def test_tables_and_figures(runs, tmp_path):
    made = report.tables(runs)
    parts = ("protocols", "classes", "cost", "timing", "shares")
    assert set(made) == {"mini-memes", *(f"mini-memes-{part}" for part in parts)}
    assert any("(leaks)" in note for note in made["mini-memes-protocols"].notes)
    for figure in drawn.figures(runs, tmp_path):
        plt.close(figure)
    names = {path.stem.removeprefix("mini-memes-") for path in tmp_path.glob("*.png")}
    assert names == {"arms", "cost", "shares", "protocols", "embeddings", "agreement", "calibration", "examples"}


def test_nothing_is_read_off_an_arms_name(runs, root, tmp_path, monkeypatch):
    draw = random.Random(0)
    trained = {*PAPER.arms, *runs.select(reference=False).arms}
    other = {name: "".join(draw.choices("abcdefghij", k=12)) for name in sorted(trained)}
    for path in sorted(root.rglob("*.json")):
        target = tmp_path / path.relative_to(root).parent.parent / other[path.parent.name]
        target.mkdir(parents=True, exist_ok=True)
        for file in path.parent.glob("*"):
            record = json.loads(file.read_text()) if file.suffix == ".json" else {}
            if "definition" in record:
                record["definition"] = _renamed(record["definition"], other)
                record |= {name: other[record[name]] for name in ("arm", "same_as") if name in record}
            (target / file.name).write_bytes(json.dumps(record).encode() if record else file.read_bytes())
    facts = {"arms": {other[name]: _renamed(arm, other) for name, arm in PAPER.facts["arms"].items()}}
    facts["cost_base"] = other[PAPER.facts["cost_base"]]
    facts["drawn"] = {name: other[arms] if isinstance(arms, str) else [other[arm] for arm in arms]
                      for name, arms in PAPER.facts["drawn"].items()}  # fmt: skip
    expected = report.tables(runs)
    paper = Paper("toledo2022", {**PAPER.facts, **facts}, PAPER.published, PAPER.tables, PAPER.figures)
    monkeypatch.setattr(papers, "load", lambda name: paper)
    found = report.tables(read_runs(tmp_path))
    assert set(found) == set(expected)
    for name, table in expected.items():
        assert to_markdown(found[name]) == to_markdown(table)


def _renamed(definition, other):
    """An arm's definition that names other arms."""
    changed = dict(definition)
    if "like" in definition:
        changed["like"] = other[definition["like"]]
    if "of" in definition.get("args", {}):
        changed["args"] = {"of": [other[name] for name in definition["args"]["of"]]}
    return changed
