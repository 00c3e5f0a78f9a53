"""The weighted sum of the losses, each also reported by name."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from data.records import Batch
from trainer.classifiers import ClassifierKind
from trainer.output import Loss, Output, each
from trainer.resting import Resting


Rows = Literal["batch", "anchors"]


class Term(NamedTuple):
    """A loss of the sum."""

    name: str
    loss: Loss
    weight: float = 1.0
    of: Rows = "batch"  # which images it sees


class Criterion(Resting):
    """(Output, Batch) -> (sum of weight x loss, scalars by name), in float32 or wider outside autocast.

    The scalars are every term, weighted, as "loss/<name>" and what a loss reports as "<name>/<scalar>". The
    second loss of one name is called <name>_2.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        names = _numbered(term.name for term in terms)
        self._terms = [term._replace(name=name) for name, term in zip(names, terms, strict=True)]
        self.losses = nn.ModuleDict({term.name: term.loss for term in self._terms})

    def forward(self, output: Output, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        terms: dict[str, Tensor] = {}
        scalars: dict[str, Tensor] = {}
        with torch.autocast(output.embedding.device.type, enabled=False):
            seen = {"batch": (each(_at_least_float32, output), batch)}
            if any(term.of == "anchors" for term in self._terms):
                seen["anchors"] = anchors(*seen["batch"])
            for name, loss, weight, of in self._terms:
                value, reported = loss(*seen[of])
                terms[name] = weight * value
                scalars |= {f"{name}/{scalar}": number for scalar, number in reported.items()}
            total = torch.stack(list(terms.values())).sum()
        return total, {f"loss/{name}": term.detach() for name, term in terms.items()} | scalars

    def set_step(self, step: int) -> None:
        """Tell every loss the number of optimiser steps taken so far."""
        for term in self._terms:
            term.loss.set_step(step)


def anchors(output: Output, batch: Batch) -> tuple[Output, Batch]:
    """The first third: of batches made of anchors, then a positive and then a negative of each."""
    count = len(batch.labels) // 3
    return each(lambda tensor: tensor[:count], output), Batch(*(tensor[:count] for tensor in batch))


def classifier_of(losses: Iterable[tuple[str, type[Loss]]]) -> ClassifierKind | None:
    """The one kind of classifier whose logits these losses, by name, read; ValueError when they read two."""
    kinds = {loss.classifier: name for name, loss in losses if loss.classifier is not None}
    if len(kinds) > 1:
        told = " and ".join(f'"{name}" needs a {kind} classifier' for kind, name in sorted(kinds.items()))
        raise ValueError(f"losses: {told}, and a network has one; keep one of the two losses")
    return next(iter(kinds), None)


def _numbered(names: Iterable[str]) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}_{seen[name]}"


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
