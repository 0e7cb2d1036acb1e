"""Toledo & Marcacini end to end: arms on classes and numbers, own split and folds, protocols, shares, costs."""

import base64
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_papers import snapshot
from transformers import AutoModel

from msakit.data.corpus import load_corpus
from msakit.encoders.base import EncoderError
from msakit.features import FeatureError
from msakit.papers import arms_of, choose_arms
from msakit.papers.toledo2022 import inputs as toledo_inputs
from msakit.papers.toledo2022 import recipe
from msakit.runs.arm import Protocol
from msakit.strict import parse

from .conftest import MAIN, SEEDS, SETTINGS

CLASSES = ["p_negative", "p_neutral", "p_positive"]


def one(runs, arm, seed=0, fold=None):
    (run,) = (run for run in runs.select(arm=arm, seed=seed) if fold is None or run.record.fold.index == fold)
    return run


# --- classes, own split -------------------------------------------------------------------------------------------


def test_every_arm_is_recorded_with_every_seed(posts):
    frame = posts.frame
    found = set(zip(frame["arm"], frame["seed"], strict=True))
    assert found == {(arm, seed) for arm in MAIN for seed in SEEDS} | {("constant", 0), ("oracle", 0)}


def test_probabilities_sum_to_one_for_every_segment(posts, corpora):
    splits = corpora["posts"].splits
    for run in posts:
        assert [name for name in run.predictions if name.startswith("p_")] == CLASSES
        np.testing.assert_allclose(run.predictions[CLASSES].sum(axis=1), 1, atol=1e-5)
        for split in ("valid", "test"):
            assert list(run.split(split)["segment_id"]) == list(splits[split]["segment_id"])
            assert list(run.split(split)["label"]) == list(splits[split]["label"])
            assert list(run.split(split)["video_id"]) == list(splits[split]["video_id"])


def test_the_chosen_epoch_has_the_recorded_validation_loss(posts):
    for run in posts.select(arm=["text-only", "frozen", "joint", "clip-fine-tuned", "visualbert"]):
        table, record = run.split("valid"), run.record
        truth = table[CLASSES].to_numpy()[np.arange(len(table)), table["label"]]
        assert record.selection.metric == "cross_entropy"
        assert record.selection.value == pytest.approx(-np.log(truth).mean(), abs=1e-4)
        assert record.selection.value == min(row["valid_loss"] for row in record.history)


def test_records_say_what_each_arm_read(posts, encoders, store):
    frozen, joint = one(posts, "frozen").record, one(posts, "joint").record
    assert frozen.modalities == joint.modalities == ("text", "image")
    for record, text, image in ((frozen, "text-", "vision-"), (joint, "", "image-")):
        assert record.features["text"].features.startswith(text)
        assert bool(record.features["text"].features) == bool(text)
        assert record.features["image"].features.startswith(image)
        assert (store / "mini-posts" / record.features["image"].features / "layers.npy").is_file()
        assert {each.frozen for each in record.features.values()} == {record is frozen}
    assert frozen.features["text"].weights == joint.features["text"].weights
    assert one(posts, "late-fusion").record.modalities == ("text", "image")
    visualbert = one(posts, "visualbert").record
    assert visualbert.features["image"].weights == joint.features["image"].weights  # whose cells it is given
    assert encoders["text"] not in str(joint)  # a folder that is moved is the same encoder
    assert joint.measurements["segments"] == {"train": 24, "valid": 12, "test": 12}


def test_the_grid_is_of_the_layer_that_is_as_wide_as_the_regions_were(posts, store):
    folder = store / "mini-posts" / one(posts, "visualbert").record.features["image"].features
    about = json.loads((folder / "config.json").read_text())
    assert about["encoder"]["output"] == "grid"
    assert about["shape"][2] == about["encoder"]["cell_dim"] == 4


def test_late_fusion_is_the_mean_of_what_the_two_modalities_gave(posts):
    late, text, image = (
        one(posts, arm, 1).test[CLASSES].to_numpy() for arm in ("late-fusion", "text-only", "image-only")
    )
    np.testing.assert_allclose(late, (text + image) / 2, atol=2e-6)
    assert one(posts, "late-fusion").record.history == []


def test_late_fusion_without_its_parts_is_refused(train, corpora, tmp_path):
    with pytest.raises(ValueError, match=r"late-fusion is the mean of text-only, image-only, but .* add that arm"):
        train(corpora["posts"], tmp_path / "runs", ["late-fusion"], seeds=[0])


