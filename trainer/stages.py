"""The stages of a run: which weights rest for how long, and at which learning rates the others train."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from torch import nn

from params.schema import Lr, Params
from trainer.criterion import Criterion
from trainer.model import Embedder
from trainer.schedule import LearningRate


class Span(NamedTuple):
    """One stage in place: its first epoch, the patterns of what rests, its rates and their course."""

    first: int
    freeze: Sequence[str]
    best: bool  # whether one of its epochs may be the best
    lr: Lr
    course: LearningRate


class Stages:
    """The run's stages, the last one training everything, or resting to the end where the params say so.

    Learning rates count from the first epoch of their stage.
    """

    def __init__(self, params: Params, unit: str, steps_per_epoch: int) -> None:
        self._steps_per_epoch = steps_per_epoch
        self.spans = list(_spans(params, unit, steps_per_epoch))

    def at(self, epoch: int) -> Span:
        """The stage of an epoch, counted from 0."""
        return [span for span in self.spans if span.first <= epoch][-1]

    def factor(self, epoch: int, step: int) -> float:
        """The factor on the stage's learning rates; `step` counts optimiser steps since the run began."""
        span = self.at(epoch)
        return span.course.factor(epoch - span.first, step - span.first * self._steps_per_epoch)


def _spans(params: Params, unit: str, steps_per_epoch: int) -> Iterator[Span]:
    first = 0
    for stage in [*params.stages, None]:  # the run's own last
        left = params.epoch - first
        epochs = left if stage is None or stage.epochs is None else min(stage.epochs, left)
        if epochs:
            lr = params.lr if stage is None or stage.lr is None else stage.lr
            course = LearningRate(lr, unit=lr.unit or unit, epochs=epochs, steps_per_epoch=steps_per_epoch)
            freeze, best = ((), True) if stage is None else (stage.freeze, stage.best)
            yield Span(first, freeze, best, lr, course)
        first += epochs


def too_long(params: Params) -> int | None:
    """The first stage that no epoch is left for, or that is longer than those that are."""
    left = params.epoch
    for i, stage in enumerate(params.stages):
        epochs = stage.epochs or left
        if not 0 < epochs <= left:
            return i
        left -= epochs
    return None


class Freezer:
    """Lets the weights of a network and its losses rest and train again by their names."""

    def __init__(self, network: Embedder, criterion: Criterion) -> None:
        self._network, self._criterion = network, criterion
        self._weights = [*network.named_parameters(), *criterion.named_parameters()]
        self._trains = {name: weight.requires_grad for name, weight in self._weights}

    def freeze(self, patterns: Iterable[str]) -> None:
        """Let those rest that a pattern finds; all others train that trained at first.

        A module whose weights all rest keeps its batch norms' statistics. ValueError for a pattern that finds none,
        and where nothing is left to train.
        """
        resting = set()
        for pattern in patterns:
            found = {name for name in self._trains if re.search(pattern, name)}
            if not found:
                raise ValueError(f'"{pattern}" finds no weight; names are like backbone.conv1.weight, '
                                 "branches.0.neck.norm.bias, losses.softmax.weight")
            resting |= found
        if not any(trains and name not in resting for name, trains in self._trains.items()):
            raise ValueError("leaves no weight to train; let some of them go")
        for name, weight in self._weights:
            weight.requires_grad_(self._trains[name] and name not in resting)
        for whole in (self._network, self._criterion):
            whole.rest(list(_wholly(whole, resting)))


def _wholly(whole: nn.Module, resting: set[str]) -> Iterator[nn.Module]:
    """The modules within that have weights, all of which rest."""
    for prefix, module in list(whole.named_modules())[1:]:
        names = [f"{prefix}.{name}" for name, _ in module.named_parameters()]
        if names and resting.issuperset(names):
            yield module
