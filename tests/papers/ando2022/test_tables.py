"""What the tables of Ando et al. say beyond means: tests, sentences, what features lack; and the figures' data."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tiny_papers import SEEDS, ando2022, predictions

from msakit.papers.ando2022.recipe import figures as ando_figures
from msakit.papers.ando2022.recipe import inside as ando_inside
from msakit.papers.ando2022.recipe import tables as report

WIDE = "best-text-audio-vision"


@pytest.fixture(scope="module")
def drawn(ando, tmp_path_factory):
    """The plotted data of every figure, by name."""
    folder = tmp_path_factory.mktemp("ando-figures")
    report.figures(ando.runs, folder)
    plt.close("all")
    return {path.stem.removeprefix("mini-mosi-"): pd.read_csv(path) for path in folder.glob("*.csv")}


def maes(ando, arm):
    """Mean absolute errors on test, one a seed."""
    return [
        (table["prediction"] - table["label"]).abs().mean()
        for table in (predictions(ando.root, "ando2022", "mini-mosi", arm, seed) for seed in SEEDS)
    ]


def test_the_choice_is_compared_with_the_output_layer(ando):
    best = ando2022.best_layers(ando.runs)
    frame = report.choices(ando.runs).set_index("modality")
    assert list(frame.index) == ["text", "audio", "vision"]
    for name, last in {"text": 2, "audio": 1, "vision": 1}.items():
        row, chosen = frame.loc[name], maes(ando, f"layer{best[name]}-{name}")
        output = maes(ando, f"layer{last}-{name}")
        assert (row["chosen layer"], row["output layer"]) == (best[name], last)
        assert row["chosen MAE"] == pytest.approx(np.mean(chosen), rel=1e-5)
        assert row["difference"] == pytest.approx(np.mean(chosen) - np.mean(output), abs=1e-6)
        if best[name] == last:
            assert row[["p", "Welch p", "segments p"]].isna().all()
        else:
            assert row["Welch p"] == pytest.approx(stats.ttest_ind(chosen, output, equal_var=False).pvalue, rel=1e-4)
            assert 0 <= row["p"] <= 1
            assert 0 < row["segments p"] <= 1


def choice(**changes):
    row = {"modality": "text", "chosen layer": 3, "output layer": 6, "chosen MAE": 0.79, "output MAE": 0.83,
           "difference": -0.04, "low": -0.06, "high": -0.02, "p": 0.003, "Welch p": 0.001}  # fmt: skip
    return report.sentences(pd.DataFrame([row | changes]))["text"]


def test_the_sentence_follows_the_test():
    said = choice()
    assert said.startswith("Text: validation chooses layer 3: test MAE 0.790 against 0.830 of the output layer 6;")
    assert "difference -0.040, 95 % interval -0.060 to -0.020; better than the output layer (p = 0.003" in said
    assert "worse than the output layer" in choice(difference=0.04)
    unsure = choice(p=0.2)
    assert "no difference can be told (p = 0.2" in unsure
    assert "better" not in unsure
    nothing = float("nan")
    assert choice(p=nothing, low=nothing, high=nothing).endswith("with one seed nothing can be tested.")
    assert choice(**{"chosen layer": 6}) == (
        "Text: validation chooses layer 6, the output layer itself: no intermediate layer is better on validation."
    )


def test_decoders_are_compared_where_both_were_run(ando):
    (row,) = report.decoders(ando.runs).to_dict("records")
    gate, concat = (maes(ando, arm) for arm in (WIDE, f"{WIDE}.concat"))
    assert row["gate MAE"] == pytest.approx(np.mean(gate), rel=1e-5)
    assert row["concat MAE"] == pytest.approx(np.mean(concat), rel=1e-5)
    assert row["difference"] == pytest.approx(np.mean(gate) - np.mean(concat), abs=1e-6)
    assert row["Holm p"] == pytest.approx(row["p"]), "a family of one"


def test_rows_of_one_training_share_their_runs(ando):
    rows = {arm: source for arm, source, _ in report.rows(ando.runs)}
    best = ando2022.best_layers(ando.runs)
    assert rows["output-text"] == "layer2-text"
    assert {f"best-{name}": f"layer{layer}-{name}" for name, layer in best.items()}.items() <= rows.items()
    assert rows[WIDE] in (WIDE, "output-text-audio-vision")
    notes = report.tables(ando.runs)["mini-mosi"].notes
    assert any("output-text = layer2-text" in note for note in notes)


def test_what_features_lack_is_counted_and_noted(ando):
    frame = report.feature_states(ando.runs)
    assert list(zip(frame["modality"], frame["kind"], strict=True)).count(("text", "encoder")) == 1
    assert len(frame) == 5
    stores = {("encoder", name): store for name, store in ando.call.args[1].items()}
    stores |= {("conventional", name): store for name, store in ando.call.args[2].items()}
    for row in frame.to_dict("records"):
        table = stores[row["kind"], row["modality"]].segments
        assert row["blank_frames"] == table["blank_frames"].sum()
        assert row["failed"] == (table["status"] != "ok").sum()
        assert row["frames"] == table.loc[table["status"] == "ok", "length"].sum()
    noted = [note for note in report.tables(ando.runs)["mini-mosi"].notes if note.startswith("Features that lack")]
    lacking = frame[(frame["blank_frames"] > 0) | (frame["failed"] > 0)]
    assert len(noted) == bool(len(lacking))
    for row in lacking.to_dict("records"):
        assert f"{row['blank_frames']} of {row['frames']} frames blank" in noted[0]


def test_figures_plot_what_was_recorded(ando, drawn):
    test = predictions(ando.root, "ando2022", "mini-mosi", WIDE, 0)
    np.testing.assert_allclose(drawn["scatter"]["prediction"], test["prediction"], rtol=1e-4, atol=1e-5)
    gates = drawn["gates"].set_index(["modality", "label", "seed"])["value"]
    rounded = test["label"].clip(-3, 3).round()
    for modality in ("text", "audio", "vision"):
        for label, part in test.groupby(rounded):
            expected = part[f"gate_{modality}"].mean()
            assert gates[modality, int(label), 0] == pytest.approx(expected, rel=1e-4)
    confusion = drawn["confusion"].pivot(index="label", columns="predicted", values="share")
    sums = confusion.sum(axis=1)[[label for label in confusion.index if (rounded == label).any()]]
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    counts = drawn["confusion"].groupby("label")["segments"].first()
    assert {label: int((rounded == label).sum()) for label in counts.index} == dict(counts)
    weights = drawn["weights"].groupby(["modality", "arm", "seed"])["weight"].sum()
    np.testing.assert_allclose(weights, 1, atol=1e-4)
    assert set(drawn["weights"]["arm"]) == {"alone", "together"}
    assert set(drawn["attention"]["modality"]) == {"text", "audio", "vision"}
    assert set(drawn["embeddings"]["modality"]) == {"text", "audio", "vision", "fused"}
    assert set(drawn["arms"]["arm"]) == {arm for arm, *_ in report.rows(ando.runs)}


def test_confusion_averages_over_seeds(ando, drawn):
    shares, row = [], None
    for seed in SEEDS:
        test = predictions(ando.root, "ando2022", "mini-mosi", WIDE, seed)
        label, guess = (test[name].clip(-3, 3).round() for name in ("label", "prediction"))
        row = int(label.iloc[0])
        shares.append([(guess[label == row] == column).mean() for column in range(-3, 4)])
    cells = drawn["confusion"]
    found = cells[cells["label"] == row].sort_values("predicted")["share"]
    np.testing.assert_allclose(found, np.mean(shares, axis=0), atol=1e-5)


def test_attention_is_drawn_against_uniform_attention():
    frame = pd.DataFrame({"segment_id": "a", "modality": ["text"] * 2 + ["audio"] * 4, "position": [0, 1, 0, 1, 2, 3],
                          "seconds": np.nan, "word": "", "weight": [0.75, 0.25, 0.25, 0.25, 0.25, 0.25]})  # fmt: skip
    test = pd.DataFrame({"segment_id": ["a"], "label": [1.0], "prediction": [0.5]})
    axis = ando_inside.attention_figure(frame, test, "").axes[0]
    lines = {line.get_label(): line for line in axis.get_lines()}
    np.testing.assert_allclose(lines["text"].get_ydata(), [1.5, 0.5])
    np.testing.assert_allclose(lines["audio"].get_ydata(), 1)
    np.testing.assert_allclose(lines["audio"].get_xdata(), [0.125, 0.375, 0.625, 0.875])  # no timings: by position
    assert "label +1.0, prediction +0.5" in axis.get_title(loc="left")
    plt.close("all")


def test_layer_weights_carry_the_numbers_of_their_layers(ando):
    frame = ando_figures.layer_weights(ando.runs)
    assert {name: sorted(part["layer"].unique()) for name, part in frame.groupby("modality")} == {
        "text": [0, 1, 2], "audio": [0, 1], "vision": [0, 1],
    }  # fmt: skip
    run = ando.runs.select(arm="weighted-text", seed=1).runs[0]
    part = frame.query("modality == 'text' and arm == 'alone' and seed == 1").sort_values("layer")
    np.testing.assert_allclose(part["weight"], run.record.measurements["layer_weights"]["text"])