@pytest.mark.parametrize(("arm", "moves"), [("frozen", False), ("joint", True)])
def test_frozen_encoders_stay_and_joint_ones_move(train, corpora, encoders, monkeypatch, tmp_path, arm, moves):
    models = []
    original = recipe.fit
    monkeypatch.setattr(
        recipe, "fit", lambda model, *rest, **options: models.append(model) or original(model, *rest, **options)
    )
    folders = {name: Path(encoders[name]) for name in ("text", "image")}
    on_disk = {name: snapshot(folder) for name, folder in folders.items()}
    train(corpora["posts"], tmp_path / "runs", [arm], seeds=[0])
    for name, folder in folders.items():
        start, end = AutoModel.from_pretrained(folder).state_dict(), models[0].encoders[name].state_dict()
        assert any(weight.requires_grad for weight in models[0].encoders[name].parameters()) is moves
        # Running statistics of batch norms count: a frozen encoder must not gather them either.
        assert any(not torch.equal(start[key], end[key]) for key in start) is moves, name
        assert snapshot(folder) == on_disk[name]


def test_frozen_arms_compute_nothing_anew(posts, train, corpora, monkeypatch, tmp_path):
    def encode(*_):
        raise AssertionError("encoded again")

    for kind in ("text.TextEncoder", "vision.VisionEncoder"):
        monkeypatch.setattr(f"msakit.encoders.{kind}.encode", encode)
    monkeypatch.setattr(toledo_inputs.Pixels, "encode", encode)
    train(corpora["posts"], tmp_path / "runs", ["frozen", "clip-probe", "clip-zero-shot", "joint"], seeds=[2])


def test_stored_vectors_are_what_the_model_would_compute(posts, train, corpora, encoders, store):
    inputs = toledo_inputs.Inputs(corpora["posts"], encoders, 24, store, torch.device("cpu"))
    rows, label = np.arange(5), np.zeros(48, dtype=int)
    for name in ("frozen", "clip-probe"):
        arm = arms_of("toledo2022")[name]
        thawed = arms_of("toledo2022")["joint" if name == "frozen" else "clip-fine-tuned"]
        (stored,) = inputs.batches(arm, label, rows, 5)
        (raw,) = inputs.batches(thawed, label, rows, 5)
        model = recipe.build_model(arm.model, inputs.kinds(arm), 3, arm.args).eval()
        with torch.no_grad():
            computed = model.forward_features(raw)
        for key, values in computed.items():
            order = raw["index"].argsort()
            torch.testing.assert_close(stored[key], values[order], atol=2e-3, rtol=2e-3)


def test_frozen_arms_have_their_own_epochs(posts):
    frame = posts.frame.set_index("arm")
    assert set(frame.loc["frozen", "epochs"]) == set(frame.loc["clip-probe", "epochs"]) == {SETTINGS.frozen_epochs}
    assert set(frame.loc["joint", "epochs"]) == {SETTINGS.epochs}
    rates = {arm: one(posts, arm).record.history[0]["lr"] for arm in ("joint", "frozen", "clip-probe")}
    assert rates == pytest.approx({"joint": 1e-3, "frozen": 1e-3, "clip-probe": 1e-2})


def test_a_second_call_trains_nothing(posts, train, corpora, monkeypatch):
    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(recipe, "train", never)
    before = snapshot(posts.where)
    again = train(corpora["posts"], posts.where)
    assert snapshot(posts.where) == before
    assert [run.where for run in again] == [run.where for run in posts]


def test_changed_settings_train_again(posts, train, corpora, tmp_path):
    root = shutil.copytree(posts.where, tmp_path / "runs")
    changed = SETTINGS.model_copy(update={"weight_decay": 0.5})
    train(corpora["posts"], root, ["frozen"], settings=changed, seeds=[0])
    frozen = root / "toledo2022/mini-posts/frozen"
    assert json.loads((frozen / "seed-0.json").read_text())["settings"]["weight_decay"] == 0.5
    assert (frozen / "seed-1.json").read_bytes() == (
        posts.where / frozen.relative_to(root) / "seed-1.json"
    ).read_bytes()


