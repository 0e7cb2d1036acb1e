"""Every model of the package keeps the contract of msakit.models, and a class that breaks it is told how."""

import pytest
from torch import nn

from msakit.models import MODELS, Frames, build_model, model_class
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


BROKEN = '''
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn

from msakit.models import Frames


class Sum(nn.Module, PyTorchModelHubMixin):
    """The mean frame of each segment and a linear layer."""

    INPUTS = {"text": (Frames,)}

    def __init__(self, dim: int, n_classes: int | None = None) -> None:
        super().__init__()
        self.n_classes, self.modalities = n_classes, ("text",)
        self.head = nn.Linear(dim, n_classes or 1)

    @classmethod
    def build(cls, inputs, n_classes=None):
        return cls(inputs["text"].dim, n_classes)

    def forward_features(self, batch):
        packed = batch["text"]
        means = [part.mean(0) for part in packed.frames.split(packed.lengths.tolist())]
        return {"text": torch.stack(means)}

    def forward_head(self, features):
        prediction = self.head(features["text"])
        return {"prediction": prediction if self.n_classes else prediction.squeeze(-1)}

    def forward(self, batch):
        return self.forward_head(self.forward_features(batch))


class OfTheBatch(Sum):
    """What a segment gets depends on the others."""

    def forward_features(self, batch):
        features = super().forward_features(batch)
        return {"text": features["text"] - features["text"].mean(0)}
'''


def test_a_class_of_a_file_is_checked(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(BROKEN)
    good, bad = (check_model(f"{path}:{name}") for name in ("Sum", "OfTheBatch"))
    assert all(result.passed for result in good)
    assert {result.check for result in good} == set(CHECKS)
    faults = {result.check for result in bad if not result.passed}
    assert "padding" in faults
    assert "saving" not in faults
    (missing,) = check_model(f"{path}:Frames")
    assert "it has no" in missing.reason


def test_an_unknown_model_or_input_is_named():
    with pytest.raises(ValueError, match="Did you mean 'gated'"):
        model_class("gaited")
    with pytest.raises(ValueError, match="takes text as"):
        build_model("joint", {"text": Frames(3)})
    assert isinstance(build_model("gated", {"text": Frames(3)}), nn.Module)
