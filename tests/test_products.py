"""Products handed to oneDNN must stay float32, and the setting that leads there must not outlive the block."""

import pytest
import torch

from msakit import products
from msakit.products import onednn_products, stays_float32, wide

WIDE = torch.nn.Linear(256, 300)


def setting() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision


def test_products_have_float32_accuracy_whatever_the_processor():
    torch.manual_seed(0)
    left, right, bias = torch.randn(3, 130, 200), torch.randn(70, 200), torch.randn(70)
    exact = left.double() @ right.double().T + bias.double()
    with onednn_products(WIDE):
        found = torch.nn.functional.linear(left, right, bias)
    # bfloat16 inside would be off by about 0.05 here.
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-4)


def test_the_setting_holds_inside_and_is_put_back_even_after_an_error():
    before = setting()

    @onednn_products(WIDE)
    def fails() -> None:
        assert setting() == ("bf16" if stays_float32() else before)
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fails()
    assert setting() == before


def test_nothing_is_permitted_where_products_would_be_coarser(monkeypatch):
    monkeypatch.setattr(products, "stays_float32", lambda: False)
    before = setting()
    with onednn_products(WIDE):
        assert setting() == before


def test_narrow_models_stay_where_calls_are_cheap():
    narrow = torch.nn.Sequential(torch.nn.Linear(1024, 128), torch.nn.ReLU(), torch.nn.Conv1d(512, 512, 1))
    before = setting()
    with onednn_products(narrow):
        assert setting() == before
    assert wide(torch.nn.Sequential(narrow, WIDE))


def test_the_trial_tells_bfloat16_from_float32(monkeypatch):
    """As on a processor whose units for bfloat16 oneDNN would use."""
    coarse = torch.Tensor.__matmul__

    def in_bfloat16(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return coarse(left.bfloat16(), right.bfloat16()).float()

    monkeypatch.setattr(torch.Tensor, "__matmul__", in_bfloat16)
    assert not stays_float32.__wrapped__()