def test_same_seed_same_predictions_other_seed_others(posts, train, corpora, tmp_path):
    arms = ["text-only", "frozen", "visualbert"]
    runs = train(corpora["posts"], tmp_path / "runs", arms, seeds=[1])
    for arm in arms:
        pd.testing.assert_frame_equal(one(runs, arm, 1).predictions, one(posts, arm, 1).predictions)
        assert not np.allclose(one(posts, arm, 0).test[CLASSES], one(posts, arm, 1).test[CLASSES])


def test_an_unreadable_image_is_named(train, corpora, tmp_path):
    folder = shutil.copytree(corpora["memes"].folder, tmp_path / "memes")
    broken = sorted((folder / "image").glob("*test*"))[:4]
    for path in broken:
        path.write_bytes(b"no picture")
    with pytest.raises(FeatureError, match=broken[0].name):
        train(load_corpus(folder), tmp_path / "runs", ["image-only"], features=tmp_path / "features")


# --- every task, own split and folds ------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [0, 3])
def test_numbers_are_predicted_in_the_units_of_the_label(train, corpora, tmp_path, folds):
    runs = train(corpora["numbers"], tmp_path / "runs", seeds=[0], folds=folds, test_folds=[1] if folds else None)
    assert set(runs.arms) == {*MAIN, "constant"}
    for run in runs:
        assert np.isfinite(run.predictions["prediction"]).all()
        assert (run.record.fold is None) == (folds == 0)
    joint, late = one(runs, "joint"), one(runs, "late-fusion")
    assert joint.record.selection.metric == "mae"
    error = (joint.split("valid")["prediction"] - joint.split("valid")["label"]).abs().mean()
    assert joint.record.selection.value == pytest.approx(error, abs=1e-4)
    parts = [one(runs, arm).test["prediction"] for arm in ("text-only", "image-only")]
    np.testing.assert_allclose(late.test["prediction"], (parts[0] + parts[1]) / 2, atol=1e-5)
    zero_shot = one(runs, "clip-zero-shot").test["prediction"]
    assert zero_shot.between(-3, 3).all()
    assert zero_shot.nunique() > 1


def test_an_arm_may_name_another_loss(train, corpora, tmp_path):
    own = {"squared": {"like": "text-only", "title": "Squared", "loss": {"name": "mse"}}}
    run = one(train(corpora["numbers"], tmp_path / "runs", [], own, seeds=[0]), "squared")
    error = ((run.split("valid")["prediction"] - run.split("valid")["label"]) ** 2).mean()
    assert run.record.selection.metric == "mse"
    assert run.record.selection.value == pytest.approx(error, abs=1e-3)
    wrong = {"wrong": {"like": "text-only", "title": "Wrong", "loss": {"name": "cross_entropy"}}}
    with pytest.raises(ValueError, match="no loss 'cross_entropy' for regression"):
        train(corpora["numbers"], tmp_path / "runs", [], wrong, seeds=[0])


def test_no_fold_divides_a_video_and_every_segment_is_tested_once(train, corpora, tmp_path):
    runs = train(corpora["posts"], tmp_path / "runs", ["text-only"], seeds=[0], folds=4)
    tested = [set(run.test["segment_id"]) for run in runs.select(arm="text-only")]
    assert sum(map(len, tested)) == len(set().union(*tested)) == 48
    assert [run.record.fold.index for run in runs.select(arm="text-only")] == [0, 1, 2, 3]
    assert len(runs.select(arm="constant")) == len(runs.select(arm="oracle")) == 4


def test_prompts_of_ones_own_replace_the_written_ones(train, corpora, posts, tmp_path):
    shown = {"negative": ["bad"], "neutral": ["so so"], "positive": ["good"]}
    own = {"mine": {"like": "clip-zero-shot", "title": "My prompts", "args": {"prompts": shown}}}
    mine = one(train(corpora["posts"], tmp_path / "runs", [], own, seeds=[0]), "mine")
    written = one(posts, "clip-zero-shot")
    assert mine.record.key != written.record.key
    assert written.record.definition.args["prompts"] == recipe.facts("toledo2022")["prompts"]["mini-posts"]
    assert not np.allclose(mine.test[CLASSES], written.test[CLASSES])
    own["mine"]["args"] = {"prompts": {"good": ["good"], "bad": ["bad"]}}
    with pytest.raises(ValueError, match="mine wants prompts for negative, neutral, positive"):
        train(corpora["posts"], tmp_path / "runs", [], own, seeds=[0])


