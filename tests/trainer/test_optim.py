"""Optimisers, over named groups."""

from copy import deepcopy

import pytest
import torch

from params import Choice
from trainer.optim import OPTIMIZERS, build_optimizer, set_learning_rate


def make(name, groups, rates, **options):
    return build_optimizer(Choice(name, options), groups, rates, weight_decay=0.01)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_goes_downhill_and_resumes_exactly(name):
    def steps(optimizer, weight, count):
        for _ in range(count):
            optimizer.zero_grad()
            (weight ** 2).sum().backward()
            optimizer.step()

    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = make(name, {"backbone": [weight]}, {"backbone": 0.01})
    steps(optimizer, weight, 3)
    copy = torch.nn.Parameter(weight.detach().clone())
    resumed = make(name, {"backbone": [copy]}, {"backbone": 0.01})
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    steps(optimizer, weight, 3)
    steps(resumed, copy, 3)
    assert torch.equal(weight, copy)
    assert (weight ** 2).sum() < 5.0


def test_groups_keep_their_names_and_rates_and_frozen_weights_are_left_out():
    moving, frozen = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1), requires_grad=False)
    optimizer = make("sgd", {"backbone": [frozen], "neck": [moving, frozen]}, {"backbone": 0.1, "neck": 0.2})
    (group,) = optimizer.param_groups
    assert (group["name"], group["lr"], group["params"]) == ("neck", 0.2, [moving])


def test_the_factor_scales_every_group_s_own_rate():
    groups = {name: [torch.nn.Parameter(torch.ones(1))] for name in ("backbone", "classifier")}
    optimizer = make("adam", groups, {"backbone": 0.1, "classifier": 1.0})
    set_learning_rate(optimizer, 0.5)
    set_learning_rate(optimizer, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.1])
