"""Toledo & Marcacini end to end: four arms, frozen encoders that stay as they were, probabilities, references."""

import base64
import dataclasses
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_papers import SEEDS, TOLEDO, TOLEDO_ARMS, predictions, snapshot, toledo2022
from transformers import AutoModel

from msakit.data.corpus import CorpusError
from msakit.data.folds import folds, labelled, order
from msakit.evaluation import metrics
from msakit.papers import facts
from msakit.papers.toledo2022.inputs import Encoders, Inputs
from msakit.papers.toledo2022.protocol import CORRECTED, SWITCHES, Arm, Protocol, parse
from msakit.papers.toledo2022.recipe import inputs as toledo_inputs
from msakit.papers.toledo2022.study import Study

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


def study(corpus, folders, root, settings=TOLEDO, folds=0):
    encoders = Encoders(folders["distilbert"], folders["resnet"])
    table = labelled(corpus)
    inputs = Inputs(table, encoders, settings.max_tokens, torch.device("cpu"))
    return Study(corpus, table, inputs, settings, folds, root)


def no_costs():
    return defaultdict(dict)


@pytest.mark.parametrize(("arm", "moves"), [("frozen", False), ("joint", True)])
def test_frozen_encoders_stay_and_joint_ones_move(tiny_corpora, tiny_encoders, monkeypatch, tmp_path, arm, moves):
    models = []
    original = toledo2022.fit

    def fit(model, *arguments, **options):
        models.append(model)
        return original(model, *arguments, **options)

    monkeypatch.setattr(toledo2022, "fit", fit)
    folders = {"text": tiny_encoders["distilbert"], "image": tiny_encoders["resnet"]}
    on_disk = {name: snapshot(Path(folder)) for name, folder in folders.items()}
    mine = study(tiny_corpora["mini-posts"], tiny_encoders, tmp_path)
    toledo2022.train(mine, parse(arm, [arm]), 0, no_costs)
    for name, folder in folders.items():
        start, end = AutoModel.from_pretrained(folder).state_dict(), models[0].encoders[name].state_dict()
        assert start.keys() == end.keys()
        assert any(weight.requires_grad for weight in models[0].encoders[name].parameters()) is moves
        # Running statistics of batch norms count: a frozen encoder must not gather them either.
        assert any(not torch.equal(start[key], end[key]) for key in start) is moves, name
        assert snapshot(Path(folder)) == on_disk[name]


def test_frozen_vectors_are_computed_once_for_all_seeds(toledo, tmp_path, monkeypatch):
    calls = []
    original = toledo_inputs.vectors
    monkeypatch.setattr(toledo_inputs, "vectors", lambda *arguments: calls.append(1) or original(*arguments))
    toledo["mini-posts"].call(TOLEDO, ["frozen"], (0, 1, 2), tmp_path / "runs")
    assert len(calls) == 1


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
    with pytest.raises(
        ValueError, match=r"no arm 'both': choose from text-only, image-only, late-fusion, frozen, joint"
    ):
        toledo["mini-posts"].call(TOLEDO, ["joint", "both"], SEEDS, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_an_unreadable_image_is_named(toledo, tiny_corpora, tiny_encoders, tmp_path):
    from msakit.data.corpus import load_corpus

    folder = shutil.copytree(tiny_corpora["mini-memes"].folder, tmp_path / "memes")
    broken = next((folder / "image").glob("*test*"))
    broken.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=broken.name):
        study(load_corpus(folder), tiny_encoders, tmp_path).inputs.pixels  # noqa: B018


# --- protocols and folds -----------------------------------------------------------------------------------------


def test_the_published_protocol_is_all_switches_and_the_corrected_none():
    published = Protocol.as_published()
    assert published == Protocol("shuffled", "test", True, "single", "logits")
    assert (
        set(SWITCHES)
        == {"folds", "stop", "drop-last", "attention", "threshold"}
        == set(facts("toledo2022")["switches"])
    )
    for switch, name in SWITCHES.items():
        arm = parse(f"joint.only-{switch}", ["joint"])
        assert arm.label == f"as_published_{name}"
        different = {
            f.name for f in dataclasses.fields(Protocol) if getattr(arm.protocol, f.name) != getattr(CORRECTED, f.name)
        }
        assert different == {name}
        assert getattr(arm.protocol, name) == getattr(published, name)


@pytest.mark.parametrize(
    "name", ["joint.only-all", "joint.as_published", "joint.share-0", "joint.share-101", "both", "joint."]
)
def test_names_of_no_arm_are_refused(name):
    with pytest.raises(ValueError, match="no arm"):
        parse(name, ["joint", "frozen"])