def test_an_arm_may_read_fewer_tokens(train, corpora, tmp_path):
    own = {"short": {"like": "text-only", "title": "Short", "settings": {"max_tokens": 4}}}
    runs = train(corpora["posts"], tmp_path / "runs", ["text-only"], own, seeds=[0])
    counts = {arm: one(runs, arm).record.measurements["truncated_texts"] for arm in ("text-only", "short")}
    assert counts["text-only"] < 5
    assert counts["short"] == 48


# --- protocols ----------------------------------------------------------------------------------------------------


def test_each_switch_is_one_difference_and_the_published_protocol_is_all():
    arms = arms_of("toledo2022")
    published = arms["joint.as-published"]
    assert published.args == {"attention_over": "single"}
    assert published.protocol == Protocol(name="as_published", folds="shuffled", stop="test", drop_last=True,
                                          threshold="logits")  # fmt: skip
    switches = {name: arm for name, arm in arms.items() if name.startswith("joint.only-")}
    assert len(switches) == 5
    for arm in switches.values():
        differing = [
            field for field in Protocol.model_fields
            if field != "name" and getattr(arm.protocol, field) != getattr(Protocol(), field)
        ]  # fmt: skip
        assert len(differing) + len(arm.args) == 1
        assert all(getattr(arm.protocol, field) == getattr(published.protocol, field) for field in differing)
    named = {arm.protocol.name for arm in arms.values()} - {"corrected"}
    assert named == set(recipe.facts("toledo2022")["protocols"])


def test_protocols_are_recorded(folded):
    frame = folded.frame.drop_duplicates("arm").set_index("arm")
    assert set(frame.loc[["joint", "late-fusion", "frozen.share-10"], "protocol"]) == {"corrected"}
    assert (
        frame.loc["joint.as-published", "protocol"]
        == frame.loc["late-fusion.as-published", "protocol"]
        == "as_published"
    )
    assert one(folded, "joint.only-folds", fold=0).record.fold.kind == "shuffled"
    assert one(folded, "joint.only-stop", fold=0).record.fold.kind == "stratified"
    folds = folded.select(arm=["oracle", "constant", "joint"]).frame.groupby("arm")["fold"].agg(set)
    assert set(map(frozenset, folds)) == {frozenset({0, 2})}


def test_folds_draw_other_random_numbers(folded):
    rates = [one(folded, "joint", fold=fold).record for fold in (0, 2)]
    assert rates[0].key != rates[1].key
    assert {record.seed for record in rates} == {0}


def test_dropped_batches_lose_test_segments_and_the_correction_none(folded):
    for arm, scored in (
        ("joint", 12),
        ("joint.as-published", 10),
        ("joint.only-drop-last", 10),
        ("joint.only-stop", 12),
    ):
        run = one(folded, arm, fold=0)
        assert len(run.test) == scored, arm
        assert run.record.measurements["segments"]["test"] == 12
        assert np.isfinite(run.test[["p_harmless", "p_hateful"]]).all(axis=None)
    late = set(one(folded, "late-fusion.as-published", fold=0).test["segment_id"])
    parts = [set(one(folded, f"{m}-only.as-published", fold=0).test["segment_id"]) for m in ("text", "image")]
    assert late == parts[0] & parts[1]


def test_stopping_on_the_test_fold_predicts_no_validation_part(folded):
    leaking, sound = (one(folded, arm, fold=0) for arm in ("joint.only-stop", "joint"))
    assert set(leaking.predictions["split"]) == {"test"}
    assert leaking.record.selection.split == "test"
    assert set(sound.predictions["split"]) == {"valid", "test"}
    assert leaking.record.measurements["segments"] == {"train": 36, "valid": 12, "test": 12}
    assert sound.record.measurements["segments"] == {"train": 24, "valid": 12, "test": 12}


def test_the_threshold_changes_the_scoring_alone(folded):
    plain, cut = (one(folded, arm, fold=0) for arm in ("joint", "joint.only-threshold"))
    pd.testing.assert_frame_equal(plain.predictions, cut.predictions)
    assert cut.record.same_as == "joint"
    assert cut.record.definition.protocol.threshold == "logits"


# --- shares -------------------------------------------------------------------------------------------------------


