"""What comes from outside is checked: unknown names, other types, all faults at once, with the mend."""

import re
from typing import Literal

import pytest
from pydantic import Field

from msakit.strict import Strict, parse


class Optimizer(Strict):
    learning_rate: float
    momentum: float | None = None


class Settings(Strict):
    epochs: int = 3
    mode: Literal["fast", "slow"] = "fast"
    layers: int | list[int] | Literal["all"] = 1
    share: int = Field(default=100, ge=1, le=100)
    optimizers: dict[str, Optimizer] = {}
    best: Optimizer | None = None


def fault(**values):
    with pytest.raises(ValueError, match=r"^settings\.yaml: ") as caught:
        parse(Settings, values, "settings.yaml")
    return str(caught.value).removeprefix("settings.yaml: ")


def test_values_are_taken_as_they_are():
    found = parse(Settings, {"layers": (1, 2), "optimizers": {"sgd": {"learning_rate": 1}}}, "here")
    assert found.layers == [1, 2]
    assert found.optimizers["sgd"].learning_rate == 1.0
    assert isinstance(found.optimizers["sgd"].learning_rate, float)
    with pytest.raises(ValueError, match="frozen"):
        found.epochs = 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 4}, "no field 'epoch': there are epochs, mode, .*Did you mean 'epochs'?"),
        ({"optimizers": {"sgd": {"learning_rat": 1.0}}}, "Did you mean 'learning_rate'?"),
        ({"best": {"momentun": 1.0}}, "there are learning_rate, momentum. Did you mean 'momentum'?"),
        ({"zzz": 4}, "share, optimizers, best.$"),
        ({"epochs": True}, "field 'epochs' should be a valid integer, not True"),
        ({"epochs": "4"}, "should be a valid integer, not '4'$"),
        ({"best": {"learning_rate": True}}, "'best.learning_rate' should be a valid number, not True"),
        ({"best": {"learning_rate": "1e-3"}}, r"not '1e-3' .YAML reads 1e-3 as text: write 1.0e-3."),
        ({"best": {"learning_rate": "much"}}, "not 'much'$"),
        ({"best": {}}, "field 'best.learning_rate' is missing"),
        ({"mode": "slwo"}, "field 'mode' should be 'fast' or 'slow', not 'slwo'"),
        ({"layers": "al"}, "^field 'layers' should be a valid integer or be a valid list or be 'all', not 'al'$"),
        ({"share": 0}, "field 'share' should be greater than or equal to 1, not 0"),
        ({"best": 3}, "field 'best' should be a valid dictionary"),
    ],
)  # fmt: skip
def test_faults_name_the_field_and_the_mend(values, message):
    assert re.search(message, fault(**values))


def test_all_faults_are_named_at_once():
    assert fault(epochs=1.5, mode="x", share=101).count(";") == 2


def test_what_is_no_mapping_is_said_to_be_none():
    with pytest.raises(ValueError, match=r"^profile: it should be a valid dictionary .*, not None"):
        parse(Settings, None, "profile")
