"""Optimisers, over named groups."""

from copy import deepcopy

import pytest
import torch

from params.plugin import Choice
from params.schema import Lr, ParameterRule
from trainer.optim import OPTIMIZERS, build_optimizer, set_learning_rate


def make(name, weights, rules=(), **options):
    """An optimiser over weights by name; the part is the name's beginning."""
    named = [(key.split(".")[0], key, weight) for key, weight in weights.items()]
    optimizer = build_optimizer(Choice(name, options), named, [ParameterRule(**rule) for rule in rules], 0.01)
    set_learning_rate(optimizer, Lr(base_lr=0.1, fc_lr=0.2), 1.0)
    return optimizer


def weight(**options):
    return torch.nn.Parameter(torch.ones(1), **options)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_goes_downhill_and_resumes_exactly(name):
    def steps(optimizer, weight, count):
        for _ in range(count):
            optimizer.zero_grad()
            (weight ** 2).sum().backward()
            optimizer.step()

    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = make(name, {"backbone.w": weight}, [{"match": "w", "lr": 0.01}])
    steps(optimizer, weight, 3)
    copy = torch.nn.Parameter(weight.detach().clone())
    resumed = make(name, {"backbone.w": copy}, [{"match": "w", "lr": 0.01}])
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    steps(optimizer, weight, 3)
    steps(resumed, copy, 3)
    assert torch.equal(weight, copy)
    assert (weight ** 2).sum() < 5.0


def test_the_backbone_has_its_own_rate_and_what_cannot_train_is_left_out():
    moving, still = weight(), weight(requires_grad=False)
    optimizer = make("sgd", {"backbone.w": weight(), "neck.w": moving, "neck.bias": still, "losses.c": weight()})
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {"backbone": (0.1, 0.01), "neck": (0.2, 0.01), "losses": (0.2, 0.01)}
    assert optimizer.param_groups[1]["params"] == [moving]


def test_of_what_rules_that_find_a_name_give_the_last_counts():
    rules = [{"match": "bias", "weight_decay": 0.0, "lr_factor": 2.0}, {"match": "^losses", "lr": 0.5}]
    optimizer = make("sgd", {"backbone.w": weight(), "backbone.bias": weight(), "losses.bias": weight()}, rules)
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert rates == {"backbone": (0.1, 0.01), "backbone.rule0": (0.2, 0.0), "losses.rule0_1": (1.0, 0.0)}


def test_a_rule_that_finds_no_weight_is_refused():
    with pytest.raises(ValueError, match=r'^parameter_rules\[0\].match: "bnn" finds no weight; names are like'):
        make("sgd", {"backbone.w": weight()}, [{"match": "bnn", "lr": 0.1}])


def test_the_factor_scales_every_group_s_own_rate():
    optimizer = make("adam", {"backbone.w": weight(), "classifier.w": weight()})
    set_learning_rate(optimizer, Lr(base_lr=0.1, fc_lr=1.0), 0.5)
    set_learning_rate(optimizer, Lr(base_lr=0.1, fc_lr=1.0), 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.1])