def test_shares_train_on_subsets_of_the_fixed_split(folded, corpora):
    splits = corpora["memes"].splits
    tenth = sum(math.ceil(count / 10) for count in np.bincount(splits["train"]["label"]))
    for percent, train in ((10, tenth), (100, 24)):
        run = one(folded, f"frozen.share-{percent}", 2)
        assert run.record.fold is None
        assert run.record.measurements["segments"] == {"train": train, "valid": 12, "test": 12}
        assert run.record.definition.protocol.share == percent
        assert sorted(run.test["segment_id"]) == sorted(splits["test"]["segment_id"])
    # Only seeds that are among the tested folds: the others are another job's.
    assert set(folded.select(arm="frozen.share-10").frame["seed"]) == {0, 2}
    small, other = (one(folded, "frozen.share-10", seed).test["p_hateful"] for seed in (0, 2))
    assert not np.allclose(small, other)


def test_shares_of_a_mean_are_means_of_shares():
    arms = recipe.low_resource(choose_arms("toledo2022", ["text-only", "image-only", "late-fusion"]), [5])
    assert arms["late-fusion.share-5"].args == {"of": ["text-only.share-5", "image-only.share-5"]}
    assert arms["text-only.share-5"].like == "text-only"


# --- costs --------------------------------------------------------------------------------------------------------


def test_what_is_counted_is_recorded_apart_from_what_was_timed(posts):
    for arm in (arm for arm in MAIN if arm != "late-fusion"):
        first, second = (one(posts, arm, seed) for seed in SEEDS)
        counted = first.record.measurements
        assert counted["flops_per_sample"] > 0, arm
        assert counted["flops_per_prediction"] > 0, arm
        assert not {"seconds_per_epoch", "epoch_peak_memory_mb"} & set(counted)
        if arm != "clip-zero-shot":
            assert counted["trainable_parameters"] > 0
            assert first.runtime.timings["seconds_per_epoch"] > 0
            assert first.runtime.timings["epoch_peak_memory_mb"] > 0
        assert "flops_per_sample" not in second.record.measurements
        assert counted["total_parameters"] == second.record.measurements["total_parameters"]
    frozen, joint = (one(posts, arm).record.measurements for arm in ("frozen", "joint"))
    assert frozen["flops_per_sample"] < joint["flops_per_sample"]
    assert frozen["flops_per_prediction"] == joint["flops_per_prediction"]
    assert frozen["total_parameters"] == joint["total_parameters"]
    assert one(posts, "clip-zero-shot").record.measurements["trainable_parameters"] == 0


def test_other_protocols_and_shares_do_not_measure_costs(folded):
    for arm in ("joint.as-published", "frozen.share-10"):
        assert "flops_per_sample" not in one(folded, arm, fold=0 if "as" in arm else None).record.measurements
    assert "flops_per_sample" in one(folded, "joint", fold=0).record.measurements
    assert "flops_per_sample" not in one(folded, "joint", fold=2).record.measurements


# --- artifacts ----------------------------------------------------------------------------------------------------


def test_the_first_joint_run_keeps_its_space_and_examples(folded):
    run = one(folded, "joint", fold=0)
    space = run.artifact("embeddings")
    assert list(space.columns[:4]) == ["segment_id", "stage", "label", "e0"]
    for _, part in space.groupby("stage"):
        assert sorted(part["segment_id"]) == sorted(run.test["segment_id"])
        assert set(part["label"]) == {"harmless", "hateful"}
    moved = [space[space["stage"] == stage].filter(regex=r"e\d").to_numpy() for stage in ("before", "after")]
    assert not np.allclose(*moved)
    examples = run.artifact("examples")
    assert len(examples) == 8
    assert set(examples["segment_id"]) <= set(run.test["segment_id"])
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in examples["image"])
    assert not one(folded, "joint", fold=2).record.artifacts
    assert not one(folded, "joint.only-threshold", fold=0).record.artifacts


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_fold_that_there_is_not_is_refused(train, corpora, tmp_path):
    with pytest.raises(ValueError, match="fold 4 is not among the 4 folds"):
        train(corpora["memes"], tmp_path / "runs", ["joint"], folds=4, test_folds=[4])


