"""What every recipe shares: which runs an arm has, reference rows, equal arms trained once, means, what is recorded.

Nothing is trained: a run predicts its learning rate.
"""

import re
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from text_corpora import CLASSES, SIZES, text_corpus

from msakit.runs.arm import read_arms, with_variants
from msakit.runs.experiment import ANNOTATIONS, Experiment, probabilities
from msakit.runs.jobs import Outcome
from msakit.runs.record import KEYS, Feature
from msakit.runs.store import read_run, run_path
from msakit.strict import Strict
from msakit.training.loop import Fit


class Settings(Strict):
    learning_rate: float = 0.1
    epochs: int = 2


DEFINITIONS = {
    "text": {"title": "Text", "model": "joint", "inputs": {"text": "text"}},
    "image": {"like": "text", "title": "Image", "inputs": {"text": None, "image": "image"}},
    "late": {"title": "Late", "model": "mean", "args": {"of": ["text", "image"]}},
}
LEAKY = {"name": "as_published", "folds": "shuffled", "stop": "test"}


@pytest.fixture
def corpora(tmp_path):
    """A corpus by its options, made once."""
    return cache(lambda **options: text_corpus(tmp_path / "-".join(["corpus", *options]), **options))


@pytest.fixture
def call(tmp_path, corpora):
    """Train some arms; gives back the experiment, its runs and the names of those trained."""

    def call(definitions, corpus=None, *, seeds=(0,), settings=None, version=1, keeps=lambda case: False, **options):
        corpus = corpora() if corpus is None else corpus
        arms = definitions if hasattr(next(iter(definitions.values())), "title") else read_arms(definitions)
        root = tmp_path / "built" / "runs"
        experiment = Experiment("toledo2022", version, corpus, settings or Settings(), seeds, root, **options)
        trained = []

        def train(case):
            trained.append((case.name, case.seed, None if case.fold is None else case.fold.index))
            rate = experiment.settings_of(case.arm).learning_rate
            fit = Fit(1, [{"epoch": 1.0, "valid_loss": rate, "seconds": 0.5}])
            tables = []
            for split in ("test",) if case.arm.protocol.leaks else ("valid", "test"):
                count = len(case.rows[split])
                values = (
                    np.full((count, len(CLASSES)), np.log([rate, 1, 1]))
                    if experiment.n_classes
                    else np.full(count, rate)
                )
                tables.append(experiment.predictions(case, split, values).assign(gate_text=0.5))
            return Outcome(fit, "mae", tables, experiment.sizes(case))

        def features(arm):
            return {
                modality: Feature(encoder=each.encoder, weights=each.encoder[:4])
                for modality, each in arm.inputs.items()
            }

        cases = [case for name, arm in arms.items() for case in experiment.cases(name, arm)]
        runs = experiment.run(cases, features, train, keeps=keeps)
        return SimpleNamespace(experiment=experiment, runs=runs, trained=trained, cases=cases, corpus=corpus)

    return call


def only(found, arm, **wanted):
    (run,) = found.runs.select(arm=arm, **wanted)
    return run


# --- which runs an arm has ----------------------------------------------------------------------------------------


def test_arms_run_over_seeds_on_the_corpus_s_own_split(call):
    found = call(DEFINITIONS, seeds=(3, 5))
    assert found.trained == [("text", 3, None), ("text", 5, None), ("image", 3, None), ("image", 5, None)]
    assert [case.random_seed for case in found.cases[:2]] == [3, 5]
    rows = found.cases[0].rows
    assert {split: len(rows[split]) for split in rows} == SIZES
    assert only(found, "text", seed=3).record.fold is None


def test_arms_run_over_seeds_and_folds(call):
    found = call(DEFINITIONS, seeds=(0, 10), folds=4)
    assert [run for run in found.trained if run[0] == "text"] == [
        ("text", seed, fold) for fold in range(4) for seed in (0, 10)
    ]
    assert [case.random_seed for case in found.cases[:4]] == [0, 10, 1, 11], "folds differ in it, too"
    run = only(found, "text", seed=10, fold=2)
    assert run.record.fold.model_dump() == {"index": 2, "count": 4, "kind": "stratified"}
    tested = pd.concat([run.test for run in found.runs.select(arm="text", seed=0)])
    assert sorted(tested["segment_id"]) == sorted(found.experiment.table["segment_id"])


