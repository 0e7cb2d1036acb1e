"""What every entry of MODELS promises, and which promise a broken class is said to break."""

import dataclasses
from typing import Any, ClassVar

import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn

from msakit.models import MODELS, Frames, Grid, Pretrained, TokenVectors, build_model, model_class, reference_of
from msakit.models.check import CHECKS, cases, check_model, failure


@pytest.fixture(scope="module", params=sorted(MODELS))
def case(request):
    """The cases of one model; its tiny encoders lie in a folder of their own."""
    with cases(model_class(request.param)) as found:
        yield found


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_every_model_keeps_the_contract(case, check):
    faults = {name: failure(check, each) for name, each in case.items()}
    assert not {name: fault for name, fault in faults.items() if fault}


def failed(kind, change=lambda given: given, **fields):
    """The checks that a class fails for regression, with their reasons; change: of each of its inputs."""
    with cases(kind) as found:
        case = next(case for name, case in found.items() if name.startswith("regression"))
        inputs = {modality: change(given) for modality, given in case.inputs.items()}
        case = dataclasses.replace(case, inputs=inputs, **fields)
        return {check: reason for check in CHECKS if (reason := failure(check, case))}


# What the plain build of a model leaves out.
VARIATIONS: list[tuple[str, dict[str, Any]]] = [
    ("gated", {"decoder": "concat"}),
    ("joint", {"attention_over": "single"}),
    ("shifted_bert", {"shift": "mag", "layer": 1, "width": 2}),
    ("shifted_bert", {"contexts": "verbal", "context_pooling": "mean", "contrast": ["text", "audio", "vision"]}),
    ("shifted_bert", {"contrast": ["text", "audio"], "clr_text": "post"}),
]


@pytest.mark.parametrize(("name", "args"), VARIATIONS, ids=str)
def test_contract_of_variations(name, args):
    assert failed(model_class(name), args=args) == {}


@pytest.mark.parametrize("name", ["clip", "joint", "gated"])
def test_contract_of_frozen_encoders_and_mixed_layers(name):
    def change(given):
        return Frames(given.dim, 2) if isinstance(given, Frames) else dataclasses.replace(given, frozen=True)

    assert failed(model_class(name), change) == {}


class Toy(nn.Module, PyTorchModelHubMixin):
    """The smallest model of the contract: means of frames, a linear layer."""

    INPUTS: ClassVar[dict[str, tuple[type, ...]]] = {"text": (Frames,), "audio": (Frames,)}

    def __init__(self, dims: dict[str, int], n_classes: int | None = None) -> None:
        super().__init__()
        self.modalities, self.n_classes = tuple(sorted(dims)), n_classes
        self.output = nn.Linear(sum(dims.values()), n_classes or 1)

    @classmethod
    def build(cls, inputs, n_classes=None, **args):
        return cls({name: each.dim for name, each in inputs.items()}, n_classes, **args)

    def forward_features(self, batch):
        means = []
        for name in self.modalities:
            frames, lengths, _ = batch[name]
            owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
            sums = frames.new_zeros(len(lengths), frames.shape[-1]).index_add(0, owner, frames)
            means.append(sums / lengths.clamp_min(1)[:, None])
        return {"mean": torch.cat(means, -1)}

    def forward_head(self, features):
        prediction = self.output(features["mean"])
        return {"prediction": prediction if self.n_classes else prediction.squeeze(-1)}

    def forward(self, batch):
        return self.forward_head(self.forward_features(batch))


def test_a_sound_class_of_ones_own_passes():
    assert failed(Toy) == {}


class Column(Toy):
    def forward_head(self, features):
        return {"prediction": self.output(features["mean"])}


class TwoWays(Toy):
    def forward(self, batch):
        return {"prediction": super().forward(batch)["prediction"] * 2}


class Infinite(Toy):
    def forward_head(self, features):
        return super().forward_head(features) | {"log": torch.zeros(4).log()}


class Unused(Toy):
    def __init__(self, dims: dict[str, int], n_classes: int | None = None) -> None:
        super().__init__(dims, n_classes)
        self.left_over = nn.Linear(2, 2)


class BatchMean(Toy):
    def forward_head(self, features):
        return super().forward_head({"mean": features["mean"] - features["mean"].mean(0)})


class Positions(Toy):
    def forward_head(self, features):
        prediction = super().forward_head(features)["prediction"]
        return {"prediction": prediction + torch.arange(len(prediction))}


class Constant(Toy):
    def forward_head(self, features):
        return super().forward_head({"mean": torch.ones_like(features["mean"])})


class Unsaved(Toy):
    def __init__(self, dims: dict[str, int], n_classes: int | None = None) -> None:
        super().__init__(dims, n_classes)
        self.scale = torch.rand(())

    def forward_head(self, features):
        return {"prediction": super().forward_head(features)["prediction"] * (1 + self.scale)}


class Ordered(Toy):
    """Takes its modalities in an order that config.json does not keep."""

    def __init__(self, dims: dict[str, int], n_classes: int | None = None) -> None:
        super().__init__(dims, n_classes)
        self.modalities = tuple(dims)


