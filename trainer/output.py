"""What the network gives to the losses, and what a loss gives back."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Output:
    """One forward pass. Networks with several branches (PCB stripes) concatenate features and embeddings."""

    features: Tensor  # (B, D) before the neck's batch norm: what pair and triplet losses see
    embedding: Tensor  # (B, E) after it: what is evaluated and exported
    logits: list[Tensor] | None = None  # one (B, K) per branch; cosines where the classifier is "cosine"
    margins: Tensor | None = None  # (B,) of norm-aware networks


def deployed(output: Output, *, logits: bool) -> dict[str, Tensor]:
    """What of a network's output ships, by its name in the graph."""
    # 1e-12 keeps the embedding of a dead network at zero where 0 / 0 would be NaN.
    shipped = {"embeddings": nn.functional.normalize(output.embedding.float(), dim=1, eps=1e-12)}
    if logits and output.logits:
        shipped["logits"] = torch.stack(output.logits).mean(0).float()  # P x (B, K) -> (B, K)
    if output.margins is not None:
        shipped["margins"] = output.margins.float()
    return shipped


class LossValue(NamedTuple):
    """A loss and what is worth a curve beside it."""

    value: Tensor  # scalar
    scalars: dict[str, Tensor] = {}  # name -> scalar without gradient


class Loss(nn.Module):
    """(Output, Batch) -> LossValue, computed in float32 outside autocast.

    Positional constructor arguments come from the run by name (embedding_dim, num_classes); keyword-only
    ones are its keys in params.json. Parameters of a loss are trained, kept in the snapshot and named `losses.*`.
    """

    classifier: ClassVar[Literal["linear", "cosine"] | None] = None  # the head whose logits this loss reads

    def set_step(self, step: int) -> None:
        """Tell the number of optimiser steps taken so far; for losses that change with it."""
