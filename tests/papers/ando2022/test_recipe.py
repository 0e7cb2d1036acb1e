"""Ando et al. end to end: which arms are recorded, how the best layers are chosen, what a second call does."""

import dataclasses
import json
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_papers import ANDO, SEEDS, ando2022, predictions, snapshot

from msakit.features import FeatureStore
from msakit.papers.ando2022.inputs import Inputs, choose_arms
from msakit.predictor import Predictor
from msakit.runs.record import read_all, write
from msakit.training.batching import FeatureBatches

TRAINED = {
    "conventional-text", "conventional-audio", "conventional-text-audio", "convbert-text-audio",
    "layer0-text", "layer1-text", "layer2-text", "layer0-audio", "layer1-audio", "layer0-vision", "layer1-vision",
    "output-text", "output-text-audio-vision", "weighted-text", "weighted-text-audio-vision",
    "best-text", "best-audio", "best-vision", "best-text-audio-vision", "best-text-audio-vision.concat",
}  # fmt: skip
REFERENCES = {"constant", "oracle", "oracle-text", "oracle-audio", "oracle-vision"}
LAYERS = {"text": 3, "audio": 2, "vision": 2}


def select(root):
    return read_all(root).select(paper="ando2022", corpus="mini-mosi")


def valid_means(root, modality):
    """Mean validation MAE over seeds of every single layer, from the csv files."""
    means = []
    for layer in range(LAYERS[modality]):
        tables = [predictions(root, "ando2022", "mini-mosi", f"layer{layer}-{modality}", k, "valid") for k in SEEDS]
        means.append(np.mean([(table["prediction"] - table["label"]).abs().mean() for table in tables]))
    return means


def alter(root, split, change, arms, seed=SEEDS):
    """Store runs again with other predictions of one split; `change(run, part)` gives them."""
    for run in select(root).select(arm=arms, seed=seed):
        table = pd.read_csv(run.path.with_suffix(".csv"), dtype={"segment_id": str})
        part = table["split"] == split
        table.loc[part, "prediction"] = change(run, table[part])
        write(root, run.record, table)


def store(layers, name="store"):
    """A feature store without segments."""
    nothing = pd.DataFrame({"segment_id": [], "start": [], "length": []})
    return FeatureStore(Path(name), np.zeros((layers, 0, 2), np.float16), nothing, {})


@pytest.fixture
def copy(ando, tmp_path):
    return shutil.copytree(ando.root, tmp_path / "runs")


def test_every_arm_is_recorded_with_every_seed(ando):
    frame = ando.runs.frame
    trained = frame[frame["arm"].isin(TRAINED)]
    assert set(frame["arm"]) == TRAINED | REFERENCES
    assert set(zip(trained["arm"], trained["seed"], strict=True)) == {(arm, seed) for arm in TRAINED for seed in SEEDS}
    assert (trained["epochs"] == ANDO.epochs).all()
    assert (frame["protocol"] == "corrected").all()
    assert frame["generated"].all()


def test_a_record_says_where_its_features_came_from(ando):
    stores = {modality: store.folder.name for modality, store in ando.call.args[1].items()}
    for arm, modality, layer in (("layer1-audio", "audio", 1), ("weighted-text", "text", "all")):
        config = ando.runs.select(arm=arm).runs[0].record.config
        assert config["inputs"] == {modality: {"features": stores[modality], "layer": layer, "conventional": False}}
        assert config["decoder"] == "gated"
    inputs = ando.runs.select(arm="output-text-audio-vision").runs[0].record.config["inputs"]
    assert {name: source["layer"] for name, source in inputs.items()} == {"text": 2, "audio": 1, "vision": 1}


def test_predictions_are_of_valid_and_test_with_the_corpus_labels(ando, tiny_corpora):
    corpus = tiny_corpora["mini-mosi"]
    for split in ("valid", "test"):
        table = predictions(ando.root, "ando2022", "mini-mosi", "best-text-audio-vision", 0, split)
        assert list(table["segment_id"]) == list(corpus.splits[split]["segment_id"])
        np.testing.assert_allclose(table["label"], corpus.splits[split]["label"])
        assert table["prediction"].nunique() > 1
    stored = pd.read_csv(ando.root / "ando2022/mini-mosi/best-text-audio-vision/seed-0.csv")
    assert set(stored["split"]) == {"valid", "test"}


