"""Optimisers by name, over named parameter groups."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from params.plugin import Choice, Table

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
    choice: Choice, groups: Mapping[str, Iterable[nn.Parameter]], rates: dict[str, float], weight_decay: float,
) -> Optimizer:
    """The chosen optimiser over named groups, each at its own learning rate; what is frozen is left out."""
    named: Groups = []
    for name, parameters in groups.items():
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        if trainable:
            named.append({"name": name, "params": trainable, "lr": rates[name], "base_lr": rates[name]})
    optimizer: Optimizer = OPTIMIZERS.build(choice, groups=named, weight_decay=weight_decay)
    return optimizer


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Put every group at its own base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
