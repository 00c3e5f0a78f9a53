import pytest
import torch

from params.plugin import Choice
from trainer.pooling import POOLINGS


@pytest.fixture
def maps():
    """One image, two channels: 1, 3, 5, 7 and four times 2."""
    return torch.tensor([[[[1.0, 3.0], [5.0, 7.0]], [[2.0, 2.0], [2.0, 2.0]]]])


@pytest.mark.parametrize("name, options, pooled", [
    ("avg", {}, [4.0, 2.0]),
    ("max", {}, [7.0, 2.0]),
    ("avg+max", {}, [11.0, 4.0]),
    ("gem", {"p": 1.0}, [4.0, 2.0]),
    ("gem", {"p": 2.0}, [21**0.5, 2.0]),  # (1 + 9 + 25 + 49) / 4 = 21
    ("gem", {"p": 3.0}, [124 ** (1 / 3), 2.0]),  # (1 + 27 + 125 + 343) / 4 = 124
])
def test_pooling_gives_the_value_worked_out_by_hand(maps, name, options, pooled):
    torch.testing.assert_close(POOLINGS.build(Choice(name, options))(maps), torch.tensor([pooled]))


@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_of_a_dead_map_has_a_finite_gradient(name):
    pooling = POOLINGS.build(Choice(name))
    maps = torch.zeros(2, 3, 4, 2, requires_grad=True)
    pooling(maps).sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in (maps, *pooling.parameters()))


@pytest.mark.parametrize("name", sorted(set(POOLINGS) - {"gem"}))
def test_only_gem_takes_a_key(name):
    assert not POOLINGS.options(name).model_fields
    assert set(POOLINGS.options("gem").model_fields) == {"p", "eps"}


def test_the_exponent_of_gem_is_trained(maps):
    pooling = POOLINGS.build(Choice("gem"))
    pooling(maps).sum().backward()
    assert pooling.p.grad > 0  # a larger exponent moves the mean of 1, 3, 5, 7 towards 7


def test_gem_of_a_half_precision_map_is_computed_in_single(maps):
    pooling = POOLINGS.build(Choice("gem"))
    small = maps * 1e-3  # cubes of which float16 cannot hold
    torch.testing.assert_close(pooling(small.half()), pooling(small), rtol=1e-3, atol=0)
