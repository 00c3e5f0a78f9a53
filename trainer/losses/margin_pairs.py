"""CosFace and ArcFace between the images of a batch, in place of images and classes."""

from abc import abstractmethod

import torch.nn.functional as F
from torch import Tensor

from data.records import Batch
from trainer.losses.pairs import (
    Margin, On, Scale, angle, cosines, mean_where, pairwise_distances, same_label, soft_mined,
)
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
        same = same_label(batch.labels)
        distances = self.distances(getattr(output, self.on))
        value = soft_mined(distances + self.margin * same, same, self.scale).mean()
        known = distances.detach()
        return LossValue(value, {"mean_dist_ap": mean_where(same, known), "mean_dist_an": mean_where(~same, known)})

    @abstractmethod
    def distances(self, vectors: Tensor) -> Tensor:
        """Of every two vectors, whatever their lengths: (B, D) -> (B, B)."""


class CosFacePair(MarginPairs):
    """Pairs by 1 - cosine."""

    def distances(self, vectors: Tensor) -> Tensor:
        return 1 - cosines(vectors)


class ArcFacePair(MarginPairs):
    """Pairs by angle."""

    def distances(self, vectors: Tensor) -> Tensor:
        return angle(pairwise_distances(F.normalize(vectors)))
