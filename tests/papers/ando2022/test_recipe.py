"""Ando et al. end to end: which arms are recorded, how the best layers are chosen, on numbers and classes, in folds."""

import json
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_papers import predictions, snapshot

from msakit.features import FeatureStore
from msakit.papers import arms_of, choose_arms
from msakit.papers.ando2022 import recipe
from msakit.papers.ando2022.inputs import Inputs, Source, frames_of
from msakit.papers.ando2022.layers import best_layers, layer_runs
from msakit.papers.ando2022.recipe import Settings
from msakit.predictor import Predictor
from msakit.runs.arm import Arm
from msakit.runs.store import read_runs, run_path, write_run
from msakit.strict import parse
from msakit.training.batching import FeatureBatches

from .conftest import SEEDS, SETTINGS

TRAINED = {
    "conventional-text", "conventional-audio", "conventional-text-audio", "convbert-text-audio",
    "layer0-text", "layer1-text", "layer2-text", "layer0-audio", "layer1-audio", "layer0-vision", "layer1-vision",
    "output-text", "output-text-audio-vision", "weighted-text", "weighted-text-audio-vision",
    "best-text", "best-audio", "best-vision", "best-text-audio-vision", "best-text-audio-vision.concat",
}  # fmt: skip
REFERENCES = {"constant", "oracle", "oracle-text", "oracle-audio", "oracle-vision"}
LAYERS = {"text": 3, "audio": 2, "vision": 2}
WIDE = "best-text-audio-vision"


def of(ando, arm, seed, split="test"):
    return predictions(ando.root, "ando2022", "mini-mosi", arm, seed, split)


def store(modality, layers, name="encoder"):
    """A feature store without segments."""
    nothing = pd.DataFrame({"segment_id": [], "start": [], "length": [], "status": []})
    config = {"modality": modality, "encoder": {"encoder": "acoustic-set" if name == "set" else "text"}}
    return FeatureStore(Path(f"{modality}-{name}"), np.zeros((layers, 0, 2), np.float16), nothing, config)


def arm(**inputs):
    return parse(Arm, {"title": "An arm", "model": "gated", "inputs": inputs}, "test")


@pytest.fixture
def copy(ando, tmp_path):
    return shutil.copytree(ando.root, tmp_path / "runs")


# --- what is recorded ---------------------------------------------------------------------------------------------


def test_every_arm_is_recorded_with_every_seed(ando):
    frame = ando.runs.frame
    trained = frame[~frame["reference"]]
    assert set(trained["arm"]) == TRAINED
    assert set(frame["arm"]) == TRAINED | REFERENCES
    assert set(zip(trained["arm"], trained["seed"], strict=True)) == {(name, s) for name in TRAINED for s in SEEDS}
    assert (trained["epochs"] == SETTINGS.epochs).all()
    assert (trained["protocol"] == "corrected").all()


def test_a_record_says_where_its_features_came_from(ando):
    for name, modality, encoder, layer in (
        ("layer1-audio", "audio", "audio", 1),
        ("weighted-text", "text", "text", "all"),
        ("conventional-audio", "audio", "conventional-audio", 0),
    ):
        record = ando.runs.select(arm=name).runs[0].record
        (found,) = record.features.values()
        stored = ando.stores[encoder]
        assert record.modalities == (modality,)
        assert (found.encoder, found.features, found.layer) == (encoder, stored.folder.name, layer)
        assert found.weights == stored.config["encoder"].get("weights")
        assert found.conventional == encoder.startswith("conventional")
        assert record.measurements["segments"] == {"train": 24, "valid": 8, "test": 12}
    features = ando.runs.select(arm="output-text-audio-vision").runs[0].record.features
    assert {name: feature.layer for name, feature in features.items()} == {"text": 2, "audio": 1, "vision": 1}


def test_predictions_are_of_valid_and_test_with_the_corpus_labels(ando):
    for split in ("valid", "test"):
        table = of(ando, WIDE, 0, split)
        assert list(table["segment_id"]) == list(ando.corpus.splits[split]["segment_id"])
        assert list(table["video_id"]) == list(ando.corpus.splits[split]["video_id"])
        np.testing.assert_allclose(table["label"], ando.corpus.splits[split]["label"])
        assert table["prediction"].nunique() > 1