def test_the_chosen_epoch_has_the_recorded_validation_score(ando):
    for run in ando.runs.select(arm=sorted(TRAINED)):
        record = run.record
        table = predictions(ando.root, "ando2022", "mini-mosi", record.arm, record.seed, "valid")
        mae = (table["prediction"] - table["label"]).abs().mean()
        assert record.selection["split"] == "valid"
        assert record.selection["value"] == pytest.approx(mae, abs=1e-4)
        assert record.selection["value"] == min(row["valid_loss"] for row in record.history)


def test_best_layers_are_those_of_the_lowest_validation_mae(ando):
    expected = {modality: int(np.argmin(valid_means(ando.root, modality))) for modality in LAYERS}
    assert ando2022.best_layers(ando.runs) == expected
    for run in ando.runs.select(arm="best-text-audio-vision"):
        assert {name: source["layer"] for name, source in run.record.config["inputs"].items()} == expected


def test_test_predictions_have_no_part_in_the_choice_of_layers(ando, copy):
    best = ando2022.best_layers(ando.runs)
    # Perfect test predictions for every layer that was not chosen, hopeless ones for the chosen ones.
    chosen = {f"layer{layer}-{modality}" for modality, layer in best.items()}
    singles = [f"layer{layer}-{modality}" for modality, count in LAYERS.items() for layer in range(count)]
    alter(copy, "test", lambda run, part: 3 if run.record.arm in chosen else part["label"], singles)
    assert ando2022.best_layers(select(copy)) == best
    other = (best["text"] + 1) % 3
    alter(copy, "valid", lambda run, part: part["label"], [f"layer{other}-text"])
    assert ando2022.best_layers(select(copy)) == best | {"text": other}


def test_of_equal_layers_the_earlier_one_is_best(copy):
    alter(copy, "valid", lambda run, part: part["label"], ["layer1-text", "layer2-text"])
    assert ando2022.best_layers(select(copy))["text"] == 1


def test_layers_trained_together_come_to_the_runs_of_their_own(ando, tmp_path):
    together = ando.call(ANDO, SEEDS, tmp_path / "runs", arms=["layer*", "output-text"], sweep_on="cpu")
    names = sorted(name for name in TRAINED if name.startswith("layer"))
    assert {run.record.arm for run in together} - REFERENCES == {*names, "output-text"}
    for run in together.select(arm=names):
        own = ando.runs.select(arm=run.record.arm, seed=run.record.seed).runs[0]
        modality = run.record.arm.partition("-")[2]
        assert run.record.measurements["trained_together"] == LAYERS[modality] * len(SEEDS)
        assert run.record.selection["epoch"] == own.record.selection["epoch"]
        assert run.record.config == own.record.config
        tables = [pd.read_csv(each.path.with_suffix(".csv")) for each in (run, own)]
        assert list(tables[0]["segment_id"]) == list(tables[1]["segment_id"])
        np.testing.assert_allclose(tables[0]["prediction"], tables[1]["prediction"], rtol=1e-3, atol=1e-4)
    # The output layer is one of them: it is taken over, not trained again.
    output, last = (together.select(arm=arm, seed=0).runs[0].record for arm in ("output-text", "layer2-text"))
    assert output.config["same_as"] == "layer2-text"
    assert output.selection == last.selection


def test_a_second_call_trains_nothing(ando, monkeypatch):
    def train(*_):
        raise AssertionError("trained again")

    before = snapshot(ando.root / "ando2022")
    monkeypatch.setattr(ando2022, "train", train)
    again = ando.call(ANDO, SEEDS, ando.root)
    assert snapshot(ando.root / "ando2022") == before
    assert [run.path for run in again] == [run.path for run in ando.runs]


def test_a_torn_run_is_trained_again_to_the_same_predictions(ando, copy):
    folder = copy / "ando2022/mini-mosi"
    torn = folder / "layer1-text/seed-1.csv"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:-20])
    before = snapshot(folder)
    ando.call(ANDO, SEEDS, copy)
    after = snapshot(folder)
    assert torn.read_bytes() == whole
    assert {name for name in after if after[name] != before[name]} == {
        "layer1-text/seed-1.csv",
        "layer1-text/seed-1.json",
    }


