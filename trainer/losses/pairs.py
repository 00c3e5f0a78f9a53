"""What losses of pairs have in common: which images are of one class, how far apart they are, which ones count."""

import math
from typing import Annotated, Literal

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
    unit = F.normalize(vectors)
    return unit @ unit.T


def cosine_pairs(vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The cosine of every two images and whether they are of one class: (N, D), (N,) -> (N (N - 1) / 2,) twice."""
    first, second = torch.triu_indices(len(labels), len(labels), offset=1, device=labels.device)
    return cosines(vectors)[first, second], labels[first] == labels[second]


def pairwise_distances(vectors: Tensor) -> Tensor:
    """Euclidean distances, (N, D) -> (N, N), from differences; a distance of 0 has the gradient 0.

    Expanded squares leave about 1e-3 between a vector and itself in float32.
    """
    return torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")


def angle(distances: Tensor) -> Tensor:
    """The angle between unit vectors at these distances; where they are opposite, its infinite slope is cut off."""
    return 2 * torch.asin((distances / 2).clamp(max=1 - 1e-6))


def hardest(distances: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the farthest positive and to the nearest negative: (B, B), (B, B) bool -> (B,), (B,).

    An image counts among its own positives; without a negative, the distance to it is infinite.
    """
    return distances.where(same, -math.inf).amax(dim=1), distances.where(~same, math.inf).amin(dim=1)


def soft_mined(distances: Tensor, same: Tensor, scale: float) -> Tensor:
    """softplus of LSE(scale d) over the positives + LSE(-scale d) over the negatives: (B, B), (B, B) bool -> (B,)."""
    positives = (scale * distances).where(same, -math.inf).logsumexp(dim=1)
    negatives = (-scale * distances).where(~same, -math.inf).logsumexp(dim=1)
    return F.softplus(positives + negatives)


def mean_where(mask: Tensor, values: Tensor) -> Tensor:
    """Mean of the values under the mask; 0 when there are none."""
    return values.where(mask, 0.0).sum() / mask.sum().clamp(min=1)