def test_views_cover_all_segments_once_and_keep_the_test_fold_apart(tiny_corpora, tiny_encoders, tmp_path):
    mine = study(tiny_corpora["mini-posts"], tiny_encoders, tmp_path / "runs", folds=4)
    everything = set(mine.table["segment_id"])
    assert len(everything) == 48
    for name in ("joint", "joint.only-folds"):
        tests = []
        for seed in range(4):
            view = mine.view(parse(name, ["joint"]), seed)
            parts = {split: list(rows["segment_id"]) for split, rows in view.corpus.splits.items()}
            assert sum(map(len, parts.values())) == len(everything)
            assert set().union(*parts.values()) == everything
            assert len(parts["valid"]) == len(parts["test"]) == 12
            tests += parts["test"]
        assert sorted(tests) == sorted(everything)
    leaking = mine.view(parse("joint.only-stop", ["joint"]), 1)
    assert list(leaking.rows["valid"]) == list(leaking.rows["test"])
    assert len(leaking.rows["train"]) == 36
    assert list(leaking.rows["test"]) == list(mine.view(Arm("joint", "joint"), 1).rows["test"])


def test_folds_are_as_published_or_stratified(tiny_corpora, tmp_path):
    from sklearn.model_selection import KFold

    corpus = tiny_corpora["mini-posts"]
    table = labelled(corpus)
    shuffled = folds(corpus, "shuffled", 10, tmp_path / "shuffled.csv")
    for number, (_, test) in enumerate(KFold(10, shuffle=True, random_state=42).split(np.zeros(len(table)))):
        assert set(np.flatnonzero(shuffled == number)) == set(test)
    stratified = folds(corpus, "stratified", 4, tmp_path / "stratified.csv")
    counts = pd.crosstab(stratified, table["label"])
    assert (counts.max() - counts.min()).max() <= 1


def test_one_image_is_in_one_stratified_fold(tiny_corpora, tmp_path):
    corpus = tiny_corpora["mini-posts"]
    pairs = {split: rows.map(lambda row: {"video_id": row["segment_id"][:-1]}) for split, rows in corpus.splits.items()}
    grouped = dataclasses.replace(corpus, splits=type(corpus.splits)(pairs))
    table = labelled(grouped)
    home = folds(grouped, "stratified", 3, tmp_path / "folds.csv")
    assert table["video_id"].nunique() < len(table)
    assert (pd.Series(home).groupby(table["video_id"]).nunique() == 1).all()
    assert (pd.Series(folds(grouped, "shuffled", 3, tmp_path / "s.csv")).groupby(table["video_id"]).nunique() > 1).any()


def test_saved_folds_are_read_again_and_must_fit(tiny_corpora, tmp_path):
    corpus, path = tiny_corpora["mini-posts"], tmp_path / "deep/folds.csv"
    first = folds(corpus, "shuffled", 4, path)
    table = pd.read_csv(path)
    table.assign(fold=(table["fold"] + 1) % 4).sample(frac=1, random_state=0).to_csv(path, index=False)
    assert list(folds(corpus, "shuffled", 4, path)) == list((first + 1) % 4)
    assert [file.name for file in path.parent.iterdir()] == ["folds.csv"]
    with pytest.raises(CorpusError, match=r"folds\.csv has folds up to 3, 3 are asked for: delete it"):
        folds(corpus, "shuffled", 3, path)
    with pytest.raises(CorpusError, match=r"folds\.csv does not fit the corpus: 48 .* 48 are of another.*: delete it"):
        folds(tiny_corpora["mini-memes"], "shuffled", 4, path)
    table.head(40).to_csv(path, index=False)
    with pytest.raises(CorpusError, match="8 segments are not in it, 0 are of another"):
        folds(corpus, "shuffled", 4, path)
    path.write_text("segment_id\nx\n")
    with pytest.raises(CorpusError, match=r"folds\.csv is not a readable draw"):
        folds(corpus, "shuffled", 4, path)


def test_shares_are_nested_stratified_and_never_empty(tiny_corpora, tmp_path):
    corpus = tiny_corpora["mini-posts"]
    place = order(corpus, 0, tmp_path / "0.csv")
    label = np.asarray(corpus.splits["train"]["label"])
    for share in (0.01, 0.05, 0.1, 0.25, 0.5, 1.0):
        counts = np.bincount(label[place < share], minlength=3)
        # Rounded up within each class, so that none is without an example.
        assert list(counts) == list(np.ceil(share * np.bincount(label) - 1e-9).astype(int))
        assert counts.min() >= 1
    assert list(order(corpus, 1, tmp_path / "1.csv")) != list(place)