def test_changed_settings_train_again_and_the_older_runs_are_set_aside(ando, copy):
    before = snapshot(copy / "ando2022/mini-mosi")
    corpus, encoded, _ = ando.call.args
    changed = dataclasses.replace(ANDO, epochs=1)
    runs = ando2022.run(corpus, {"audio": encoded["audio"]}, {}, changed, SEEDS, copy)
    arms = {"layer0-audio", "layer1-audio", "output-audio", "best-audio", "weighted-audio"}
    assert set(runs.frame["arm"]) == arms | REFERENCES
    assert all(len(run.record.history) == 1 for run in runs.select(arm=sorted(arms)))
    set_aside = snapshot(copy.parent / "superseded/ando2022/mini-mosi")
    assert len(set_aside) == len(before), "nothing is lost, nothing is mixed"


def test_an_arm_that_is_made_of_something_else_sets_its_older_runs_aside(ando, copy):
    before = snapshot(copy / "ando2022/mini-mosi")
    runs = ando.call(ANDO, SEEDS, copy, arms=["weighted-text"], layers=[0])  # and the output layer, 2
    mixed = [run.record.config["inputs"]["text"]["layer"] for run in runs.select(arm="weighted-text")]
    assert mixed == [[0, 2]] * len(SEEDS)
    set_aside = snapshot(copy.parent / "superseded/ando2022/mini-mosi")
    assert len(set_aside) == 2 * len(SEEDS)
    assert {content for name, content in before.items() if name.startswith("weighted-text/")} == set(set_aside.values())
    assert snapshot(copy / "ando2022/mini-mosi").keys() == before.keys()


def test_same_seed_same_predictions_other_seed_others(ando, tmp_path):
    corpus, encoded, classic = ando.call.args
    runs = ando2022.run(
        corpus, {"text": encoded["text"]}, {"audio": classic["audio"]}, ANDO, SEEDS[1:], tmp_path / "runs",
        arms=["layer0-text", "layer2-text", "weighted-text", "conventional-audio"],
    )  # fmt: skip
    for arm in ("layer0-text", "layer2-text", "weighted-text", "conventional-audio"):
        (again,) = runs.select(arm=arm)
        first, second = (ando.root / f"ando2022/mini-mosi/{arm}/seed-{seed}.csv" for seed in SEEDS)
        assert again.path.with_suffix(".csv").read_bytes() == second.read_bytes() != first.read_bytes()


def test_references_score_what_they_say(ando, tiny_corpora):
    corpus = tiny_corpora["mini-mosi"]
    table = corpus.table().set_index("segment_id")
    oracle = pd.read_csv(corpus.folder / "oracle.csv", dtype={"segment_id": str}).set_index("segment_id")
    truth = table[table["split"] == "test"]["label"]
    median = table[table["split"] == "train"]["label"].median()
    expected = {
        "constant": (truth - median).abs().mean(),
        "oracle": (truth - oracle.loc[truth.index, "prediction"]).abs().mean(),
        "oracle-audio": (truth - oracle.loc[truth.index, "prediction_audio"]).abs().mean(),
    }
    scores = ando.runs.scores("mae").set_index("arm")["value"]
    assert {arm: scores[arm] for arm in expected} == pytest.approx(expected, abs=1e-5)
    for arm in REFERENCES:
        (run,) = ando.runs.select(arm=arm)
        assert run.record.selection is None
        assert run.record.history == []


def served(source):
    """The frames that a batch of all rows holds, in order."""
    batches = FeatureBatches({"audio": source}, np.zeros(len(source.lengths)), len(source.lengths))
    return next(iter(batches))["audio"].frames.numpy()


def test_conventional_features_are_standardised_by_the_training_frames(ando):
    corpus, _, classic = ando.call.args
    arm = {"audio": ando2022.Source(classic["audio"], 0, True)}
    train = served(ando2022.split_features(corpus, arm, "train")["audio"])
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-3)
    raw, lengths = classic["audio"].take(list(corpus.splits["test"]["segment_id"]), 0)
    known = classic["audio"].take(list(corpus.splits["train"]["segment_id"]), 0)[0].astype(np.float32)
    test = served(ando2022.split_features(corpus, arm, "test")["audio"])
    assert len(test) == lengths.sum()
    np.testing.assert_allclose(test, (raw - known.mean(0)) / known.std(0), rtol=1e-3, atol=1e-3)