def test_the_chosen_epoch_has_the_recorded_validation_score(ando):
    for run in ando.runs.select(arm=sorted(TRAINED)):
        record, table = run.record, run.split("valid")
        assert (record.selection.split, record.selection.metric) == ("valid", "mae")
        assert record.selection.value == pytest.approx((table["prediction"] - table["label"]).abs().mean(), abs=1e-4)
        assert record.selection.value == min(row["valid_loss"] for row in record.history)


def test_same_seed_same_predictions_other_seed_others(ando, tmp_path):
    arms = ["layer0-text", "layer2-text", "weighted-text", "conventional-audio"]
    runs = ando.run(tmp_path / "runs", arms, seeds=SEEDS[1:])
    for name in arms:
        again = run_path(tmp_path / "runs", runs.select(arm=name).runs[0].record).with_suffix(".parquet").read_bytes()
        first, second = (ando.root / f"ando2022/mini-mosi/{name}/seed-{seed}.parquet" for seed in SEEDS)
        assert again == second.read_bytes() != first.read_bytes()


def test_a_second_call_trains_nothing(ando, monkeypatch):
    def train(*_):
        raise AssertionError("trained again")

    before = snapshot(ando.root / "ando2022")
    monkeypatch.setattr(recipe, "train", train)
    again = ando.run(ando.root)
    assert snapshot(ando.root / "ando2022") == before
    assert [run.record for run in again] == [run.record for run in ando.runs]


def test_changed_settings_train_again_and_the_older_runs_are_set_aside(ando, copy):
    before = snapshot(copy / "ando2022/mini-mosi/weighted-text")
    runs = ando.run(copy, ["weighted-text"], {"epochs": 1})
    assert all(len(run.record.history) == 1 for run in runs.select(arm="weighted-text"))
    assert len(snapshot(copy.parent / "superseded/ando2022/mini-mosi")) == len(before)


def test_a_variant_leaves_the_runs_of_the_others_alone(ando, copy):
    before = snapshot(copy / "ando2022/mini-mosi/weighted-text")
    runs = ando.run(copy, ["weighted-text"], variants={"short": {"settings": {"epochs": 1}}})
    assert {len(run.record.history) for run in runs.select(arm="weighted-text@short")} == {1}
    assert snapshot(copy / "ando2022/mini-mosi/weighted-text") == before
    assert not (copy.parent / "superseded").exists()


def test_equal_arms_are_trained_once_and_recorded_under_both_names(ando):
    best = best_layers(ando.runs)[-1]
    names = {"output-text": "layer2-text", **{f"best-{name}": f"layer{layer}-{name}" for name, layer in best.items()}}
    for name, same in names.items():
        for seed in SEEDS:
            copied, trained = (ando.runs.select(arm=each, seed=seed).runs[0] for each in (name, same))
            pd.testing.assert_frame_equal(copied.predictions, trained.predictions)
            assert copied.record.selection == trained.record.selection
            # Seed 0 of best layers is trained anew, to keep its head, and gives the same.
            assert copied.record.same_as == (None if name != "output-text" and seed == 0 else same)


def test_records_are_plain_json_without_texts(ando):
    texts = set(ando.corpus.table()["text"])
    for path in ando.root.rglob("*.json"):
        content = path.read_text()
        json.loads(content)
        if not path.name.endswith(".runtime.json"):
            content += pd.read_parquet(path.with_suffix(".parquet")).to_csv()
        assert not any(text in content for text in texts)


# --- the choice of layers -----------------------------------------------------------------------------------------


def valid_means(runs, encoder, fold=-1):
    """Mean validation MAE over seeds of every single layer, from the predictions."""
    means = {}
    for run in runs.select(arm=[f"layer{layer}-{encoder}" for layer in range(LAYERS[encoder])]):
        if (-1 if run.record.fold is None else run.record.fold.index) == fold:
            table = run.split("valid")
            layer = run.record.features[encoder].layer
            means.setdefault(layer, []).append((table["prediction"] - table["label"]).abs().mean())
    return [float(np.mean(means[layer])) for layer in sorted(means)]


