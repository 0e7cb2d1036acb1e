import pytest
import torch

from msakit.models.layers.dropout import Dropout, dropout_mask


@pytest.mark.parametrize("p", [0.2, 0.5, 0.01])
def test_units_fall_with_their_probability_and_the_mean_stays(p):
    torch.manual_seed(0)
    values = torch.full((311, 1009), 3.0)
    found = Dropout(p)(values)
    kept = found != 0
    share, error = 1 - kept.float().mean(), (p * (1 - p) / values.numel()) ** 0.5
    assert abs(share - p) < 4 * error
    torch.testing.assert_close(found[kept], torch.full((int(kept.sum()),), 3 / (1 - p)), rtol=1e-4, atol=0)
    # The four units of one draw do not follow each other, nor do rows or columns.
    first, second = kept.flatten()[:-1].float() - (1 - p), kept.flatten()[1:].float() - (1 - p)
    assert abs((first * second).mean()) < 4 * p * (1 - p) / values.numel() ** 0.5
    assert abs(kept.float().mean(0) - (1 - p)).max() < 6 * (p * (1 - p) / 311) ** 0.5
    assert abs(kept.float().mean(1) - (1 - p)).max() < 6 * (p * (1 - p) / 1009) ** 0.5


def test_nothing_is_dropped_in_evaluation_or_at_zero():
    values = torch.randn(5, 3)
    assert Dropout(0.9).eval()(values) is values
    assert Dropout(0.0)(values) is values


def test_gradients_pass_where_units_do():
    values = torch.ones(7, 11, requires_grad=True)
    found = Dropout(0.5)(values)
    found.sum().backward()
    assert torch.equal(values.grad, found.detach())


def test_the_seed_repeats_it_and_a_generator_of_its_own_leaves_torchs_alone():
    shape, cpu = torch.Size((3, 7)), torch.device("cpu")
    torch.manual_seed(5)
    state, expected = torch.get_rng_state(), dropout_mask(shape, 0.4, cpu)
    again = dropout_mask(shape, 0.4, cpu, torch.Generator().manual_seed(5))
    assert torch.equal(expected, again)
    assert not torch.equal(expected, dropout_mask(shape, 0.4, cpu))
    torch.set_rng_state(state)
    dropout_mask(shape, 0.4, cpu, torch.Generator().manual_seed(6))
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_stays():
    assert Dropout(0.5)(torch.ones(4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_probability_is_wanted():
    for p in (1.0, -0.1):
        with pytest.raises(ValueError, match="probability"):
            Dropout(p)
