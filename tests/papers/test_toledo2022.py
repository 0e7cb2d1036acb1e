"""Toledo & Marcacini end to end: four arms, frozen encoders that stay as they were, probabilities, references."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_papers import SEEDS, TOLEDO, TOLEDO_ARMS, predictions, snapshot, toledo2022
from transformers import AutoModel

from msakit.papers import facts

CLASSES = {"mini-posts": ["p_negative", "p_neutral", "p_positive"], "mini-memes": ["p_harmless", "p_hateful"]}


def test_every_arm_is_recorded_with_every_seed(toledo):
    for name, seeds in (("mini-posts", SEEDS), ("mini-memes", SEEDS[:1])):
        frame = toledo[name].runs.frame
        found = set(zip(frame["arm"], frame["seed"], strict=True))
        assert found == {(arm, seed) for arm in TOLEDO_ARMS for seed in seeds} | {("constant", 0), ("oracle", 0)}
        assert set(frame["corpus"]) == {name}


@pytest.mark.parametrize("corpus", list(CLASSES))
def test_probabilities_sum_to_one(toledo, tiny_corpora, corpus):
    splits = tiny_corpora[corpus].splits
    for run in toledo[corpus].runs:
        table = pd.read_csv(run.path.with_suffix(".csv"), dtype={"segment_id": str})
        assert [name for name in table if name.startswith("p_")] == CLASSES[corpus]
        np.testing.assert_allclose(table[CLASSES[corpus]].sum(axis=1), 1, atol=1e-5)
        assert (table[CLASSES[corpus]] >= 0).all(axis=None)
        for split in ("valid", "test"):
            part = table[table["split"] == split]
            assert list(part["segment_id"]) == list(splits[split]["segment_id"])
            assert list(part["label"]) == list(splits[split]["label"])


def test_the_chosen_epoch_has_the_recorded_validation_loss(toledo):
    for name, recipe in toledo.items():
        for run in recipe.runs.select(arm=list(TOLEDO_ARMS)):
            record = run.record
            table = predictions(recipe.root, "toledo2022", name, record.arm, record.seed, "valid")
            truth = table[CLASSES[name]].to_numpy()[np.arange(len(table)), table["label"]]
            assert record.selection["value"] == pytest.approx(-np.log(truth).mean(), abs=1e-4)
            assert record.selection["value"] == min(row["valid_loss"] for row in record.history)


@pytest.mark.parametrize(("arm", "moves"), [("frozen", False), ("joint", True)])
def test_frozen_encoders_stay_and_joint_ones_move(tiny_corpora, tiny_encoders, monkeypatch, arm, moves):
    models = []
    original = toledo2022.fit

    def fit(model, *arguments, **options):
        models.append(model)
        return original(model, *arguments, **options)

    monkeypatch.setattr(toledo2022, "fit", fit)
    folders = {"text": tiny_encoders["distilbert"], "image": tiny_encoders["resnet"]}
    on_disk = {name: snapshot(Path(folder)) for name, folder in folders.items()}
    inputs = toledo2022.prepare(tiny_corpora["mini-posts"], *folders.values(), TOLEDO.max_tokens)
    choice = {key: facts("toledo2022")["arms"][arm][key] for key in ("modalities", "frozen")}
    toledo2022.train(tiny_corpora["mini-posts"], inputs, folders, TOLEDO, choice, 0, {})
    for name, folder in folders.items():
        start, end = AutoModel.from_pretrained(folder).state_dict(), models[0].encoders[name].state_dict()
        assert start.keys() == end.keys()
        assert any(weight.requires_grad for weight in models[0].encoders[name].parameters()) is moves
        # Running statistics of batch norms count: a frozen encoder must not gather them either.
        assert any(not torch.equal(start[key], end[key]) for key in start) is moves, name
        assert snapshot(Path(folder)) == on_disk[name]


def test_frozen_vectors_are_computed_once_for_all_seeds(toledo, tmp_path, monkeypatch):
    calls = []
    original = toledo2022._vectors
    monkeypatch.setattr(toledo2022, "_vectors", lambda *arguments: calls.append(1) or original(*arguments))
    toledo["mini-posts"].call(TOLEDO, ["frozen"], (0, 1, 2), tmp_path / "runs")
    assert len(calls) == 3  # train, valid, test


def test_frozen_arms_have_their_own_epochs(toledo):
    frame = toledo["mini-posts"].runs.frame.set_index("arm")
    assert set(frame.loc["frozen", "epochs"]) == {TOLEDO.frozen_epochs}
    assert set(frame.loc["joint", "epochs"]) == {TOLEDO.epochs}


def test_a_second_call_trains_nothing(toledo, monkeypatch):
    def train(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(toledo2022, "train", train)
    recipe = toledo["mini-posts"]
    before = snapshot(recipe.root / "toledo2022")
    again = recipe.call(TOLEDO, TOLEDO_ARMS, SEEDS, recipe.root)
    assert snapshot(recipe.root / "toledo2022") == before
    assert [run.path for run in again] == [run.path for run in recipe.runs]


def test_changed_settings_train_again(toledo, tmp_path):
    root = shutil.copytree(toledo["mini-posts"].root, tmp_path / "runs")
    folder = root / "toledo2022" / "mini-posts"
    changed = dataclasses.replace(TOLEDO, weight_decay=0.5)
    toledo["mini-posts"].call(changed, ["frozen"], SEEDS[:1], root)
    after = snapshot(folder)
    trained = {name for name in after if name.split("/")[0] not in ("constant", "oracle")}
    assert trained == {"frozen/seed-0.json", "frozen/seed-0.csv"}
    toledo["mini-posts"].call(changed, ["frozen"], SEEDS[:1], root)
    assert snapshot(folder) == after


def test_same_seed_same_predictions_other_seed_others(toledo, tmp_path):
    recipe = toledo["mini-posts"]
    arms = ["text-only", "frozen", "joint"]
    runs = recipe.call(TOLEDO, arms, SEEDS[1:], tmp_path / "runs")
    for arm in arms:
        (again,) = runs.select(arm=arm)
        first, second = (recipe.root / f"toledo2022/mini-posts/{arm}/seed-{seed}.csv" for seed in SEEDS)
        assert again.path.with_suffix(".csv").read_bytes() == second.read_bytes() != first.read_bytes()


@pytest.mark.parametrize("name", list(CLASSES))
def test_references_predict_what_they_say(toledo, tiny_corpora, name):
    corpus = tiny_corpora[name]
    train = np.asarray(corpus.splits["train"]["label"])
    shares = [np.mean(train == index) for index in range(len(corpus.task.classes))]
    constant = predictions(toledo[name].root, "toledo2022", name, "constant", 0)
    np.testing.assert_allclose(constant[CLASSES[name]], np.tile(shares, (len(constant), 1)), atol=1e-5)
    oracle = pd.read_csv(corpus.folder / "oracle.csv").set_index("segment_id")
    found = predictions(toledo[name].root, "toledo2022", name, "oracle", 0)
    np.testing.assert_allclose(found[CLASSES[name]], oracle.loc[found["segment_id"], CLASSES[name]], atol=1e-5)
    correct = found[CLASSES[name]].to_numpy().argmax(axis=1) == found["label"]
    scores = toledo[name].runs.select(arm="oracle").scores("accuracy")
    assert scores["value"].item() == pytest.approx(correct.mean())


def test_an_unknown_arm_is_refused_with_the_choices(toledo, tmp_path):
    with pytest.raises(ValueError, match=r"no arm 'both': choose from text-only, image-only, frozen, joint"):
        toledo["mini-posts"].call(TOLEDO, ["joint", "both"], SEEDS, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_an_unreadable_image_is_named(toledo, tiny_corpora, tiny_encoders, tmp_path):
    from msakit.data.corpus import load_corpus

    folder = shutil.copytree(tiny_corpora["mini-memes"].folder, tmp_path / "memes")
    broken = next((folder / "image").glob("*test*"))
    broken.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=broken.name):
        toledo2022.prepare(load_corpus(folder), tiny_encoders["distilbert"], tiny_encoders["resnet"], 24)
