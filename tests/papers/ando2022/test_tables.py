"""What the tables of Ando et al. say beyond means: tests, sentences, what features lack; and the figures' data."""

import random
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from msakit import papers
from msakit.papers.ando2022 import figures as ando_figures
from msakit.papers.ando2022 import inside, tables
from msakit.papers.ando2022.layers import best_layers
from msakit.reporting.figures import read_data
from msakit.reporting.scores import compare, scores
from msakit.reporting.tables import to_csv, to_markdown
from msakit.runs.record import TaskInfo
from msakit.runs.store import Runs, read_runs, write_run

from .conftest import SEEDS

WIDE = "best-text-audio-vision"
PAPER = papers.load("ando2022")
NUMBERS = TaskInfo(kind="regression", low=-3.0, high=3.0)


def drawn(runs: Runs, folder) -> dict[str, pd.DataFrame]:
    """The plotted data of every figure, by name."""
    ando_figures.figures(runs, folder)
    plt.close("all")
    corpus = runs.frame["corpus"].iloc[0]
    return {name.removeprefix(f"{corpus}-"): data for name, data in read_data(folder).items()}


@pytest.fixture(scope="module")
def figures(ando, tmp_path_factory):
    return drawn(ando.runs, tmp_path_factory.mktemp("ando-figures"))


def maes(ando, arm):
    """Mean absolute errors on test, one a seed."""
    return scores(ando.runs.select(arm=arm), "mae")["value"].to_numpy()


def row(table, arm, metric="mae"):
    (found,) = table.frame[(table.frame["arm"] == arm) & (table.frame["metric"] == metric)].to_dict("records")
    return found


# --- the arms -----------------------------------------------------------------------------------------------------


def test_every_arm_has_its_row_but_the_single_layers(ando):
    table = tables.tables(ando.runs)["mini-mosi"]
    trained = ando.runs.select(reference=False).arms
    single = {name for name in trained if re.fullmatch(r"layer\d-\w+", name)}
    assert set(table.frame["arm"]) == (set(trained) - single) | set(ando.runs.select(reference=True).arms)
    best = best_layers(ando.runs)[-1]
    assert row(table, "best-audio")["title"] == f"Encoder, best layer on validation: audio (layer {best['audio']})"
    assert row(table, f"{WIDE}.concat")["title"].endswith(
        f"text + audio + vision, concatenated (layers {best['text']}, {best['audio']}, {best['vision']})"
    )
    assert row(table, "convbert-text-audio")["title"].endswith(": text + audio")
    assert row(table, "output-text")["mean"] == pytest.approx(maes(ando, "layer2-text").mean())
    assert any("Encoder, output layer: text = " in note for note in table.notes)


def test_a_conventional_modality_in_an_encoders_place_is_named(ando, tmp_path):
    given = {name: store for name, store in ando.stores.items() if name != "audio"}
    runs = type(ando)(ando.corpus, given, tmp_path).run(tmp_path / "runs", ["output-text-audio"], seeds=[0])
    title = row(tables.tables(runs)["mini-mosi"], "output-text-audio")["title"]
    assert title == "Encoder, output layer: text + audio (audio conventional)"


def test_an_arm_of_ones_own_is_tabulated_compared_and_drawn(ando, tmp_path):
    own = {"mine": {"like": WIDE, "title": "My arm", "settings": {"dropout": 0.1}}}
    runs = ando.run(tmp_path / "runs", ["best-text"], own=own)
    table = tables.tables(runs)["mini-mosi"]
    best = best_layers(runs)[-1]
    layers = f"(layers {best['text']}, {best['audio']}, {best['vision']})"
    assert row(table, "mine")["title"] == f"Encoder, best layer on validation: My arm {layers}"
    assert np.isfinite(compare(runs, "mine", "best-text", "mae").p)
    found = drawn(runs, tmp_path / "figures")
    assert "mine" in set(found["arms"]["arm"])
    assert {"gates", "attention", "embeddings"} <= set(found), "the fullest arm is one's own"