class Shared(Toy):
    def __deepcopy__(self, memo):
        return self


class Unseeded(Toy):
    builds = 0

    def __init__(self, dims: dict[str, int], n_classes: int | None = None) -> None:
        super().__init__(dims, n_classes)
        Unseeded.builds += 1
        nn.init.constant_(self.output.bias, float(Unseeded.builds))


class Divides(Toy):
    def forward_features(self, batch):
        ones = torch.stack([batch[name].lengths / batch[name].lengths for name in self.modalities])
        return {"mean": super().forward_features(batch)["mean"] * ones.prod(0)[:, None]}


class Unbuilt(Toy):
    @classmethod
    def build(cls, inputs, n_classes=None, **args):
        raise KeyError("audio")


@pytest.mark.parametrize(
    ("broken", "check", "reason"),
    [
        (Column, "shapes", "prediction has the shape (4, 1), not (4,)"),
        (TwoWays, "shapes", "features and head apart: the prediction differs by"),
        (Infinite, "finite", "log is not finite"),
        (Unused, "gradients", "no gradient reaches left_over.weight, left_over.bias: leave them out, or freeze them"),
        (BatchMean, "padding", "segment 0 alone: the prediction differs by"),
        (Positions, "order", "another order of the batch: the prediction differs by"),
        (Constant, "order", "the prediction is the same for every segment"),
        (Unsaved, "saving", "saved and loaded: the prediction differs by"),
        (Ordered, "saving", "saved and loaded: the prediction differs by"),
        (Shared, "saving", "once a copy has changed: the prediction differs by"),
        (Unseeded, "seeding", "built and run twice with the same seed, it gives different outputs"),
        (Divides, "absence", "without any frame of text the prediction is not finite"),
        (Unbuilt, "shapes", "KeyError: 'audio'"),
    ],
)
def test_a_broken_promise_is_named(broken, check, reason):
    assert failed(broken)[check].startswith(reason)


FILE = '''
import dataclasses

from test_model_contract import Toy


@dataclasses.dataclass
class Options:
    """Needs its module to be found by name."""

    size: int = 3


class Mine(Toy):
    pass
'''


def test_a_class_of_a_file_works_wherever_a_name_does(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    results = check_model(f"{path}:Mine")
    assert {result.check for result in results} == set(CHECKS)
    assert all(result.passed for result in results)
    monkeypatch.chdir(tmp_path)
    built = build_model("mine.py:Mine", {"text": Frames(7)}, 3)
    assert built.output.weight.shape == (3, 7)
    # An edited file is read anew, as notebooks need it.
    path.write_text(FILE.replace("    pass\n", "    edited = True\n"))
    assert model_class("mine.py:Mine").edited


def test_references_are_resolved_and_found_again():
    gated = build_model("gated", {"text": Frames(7)}, args={"heads": 2}, defaults={"width": 8, "learning_rate": 3})
    assert reference_of(gated) == "gated"
    assert gated.encoders["text"].project[0].out_features == 8
    assert model_class("msakit.models.gated:GatedFusion") is type(gated)
    assert reference_of(Toy({"text": 3})) == f"{__name__}:Toy"


def test_wrong_references_inputs_and_arguments_are_refused(tmp_path):
    for reference, message in (
        ("gate", r"no model 'gate': choose from clip, gated, .*Did you mean 'gated'\?"),
        ("msakit.models.gated:GatedFusio", r"has no class 'GatedFusio'. Did you mean 'GatedFusion'\?"),
        ("no.such.module:Class", "no module 'no.such.module'"),
        (f"{tmp_path}/none.py:Class", "no file .*none.py"),
    ):
        with pytest.raises(ValueError, match=message):
            model_class(reference)
        (result,) = check_model(reference)
        assert not result.passed
    (result,) = check_model("torch.nn:Linear")
    assert result.reason.startswith("it has no INPUTS, build, forward_features")
    for name, inputs, args, message in (
        ("gated", {"text": Pretrained("x")}, {}, "'gated' takes text as Frames, not text as Pretrained"),
        ("gated", {"image": Grid(3)}, {}, "'gated' takes vision, audio, text, not image as Grid"),
        ("shifted_bert", {"audio": Frames(3)}, {}, "takes audio as TokenVectors or Grid, not audio as Frames"),
        ("gated", {"text": Frames(3)}, {"widht": 3}, r"no argument 'widht': there are .*Did you mean 'width'\?"),
        ("shifted_bert", {"audio": TokenVectors(3)}, {}, "fine-tuned: give a pre-trained one as text, not None"),
        ("shifted_bert", {"text": Pretrained("x"), "audio": TokenVectors(3), "vision": Grid(3)}, {}, "aligned alike"),
        ("clip", {"text": Pretrained("x")}, {}, "give both the same encoder"),
        ("clip", {"text": Pretrained("x"), "image": Pretrained("y")}, {}, "give both the same encoder"),
        ("visualbert", {"text": Pretrained("x", True), "image": Grid(3)}, {}, "fine-tuned on a text and the cells"),
    ):
        with pytest.raises(ValueError, match=message):
            build_model(name, inputs, args=args)
