"""What losses of pairs have in common: which images are of one class, how far apart they are, which ones count."""

import math
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

On = Annotated[Literal["features", "embedding"], "before or after the neck's batch norm"]
Margin = Annotated[float, Field(ge=0), "by how much negatives must be farther, before the images' own margins"]
Scale = Annotated[float, Field(gt=0), "factor of the distances; the larger, the more the hardest pairs count"]


def same_label(labels: Tensor) -> Tensor:
    """Whether every two images are of one class, each with itself too: (B,) -> (B, B) bool."""
    return labels[:, None] == labels


def cosines(vectors: Tensor) -> Tensor:
    """The cosine of every two vectors: (N, D) -> (N, N)."""
    return products(F.normalize(vectors))


def cosine_pairs(vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The cosine of every two images and whether they are of one class: (N, D), (N,) -> (N (N - 1) / 2,) twice."""
    first, second = torch.triu_indices(len(labels), len(labels), offset=1, device=labels.device)
    return cosines(vectors)[first, second], labels[first] == labels[second]


def pairwise_distances(vectors: Tensor) -> Tensor:
    """Euclidean distances, (N, D) -> (N, N), from expanded squares; a distance of 0 has the gradient 0.

    In float64: in float32, about 1e-3 is left between a vector and itself. Differences, of N x N x D numbers, take
    five times as long and are no more exact.
    """
    dots = products(vectors.double())
    squares = dots.diagonal()
    above_0 = (squares[:, None] + squares - 2 * dots).clamp(min=torch.finfo(dots.dtype).tiny)  # the root is steep at 0
    return above_0.sqrt().to(vectors.dtype)


def products(vectors: Tensor) -> Tensor:
    """The inner product of every two vectors: (N, D) -> (N, N)."""
    result: Tensor = _Products.apply(vectors)  # type: ignore[no-untyped-call]
    return result


class _Products(torch.autograd.Function):
    """V V', whose gradient, (G + G') V, is one matrix product where autograd takes two: G V + G' V."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        ctx.save_for_backward(vectors)
        return vectors @ vectors.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        vectors, = ctx.saved_tensors
        result: Tensor = (gradient + gradient.T) @ vectors
        return result


def angle(distances: Tensor) -> Tensor:
    """The angle between unit vectors at these distances; where they are opposite, its infinite slope is cut off."""
    return 2 * torch.asin((distances / 2).clamp(max=1 - 1e-6))


def hardest(distances: Tensor, same: Tensor) -> tuple[torch.return_types.max, torch.return_types.min]:
    """The farthest positive and the nearest negative, as values and indices: (B, B), (B, B) bool -> (B,), (B,) each.

    An image counts among its own positives; without a negative, the distance to it is infinite, and its index any.
    """
    return distances.where(same, -math.inf).max(dim=1), distances.where(~same, math.inf).min(dim=1)


def soft_mined(distances: Tensor, same: Tensor, scale: float) -> Tensor:
    """softplus of LSE(scale d) over the positives + LSE(-scale d) over the negatives: (B, B), (B, B) bool -> (B,)."""
    positives = (scale * distances).where(same, -math.inf).logsumexp(dim=1)
    negatives = (-scale * distances).where(~same, -math.inf).logsumexp(dim=1)
    return F.softplus(positives + negatives)


def mean_where(mask: Tensor, values: Tensor) -> Tensor:
    """Mean of the values under the mask; 0 when there are none."""
    return values.where(mask, 0.0).sum() / mask.sum().clamp(min=1)