def alter(root, change, arms):
    """Store runs again with other validation losses; `change(record)` gives them."""
    for run in read_runs(root).select(arm=arms):
        chosen = run.record.selection.model_copy(update={"value": float(change(run.record))})
        write_run(root, run.record.model_copy(update={"selection": chosen}), run.runtime, run.predictions)


def test_best_layers_are_those_of_the_lowest_validation_loss(ando):
    expected = {encoder: int(np.argmin(valid_means(ando.runs, encoder))) for encoder in LAYERS}
    assert best_layers(ando.runs) == {-1: expected}
    for run in ando.runs.select(arm=WIDE):
        assert {name: feature.layer for name, feature in run.record.features.items()} == expected


def test_of_equal_layers_the_earlier_one_is_best(ando, copy):
    alter(copy, lambda record: 0.1, ["layer1-text", "layer2-text"])
    assert best_layers(read_runs(copy))[-1]["text"] == 1


def test_single_layers_are_known_by_their_definition_not_by_their_name(ando, tmp_path):
    own = {
        "deepest": {"title": "Mine", "model": "gated", "inputs": {"text": {"encoder": "text", "layer": 2}}},
        "layer7-of-mine": {"like": "weighted-text", "title": "Not a single layer"},
        "wide": {"like": "deepest", "title": "Wide", "settings": {"width": 16}},
    }
    runs = ando.run(tmp_path / "runs", ["layer0-text"], own=own, seeds=[0])
    assert dict(zip(layer_runs(runs)["arm"], layer_runs(runs)["layer"], strict=True)) == {
        "layer0-text": 0,
        "deepest": 2,
    }


def test_best_arms_bring_the_layers_that_they_are_chosen_from(ando, tmp_path):
    runs = ando.run(tmp_path / "runs", ["best-vision"], seeds=[0])
    assert set(runs.frame["arm"]) - REFERENCES == {"layer0-vision", "layer1-vision", "best-vision"}


def test_a_best_layer_of_another_encoder_is_chosen_among_its_own_layers(ando, tmp_path):
    study = type(ando)(ando.corpus, ando.stores | {"other": ando.stores["text"]}, tmp_path / "runs")
    own = {
        "mine": {"title": "Mine", "model": "gated", "inputs": {"text": {"encoder": "other", "layer": "best"}}},
    }
    runs = study.run(study.root, [], own=own, seeds=[0])
    assert set(runs.frame["arm"]) - REFERENCES == {"mine", *(f"layer{layer}-other" for layer in range(3))}
    chosen = runs.select(arm="mine").runs[0].record.features["text"]
    assert chosen.layer == best_layers(runs)[-1]["other"]


@pytest.mark.parametrize("task", ["ando", "classes"])
def test_layers_trained_together_come_to_the_runs_of_their_own(task, request, tmp_path):
    study = request.getfixturevalue(task)
    arms = ["layer*-text", "layer*-audio", "output-text"]
    own = study.run(tmp_path / "own", arms)
    together = study.run(tmp_path / "together", arms, sweep_on="cpu")
    assert [run.record.identity for run in together] == [run.record.identity for run in own]
    for run, alone in zip(together, own, strict=True):
        if run.record.reference:
            continue
        (encoder,) = (feature.encoder for feature in run.record.features.values())
        assert run.record.measurements["trained_together"] == LAYERS[encoder] * len(SEEDS)
        assert run.record.key == alone.record.key
        assert run.record.selection.epoch == alone.record.selection.epoch
        numbers = [name for name in run.predictions if name == "prediction" or name.startswith("p_")]
        np.testing.assert_allclose(run.predictions[numbers], alone.predictions[numbers], rtol=1e-3, atol=1e-4)
    # The output layer is one of them: it is taken over, not trained again.
    assert together.select(arm="output-text").runs[0].record.same_as == "layer2-text"


# --- classes and folds --------------------------------------------------------------------------------------------