def test_other_names_give_the_same_tables_and_figures(ando, tmp_path, monkeypatch):
    """Nothing is read from an arm's name."""
    shuffled = random.Random(0)
    arms = list(dict.fromkeys([*PAPER.arms, *ando.runs.arms]))
    codes = [f"arm-{number:03d}" for number in shuffled.sample(range(len(arms)), len(arms))]
    references = set(ando.runs.select(reference=True).arms)
    new = {arm: arm if arm in references else code for arm, code in zip(arms, codes, strict=True)}
    for run in ando.runs:
        record = run.record
        named = {"arm": new[record.arm], "same_as": record.same_as and new[record.same_as]}
        artifacts = {name: run.artifact(name) for name in record.artifacts}
        write_run(tmp_path / "runs", record.model_copy(update=named), run.runtime, run.predictions, artifacts)
    renamed = read_runs(tmp_path / "runs")
    expected, pictures = tables.tables(ando.runs), drawn(ando.runs, tmp_path / "a")
    known = {new[name]: arm.model_dump() for name, arm in PAPER.arms.items()}
    other = papers.Paper(PAPER.name, {**PAPER.facts, "arms": known}, PAPER.published, PAPER.tables, PAPER.figures)
    monkeypatch.setattr(papers, "load", lambda name: other)
    found = tables.tables(renamed)
    assert list(found) == list(expected)
    for name, table in found.items():
        text = to_csv(table)
        for arm, code in new.items():
            text = re.sub(rf"\b{code}\b", arm, text)
        assert text == to_csv(expected[name])
    for name, data in drawn(renamed, tmp_path / "b").items():
        same = pictures[name]
        if name == "arms":
            data = data.assign(arm=data["arm"].replace({code: arm for arm, code in new.items()}))
            data, same = (each.sort_values(["arm", "seed"]).reset_index(drop=True) for each in (data, same))
        pd.testing.assert_frame_equal(data, same)


def test_published_rows_stand_beside_the_arms_that_the_paper_names():
    """Equal inputs do not make an arm another row of the paper."""
    beside = PAPER.facts["published_beside"]
    assert (beside["output-text-audio"], beside["convbert-text-audio"]) == ("layer23", "conv-bert")
    assert set(beside) <= set(PAPER.arms)
    assert set(beside.values()) == set(PAPER.facts["published"]) == set(PAPER.published["row"])


# --- the choice of layers -----------------------------------------------------------------------------------------


def test_the_choice_is_compared_with_the_output_layer(ando):
    best = best_layers(ando.runs)[-1]
    frame = tables.choices(ando.runs, PAPER).set_index("encoder")
    assert list(frame.index) == ["text", "audio", "vision"]
    for name, last in {"text": 2, "audio": 1, "vision": 1}.items():
        found, chosen = frame.loc[name], maes(ando, f"layer{best[name]}-{name}")
        output = maes(ando, f"layer{last}-{name}")
        assert (found["chosen layer"], found["output layer"]) == (str(best[name]), str(last))
        assert found["chosen MAE"] == pytest.approx(chosen.mean())
        assert found["difference"] == pytest.approx(chosen.mean() - output.mean())
        if best[name] == last:
            assert np.isnan(found["p"]), "an arm is not tested against itself"
        else:
            expected = compare(ando.runs, f"layer{best[name]}-{name}", f"layer{last}-{name}", "mae")
            assert found["p"] == pytest.approx(expected.p)
    assert {"Welch p", "segments p"}.isdisjoint(frame.columns), "one test a table"


def test_layers_are_scored_on_both_splits(ando):
    frame = tables.layer_table(ando.runs, "mae")
    assert list(zip(frame["encoder"], frame["layer"], strict=True)) == [
        ("text", 0), ("text", 1), ("text", 2), ("audio", 0), ("audio", 1), ("vision", 0), ("vision", 1),
    ]  # fmt: skip
    for encoder, layer in best_layers(ando.runs)[-1].items():
        (found,) = frame[(frame["encoder"] == encoder) & (frame["layer"] == layer)].to_dict("records")
        assert "chosen on validation" in found["role"]
        assert found["test MAE"] == pytest.approx(maes(ando, f"layer{layer}-{encoder}").mean())
    outputs = frame[frame["role"].str.contains("output layer")]
    assert dict(zip(outputs["encoder"], outputs["layer"], strict=True)) == {"text": 2, "audio": 1, "vision": 1}