def test_unknown_names_are_refused_with_the_choices(ando, tmp_path):
    corpus = ando.call.args[0]
    with pytest.raises(ValueError, match=r"no modality 'voice': choose from text, audio, vision"):
        ando2022.extract_all(corpus, {"voice": "acoustic-set"}, tmp_path)
    with pytest.raises(ValueError, match="batch_size at least 2"):
        dataclasses.replace(ANDO, batch_size=1)


def test_records_are_plain_json_without_texts(ando, tiny_corpora):
    texts = set(tiny_corpora["mini-mosi"].table()["text"])
    for run in ando.runs:
        content = run.path.read_text() + run.path.with_suffix(".csv").read_text()
        assert json.loads(run.path.read_text())["paper"] == "ando2022"
        assert not any(text in content for text in texts)


def test_older_runs_have_no_part_in_the_choice_of_layers(ando, copy):
    corpus, encoded, _ = ando.call.args
    # Seed 1 has other settings and is not asked for below; make its first layer look perfect, the others hopeless.
    singles = [f"layer{layer}-text" for layer in range(3)]
    best = min(range(3), key=lambda layer: layer == ando2022.best_layers(ando.runs.select(seed=0))["text"])
    alter(copy, "valid", lambda run, part: part["label"] + 9 * (run.record.arm != singles[best]), singles, seed=1)
    changed = dataclasses.replace(ANDO, epochs=1)
    runs = ando2022.run(corpus, {"text": encoded["text"]}, {}, changed, SEEDS[:1], copy, arms=["layer*"])
    assert set(runs.select(arm=singles).frame["seed"]) == {0}
    assert ando2022.best_layers(runs)["text"] == ando2022.best_layers(runs.select(seed=0))["text"]


# -- arms by name


WHOLE = Inputs(
    {name: store(3, f"{name}-encoder") for name in ("text", "audio", "vision")},
    {name: store(1, f"{name}-set") for name in ("text", "audio", "vision")},
)
ALL_SETS = [names for count in (1, 2, 3) for names in combinations(("text", "audio", "vision"), count)]


def test_every_arm_of_the_paper_has_its_name():
    families = {"conventional": ALL_SETS, "output": ALL_SETS, "best": ALL_SETS, "weighted": ALL_SETS}
    families["convbert"] = [names for names in ALL_SETS if "text" in names and len(names) > 1]
    expected = {f"layer{layer}-{name}" for layer in range(3) for (name,) in ALL_SETS[:3]}
    for family, sets in families.items():
        expected |= {f"{family}-{'-'.join(names)}" for names in sets}
        expected |= {f"{family}-{'-'.join(names)}.concat" for names in sets if len(names) > 1}
    found = list(WHOLE.arms())
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("name", "layers", "conventional", "decoder"),
    [
        ("conventional-text-vision", {"text": 0, "vision": 0}, {"text", "vision"}, "gated"),
        ("convbert-text-audio-vision", {"text": 2, "audio": 0, "vision": 0}, {"audio", "vision"}, "gated"),
        ("layer1-audio", {"audio": 1}, set(), "gated"),
        ("output-audio-vision", {"audio": 2, "vision": 2}, set(), "gated"),
        ("best-text-audio.concat", {"text": 1, "audio": 0}, set(), "concat"),
        ("weighted-text", {"text": None}, set(), "gated"),
    ],
)
def test_what_a_name_stands_for(name, layers, conventional, decoder):
    arm = WHOLE.arm(name, {"text": 1, "audio": 0, "vision": 2})
    assert {modality: source.layer for modality, source in arm.sources.items()} == layers
    assert {modality for modality, source in arm.sources.items() if source.conventional} == conventional
    assert arm.decoder == decoder
    for modality, source in arm.sources.items():
        kind = "set" if modality in conventional else "encoder"
        assert source.store.folder == Path(f"{modality}-{kind}")


