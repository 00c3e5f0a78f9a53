"""Optimisers by name, over named parameter groups."""

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from params.plugin import Choice, Table
from params.schema import Lr, ParameterRule

OPTIMIZERS = Table("optimizer", {
    "sgd": "trainer.optim:sgd",
    "nesterov": "trainer.optim:nesterov",
    "adam": "trainer.optim:adam",
    "amsgrad": "trainer.optim:amsgrad",
    "adamw": "trainer.optim:adamw",
    "rmsprop": "trainer.optim:rmsprop",
})

Groups = list[dict[str, Any]]
Momentum = Annotated[float, Field(ge=0, lt=1, description="share of the last step that is kept")]
Betas = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(
    min_length=2, max_length=2, description="decay of the first and of the second moment")]


def sgd(groups: Groups, weight_decay: float, *, momentum: Momentum = 0.9) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(groups, weight_decay=weight_decay, momentum=momentum)


def nesterov(groups: Groups, weight_decay: float, *, momentum: Momentum = 0.9) -> Optimizer:
    """Stochastic gradient descent with Nesterov's momentum."""
    return torch.optim.SGD(groups, weight_decay=weight_decay, momentum=momentum, nesterov=momentum > 0)


def adam(groups: Groups, weight_decay: float, *, betas: Betas = [0.9, 0.999]) -> Optimizer:  # noqa: B006
    """Adam (Kingma and Ba, 2015); weight decay is added to the gradient."""
    return torch.optim.Adam(groups, weight_decay=weight_decay, betas=(betas[0], betas[1]))


def amsgrad(groups: Groups, weight_decay: float, *, betas: Betas = [0.9, 0.999]) -> Optimizer:  # noqa: B006
    """Adam with the largest second moment so far (Reddi et al., 2018)."""
    return torch.optim.Adam(groups, weight_decay=weight_decay, betas=(betas[0], betas[1]), amsgrad=True)


def adamw(groups: Groups, weight_decay: float, *, betas: Betas = [0.9, 0.999]) -> Optimizer:  # noqa: B006
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""
    return torch.optim.AdamW(groups, weight_decay=weight_decay, betas=(betas[0], betas[1]))


def rmsprop(groups: Groups, weight_decay: float, *, momentum: Momentum = 0.9, alpha: Annotated[
        float, Field(gt=0, lt=1, description="decay of the squared gradients' average")] = 0.99) -> Optimizer:
    """RMSprop with momentum."""
    return torch.optim.RMSprop(groups, weight_decay=weight_decay, momentum=momentum, alpha=alpha)


def build_optimizer(
    choice: Choice, named: Iterable[tuple[str, str, nn.Parameter]], rules: Sequence[ParameterRule], weight_decay: float,
) -> Optimizer:
    """The chosen optimiser over (group, name, weight), each group divided by the rules that find the name.

    Of what several rules give, the last counts. A group's weights that the first and third rule find are called
    <group>.rule0_2. Weights that cannot train are left out. ValueError for a rule that finds none.
    """
    divided: dict[str, dict[str, Any]] = {}
    unused = set(range(len(rules)))
    for group, name, weight in named:
        found = [i for i, rule in enumerate(rules) if re.search(rule.match, name)]
        unused.difference_update(found)
        if weight.requires_grad:
            label = group + ".rule" * bool(found) + "_".join(map(str, found))
            divided.setdefault(label, _options(label, group, [rules[i] for i in found]))["params"].append(weight)
    for i in sorted(unused):
        raise ValueError(f'parameter_rules[{i}].match: "{rules[i].match}" finds no weight; names are like '
                         "backbone.conv1.weight, branches.0.neck.norm.bias, losses.softmax.weight")
    optimizer: Optimizer = OPTIMIZERS.build(choice, groups=list(divided.values()), weight_decay=weight_decay)
    return optimizer


def _options(label: str, group: str, rules: Sequence[ParameterRule]) -> dict[str, Any]:
    """What torch is told of such weights: their group and its rules decide the rate, in whichever stage."""
    options: dict[str, Any] = {"name": label, "group": group, "params": [], "lr": None, "lr_factor": 1.0}
    for rule in rules:
        options |= rule.model_dump(exclude={"match"}, exclude_none=True)
    return {**options, "rate": options.pop("lr")}


def set_learning_rate(optimizer: Optimizer, lr: Lr, factor: float) -> None:
    """Put every group at its own rate, or the rate it has without rules, times `factor`."""
    head = lr.base_lr if lr.fc_lr is None else lr.fc_lr
    for options in optimizer.param_groups:
        rate = options["rate"] or (lr.base_lr if options["group"] == "backbone" else head)
        options["lr"] = rate * options["lr_factor"] * factor