def test_some_folds_may_be_tested(call):
    found = call({"text": DEFINITIONS["text"]}, folds=4, test_folds=[3, 1])
    assert found.trained == [("text", 0, 3), ("text", 0, 1)]
    with pytest.raises(ValueError, match="fold 4 is not among the 4 folds: they are 0 to 3"):
        call({"text": DEFINITIONS["text"]}, found.corpus, folds=4, test_folds=[4])
    with pytest.raises(ValueError, match=r"seeds are \[0, 0\]: name each of them once"):
        call({"text": DEFINITIONS["text"]}, found.corpus, seeds=[0, 0])


def test_a_protocol_has_its_own_folds_and_its_own_validation(call):
    found = call({"text": DEFINITIONS["text"], "leaky": {"like": "text", "title": "Leaky", "protocol": LEAKY}}, folds=4)
    plain, leaky = (next(case for case in found.cases if case.name == name) for name in ("text", "leaky"))
    assert leaky.fold.kind == "shuffled"
    assert list(leaky.rows["valid"]) == list(leaky.rows["test"])
    assert set(plain.rows["valid"]).isdisjoint(plain.rows["test"])
    run = only(found, "leaky", fold=0)
    assert (run.record.fold.kind, run.record.selection.split) == ("shuffled", "test")
    assert set(run.predictions["split"]) == {"test"}


@pytest.mark.parametrize("protocol", [{"share": 20}, {"folds": "none"}])
def test_shares_are_of_the_own_split_in_folds_too(call, protocol):
    arms = {"text": DEFINITIONS["text"], "few": {"like": "text", "title": "Few", "protocol": protocol}}
    found = call(arms, seeds=(0, 1), folds=4)
    assert [run[1:] for run in found.trained if run[0] == "few"] == [(0, None), (1, None)]
    run = only(found, "few", seed=1)
    assert run.record.measurements["segments"]["train"] == (SIZES["train"] if "folds" in protocol else 10)
    assert run.record.measurements["segments"]["test"] == SIZES["test"]


# --- what is recorded ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [False, True])
def test_every_prediction_carries_its_video_and_what_the_corpus_says_of_it(call, corpora, classes):
    """Ids of segments say nothing of their videos: statistics must not have to guess them."""
    corpus = corpora(classes=classes, oracle=True)
    found = call(DEFINITIONS, corpus, folds=4)
    table = corpus.table().set_index("segment_id")
    for run in found.runs:
        rows = table.loc[list(run.predictions["segment_id"])]
        assert run.predictions["video_id"].tolist() == rows["video_id"].tolist(), run.record.identity
        assert run.predictions["label"].tolist() == rows["label"].tolist()
        assert run.predictions["kind"].tolist() == rows["kind"].tolist()
        assert list(run.predictions)[:5] == [*KEYS, "kind"]
    assert set(KEYS).isdisjoint(ANNOTATIONS)


def test_numbers_and_probabilities(call, corpora):
    assert set(only(call(DEFINITIONS), "text").test["prediction"]) == {0.1}
    run = only(call(DEFINITIONS, corpora(classes=True)), "text")
    assert list(run.test)[5:8] == [f"p_{name}" for name in CLASSES]
    np.testing.assert_allclose(
        run.test[[f"p_{name}" for name in CLASSES]], [[0.1 / 2.1, 1 / 2.1, 1 / 2.1]] * 16, atol=1e-6
    )
    assert run.record.corpus.task.classes == CLASSES