def test_a_modality_without_an_encoder_comes_from_conventional_features():
    inputs = Inputs({"text": store(7)}, {"audio": store(1)})
    found = [name for name in inputs.arms() if not name.startswith("layer")]
    pair = ("output-text-audio", "best-text-audio", "weighted-text-audio", "convbert-text-audio")
    assert set(found) == {
        "conventional-audio", "output-text", "best-text", "weighted-text", *pair, *(f"{name}.concat" for name in pair),
    }  # fmt: skip
    arm = inputs.arm("weighted-text-audio")
    assert {name: source.conventional for name, source in arm.sources.items()} == {"text": False, "audio": True}


def test_layers_limit_the_sweep_and_the_mixture():
    inputs = Inputs({"text": store(7), "vision": store(4)}, {}, [1, 3, 5])
    assert inputs.layers_of("text") == [1, 3, 5, 6]
    assert inputs.layers_of("vision") == [1, 3]
    assert inputs.arm("weighted-text").sources["text"].layer == (1, 3, 5, 6)
    assert inputs.arm("weighted-text").sources["text"].mixed == 4
    assert inputs.arm("output-vision").sources["vision"].layer == 3
    with pytest.raises(ValueError, match="name hidden states from 0 to 6"):
        Inputs({"text": store(7)}, {}, [7])


def test_best_arms_bring_the_layers_that_they_are_chosen_from():
    chosen = choose_arms(WHOLE, ["best-text-audio.concat", "conventional-text"])
    singles = {f"layer{layer}-{name}" for layer in range(3) for name in ("text", "audio")}
    assert set(chosen) == {"best-text-audio.concat", "conventional-text"} | singles
    assert set(choose_arms(WHOLE, ["*.concat"])) >= {"output-text-audio.concat", "convbert-text-vision.concat"}
    with pytest.raises(ValueError, match=r"no arm 'worst-\*' with these features: choose from conventional-text, "):
        choose_arms(WHOLE, ["worst-*"])


# -- what a run leaves


@pytest.mark.parametrize("layers", [(0, 2), (1, 2), (0, 1, 2), (2,)])
def test_a_mixture_of_some_layers_is_a_mixture_of_those(ando, layers):
    corpus, encoded, _ = ando.call.args
    some = ando2022.Source(encoded["text"], layers, False)
    mixed = served(ando2022.split_features(corpus, {"audio": some}, "test")["audio"])
    whole, _ = encoded["text"].take(list(corpus.splits["test"]["segment_id"]), None)
    np.testing.assert_array_equal(mixed, whole[list(layers)])


def test_equal_arms_are_trained_once_and_recorded_under_both_names(ando):
    best = ando2022.best_layers(ando.runs)
    names = {"output-text": "layer2-text", **{f"best-{name}": f"layer{layer}-{name}" for name, layer in best.items()}}
    for name, same in names.items():
        for seed in SEEDS:
            copied, trained = (ando.runs.select(arm=arm, seed=seed).runs[0] for arm in (name, same))
            files = [run.path.with_suffix(".csv").read_bytes() for run in (copied, trained)]
            assert files[0] == files[1]
            assert copied.record.selection == trained.record.selection
            assert copied.record.measurements.items() >= trained.record.measurements.items()
            # Seed 0 of best-… is trained anew, to keep its head, and gives the same.
            assert copied.record.config.get("same_as") == (None if name != "output-text" and seed == 0 else same)


def test_multimodal_gated_arms_record_their_gates(ando):
    gates = ["gate_text", "gate_audio", "gate_vision"]
    for arm, expected in (("best-text-audio-vision", gates), ("convbert-text-audio", gates[:2]), ("best-text", []),
                          ("best-text-audio-vision.concat", [])):  # fmt: skip
        table = predictions(ando.root, "ando2022", "mini-mosi", arm, 0)
        assert {name for name in table if name.startswith("gate_")} == set(expected)
        assert (table[expected].to_numpy() > 0).all()
        assert (table[expected].to_numpy() < 1).all()
    # Gates follow the segment: they are not one number a modality.
    table = predictions(ando.root, "ando2022", "mini-mosi", "best-text-audio-vision", 0)
    assert (table[gates].nunique() > 1).all()


