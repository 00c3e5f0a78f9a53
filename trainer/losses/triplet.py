"""Triplet loss within the batch."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from data.records import Batch
from trainer.losses.pairs import On, hardest, mean_where, pairwise_distances, same_label
from trainer.output import Loss, LossValue, Output

ACTIVE = 1e-3  # loss above which a triplet still counts as one to learn from


class Triplet(Loss):
    """Mean over anchors of [d(anchor, positive) - d(anchor, negative) + margin]+, d Euclidean.

    Positive and negative are the hardest of the batch (Hermans et al., In Defense of the Triplet Loss, 2017);
    with `adaptive_weight`, all of them, weighted by softmax(d) and softmax(-d) (Ristani and Tomasi, Features
    for Multi-Target Multi-Camera Tracking, 2018), the anchor itself among its positives. "soft_margin" is
    ln(1 + exp(d_ap - d_an)). Anchors without another positive or without a negative do not count; without any
    that counts, the loss is 0.
    """

    def __init__(
        self,
        *,
        margin: Annotated[
            Annotated[float, Field(ge=0)] | Literal["soft_margin"], "by how much negatives must be farther"] = 0.3,
        adaptive_weight: Annotated[bool, "weigh all pairs by distance in place of the hardest"] = False,
        on: On = "features",
        normalize: Annotated[bool, "bring vectors to unit length first"] = False,
    ) -> None:
        super().__init__()
        self.margin = margin
        self.adaptive_weight = adaptive_weight
        self.on = on
        self.normalize = normalize

    def forward(self, output: Output, batch: Batch) -> LossValue:
        vectors: Tensor = getattr(output, self.on)
        same = same_label(batch.labels)
        counts = (same.sum(dim=1) > 1) & ~same.all(dim=1)
        distances = to_weighted if self.adaptive_weight else to_hardest
        to_positive, to_negative = distances(F.normalize(vectors) if self.normalize else vectors, same)
        excess = to_positive - to_negative
        losses = F.softplus(excess) if self.margin == "soft_margin" else F.relu(excess + self.margin)
        value = mean_where(counts, losses)
        with torch.no_grad():
            scalars = {
                "active_triplets": ((losses > ACTIVE) & counts).to(losses.dtype).sum(),
                "mean_dist_ap": mean_where(counts, to_positive),
                "mean_dist_an": mean_where(counts, to_negative),
                "pull_ratio": mean_where(counts, (excess < 0).to(losses.dtype)),
            }
        return LossValue(value, scalars)


def to_hardest(vectors: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the farthest positive and to the nearest negative: (B, D), (B, B) bool -> (B,), (B,).

    Without a negative, the distance to it is any.
    """
    with torch.no_grad():  # only the pairs that are chosen have a gradient
        found = hardest(pairwise_distances(vectors), same)
    positive, negative = (torch.linalg.vector_norm(vectors - vectors[which.indices], dim=1) for which in found)
    return positive, negative


def to_weighted(vectors: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax-weighted distance to the positives and to the negatives: (B, D), (B, B) bool -> (B,), (B,)."""
    distances = pairwise_distances(vectors)
    lowest = torch.finfo(distances.dtype).min
    near = distances.where(same, lowest).softmax(dim=1)
    far = (-distances).where(~same, lowest).softmax(dim=1)
    return (near * distances).sum(dim=1), (far * distances).sum(dim=1)
