"""The course of the learning rate: a pure function of how far the run has come."""

from collections.abc import Callable
from typing import Annotated

import math

from pydantic import Field

from params.plugin import Table
from params.schema import Lr

SCHEDULES = Table("schedule", {
    "constant": "trainer.schedule:constant",
    "step": "trainer.schedule:step",
    "multistep": "trainer.schedule:multistep",
    "cosine": "trainer.schedule:cosine",
})

Course = Callable[[int], float]  # units since the decay began to count -> factor
Units = Annotated[int, Field(ge=1, le=10**9)]
Gamma = Annotated[float, Field(gt=0, le=1)]


def constant() -> Course:
    """The same rate throughout."""
    return lambda t: 1.0


def step(*, decay_step: Annotated[Units, Field(description="units between decays")],
         decay_gamma: Annotated[Gamma, Field(description="factor of each decay")] = 0.1) -> Course:
    """decay_gamma ** floor(t / decay_step)."""
    return lambda t: float(decay_gamma ** (t // decay_step))


def multistep(*, decay_step: Annotated[list[Units], Field(min_length=1, description="units at which the rate decays")],
              decay_gamma: Annotated[Gamma, Field(description="factor of each decay")] = 0.1) -> Course:
    """decay_gamma ** (number of decay steps reached)."""
    return lambda t: float(decay_gamma ** sum(t >= milestone for milestone in decay_step))


def cosine(total: int, *, min_factor: Annotated[
        float, Field(ge=0, le=1, description="factor at the end of the run")] = 0.0) -> Course:
    """Half a cosine from 1 down to min_factor over `total` units (Loshchilov and Hutter, SGDR, 2017, eq. 5)."""
    return lambda t: min_factor + (1 - min_factor) * 0.5 * (1 + math.cos(math.pi * min(t / total, 1.0)))


class LearningRate:
    """Factor on every group's learning rate, from the epoch and the step, both counted from 0 at the stage's begin."""

    def __init__(self, lr: Lr, *, unit: str, epochs: int, steps_per_epoch: int) -> None:
        self.unit = unit
        self._warmup = lr.warmup
        self._first = lr.warmup_factor
        self._offset = lr.warmup if lr.decay_after_warmup else 0
        length = epochs if unit == "epoch" else epochs * steps_per_epoch
        self._course: Course = SCHEDULES.build(lr.choice, total=max(length - self._offset, 1))

    def factor(self, epoch: int, step: int) -> float:
        """Warm-up factor times the schedule's; `step` counts optimiser steps."""
        t = epoch if self.unit == "epoch" else step
        return self._warmup_factor(t) * self._course(max(t - self._offset, 0))

    def _warmup_factor(self, t: int) -> float:
        if t >= self._warmup:
            return 1.0
        if self._first is None:
            return (t + 1) / self._warmup
        return self._first + (1 - self._first) * t / self._warmup