def test_arms_run_on_classes(classes, tmp_path):
    runs = classes.run(tmp_path / "runs", ["best-text-audio-vision*", "conventional-text", "weighted-text"], seeds=[0])
    for run in runs.select(reference=False):
        table = run.predictions
        names = [f"p_{name}" for name in classes.corpus.task.classes]
        np.testing.assert_allclose(table[names].sum(axis=1), 1, atol=1e-5)
        assert run.record.selection.metric == "cross_entropy"
        valid = run.split("valid")
        own = valid[names].to_numpy()[np.arange(len(valid)), valid["label"]]
        assert run.record.selection.value == pytest.approx(-np.log(own).mean(), abs=1e-4)
    assert set(runs.select(arm=WIDE).runs[0].record.artifacts) == {"attention", "embeddings"}


@pytest.mark.parametrize("task", ["ando", "classes"])
def test_in_folds_each_fold_has_its_own_choice(task, request, tmp_path):
    study = request.getfixturevalue(task)
    runs = study.run(tmp_path / "runs", ["best-text", "output-text"], {"batch_size": 8}, seeds=[0], folds=3)
    assert set(runs.frame["fold"]) == {0, 1, 2}
    tested = [set(run.test["segment_id"]) for run in runs.select(arm="best-text")]
    assert sum(map(len, tested)) == len(set.union(*tested)) == 44
    best = best_layers(runs)
    assert set(best) == {0, 1, 2}
    for run in runs.select(arm="best-text"):
        fold = run.record.fold.index
        losses = {
            single.record.features["text"].layer: single.record.selection.value
            for single in runs.select(arm=[f"layer{layer}-text" for layer in range(3)], fold=fold)
        }
        assert run.record.features["text"].layer == best[fold]["text"] == min(losses, key=losses.get)
        videos = [set(run.split(split)["video_id"]) for split in ("valid", "test")]
        assert not videos[0] & videos[1]


def test_a_mean_of_arms_waits_for_the_best_layers(ando, tmp_path):
    own = {"late": {"title": "Late fusion", "model": "mean", "args": {"of": ["best-text", "conventional-audio"]}}}
    runs = ando.run(tmp_path / "runs", ["best-text", "conventional-audio"], own=own, seeds=[0])
    parts = [runs.select(arm=arm).runs[0].test["prediction"] for arm in ("best-text", "conventional-audio")]
    (late,) = runs.select(arm="late")
    np.testing.assert_allclose(late.test["prediction"], np.mean(parts, axis=0), rtol=1e-4, atol=1e-5)


def test_a_models_own_file_trains(ando, tmp_path):
    (tmp_path / "mean_model.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from huggingface_hub import PyTorchModelHubMixin\n"
        "from msakit.models import Frames\n\n\n"
        "class MeanModel(nn.Module, PyTorchModelHubMixin):\n"
        "    INPUTS = {'text': (Frames,)}\n\n"
        "    def __init__(self, dim: int, width: int = 4, n_classes: int | None = None):\n"
        "        super().__init__()\n"
        "        self.modalities = ('text',)\n"
        "        self.layers = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, n_classes or 1))\n"
        "        self.n_classes = n_classes\n\n"
        "    @classmethod\n"
        "    def build(cls, inputs, n_classes=None, **args):\n"
        "        return cls(inputs['text'].dim, n_classes=n_classes, **args)\n\n"
        "    def forward(self, batch):\n"
        "        text = batch['text']\n"
        "        owner = text.layout.owner\n"
        "        total = text.frames.new_zeros(len(text.lengths), text.frames.shape[-1])\n"
        "        total = total.index_add_(0, owner, text.frames)\n"
        "        found = self.layers(total / text.lengths[:, None])\n"
        "        return {'prediction': found if self.n_classes else found.squeeze(-1)}\n"
    )
    own = {"mine": {"title": "Mean", "model": f"{tmp_path}/mean_model.py:MeanModel", "inputs": {"text": "text"}}}
    (run,) = ando.run(tmp_path / "runs", [], own=own, seeds=[0]).select(arm="mine")
    assert run.record.features["text"].layer == 2, "the output layer, where nothing is said"
    assert run.record.measurements["parameters"] == 8 * 8 + 8 + 8 + 1, "the width is that of the settings"