def test_an_encoder_that_is_not_given_is_named(corpora, encoders, store, tmp_path):
    few = {"text": encoders["text"], "clip": ""}
    with pytest.raises(ValueError, match="'clip-probe' cannot be trained here: the encoder 'clip' is not given"):
        choose_arms("toledo2022", ["clip-probe"], lacks=recipe.lacks(few))
    left = choose_arms("toledo2022", None, lacks=recipe.lacks(few))
    assert list(left) == ["text-only", "text-only.as-published"]
    arms = choose_arms("toledo2022", ["clip-probe"])
    with pytest.raises(ValueError, match="the encoder 'clip' is not given: there are text"):
        recipe.run(corpora["posts"], arms, few, SETTINGS, [0], tmp_path / "runs", features=store)


def test_an_encoder_without_its_tokenizer_is_refused(train, corpora, encoders, store, tmp_path):
    arms, bare = choose_arms("toledo2022", ["visualbert"]), encoders["visualbert"]["path"]
    given = {**encoders, "visualbert": bare}
    with pytest.raises((EncoderError, ValueError), match="tokenizer"):
        recipe.run(corpora["posts"], arms, given, SETTINGS, [0], tmp_path / "runs", features=store)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"inputs": {"text": {"layer": 3}}}, "inputs of this paper have no layer"),
        ({"loss": {"contrastive": {"weight": 0.1}}}, "contrastive loss"),
        ({"model": "gated"}, "takes text as Frames"),
        ({"args": {"heads": 4, "head": 3}}, "no argument 'head'"),
        ({"settings": {"learning_rte": 0.1}}, "no field 'learning_rte'"),
    ],
)
def test_what_an_arm_cannot_have_is_said(train, corpora, tmp_path, own, message):
    with pytest.raises(ValueError, match=message):
        train(
            corpora["posts"], tmp_path / "runs", [], {"mine": {"like": "text-only", "title": "Mine", **own}}, seeds=[0]
        )


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"precision": "bf8"}, {"learning_rate": "1e-3"}, {"decay_per_epoch": 2.0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        parse(recipe.Settings, wrong, "settings")


# --- an arm of a reader's own -------------------------------------------------------------------------------------

MINE = '''
from typing import ClassVar
from huggingface_hub import PyTorchModelHubMixin
from torch import nn
from msakit.models import Pretrained


class Bag(nn.Module, PyTorchModelHubMixin):
    """Mean of the word pieces' embeddings, and a linear layer."""

    INPUTS: ClassVar[dict] = {"text": (Pretrained,)}
    modalities = ("text",)

    def __init__(self, size=8, n_classes=None):
        super().__init__()
        self.words, self.n_classes = nn.Embedding(1000, size), n_classes
        self.head = nn.Linear(size, 1 if n_classes in (None, 2) else n_classes)

    @classmethod
    def build(cls, inputs, n_classes=None, **args):
        return cls(n_classes=n_classes, **args)

    def forward_features(self, batch):
        mask = batch["attention_mask"][..., None]
        return {"fused": (self.words(batch["input_ids"]) * mask).sum(1) / mask.sum(1)}

    def forward_head(self, features):
        prediction = self.head(features["fused"])
        return {"prediction": prediction if self.n_classes else prediction.squeeze(-1)}

    def forward(self, batch):
        features = self.forward_features(batch)
        return self.forward_head(features) | features
'''


def test_a_model_of_a_readers_own_is_trained_tabulated_and_drawn(train, corpora, tmp_path):
    import matplotlib.pyplot as plt

    from msakit.papers.toledo2022.figures import figures
    from msakit.papers.toledo2022.tables import tables
    from msakit.reporting.scores import compare

    (tmp_path / "mine.py").write_text(MINE)
    own = {"bag": {"title": "Bag of words", "model": f"{tmp_path}/mine.py:Bag", "args": {"size": 4},
                   "inputs": {"text": {"encoder": "text", "frozen": False}}}}  # fmt: skip
    runs = train(corpora["posts"], tmp_path / "runs", ["text-only"], own)
    made = tables(runs)
    assert list(dict.fromkeys(made["mini-posts"].frame["title"]))[:2] == ["Text only, fine-tuned", "Bag of words"]
    assert "Bag of words" in set(made["mini-posts-cost"].frame["arm"])
    assert np.isfinite(compare(runs, "bag", "text-only", "auroc").difference)
    drawn = figures(runs, tmp_path / "figures")
    labels = [text.get_text() for figure in drawn for axis in figure.axes for text in axis.get_yticklabels()]
    assert "Bag of words" in labels
    for figure in drawn:
        plt.close(figure)
