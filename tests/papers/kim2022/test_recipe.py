"""Kim & Kim end to end: arms on numbers and classes, own split and folds, how the epoch is chosen, a second call."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from msakit import models
from msakit.data.corpus import CorpusError, load_corpus
from msakit.models import build_model
from msakit.papers import arms_of, choose_arms
from msakit.papers.kim2022 import recipe
from msakit.papers.kim2022.details import BestTestEpoch, alignment, embedding_table, uniformity
from msakit.papers.kim2022.inputs import Inputs
from msakit.runs.arm import read_arms
from msakit.runs.experiment import Experiment
from msakit.strict import parse
from msakit.training.batching import TextBatches

from .conftest import ARMS, CLASSES, SEEDS, SETTINGS, columns, run

FEW = ("text-only", "mag", "mag-shuffled", "cms.soft", "cms-clr-smooth-ema", "cms-clr-smooth-momentum")


def snapshot(root):
    """Time and content of every file, by relative path."""
    files = sorted(file for file in root.rglob("*") if file.is_file())
    return {file.relative_to(root).as_posix(): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def test_records_say_what_each_arm_is(kim, bert):
    frame = kim.runs.select(reference=False).frame
    assert set(zip(frame["arm"], frame["seed"], strict=True)) == {(arm, seed) for arm in ARMS for seed in SEEDS}
    record = kim.runs.select(arm="cms-clr-smooth-ema").runs[0].record
    assert record.definition.loss.contrastive.model_dump() == {
        "weight": 0.1, "pairs": ["text-audio", "text-vision"], "temperature": 0.07, "smoothing": 0.1,
    }  # fmt: skip
    assert record.settings["average"] == "ema"
    assert record.modalities == ("text", "audio", "vision")
    text, vision = record.features["text"], record.features["vision"]
    assert not text.frozen
    assert text.weights is not None
    assert bert not in str(record)  # a folder that is moved is the same encoder
    assert vision.features == "array vision, level frame, seconds 0.1"
    assert (vision.align, vision.frozen, vision.conventional) == ("words", True, True)
    assert record.measurements["segments"] == {"train": 24, "valid": 8, "test": 12}
    assert (record.measurements["truncated_texts"], record.measurements["most_tokens"]) == (0, 40)


def test_the_epoch_is_chosen_by_the_regression_alone(kim):
    for each in kim.runs.select(reference=False):
        mse = ((columns(each, "valid", "prediction") - columns(each, "valid", "label")) ** 2).mean()
        assert each.record.selection.metric == "mse"
        assert each.record.selection.value == pytest.approx(mse, abs=1e-3)
        assert each.record.selection.value == min(row["valid_loss"] for row in each.record.history)


@pytest.mark.parametrize("folds", [0, 3])
def test_every_kind_of_arm_runs_on_classes(classes, encoders, tmp_path, folds):
    tested = {"folds": folds, "test_folds": [1]} if folds else {}
    runs = run(classes, encoders, FEW, SETTINGS, [0], tmp_path / "runs", **tested).select(reference=False)
    assert set(runs.arms) == set(FEW)
    for each in runs:
        assert each.record.selection.metric == "cross_entropy"
        probabilities = each.test[[f"p_{name}" for name in CLASSES]].to_numpy()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-4)
        assert not any("best_test_epoch" in column for column in each.test)
        assert "as_published" not in each.record.measurements
        entropy = -np.log(each.split("valid")[[f"p_{name}" for name in CLASSES]].to_numpy())
        label = columns(each, "valid", "label")
        assert each.record.selection.value == pytest.approx(entropy[np.arange(len(label)), label].mean(), abs=1e-3)


def test_two_classes_have_one_logit_or_two(numbers, encoders, tmp_path):
    folder = shutil.copytree(numbers.folder, tmp_path / "two")
    table = numbers.table()
    table.assign(label=np.where(table["label"] > 0, "yes", "no")).to_csv(folder / "segments.csv", index=False)
    (folder / "corpus.json").write_text('{"task": {"kind": "classification", "classes": ["no", "yes"]}}')
    (each,) = run(load_corpus(folder), encoders, ["cms-clr"], SETTINGS, [0], tmp_path / "runs").select(arm="cms-clr")
    np.testing.assert_allclose(each.test[["p_no", "p_yes"]].sum(axis=1), 1, atol=1e-5)


def test_folds_are_tested_in_turn_and_standardised_by_their_own_training_rows(numbers, encoders, tmp_path):
    runs = run(numbers, encoders, ["mag"], SETTINGS, [0], tmp_path / "runs", folds=3).select(arm="mag")
    tested = [set(each.test["video_id"]) for each in runs]
    assert sorted(each.record.fold.index for each in runs) == [0, 1, 2]
    assert set.union(*tested) == set(numbers.table()["video_id"])
    assert sum(map(len, tested)) == 22  # no video is in two folds
    experiment = Experiment("kim2022", 1, numbers, SETTINGS, [0], tmp_path / "runs", folds=3)
    inputs = Inputs(numbers, list(experiment.table["segment_id"]), encoders, tmp_path)
    for case in experiment.cases("mag", arms_of("kim2022")["mag"]):
        batches = inputs.batches(case, experiment.label, SETTINGS, torch.Generator())
        assert list(batches) == ["train", "valid", "test"]
        words = np.concatenate([value for value in map(np.asarray, batches["train"].per_token["audio"])])
        words = words[words.any(axis=1)]
        # Over pieces, not words: near enough to tell from statistics of other rows.
        assert abs(words.mean()) < 0.1


def test_a_second_call_trains_nothing(kim, monkeypatch):
    def train(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(recipe, "train", train)
    before = snapshot(kim.root / "kim2022")
    again = kim.call(ARMS, SETTINGS, SEEDS, kim.root)
    assert snapshot(kim.root / "kim2022") == before
    assert [each.record for each in again] == [each.record for each in kim.runs]


def test_changed_settings_train_again(kim, tmp_path):
    root = shutil.copytree(kim.root, tmp_path / "runs")
    runs = kim.call(["mag"], SETTINGS.model_copy(update={"beta": 0.25}), SEEDS[:1], root).select(arm="mag")
    assert [each.record.settings["beta"] for each in runs] == [0.25]
    assert {path.parent.name for path in (root.parent / "superseded").rglob("*.parquet")} == {"mag"}


def test_same_seed_same_predictions_other_seed_others(kim, tmp_path):
    runs = kim.call(ARMS, SETTINGS, SEEDS[1:], tmp_path / "runs")
    for arm in ARMS:
        (again,), (first, second) = runs.select(arm=arm), kim.runs.select(arm=arm)
        assert again.record.predictions == second.record.predictions != first.record.predictions


def test_ema_evaluation_changes_what_is_predicted(kim, tmp_path):
    (forgets,) = kim.call(["cms-clr-smooth-ema"], SETTINGS.model_copy(update={"average_decay": 0.0}), [0],
                          tmp_path / "a").select(arm="cms-clr-smooth-ema")  # fmt: skip
    (plain,) = kim.call(["cms-clr-smooth"], SETTINGS, [0], tmp_path / "b").select(arm="cms-clr-smooth")
    # An average that forgets everything is the last step's weights: the arm without averaging.
    predicted = [columns(each, "test", "prediction") for each in (forgets, plain)]
    np.testing.assert_allclose(*predicted, atol=1e-5)
    (averaged, _) = kim.runs.select(arm="cms-clr-smooth-ema")
    assert not np.allclose(columns(averaged, "test", "prediction"), predicted[1], atol=1e-3)


def test_every_arm_of_the_paper_is_another_and_can_be_built(numbers, encoders, tmp_path):
    arms = arms_of("kim2022")
    assert len(arms) >= 31
    inputs = Inputs(numbers, list(numbers.table()["segment_id"]), encoders, tmp_path)
    definitions = {str((arm.training(), arm.settings, inputs.features(arm))) for arm in arms.values()}
    assert len(definitions) == len(arms)
    sizes = set()
    for arm in arms.values():
        given = {"contrast": recipe.contrasted(arm), "projection": 4}
        model = build_model(arm.model, inputs.kinds(arm, SETTINGS), None, arm.args, given)
        sizes.add((sum(parameter.numel() for parameter in model.parameters()), model.layer))
    assert len(sizes) >= 8
    assert recipe.contrasted(arms["cms-clr-all"]) == ("text", "audio", "vision")
    assert recipe.contrasted(arms["cms-clr-ta"]) == ("text", "audio")
    assert recipe.contrasted(arms["cms"]) == ()


OWN_MODEL = '''
from typing import Any, ClassVar
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn
from msakit.models import Pretrained, TokenVectors


class WordSounds(nn.Module, PyTorchModelHubMixin):
    """A linear model of the mean sound of the words."""

    INPUTS: ClassVar[dict[str, tuple[type, ...]]] = {"text": (Pretrained,), "audio": (TokenVectors,)}

    def __init__(self, d_audio: int, scale: float = 1.0, n_classes: int | None = None) -> None:
        super().__init__()
        self.linear, self.scale, self.n_classes = nn.Linear(d_audio, n_classes or 1), scale, n_classes
        self.modalities = ("text", "audio")

    @classmethod
    def build(cls, inputs: Any, n_classes: int | None = None, **args: Any) -> "WordSounds":
        return cls(inputs["audio"].dim, n_classes=n_classes, **args)

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        out = self.linear(self.scale * batch["audio"].mean(1))
        return {"prediction": out if self.n_classes else out.squeeze(-1)}
'''


def test_a_readers_arm_with_a_model_of_its_own_is_trained_and_recorded(numbers, encoders, tmp_path):
    (tmp_path / "own.py").write_text(OWN_MODEL)
    own = {
        "sounds": {"title": "Mean sound", "model": f"{tmp_path / 'own.py'}:WordSounds", "args": {"scale": 0.5},
                   "inputs": {"text": "text", "audio": "audio"}},
        "less-dropout": {"like": "mag", "title": "MAG, little dropout", "settings": {"shift_dropout": 0.1}},
        "together": {"title": "Mean of both", "model": "mean", "args": {"of": ["sounds", "less-dropout"]}},
    }  # fmt: skip
    arms = choose_arms("kim2022", ["mag"], own, {"slow": {"settings": {"learning_rate": 1e-4}}})
    runs = run(numbers, encoders, arms, SETTINGS, [0], tmp_path / "runs").select(reference=False)
    assert set(runs.arms) == {"mag", *own, "mag@slow", "sounds@slow", "less-dropout@slow", "together@slow"}
    found = {each.record.arm: columns(each, "test", "prediction") for each in runs}
    np.testing.assert_allclose(found["together"], (found["sounds"] + found["less-dropout"]) / 2, atol=1e-4)
    assert not np.allclose(found["mag"], found["less-dropout"], atol=1e-3)
    (record,) = (each.record for each in runs.select(arm="sounds"))
    assert (record.title, record.modalities) == ("Mean sound", ("text", "audio"))
    assert record.artifacts == {}  # it cannot tell how far it shifts a word
    assert "shifts" in runs.select(arm="less-dropout").runs[0].record.artifacts


def test_a_modality_that_the_corpus_lacks_is_left_out(numbers, encoders, tmp_path):
    given = encoders | {"vision": None}
    runs = run(numbers, given, ["mag", "cms-clr-ta"], SETTINGS, [0], tmp_path / "runs").select(reference=False)
    assert [each.record.modalities for each in runs] == [("text", "audio")] * 2
    lacks = recipe.lacks(given)
    arms = choose_arms("kim2022", None, lacks=lacks)
    assert "cms-clr-ta" in arms
    assert not {"cms-clr", "cms-clr-tv", "cms-clr-smooth-ema"} & set(arms)
    with pytest.raises(ValueError, match="arm 'cms-clr' cannot be trained here: its contrastive loss compares vision"):
        run(numbers, given, ["cms-clr"], SETTINGS, [0], tmp_path / "runs")
    with pytest.raises(
        ValueError, match="arm 'mag' cannot be trained here: it reads audio, vision, which is not given"
    ):
        run(numbers, encoders | {"audio": None, "vision": None}, ["mag"], SETTINGS, [0], tmp_path / "other")
    with pytest.raises(ValueError, match="there is no encoder 'vision': give it, as null"):
        run(numbers, {"text": encoders["text"], "audio": encoders["audio"]}, ["mag"], SETTINGS, [0], tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"average": "teacher"}}, "a momentum teacher serves the contrastive loss"),
        ({"settings": {"averge": "ema"}}, "no field 'averge'.*average"),
        ({"settings": {"learning_rate": "1e-3"}}, r"YAML reads 1e-3 as text: write 1\.0e-3"),
        ({"protocol": {"drop_last": True}}, "leaves out no batch"),
        ({"inputs": {"sound": "audio"}}, "sound: choose from text, audio, vision"),
        ({"inputs": {"audio": {"layer": "best"}}}, "layer 'best' is not served here"),
        ({"inputs": {"audio": {"frozen": False}}}, "one stored layer of a frozen encoder"),
        ({"inputs": {"text": None}}, "reads no text"),
        ({"loss": {"name": "cross_entropy"}}, "no loss 'cross_entropy' for regression"),
        ({"args": {"widht": 2}}, "no argument 'widht'.*width"),
    ],
)
def test_what_cannot_be_trained_is_refused(numbers, encoders, tmp_path, changes, message):
    arms = read_arms({"own": {"like": "mag", "title": "Own"} | changes}, arms_of("kim2022"))
    with pytest.raises(ValueError, match=message):
        run(numbers, encoders, arms, SETTINGS, [0], tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob("*/own/*"))


def test_settings_have_bounds_and_the_published_defaults():
    assert (recipe.Settings().epochs, recipe.Settings().batch_size, recipe.Settings().learning_rate) == (40, 48, 1e-5)
    for wrong in ({"epochs": 0}, {"batch_size": 1}, {"average_decay": 1.5}, {"warmup": -0.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            parse(recipe.Settings, wrong, "settings")


def test_a_corpus_without_word_times_is_refused(numbers, encoders, tmp_path):
    folder = shutil.copytree(numbers.folder, tmp_path / "wordless")
    (folder / "words.csv").unlink()
    with pytest.raises(CorpusError, match=r"wordless has no words\.csv: laying vision on words needs"):
        run(load_corpus(folder), encoders, ["mag"], SETTINGS, [0], tmp_path / "runs")
    (each,) = run(load_corpus(folder), encoders, ["mag.soft"], SETTINGS, [0], tmp_path / "runs").select(arm="mag.soft")
    assert each.record.features["audio"].align == "soft"


def test_no_weight_decay_on_biases_and_norms(numbers, encoders, tmp_path):
    arm = arms_of("kim2022")["cms-clr-all"]
    inputs = Inputs(numbers, list(numbers.table()["segment_id"]), encoders, tmp_path)
    model = build_model(arm.model, inputs.kinds(arm, SETTINGS), None, arm.args, {"contrast": recipe.contrasted(arm)})
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in recipe.decayed_groups(model, 0.01))
    assert decayed | spared == set(names.values())
    assert not decayed & spared
    assert {name for name in spared if not name.endswith("bias")} == {
        name for name in names.values() if "norm" in name.lower() and name.endswith("weight")
    }
    assert "encoder.embeddings.LayerNorm.weight" in spared
    assert not any(name.endswith("bias") or "norm" in name.lower() for name in decayed)


def test_the_best_test_epoch_is_kept_beside_and_chooses_nothing(kim):
    for each in kim.runs.select(reference=False):
        published, counted = each.record.measurements["as_published"], each.test[each.test["label"] != 0]
        accuracy = ((counted["prediction_best_test_epoch"] >= 0) == (counted["label"] > 0)).mean()
        assert published["value"] == pytest.approx(accuracy)
        by_epoch = [row["leaked_test_acc2"] for row in each.record.history]
        assert published["value"] == max(by_epoch)
        assert published["epoch"] == by_epoch.index(max(by_epoch)) + 1
        if published["epoch"] == each.record.selection.epoch:
            np.testing.assert_allclose(each.test["prediction_best_test_epoch"], each.test["prediction"], atol=1e-5)
        assert each.split("valid")["prediction_best_test_epoch"].isna().all()


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        return {"prediction": self.weight.expand(len(batch["label"]))}


def test_without_a_label_beside_zero_the_first_epoch_is_kept():
    batches = TextBatches([[1, 2]] * 5, np.zeros(5), 5)
    kept = BestTestEpoch(batches, np.zeros(5))
    for epoch in (1, 2):
        kept(Constant(), epoch)
    assert kept.epoch == 1
    assert len(kept.prediction) == 5
    other = BestTestEpoch(batches, np.zeros(5))
    other.load_state_dict(kept.state_dict())
    assert other.prediction.tolist() == kept.prediction.tolist()
    assert other.epoch == 1


def test_shifts_and_embeddings_of_the_first_seed(kim, numbers):
    words = numbers.words()
    words = words[words["segment_id"].isin(set(numbers.splits["test"]["segment_id"]))]
    for arm in ARMS:
        first, second = kim.runs.select(arm=arm)
        assert second.record.artifacts == {}
        shifts = first.artifact("shifts")
        assert list(shifts["segment_id"]) == list(words["segment_id"])
        assert list(shifts["word"]) == list(words["word"])
        assert list(shifts["word_index"]) == list(words["word_index"])
        assert shifts["shift"].between(0, SETTINGS.beta + 1e-3).all()
        assert shifts["shift"].gt(0).mean() > 0.9
    found = kim.runs.select(arm="cms-clr-smooth-ema", seed=0).runs[0].artifact("embeddings")
    assert found.groupby("modality", sort=False).size().to_dict() == dict.fromkeys(("text", "audio", "vision"), 12)
    assert list(found["segment_id"][:12]) == list(numbers.splits["test"]["segment_id"])
    np.testing.assert_allclose((found.filter(regex=r"^e\d") ** 2).sum(axis=1), 1, atol=1e-2)


def test_words_of_real_data_are_not_kept(numbers, encoders, tmp_path):
    folder = shutil.copytree(numbers.folder, tmp_path / "real")
    (folder / "corpus.json").write_text('{"name": "real", "generated": false}')
    (each,) = run(load_corpus(folder), encoders, ["cms-clr"], SETTINGS, [0], tmp_path / "runs").select(arm="cms-clr")
    assert list(each.record.artifacts) == ["embeddings"]


def test_geometry_is_measured_before_and_after_for_every_seed(kim):
    for each in kim.runs.select(arm="cms-clr-smooth-ema"):
        measured = each.record.measurements
        for stage in ("before", "after"):
            assert set(measured["alignment"][stage]) == {"text-audio", "text-vision", "audio-vision"}
            assert set(measured["uniformity"][stage]) == {"text", "audio", "vision"}
        assert measured["alignment"]["before"] != measured["alignment"]["after"]
    assert "alignment" not in kim.runs.select(arm="mag").runs[0].record.measurements


def test_alignment_and_uniformity_by_hand():
    eye = np.eye(2)
    assert alignment(eye, eye) == 0
    assert alignment(eye, eye[::-1]) == 2
    assert alignment(eye, -eye) == 4
    assert uniformity(eye) == pytest.approx(-2 * 2)  # one pair at squared distance 2
    assert uniformity(np.array([[1.0, 0], [1.0, 0], [-1.0, 0]])) == pytest.approx(np.log((1 + 2 * np.exp(-8)) / 3))


def test_large_embedding_tables_are_thinned_evenly(numbers):
    test = numbers.splits["test"].to_pandas()
    table = embedding_table(test, {name: np.ones((12, 4000)) for name in ("text", "audio")})
    assert list(table["segment_id"]) == [test["segment_id"][k] for k in (0, 3, 6, 9)] * 2
    assert list(table.columns[:4]) == ["segment_id", "modality", "label", "e0"]


def test_models_are_built_for_the_inputs_of_their_arm(numbers, encoders, tmp_path):
    inputs = Inputs(numbers, list(numbers.table()["segment_id"]), encoders, tmp_path)
    arms = arms_of("kim2022")
    assert inputs.kinds(arms["text-only"], SETTINGS) == {"text": models.Pretrained(encoders["text"])}
    assert inputs.kinds(arms["mag"], SETTINGS)["vision"] == models.TokenVectors(4)
    assert inputs.kinds(arms["mag.soft"], SETTINGS)["audio"] == models.Grid(5)