@pytest.fixture(scope="module")
def folded(tiny_corpora, tiny_encoders, tmp_path_factory):
    """Both protocols, two switches, late fusion and shares, on folds; run in an order that needs sorting."""
    arms = ["late-fusion", "late-fusion.as-published", "text-only", "image-only", "joint"]
    arms += ["text-only.as-published", "image-only.as-published", "joint.as-published"]
    arms += ["late-fusion.only-threshold", *(f"joint.only-{switch}" for switch in SWITCHES)]
    root = tmp_path_factory.mktemp("folded") / "runs"
    encoders = Encoders(tiny_encoders["distilbert"], tiny_encoders["resnet"])
    settings = dataclasses.replace(TOLEDO, batch_size=5, least_batches=3)
    return toledo2022.run(
        tiny_corpora["mini-memes"], encoders, settings, arms, [0, 2], root,
        folds=4, shares=[10, 100], share_arms=["frozen"], share_seeds=[0, 1, 2],
    )  # fmt: skip


def one(runs, arm, seed=0):
    (run,) = runs.select(arm=arm, seed=seed)
    return run


def test_protocols_are_recorded(folded):
    frame = folded.frame.drop_duplicates("arm").set_index("arm")["protocol"]
    assert frame["joint"] == frame["late-fusion"] == frame["frozen.share-10"] == "corrected"
    assert frame["joint.as-published"] == frame["late-fusion.as-published"] == "as_published"
    assert {frame[f"joint.only-{s}"] for s in SWITCHES} == {f"as_published_{name}" for name in SWITCHES.values()}
    assert set(folded.frame.query("arm in ['oracle', 'constant', 'joint']").groupby("arm")["seed"].nunique()) == {2}
    config = one(folded, "joint.as-published").record.config
    assert {name: config[name] for name in SWITCHES.values()} == dataclasses.asdict(Protocol.as_published())
    assert config["fold_count"] == 4


def test_dropped_batches_lose_test_segments_and_the_correction_none(folded):
    for arm, scored in (
        ("joint", 12),
        ("joint.as-published", 10),
        ("joint.only-drop-last", 10),
        ("joint.only-stop", 12),
    ):
        run = one(folded, arm)
        test = folded.predictions(run).query("split == 'test'")
        assert len(test) == scored, arm
        assert run.record.measurements["segments"]["test"] == 12
        assert np.isfinite(test[["p_harmless", "p_hateful"]]).all(axis=None)
    late = folded.predictions(one(folded, "late-fusion.as-published"))
    parts = [set(folded.predictions(one(folded, f"{m}-only.as-published"))["segment_id"]) for m in ("text", "image")]
    assert set(late["segment_id"]) == parts[0] & parts[1]


def test_stopping_on_the_test_fold_predicts_no_validation_part(folded):
    assert set(folded.predictions(one(folded, "joint.only-stop"))["split"]) == {"test"}
    assert set(folded.predictions(one(folded, "joint"))["split"]) == {"valid", "test"}
    assert one(folded, "joint.only-stop").record.measurements["segments"] == {"train": 36, "valid": 12, "test": 12}
    assert one(folded, "joint").record.measurements["segments"] == {"train": 24, "valid": 12, "test": 12}


def test_the_threshold_changes_the_scoring_alone(folded):
    plain, cut = one(folded, "joint"), one(folded, "joint.only-threshold")
    pd.testing.assert_frame_equal(
        folded.predictions(plain).set_index(["segment_id", "split"]),
        folded.predictions(cut).set_index(["segment_id", "split"]),
    )
    assert cut.record.config["threshold"] == "logits"
    assert plain.record.config["threshold"] == "probabilities"
    for name, other in facts("toledo2022")["metrics_on_logits"].items():
        assert metrics.metric(other).kind == metrics.metric(name).kind


def test_late_fusion_is_the_mean_of_what_the_two_modalities_said(folded):
    columns = ["p_harmless", "p_hateful"]
    tables = [
        folded.predictions(one(folded, arm, 2)).set_index(["split", "segment_id"])
        for arm in ("late-fusion", "text-only", "image-only")
    ]
    late, text, image = (table.sort_index()[columns].to_numpy() for table in tables)
    np.testing.assert_allclose(late, (text + image) / 2, atol=2e-6)
    assert one(folded, "late-fusion").record.history == []