def choice(**changes):
    row = {"encoder": "text", "chosen layer": "3", "output layer": "6", "chosen MAE": 0.79, "output MAE": 0.83,
           "difference": -0.04, "low": -0.06, "high": -0.02, "p": 0.003}  # fmt: skip
    return tables.sentences(pd.DataFrame([row | changes]), "mae")["text"]


def test_the_sentence_follows_the_test():
    words = choice()
    assert words.startswith("Text: validation chooses layer 3: test MAE 0.790 against 0.830 of the output layer 6;")
    assert "difference -0.040, 95 % interval -0.060 to -0.020; better than the output layer (p = 0.003)." in words
    assert "worse than the output layer" in choice(difference=0.04)
    assert "no difference is shown (p = 0.2)" in choice(p=0.2)
    nothing = float("nan")
    assert choice(p=nothing, low=nothing, high=nothing).endswith("with one run nothing can be tested.")
    assert choice(**{"chosen layer": "6"}) == (
        "Text: validation chooses layer 6, the output layer itself: no intermediate layer is better on validation."
    )


# --- decoders, features -------------------------------------------------------------------------------------------


def test_decoders_are_compared_where_both_were_run(ando):
    frame = tables.decoders(ando.runs, PAPER, {})
    (found,) = frame.to_dict("records")
    gate, concat = (maes(ando, arm) for arm in (WIDE, f"{WIDE}.concat"))
    assert found["gate MAE"] == pytest.approx(gate.mean())
    assert found["concat MAE"] == pytest.approx(concat.mean())
    assert found["difference"] == pytest.approx(gate.mean() - concat.mean())
    assert found["p"] == pytest.approx(compare(ando.runs, WIDE, f"{WIDE}.concat", "mae").p)


def test_what_features_lack_is_counted_and_noted(ando):
    frame = tables.feature_states(ando.runs)
    assert len(frame) == 5
    stores = {("encoder", name): ando.stores[name] for name in ("text", "audio", "vision")}
    stores |= {("conventional", name): ando.stores[f"conventional-{name}"] for name in ("text", "audio")}
    for found in frame.to_dict("records"):
        table = stores[found["kind"], found["modality"]].segments
        assert found["blank_frames"] == table["blank_frames"].sum()
        assert found["failed"] == (table["status"] != "ok").sum()
        assert found["frames"] == table.loc[table["status"] == "ok", "length"].sum()
    noted = [note for note in tables.tables(ando.runs)["mini-mosi"].notes if note.startswith("Features that lack")]
    lacking = frame[(frame["blank_frames"] > 0) | (frame["failed"] > 0)]
    assert len(noted) == int(len(lacking) > 0)
    for found in lacking.to_dict("records"):
        assert f"{found['blank_frames']} of {found['frames']} frames blank" in noted[0]


# --- figures ------------------------------------------------------------------------------------------------------


def test_figures_plot_what_was_recorded(ando, figures):
    (first,) = ando.runs.select(arm=WIDE, seed=0)
    np.testing.assert_allclose(figures["scatter"]["prediction"], first.test["prediction"], rtol=1e-4, atol=1e-5)
    gates = figures["gates"].set_index(["modality", "label", "seed"])["value"]
    rounded = first.test["label"].clip(-3, 3).round().astype(int)
    for modality in ("text", "audio", "vision"):
        for label, part in first.test.groupby(rounded):
            name = f"{label:+d}" if label else "0"
            assert gates[modality, name, 0] == pytest.approx(part[f"gate_{modality}"].mean(), rel=1e-4)
    weights = figures["weights"].groupby(["modality", "arm", "seed"])["weight"].sum()
    np.testing.assert_allclose(weights, 1, atol=1e-4)
    assert set(figures["weights"]["arm"]) == {"alone", "together"}
    assert set(figures["attention"]["modality"]) == {"text", "audio", "vision"}
    assert set(figures["embeddings"]["modality"]) == {"text", "audio", "vision", "fused"}
    assert set(figures["arms"]["arm"]) == set(ando.runs.select(reference=False).arms) - tables.single_layers(
        ando.runs, PAPER
    )


