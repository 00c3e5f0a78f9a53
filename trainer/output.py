"""What the network gives to the losses, and what a loss gives back."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Output:
    """One forward pass. Networks with several branches (PCB stripes) concatenate features and embeddings.

    In evaluation mode, the embedding is what is evaluated and exported.
    """

    features: Tensor  # (B, D) before the neck's batch norm: what pair and triplet losses see
    embedding: Tensor  # (B, E) after it
    logits: list[Tensor] | None = None  # one (B, K) per branch; cosines where the classifier is "cosine"
    margins: Tensor | None = None  # (B,) of norm-aware networks, larger = the image must be told apart more widely
    lengths: list[Tensor] | None = None  # with cosines, (B,) per branch: of what the classifier compared
    class_lengths: list[Tensor] | None = None  # with cosines, (K,) per branch: of the classes' weights
    norms: Tensor | None = None  # (B,) of norm-aware networks: length of the vectors that have the margins


def each(change: Callable[..., Tensor], *outputs: Output) -> Output:
    """The first output with every tensor that has a row per image replaced by change(it, the others' same)."""
    def changed(name: str) -> Any:
        values = [getattr(output, name) for output in outputs]
        if isinstance(values[0], list):
            return [change(*tensors) for tensors in zip(*values, strict=True)]
        return None if values[0] is None else change(*values)

    rows = ("features", "embedding", "logits", "margins", "lengths", "norms")
    return replace(outputs[0], **{name: changed(name) for name in rows})


def lengths_of(vectors: Tensor) -> Tensor:
    """Length of every vector, (B, D) -> (B,), in float32 or wider."""
    wide = torch.promote_types(vectors.dtype, torch.float32)
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, dtype=wide)
    return lengths


def deployed(output: Output, *, logits: bool) -> dict[str, Tensor]:
    """What of a network's output ships, by its name in the graph."""
    # 1e-12 keeps the embedding of a dead network at zero where 0 / 0 would be NaN.
    shipped = {"embeddings": nn.functional.normalize(output.embedding.float(), dim=1, eps=1e-12)}
    if logits and output.logits:
        shipped["logits"] = torch.stack(output.logits).mean(0).float()  # P x (B, K) -> (B, K)
    if output.margins is not None:
        shipped["margins"] = output.margins.float()
    if output.norms is not None:
        shipped["norms"] = output.norms.float()
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
    reads_margins: ClassVar[bool] = False  # whether it reads those of the output
    triplets: ClassVar[bool] = False  # whether the batch has to be anchors, positives and negatives, block by block

    def set_step(self, step: int) -> None:
        """Tell the number of optimiser steps taken so far; for losses that change with it."""