# --- inputs -------------------------------------------------------------------------------------------------------

ALL_SETS = [names for count in (1, 2, 3) for names in combinations(("text", "audio", "vision"), count)]
WHOLE = Inputs(
    {name: store(name, 3) for name in ("text", "audio", "vision")}
    | {f"conventional-{name}": store(name, 1, "set") for name in ("text", "audio", "vision")}
)


def test_every_arm_of_the_paper_has_its_name():
    families = {"conventional": ALL_SETS, "output": ALL_SETS, "best": ALL_SETS, "weighted": ALL_SETS}
    families["convbert"] = [names for names in ALL_SETS if "text" in names and len(names) > 1]
    expected = {f"layer{layer}-{name}" for layer in range(3) for (name,) in ALL_SETS[:3]}
    for family, sets in families.items():
        expected |= {f"{family}-{'-'.join(names)}" for names in sets}
        expected |= {f"{family}-{'-'.join(names)}.concat" for names in sets if len(names) > 1}
    assert set(choose_arms("ando2022", lacks=WHOLE.lacks)) == expected
    assert len(arms_of("ando2022")) == len(expected) + 3 * 22


@pytest.mark.parametrize(
    ("name", "layers", "conventional", "decoder"),
    [
        ("conventional-text-vision", {"text": 0, "vision": 0}, {"text", "vision"}, None),
        ("convbert-text-audio-vision", {"text": 2, "audio": 0, "vision": 0}, {"audio", "vision"}, None),
        ("layer1-audio", {"audio": 1}, set(), None),
        ("output-audio-vision", {"audio": 2, "vision": 2}, set(), None),
        ("best-text-audio.concat", {"text": 1, "audio": 0}, set(), "concat"),
        ("weighted-text", {"text": None}, set(), None),
    ],
)
def test_what_an_arm_is_made_of(name, layers, conventional, decoder):
    wanted = arms_of("ando2022")[name]
    sources = WHOLE.sources(wanted, {"text": 1, "audio": 0, "vision": 2})
    assert {modality: source.layer for modality, source in sources.items()} == layers
    assert {modality for modality, source in sources.items() if source.feature.conventional} == conventional
    assert wanted.args.get("decoder") == decoder
    for modality, source in sources.items():
        kind = "set" if modality in conventional else "encoder"
        assert source.store.folder == Path(f"{modality}-{kind}")


def test_a_modality_without_an_encoder_comes_from_conventional_features():
    inputs = Inputs({"text": store("text", 7), "conventional-audio": store("audio", 1, "set")})
    found = {name for name in choose_arms("ando2022", lacks=inputs.lacks) if not name.startswith("layer")}
    pair = ("output-text-audio", "best-text-audio", "weighted-text-audio", "convbert-text-audio")
    assert found == {
        "conventional-audio", "output-text", "best-text", "weighted-text", *pair, *(f"{name}.concat" for name in pair),
    }  # fmt: skip
    sources = inputs.sources(arms_of("ando2022")["weighted-text-audio"], {})
    assert {name: source.encoder for name, source in sources.items()} == {"text": "text", "audio": "conventional-audio"}