def test_confusion_averages_over_seeds(ando, figures):
    cells = figures["confusion"].pivot(index="label", columns="predicted", values="share")
    names = [f"{value:+d}" if value else "0" for value in range(-3, 4)]
    shares, label = [], None
    for seed in SEEDS:
        (run,) = ando.runs.select(arm=WIDE, seed=seed)
        label, guess = (run.test[name].clip(-3, 3).round() for name in ("label", "prediction"))
        shares.append([[(guess[label == r] == c).mean() for c in range(-3, 4)] for r in range(-3, 4)])
    np.testing.assert_allclose(cells.loc[names, names], np.mean(shares, axis=0), atol=1e-5)
    sizes = figures["confusion"].groupby("label")["segments"].first()
    assert dict(sizes) == {name: int((label == value).sum()) for name, value in zip(names, range(-3, 4), strict=True)}


def test_classes_and_folds_have_tables_and_figures(classes, tmp_path):
    """What ended in an IndexError: three classes, from features to figures."""
    arms = ["best-text-audio-vision*", "best-text", "output-text", "conventional-text", "weighted-text"]
    own = classes.run(tmp_path / "own", arms)
    found = tables.tables(own)
    assert set(found) == {"classes", *(f"classes-{name}" for name in ("layers", "choice", "decoders", "features"))}
    assert tuple(found["classes"].frame["metric"].unique()) == ("accuracy", "f1_macro", "auroc")
    assert "test Accuracy" in found["classes-layers"].frame
    pictures = drawn(own, tmp_path / "figures")
    assert set(pictures) == {"layers", "weights", "arms", "confusion", "gates", "embeddings", "attention"}
    names = classes.corpus.task.classes
    assert set(pictures["confusion"]["label"]) == set(pictures["gates"]["label"]) == set(names)
    small = classes.run(tmp_path / "folds", arms, {"batch_size": 8}, seeds=[0], folds=3)
    found = tables.tables(small)
    assert set(found["classes"].frame["unit"]) == {"folds"}
    assert np.isfinite(found["classes-choice"].frame["difference"]).all()
    assert all(to_markdown(table) for table in found.values())
    assert set(drawn(small, tmp_path / "figures-of-folds")) == set(pictures)


def test_attention_is_drawn_against_uniform_attention():
    frame = pd.DataFrame({"segment_id": "a", "modality": ["text"] * 2 + ["audio"] * 4, "position": [0, 1, 0, 1, 2, 3],
                          "seconds": np.nan, "word": "", "weight": [0.75, 0.25, 0.25, 0.25, 0.25, 0.25]})  # fmt: skip
    test = pd.DataFrame({"segment_id": ["a"], "label": [1.0], "prediction": [0.5]})
    axis = inside.attention_figure(frame, test, NUMBERS).axes[0]
    lines = {line.get_label(): line for line in axis.get_lines()}
    np.testing.assert_allclose(lines["text"].get_ydata(), [1.5, 0.5])
    np.testing.assert_allclose(lines["audio"].get_ydata(), 1)
    np.testing.assert_allclose(lines["audio"].get_xdata(), [0.125, 0.375, 0.625, 0.875])  # no timings: by position
    assert "label +1.0, prediction +0.5" in axis.get_title(loc="left")
    plt.close("all")


def test_layer_weights_carry_the_numbers_of_their_layers(ando):
    frame = ando_figures.layer_weights(ando.runs, PAPER)
    assert {name: sorted(part["layer"].unique()) for name, part in frame.groupby("modality")} == {
        "text": [0, 1, 2], "audio": [0, 1], "vision": [0, 1],
    }  # fmt: skip
    (run,) = ando.runs.select(arm="weighted-text", seed=1)
    part = frame.query("modality == 'text' and arm == 'alone' and seed == 1").sort_values("layer")
    np.testing.assert_allclose(part["weight"], run.record.measurements["layer_weights"]["text"])