def test_late_fusion_without_its_parts_is_refused(tiny_corpora, tiny_encoders, tmp_path):
    encoders = Encoders(tiny_encoders["distilbert"], tiny_encoders["resnet"])
    with pytest.raises(
        ValueError, match="late-fusion rests on the stored predictions of text-only, seed 0: add that arm"
    ):
        toledo2022.run(tiny_corpora["mini-memes"], encoders, TOLEDO, ["late-fusion"], [0], tmp_path / "runs")


def test_shares_train_on_subsets_of_the_fixed_split(folded, tiny_corpora):
    splits = tiny_corpora["mini-memes"].splits
    tenth = int(np.ceil(np.bincount(splits["train"]["label"]) / 10).sum())
    for percent, train in ((10, tenth), (100, 24)):
        run = one(folded, f"frozen.share-{percent}", 2)
        assert run.record.measurements["segments"] == {"train": train, "valid": 12, "test": 12}
        assert run.record.config["percent"] == percent
        test = folded.predictions(run).query("split == 'test'")
        assert sorted(test["segment_id"]) == sorted(splits["test"]["segment_id"])
    # Only seeds that the call was given: the others are another job's.
    assert set(folded.frame.query("arm == 'frozen.share-10'")["seed"]) == {0, 2}
    small = folded.predictions(one(folded, "frozen.share-10", 0))["p_hateful"]
    assert not np.allclose(small, folded.predictions(one(folded, "frozen.share-10", 2))["p_hateful"])


def test_costs_are_of_one_pass_and_relative_to_text_only(folded):
    costs = {arm: one(folded, arm).record.measurements for arm in ("text-only", "image-only", "late-fusion", "joint")}
    quantities = {
        "trainable_parameters",
        "flops_per_sample",
        "seconds_per_epoch",
        "epoch_peak_memory_mb",
        "flops_per_prediction",
    }
    for arm, found in costs.items():
        assert set(found["relative_to_text_only"]) == quantities, arm
        for name in quantities:
            assert found[name] > 0
            assert found["relative_to_text_only"][name] == pytest.approx(found[name] / costs["text-only"][name])
    for name in ("trainable_parameters", "flops_per_sample", "seconds_per_epoch"):
        assert costs["late-fusion"][name] == pytest.approx(costs["text-only"][name] + costs["image-only"][name])
    assert costs["joint"]["epochs"] == len(one(folded, "joint").record.history)
    assert all("seconds_per_epoch" not in one(folded, arm, seed).record.measurements
               for arm, seed in (("joint", 2), ("joint.as-published", 0), ("frozen.share-10", 0)))  # fmt: skip


def test_the_first_joint_run_keeps_its_space_and_examples(folded):
    run = one(folded, "joint")
    space = folded.artifact(run, "embeddings")
    assert set(space.columns[:4]) == {"segment_id", "stage", "label", "e0"}
    test = folded.predictions(run).query("split == 'test'")
    for _, part in space.groupby("stage"):
        assert sorted(part["segment_id"]) == sorted(test["segment_id"])
    moved = [space[space["stage"] == stage].filter(regex=r"e\d").to_numpy() for stage in ("before", "after")]
    assert not np.allclose(*moved)
    examples = folded.artifact(run, "examples")
    assert len(examples) == 8
    assert set(examples["segment_id"]) <= set(test["segment_id"])
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in examples["image"])
    assert not one(folded, "joint", 2).record.artifacts


def test_a_seed_that_is_no_fold_and_an_encoder_that_is_not_given_are_refused(tiny_corpora, tiny_encoders, tmp_path):
    encoders = Encoders(tiny_encoders["distilbert"], tiny_encoders["resnet"])
    corpus = tiny_corpora["mini-memes"]
    with pytest.raises(ValueError, match="seed 4 is no fold"):
        toledo2022.run(corpus, encoders, TOLEDO, ["joint"], [4], tmp_path / "runs", folds=4)
    with pytest.raises(ValueError, match=r"'clip-probe\.share-5' needs a clip checkpoint"):
        toledo2022.run(corpus, encoders, TOLEDO, ["joint"], [0], tmp_path / "runs", shares=[5])
    with pytest.raises(ValueError, match="labelled with numbers"):
        toledo2022.run(tiny_corpora["mini-mosi"], encoders, TOLEDO, ["joint"], [0], tmp_path / "runs")