def test_layers_limit_the_sweep_and_the_mixture():
    inputs = Inputs({"text": store("text", 7), "vision": store("vision", 4)}, [1, 3, 5])
    assert inputs.layers_of("text") == [1, 3, 5, 6]
    assert inputs.layers_of("vision") == [1, 3]
    arms = arms_of("ando2022")
    mixed = inputs.sources(arms["weighted-text"], {})["text"]
    assert (mixed.layer, mixed.kind.n_layers, mixed.feature.layer) == ((1, 3, 5, 6), 4, [1, 3, 5, 6])
    assert inputs.sources(arms["output-vision"], {})["vision"].layer == 3
    assert set(choose_arms("ando2022", ["layer*"], lacks=inputs.lacks)) == {
        "layer1-text", "layer3-text", "layer5-text", "layer6-text", "layer1-vision", "layer3-vision",
    }  # fmt: skip
    with pytest.raises(ValueError, match="name hidden states from 0 to 6"):
        Inputs({"text": store("text", 7)}, [7])


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (arm(text="txt"), r"no encoder 'txt' among .*Did you mean"),
        (arm(audio="text"), "encoder 'text' is one of text, not of audio"),
        (arm(text={"encoder": "text", "layer": 3}), "has hidden states 0 to 2 only"),
        (arm(text={"encoder": "text", "frozen": False}), "neither fine-tunes"),
        (arm(text={"encoder": "text", "shuffled": True}), "nor shuffles"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_words(wanted, words, ando, tmp_path):
    with pytest.raises(ValueError, match=words):
        WHOLE.sources(wanted, {})
    with pytest.raises(ValueError, match=f"arm 'mine' cannot be trained here: .*{words}"):
        recipe.run(ando.corpus, {"mine": wanted}, ando.stores, SETTINGS, [0], tmp_path / "runs")


def test_arms_are_left_out_of_a_pattern_and_refused_by_name():
    inputs = Inputs({"text": store("text", 3)})
    assert set(choose_arms("ando2022", ["output-*"], lacks=inputs.lacks)) == {"output-text"}
    with pytest.raises(ValueError, match="arm 'output-audio' cannot be trained here: no encoder 'audio'"):
        choose_arms("ando2022", ["output-audio"], lacks=inputs.lacks)


def test_settings_are_refused_with_the_mend():
    with pytest.raises(ValueError, match="batch_size"):
        parse(Settings, {"batch_size": 1}, "settings")
    with pytest.raises(ValueError, match="Did you mean 'epochs'"):
        parse(Settings, {"epoch": 1}, "settings")


def served(source):
    """The frames that a batch of all rows holds, in order."""
    batches = FeatureBatches({"text": source}, np.zeros(len(source.lengths)), len(source.lengths))
    return next(iter(batches))["text"].frames.numpy()


def test_conventional_features_are_standardised_by_the_training_frames(ando):
    stored, ids = (
        ando.stores["conventional-audio"],
        {s: list(ando.corpus.splits[s]["segment_id"]) for s in ("train", "test")},
    )
    source = Source("conventional-audio", stored, 0)
    train = served(frames_of(source, ids["train"], ids["train"]))
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-3)
    raw = np.concatenate([stored.frames(segment, 0) for segment in ids["test"]]).astype(np.float32)
    known = np.concatenate([stored.frames(segment, 0) for segment in ids["train"]]).astype(np.float32)
    test = served(frames_of(source, ids["test"], ids["train"]))
    np.testing.assert_allclose(test, (raw - known.mean(0)) / known.std(0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layers", [(0, 2), (1, 2), (0, 1, 2), (2,), (2, 0)])
def test_a_mixture_of_some_layers_is_a_mixture_of_those(ando, layers):
    ids = list(ando.corpus.splits["test"]["segment_id"])
    mixed = served(frames_of(Source("text", ando.stores["text"], layers), ids, ids))
    for number, layer in enumerate(layers):
        whole = np.concatenate([ando.stores["text"].frames(segment, layer) for segment in ids])
        np.testing.assert_array_equal(mixed[number], whole)


# --- what a run leaves --------------------------------------------------------------------------------------------


def test_multimodal_gated_arms_record_their_gates(ando):
    gates = ["gate_text", "gate_audio", "gate_vision"]
    for name, expected in (
        (WIDE, gates),
        ("convbert-text-audio", gates[:2]),
        ("best-text", []),
        (f"{WIDE}.concat", []),
    ):
        table = of(ando, name, 0)
        assert {column for column in table if column.startswith("gate_")} == set(expected)
        assert (table[expected].to_numpy() > 0).all()
        assert (table[expected].to_numpy() < 1).all()
    # Gates follow the segment: they are not one number a modality.
    assert (of(ando, WIDE, 0)[gates].nunique() > 1).all()


def test_runs_measure_layer_weights_and_the_state_of_their_features(ando):
    for run in ando.runs.select(arm="weighted-text-audio-vision"):
        weights = run.record.measurements["layer_weights"]
        assert {name: len(values) for name, values in weights.items()} == LAYERS
        assert all(sum(values) == pytest.approx(1, abs=1e-4) for values in weights.values())
        assert any(np.ptp(values) > 1e-6 for values in weights.values()), "learnt, not left as they were"
        for name, state in run.record.measurements["features"].items():
            table = ando.stores[name].segments
            assert state["segments"] == len(table) == 44
            assert state["failed"] == (table["status"] != "ok").sum()
            assert state["blank_frames"] == table["blank_frames"].sum()
            assert state["frames"] == table["length"].sum()
    assert "layer_weights" not in ando.runs.select(arm="layer0-text").runs[0].record.measurements


def test_attention_sums_to_one_and_names_the_words(ando):
    (run,) = ando.runs.select(arm=WIDE, seed=0)
    table, test = run.artifact("attention"), of(ando, WIDE, 0)
    ends = {test["segment_id"][test["label"].idxmin()], test["segment_id"][test["label"].idxmax()]}
    assert set(table["segment_id"]) >= ends
    sums = table.groupby(["segment_id", "modality"])["weight"].sum()
    assert len(sums) == 3 * table["segment_id"].nunique()
    np.testing.assert_allclose(sums, 1, atol=2e-3)
    words = ando.corpus.words()
    for segment, part in table[table["modality"] == "text"].groupby("segment_id"):
        timed = words[words["segment_id"] == segment]
        spoken = part.dropna(subset="word").query("word != ''")
        assert list(dict.fromkeys(spoken["word"])) == list(dict.fromkeys(timed["word"]))
        for word, seconds in zip(spoken["word"], spoken["seconds"], strict=True):
            spans = timed[timed["word"] == word]
            assert ((spans["start"] <= seconds) & (seconds <= spans["end"])).any()
    sound = table[table["modality"] == "audio"].groupby("segment_id")["seconds"]
    np.testing.assert_allclose(sound.apply(lambda times: times.diff().dropna().mean()), 0.1, rtol=1e-3)
    assert all("attention" not in run.record.artifacts for run in ando.runs.select(seed=1))


def test_embeddings_are_the_leading_components(ando):
    (run,) = ando.runs.select(arm=WIDE, seed=0)
    table = run.artifact("embeddings")
    assert set(table["modality"]) == {"text", "audio", "vision", "fused"}
    for name, part in table.groupby("modality"):
        assert list(part["segment_id"]) == list(run.test["segment_id"])
        values = part[[column for column in part if column.startswith("e")]].to_numpy()
        shares = run.record.measurements["embedding_variance"][name]
        assert values.shape[1] == len(shares) == 4, "no more than the embedding has"
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-3)
        np.testing.assert_allclose(values.var(0) / values.var(0).sum(), shares, atol=2e-3)


@pytest.mark.parametrize("task", ["ando", "classes"])
def test_saved_heads_predict_as_recorded(task, request, tmp_path):
    study = request.getfixturevalue(task)
    runs, root = study.runs, study.root
    if runs is None:
        root = tmp_path / "runs"
        runs = study.run(root, ["best-text", f"{WIDE}*"], seeds=[0])
    heads = root.parent / "heads/ando2022" / study.corpus.name
    arms = ["best-text", "best-audio", "best-vision", WIDE] if task == "ando" else ["best-text", WIDE]
    assert {path.name for path in heads.iterdir()} == set(arms)
    rows = study.corpus.table().set_index("segment_id")
    for name in ("best-text", WIDE):
        predictor = Predictor.from_pretrained(heads / name)
        for recorded in runs.select(arm=name, seed=0).runs[0].test.head(2).to_dict("records"):
            clip = rows.loc[recorded["segment_id"]]
            media = {"video": clip["video"], "audio": clip["audio"]} if name == WIDE else {}
            found = predictor.predict(text=clip["text"], **media)
            if task == "ando":
                assert found.score == pytest.approx(recorded["prediction"], abs=2e-3)
            for label, probability in found.probabilities.items():
                assert probability == pytest.approx(recorded[f"p_{label}"], abs=2e-3)
            assert len(found.probabilities) == len(study.corpus.task.classes)
