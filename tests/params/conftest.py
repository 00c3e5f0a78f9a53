"""A small menu of plug-ins, and params.json files written for one test."""

import json
from collections.abc import Sequence
from typing import Annotated, Literal

import pytest
from pydantic import Field

from params.plugin import Table
from params.reader import load


def triplet(*, margin: Annotated[float, Field(ge=0)] | Literal["soft_margin"] = 0.3, adaptive_weight: bool = False):
    """A plug-in with a union, as the batch-hard triplet has."""


def plain(*, momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9, betas: list[float] = [0.9, 0.999]):  # noqa: B006
    """A plug-in with ordinary options."""


def pk(*, P: Annotated[int, Field(ge=1)], K: Annotated[int, Field(ge=1)]):
    """A plug-in with required options."""


def decay(*, decay_step: int | list[int] = 10, decay_gamma: float = 0.1):
    """The keys of a schedule."""


def nothing():
    """A plug-in without options."""


def sized(*, resize: int | Sequence[int] | None = None):
    """The keys of a preprocessing, with a list or a number."""


def evaluate(*, ap: Literal["standard", "trapezoid"] = "standard"):
    """An evaluator's options."""


MENU = {
    "augmentation": {"images": "plain"}, "preprocessing": {"images": "sized"},
    "backbone": {"resnet18": "last_stride", "resnet50": "last_stride"}, "pooling": {"avg": "nothing", "gem": "nothing"},
    "neck": {"none": "nothing", "linear": "nothing", "bnneck": "nothing"},
    "optimizer": {"sgd": "plain", "adam": "plain"},
    "schedule": {"constant": "nothing", "step": "decay", "multistep": "decay"},
    "sampler": {"random": "nothing", "pk": "pk"}, "loss": {"softmax": "nothing", "triplet": "triplet"},
    "evaluator": {"market_evaluate": "evaluate"},
}


def last_stride(*, last_stride: Literal[1, 2] = 1):
    """A backbone's options."""


class Menu(Table):
    """A table whose plug-ins stand in this file."""

    def load(self, name):
        return globals()[self[name]]


@pytest.fixture
def tables():
    return {kind: Menu(kind, entries) for kind, entries in MENU.items()}


@pytest.fixture
def write(tmp_path):
    """Write a params.json: a dict, with batches_dir given, or text as it is."""
    def write(content):
        path = tmp_path / "params.json"
        path.write_text(content if isinstance(content, str) else json.dumps({"batches_dir": "data", **content}))
        return path
    return write


@pytest.fixture
def read(write, tables):
    """Write and load a params.json."""
    return lambda content, *overrides: load(write(content), tables, overrides=overrides)