def test_one_logit_is_that_of_the_second_class():
    found = probabilities(np.array([[0.0], [2.0], [-800.0]]))
    np.testing.assert_allclose(found, [[0.5, 0.5], [0.119203, 0.880797], [1.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(probabilities(np.array([[1.0, 1.0], [800.0, 0.0]])), [[0.5, 0.5], [1.0, 0.0]])


def test_a_record_says_what_a_run_is(call):
    arms = DEFINITIONS | {"mine": {"like": "text", "title": "Mine", "settings": {"learning_rate": 0.5}}}
    found = call(arms, settings=Settings(epochs=7))
    record = only(found, "mine").record
    assert record.settings == {"learning_rate": 0.5, "epochs": 7}
    assert only(found, "text").record.settings == {"learning_rate": 0.1, "epochs": 7}
    assert record.definition.like == "text"
    assert record.features["text"] == Feature(encoder="text", weights="text")
    assert record.corpus.counts == SIZES
    assert (record.corpus.fingerprint, record.version) == (found.corpus.fingerprint, 1)
    assert record.measurements == {"segments": SIZES}


def test_faulty_settings_name_their_arm(call):
    for given, message in (
        ({"learning_rat": 0.5}, "settings of 'Mine': no field 'learning_rat'.*Did you mean 'learning_rate'?"),
        ({"learning_rate": "1e-3"}, "settings of 'Mine': .*not '1e-3' .YAML reads 1e-3 as text"),
    ):
        with pytest.raises(ValueError, match=message):
            call({"mine": {"like": "text", "title": "Mine", "settings": given}, "text": DEFINITIONS["text"]})


# --- reuse --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ({}, []),
        ({"definitions": {"text": {"title": "Other", "group": "Other"}}}, []),
        ({"definitions": {"text": {"args": {"width": 3}}}}, ["text"]),
        ({"definitions": {"text": {"inputs": {"text": "bert"}}}}, ["text"]),
        ({"definitions": {"text": {"loss": {"name": "mse"}}}}, ["text"]),
        ({"definitions": {"text": {"settings": {"learning_rate": 0.7}}}}, ["text"]),
        ({"definitions": {"text": {"settings": {"learning_rate": 0.1}}}}, []),
        ({"definitions": {"text": {"protocol": {"threshold": "logits"}}}}, []),
        ({"settings": Settings(epochs=3)}, ["text", "image"]),
        ({"version": 2}, ["text", "image"]),
        ({"seeds": (1,)}, ["text", "image"]),
    ],
)
def test_what_makes_a_run_anew(call, change, anew):
    first = call(DEFINITIONS | {"image": {"title": "Image", "model": "joint", "inputs": {"image": "image"}}})
    changed = {"image": {"title": "Image", "model": "joint", "inputs": {"image": "image"}}, "late": DEFINITIONS["late"]}
    text = DEFINITIONS["text"] | change.pop("definitions", {}).get("text", {})
    second = call({"text": text} | changed, first.corpus, **change)
    assert [name for name, _, _ in second.trained] == anew
    assert only(second, "text").record.title == text["title"]


def test_other_folds_make_runs_anew(call):
    text = {"text": DEFINITIONS["text"]}
    found = call(text, folds=3, test_folds=[1])
    assert call(text, found.corpus, folds=3, test_folds=[1]).trained == []
    assert call(text, found.corpus, folds=4, test_folds=[1]).trained == [("text", 0, 1)]


def test_another_order_of_the_classes_makes_runs_anew(call, corpora):
    """The rows of the corpus are the same, and so is its fingerprint; what an index means is not."""
    corpus = corpora(classes=True)
    call({"text": DEFINITIONS["text"]}, corpus)
    folder = corpus.folder / "corpus.json"
    folder.write_text(folder.read_text().replace('["no", "NA", "yes"]', '["yes", "NA", "no"]'))
    from msakit.data.corpus import load_corpus

    other = load_corpus(corpus.folder)
    assert other.fingerprint == corpus.fingerprint
    assert call({"text": DEFINITIONS["text"]}, other).trained == [("text", 0, None)]


def test_equal_arms_are_trained_once(call):
    twin = {"title": "Twin", "model": "joint", "inputs": {"text": "bert"}}
    arms = {
        "text": DEFINITIONS["text"] | {"inputs": {"text": "bert"}},
        "twin": twin,
        "cut": twin | {"title": "Cut", "protocol": {"name": "as_published_threshold", "threshold": "logits"}},
        "other": twin | {"title": "Other", "args": {"width": 3}},
        "same-in-the-end": twin | {"title": "Same", "settings": {"learning_rate": 0.1}},
    }
    found = call(arms, seeds=(0, 1))
    assert [name for name, seed, _ in found.trained if seed == 0] == ["text", "other"]
    source = only(found, "text", seed=1)
    for name in ("twin", "cut", "same-in-the-end"):
        run = only(found, name, seed=1)
        assert (run.record.same_as, run.record.title) == ("text", arms[name]["title"])
        assert (run.record.key, run.record.selection, run.record.history) == (
            source.record.key, source.record.selection, source.record.history,
        )  # fmt: skip
        assert run.runtime == source.runtime
        pd.testing.assert_frame_equal(run.predictions, source.predictions)
    assert only(found, "cut", seed=1).record.definition.protocol.threshold == "logits"
    assert source.record.same_as is only(found, "other", seed=1).record.same_as is None
    assert call(arms, found.corpus, seeds=(0, 1)).trained == []


def test_what_leaves_more_than_a_record_is_trained_itself(call):
    twin = {"title": "Twin", "model": "joint", "inputs": {"text": "text"}}
    keeps = lambda case: case.name == "twin" and case.seed == 0  # noqa: E731
    found = call({"text": DEFINITIONS["text"], "twin": twin}, seeds=(0, 1), keeps=keeps)
    assert [(name, seed) for name, seed, _ in found.trained] == [("text", 0), ("text", 1), ("twin", 0)]
    assert only(found, "twin", seed=0).record.same_as is None


def test_an_arm_whose_source_is_redefined_keeps_its_run(call):
    twin = {"title": "Twin", "model": "joint", "inputs": {"text": "text"}}
    first = call({"text": DEFINITIONS["text"], "twin": twin})
    changed = DEFINITIONS["text"] | {"settings": {"learning_rate": 0.7}}
    second = call({"text": changed, "twin": twin}, first.corpus)
    assert second.trained == [("text", 0, None)]
    assert set(only(second, "text").test["prediction"]) == {0.7}
    assert set(only(second, "twin").test["prediction"]) == {0.1}
    assert only(second, "twin").record.same_as is None


# --- means --------------------------------------------------------------------------------------------------------


def test_a_mean_reads_what_its_parts_read_and_follows_them(call):
    arms = {
        "late": DEFINITIONS["late"],
        **DEFINITIONS,
        "image": DEFINITIONS["image"] | {"settings": {"learning_rate": 0.3}},
    }
    first = call(arms)
    run = only(first, "late")
    assert run.record.modalities == ("text", "image")
    assert (run.record.selection, run.record.history, run.record.settings) == (None, [], {})
    assert set(run.test["prediction"]) == {0.2}
    assert set(run.predictions["split"]) == {"valid", "test"}
    assert "gate_text" not in run.predictions, "the gates of a part are not its own"
    assert call(arms, first.corpus).trained == []
    # The parts are trained anew with other settings: so is their mean, which has no settings of its own.
    arms["text"] = arms["text"] | {"settings": {"learning_rate": 0.5}}
    second = call(arms, first.corpus)
    assert second.trained == [("text", 0, None)]
    assert set(only(second, "late").test["prediction"]) == {0.4}
    # Parts that are recorded may be left out of a later call.
    third = call({"late": DEFINITIONS["late"]}, first.corpus)
    assert only(third, "late").record == only(second, "late").record


def test_a_mean_of_probabilities_over_what_all_have_scored(call, corpora, tmp_path):
    corpus = corpora(classes=True)
    arms = {name: DEFINITIONS[name] for name in ("text", "image")}
    first = call(arms, corpus)
    from msakit.runs.store import write_run

    run = only(first, "image")
    fewer = run.predictions.drop(index=run.predictions.index[-3:]).assign(p_no=0.5, p_NA=0.25, p_yes=0.25)
    write_run(tmp_path / "built" / "runs", run.record, run.runtime, fewer)
    late = only(call(DEFINITIONS, corpus), "late")
    assert len(late.predictions) == len(run.predictions) - 3
    np.testing.assert_allclose(late.predictions["p_no"], (0.1 / 2.1 + 0.5) / 2, atol=1e-6)


def test_faulty_means_are_refused(call):
    text, late = DEFINITIONS["text"], DEFINITIONS["late"]
    with pytest.raises(ValueError, match=r"late is the mean of text, image, but .*image.* is not there: add that arm"):
        found = call({"text": text, "late": late})
    found = call(DEFINITIONS, folds=4)
    leaky = {"like": "text", "title": "Leaky", "protocol": LEAKY}
    for part in (leaky, {"like": "text", "title": "x", "protocol": {"folds": "shuffled"}}):
        with pytest.raises(ValueError, match="late cannot average other: give both the same folds and the same stop"):
            call(
                {"text": text, "other": part, "late": late | {"args": {"of": ["text", "other"]}}}, found.corpus, folds=4
            )


def test_a_variant_of_a_mean_averages_the_variants_of_its_parts(call):
    arms = with_variants(read_arms(DEFINITIONS), {"fast": {"settings": {"learning_rate": 0.9}}})
    found = call(arms)
    assert set(only(found, "late").test["prediction"]) == {0.1}
    assert set(only(found, "late@fast").test["prediction"]) == {0.9}
    with pytest.raises(ValueError, match=re.escape("late@other is the mean of text@other, image@other, but")):
        call(with_variants({"late": arms["late"]}, {"other": {}}), found.corpus)


# --- references ---------------------------------------------------------------------------------------------------


def test_references_are_recorded_once(call, corpora):
    corpus = corpora(oracle=True)
    found = call(DEFINITIONS, corpus, seeds=(0, 1))
    references = found.runs.select(reference=True)
    assert references.arms == ("constant", "oracle", "oracle-text")
    assert references.frame["seed"].tolist() == [0, 0, 0]
    train = corpus.splits["train"].to_pandas()
    assert set(only(found, "constant").test["prediction"]) == {round(train["label"].median(), 6)}
    oracle = only(found, "oracle").predictions
    np.testing.assert_allclose(oracle["prediction"], oracle["label"] * 0.9, atol=1e-6)
    assert only(found, "oracle").record.selection is None
    assert only(found, "oracle").record.measurements == {"segments": SIZES}
    assert call(DEFINITIONS, corpora()).runs.select(reference=True).arms == ("constant",), "of the real world"


def test_references_know_the_whole_training_split(call, corpora):
    corpus = corpora(classes=True)
    found = call({"few": DEFINITIONS["text"] | {"protocol": {"share": 5}}}, corpus)
    shares = np.bincount(corpus.splits["train"]["label"], minlength=3) / SIZES["train"]
    run = only(found, "constant")
    np.testing.assert_allclose(run.test[[f"p_{name}" for name in CLASSES]].iloc[0], shares, atol=1e-6)
    assert run.record.measurements["segments"] == SIZES


def test_references_are_recorded_once_a_fold(call, corpora):
    corpus = corpora(classes=True, oracle=True)
    leaky = {"like": "text", "title": "Leaky", "protocol": LEAKY}
    share = {"like": "text", "title": "Few", "protocol": {"share": 20}}
    shuffled = {"like": "text", "title": "Shuffled", "protocol": {"name": "x", "folds": "shuffled"}}
    found = call({"leaky": leaky, "shuffled": shuffled, "few": share, **DEFINITIONS}, corpus, seeds=(0, 1), folds=4)
    references = found.runs.select(reference=True)
    assert references.arms == ("constant", "oracle")
    assert references.frame["fold"].tolist() == [0, 1, 2, 3] * 2
    for index in range(4):
        run, trained = only(found, "constant", fold=index), only(found, "text", fold=index, seed=0)
        assert run.test["segment_id"].tolist() == trained.test["segment_id"].tolist(), "folds that are not shuffled"
        case = next(case for case in found.cases if case.name == "text" and case.fold.index == index)
        shares = np.bincount(found.experiment.label[case.rows["train"]], minlength=3) / len(case.rows["train"])
        np.testing.assert_allclose(run.test[[f"p_{name}" for name in CLASSES]].iloc[0], shares, atol=1e-6)
    assert run.record.fold.model_dump() == {"index": 3, "count": 4, "kind": "stratified"}


def test_no_arm_is_called_as_a_reference_is(call):
    with pytest.raises(ValueError, match="arm 'constant' is called as a reference row is: choose another name"):
        call({"constant": DEFINITIONS["text"]})


def test_runs_lie_where_they_say(call):
    found = call(DEFINITIONS, folds=3, seeds=(4,))
    record = only(found, "text", fold=1).record
    path = run_path(found.experiment.root, record)
    assert path.as_posix().endswith("toledo2022/talks/text/fold-1.seed-4.json")
    assert read_run(path).record == record
