"""CosFace and ArcFace between the images of a batch, in place of images and classes."""

from abc import abstractmethod

import torch.nn.functional as F
from torch import Tensor

from data.records import Batch
from trainer.losses.norm_aware import Margin, Scale, angle, soft_mined
from trainer.losses.triplet import mean_where, pairwise_distances
from trainer.losses.vectors import On
from trainer.output import Loss, LossValue, Output


class MarginPairs(Loss):
    """Mean over anchors of softplus of LSE(scale (d + margin)) over the positives + LSE(-scale d) over the negatives.

    An image counts among its own positives; without a negative, its loss is 0.
    """

    def __init__(self, *, margin: Margin = 0.2, scale: Scale = 32.0, on: On = "features") -> None:
        super().__init__()
        self.margin = margin
        self.scale = scale
        self.on = on

    def forward(self, output: Output, batch: Batch) -> LossValue:
        same = batch.labels[:, None] == batch.labels
        distances = self.distances(F.normalize(getattr(output, self.on)))
        value = soft_mined(distances + self.margin * same, same, self.scale).mean()
        known = distances.detach()
        return LossValue(value, {"mean_dist_ap": mean_where(same, known), "mean_dist_an": mean_where(~same, known)})

    @abstractmethod
    def distances(self, unit: Tensor) -> Tensor:
        """Vectors of length 1 (B, D) -> (B, B)."""


class CosFacePair(MarginPairs):
    """Pairs by 1 - cosine."""

    def distances(self, unit: Tensor) -> Tensor:
        return 1 - unit @ unit.T


class ArcFacePair(MarginPairs):
    """Pairs by angle."""

    def distances(self, unit: Tensor) -> Tensor:
        return angle(pairwise_distances(unit))