def test_runs_measure_layer_weights_and_the_state_of_their_features(ando):
    for run in ando.runs.select(arm="weighted-text-audio-vision"):
        weights = run.record.measurements["layer_weights"]
        assert {name: len(values) for name, values in weights.items()} == LAYERS
        assert all(sum(values) == pytest.approx(1, abs=1e-4) for values in weights.values())
        assert any(np.ptp(values) > 1e-6 for values in weights.values()), "learnt, not left as they were"
        stores = ando.call.args[1]
        for name, state in run.record.measurements["features"].items():
            table = stores[name].segments
            assert state["segments"] == len(table) == 44
            assert state["failed"] == (table["status"] != "ok").sum()
            assert state["blank_frames"] == table["blank_frames"].sum()
            assert state["frames"] == table["length"].sum()
    assert "layer_weights" not in ando.runs.select(arm="layer0-text").runs[0].record.measurements


def test_attention_sums_to_one_and_names_the_words(ando, tiny_corpora):
    (run,) = ando.runs.select(arm="best-text-audio-vision", seed=0)
    table = ando.runs.artifact(run, "attention")
    test = predictions(ando.root, "ando2022", "mini-mosi", "best-text-audio-vision", 0)
    assert set(table["segment_id"]) >= {test["segment_id"][test["label"].idxmin()],
                                        test["segment_id"][test["label"].idxmax()]}  # fmt: skip
    sums = table.groupby(["segment_id", "modality"])["weight"].sum()
    assert len(sums) == 3 * table["segment_id"].nunique()
    np.testing.assert_allclose(sums, 1, atol=2e-3)
    words = tiny_corpora["mini-mosi"].words()
    for segment, part in table[table["modality"] == "text"].groupby("segment_id"):
        timed = words[words["segment_id"] == segment]
        said = part.dropna(subset="word")
        assert list(dict.fromkeys(said["word"])) == list(dict.fromkeys(timed["word"]))
        for word, seconds in zip(said["word"], said["seconds"], strict=True):
            spans = timed[timed["word"] == word]
            assert ((spans["start"] <= seconds) & (seconds <= spans["end"])).any()
    sound = table[table["modality"] == "audio"].groupby("segment_id")["seconds"]
    np.testing.assert_allclose(sound.apply(lambda times: times.diff().dropna().mean()), 0.1, rtol=1e-3)
    assert all("attention" not in run.record.artifacts for run in ando.runs.select(seed=1))


def test_embeddings_are_the_leading_components(ando):
    (run,) = ando.runs.select(arm="best-text-audio-vision", seed=0)
    table = ando.runs.artifact(run, "embeddings")
    assert set(table["modality"]) == {"text", "audio", "vision", "fused"}
    test = predictions(ando.root, "ando2022", "mini-mosi", "best-text-audio-vision", 0)
    for name, part in table.groupby("modality"):
        assert list(part["segment_id"]) == list(test["segment_id"])
        values = part[[column for column in part if column.startswith("e")]].to_numpy()
        shares = run.record.measurements["embedding_variance"][name]
        assert values.shape[1] == len(shares) == 4, "no more than the embedding has"
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-3)
        np.testing.assert_allclose(values.var(0) / values.var(0).sum(), shares, atol=2e-3)
    assert run.path.with_name("seed-0.embeddings.csv").stat().st_size < 300_000


def test_saved_heads_predict_as_recorded(ando, tiny_corpora):
    heads = ando.root.parent / "heads/ando2022/mini-mosi"
    assert {path.name for path in heads.iterdir()} == {
        "best-text", "best-audio", "best-vision", "best-text-audio-vision",
    }  # fmt: skip
    rows = tiny_corpora["mini-mosi"].table().set_index("segment_id")
    for arm in ("best-text", "best-text-audio-vision"):
        predictor = Predictor.from_pretrained(heads / arm)
        test = predictions(ando.root, "ando2022", "mini-mosi", arm, 0).head(2)
        for segment, recorded in zip(test["segment_id"], test["prediction"], strict=True):
            row = rows.loc[segment]
            media = {"video": row["video"], "audio": row["audio"]} if arm != "best-text" else {}
            assert predictor.predict(text=row["text"], **media).score == pytest.approx(recorded, abs=2e-3)
