"""The one schema of an arm: what varies another one, what is chosen, what a variant changes."""

import pytest

from msakit.runs.arm import Arm, read_arms, select, with_variants

DEFINITIONS = {
    "cms": {"like": "mag", "title": "CMS", "args": {"shift": "cms"}},  # named before what it varies
    "mag": {
        "title": "MAG",
        "group": "Shift",
        "model": "shifted_bert",
        "args": {"shift": "mag", "width": 2},
        "inputs": {
            "text": {"encoder": "text", "frozen": False},
            "audio": {"encoder": "audio", "align": "words"},
            "vision": "vision",
        },
        "loss": {"contrastive": {"weight": 1, "temperature": 0.1}},
        "protocol": {"share": 50},
        "settings": {"epochs": 3},
    },
}


def read(known=None, **definitions):
    return read_arms(DEFINITIONS | definitions, known)


def fault(known=None, **definitions):
    with pytest.raises(ValueError, match=r"^arms") as caught:
        read(known, **definitions)
    return str(caught.value)


def test_an_arm_varies_another():
    arms = read()
    assert list(arms) == ["cms", "mag"]
    cms, mag = arms["cms"], arms["mag"]
    assert cms.title == "CMS"
    assert cms.args == {"shift": "cms", "width": 2}
    for name in ("group", "model", "inputs", "loss", "protocol", "settings"):
        assert getattr(cms, name) == getattr(mag, name), name
    assert list(cms.inputs) == ["text", "audio", "vision"]
    assert (mag.inputs["vision"].encoder, mag.inputs["vision"].frozen) == ("vision", True)


def test_dictionaries_are_merged_and_null_takes_one_out():
    given = {
        "inputs": {"text": {"layer": [1, 2]}, "audio": "other", "vision": None},
        "loss": {"contrastive": {"weight": 0.5}},
        "settings": {"epochs": 9, "rate": 1.0},
        "args": {"width": None},
    }
    arm = read(mine={"like": "cms", "title": "Mine"} | given)["mine"]
    assert {name: (each.encoder, each.layer) for name, each in arm.inputs.items()} == {
        "text": ("text", [1, 2]),
        "audio": ("other", None),
    }
    assert arm.inputs["audio"].align == "words", "another encoder leaves the rest of the input as it is"
    assert (arm.loss.contrastive.weight, arm.loss.contrastive.temperature) == (0.5, 0.1)
    assert arm.settings == {"epochs": 9, "rate": 1.0}
    assert arm.args == {"shift": "cms", "width": None}, "null is a value of an argument"
    assert read(mine={"like": "cms", "title": "Mine", "loss": {"contrastive": None}})["mine"].loss.contrastive is None


def test_own_arms_vary_known_ones():
    own = read_arms({"mine": {"like": "mag", "title": "Mine"}}, read(), "own_arms")
    assert list(own) == ["mine"]
    assert own["mine"].model == "shifted_bert"
    with pytest.raises(ValueError, match=r"own_arms: there is an arm 'mag' already: .* say like: mag"):
        read_arms({"mag": {"title": "Mine"}}, read(), "own_arms")


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"like": "mga", "title": "x"}, "x is like 'mga', which is no arm. Did you mean 'mag'?"),
        ({"like": "y", "title": "x"}, "arm 'x' is like itself: x like y like x"),
        ({"like": "mag"}, "arms, x: field 'title' is missing"),
        ({"like": "mag", "title": "x", "inputs": {"text": {"layr": 3}}}, "Did you mean 'layer'?"),
        ({"like": "mag", "title": "x", "protocol": {"stop": "test"}}, "needs a name that begins with as_published"),
        ({"like": "mag", "title": "x", "model": "mean"}, "model: mean wants args: {of: [arm, ...]}"),
        (None, "arm 'x' is None: give it a definition"),
        ("mag", "arm 'x' is 'mag': give it a definition"),
    ],
)
def test_faults_are_refused(definition, message):
    assert message in fault(x=definition, y={"like": "x", "title": "y"})


@pytest.mark.parametrize("name", ["Mine", "a/b", "..", "", "-x", "a b", ".x"])
def test_a_name_is_one_of_a_folder(name):
    assert f"arm {name!r} cannot name a folder" in fault(**{name: {"like": "mag", "title": "x"}})


def test_what_decides_the_training_is_apart_from_what_is_shown_and_scored():
    arm = read()["mag"]
    shown = arm.model_copy(update={"title": "x", "group": "y", "like": "z"})
    protocol = arm.protocol.model_copy(update={"name": "as_published", "threshold": "logits"})
    assert arm.model_copy(update={"protocol": protocol}).training() == shown.training() == arm.training()
    for change in ({"model": "other"}, {"args": {}}, {"loss": read()["mag"].loss.model_copy(update={"name": "l1"})}):
        assert arm.model_copy(update=change).training() != arm.training()
    for change in ({"stop": "test"}, {"folds": "shuffled"}, {"drop_last": True}, {"share": 5}):
        assert arm.model_copy(update={"protocol": arm.protocol.model_copy(update=change)}).training() != arm.training()


def test_arms_are_chosen_by_patterns_in_their_own_order():
    arms = {name: Arm(title=name, model="m") for name in ("layer1-text", "layer2-text", "best-text", "best-audio")}
    assert list(select(arms, None)) == list(arms)
    assert list(select(arms, ["best-audio", "layer*"])) == ["layer1-text", "layer2-text", "best-audio"]
    assert list(select(arms, [])) == []
    with pytest.raises(ValueError, match=r"no arm 'best-txet': choose from layer1-text, .*Did you mean 'best-text'?"):
        select(arms, ["best-txet"])


def test_variants_follow_their_arms_under_names_of_their_own():
    arms = read(late={"title": "Late", "model": "mean", "args": {"of": ["mag", "cms"]}})
    found = with_variants(arms, {"small": {"encoders": {"text": "minilm"}, "settings": {"epochs": 9}}, "same": {}})
    assert list(found) == [*arms, *(f"{name}@{variant}" for variant in ("small", "same") for name in arms)]
    small = found["mag@small"]
    assert (small.title, small.like, small.group) == ("MAG [small]", "mag", "Shift")
    assert (small.inputs["text"].encoder, small.inputs["text"].frozen) == ("minilm", False)
    assert small.inputs["audio"] == arms["mag"].inputs["audio"]
    assert small.settings == {"epochs": 9}
    assert found["late@small"].args == {"of": ["mag@small", "cms@small"]}
    assert found["mag"] == arms["mag"]
    # A mean of arms that are not chosen is no mean of others in their stead.
    assert with_variants({"late": arms["late"]}, {"same": {}})["late@same"].args["of"] == ["mag@same", "cms@same"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("x", {"arms": []}, "variant 'x' has 'arms': a variant changes settings and encoders"),
        ("MiniLM", {}, "variant 'MiniLM' cannot name a folder"),
        ("x", {"encoders": {"txt": "minilm"}}, "exchanges encoder 'txt', which no arm has. Did you mean 'text'?"),
    ],
)
def test_faulty_variants_are_refused(name, changes, message):
    with pytest.raises(ValueError, match="variant") as caught:
        with_variants(read(), {name: changes})
    assert message in str(caught.value)
