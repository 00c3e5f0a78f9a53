"""Center loss."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from data.records import Batch
from trainer.output import Loss, LossValue, Output


class Center(Loss):
    """Mean squared distance of the features from the centre of their class.

    Training moves the centres, after the value is taken, at their own rate, whatever the optimiser and the weight.
    Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, 2016.
    """

    centers: Tensor

    def __init__(self, embedding_dim: int, num_classes: int, *, alpha: Annotated[
            float, Field(gt=0, le=1), "rate at which a centre follows the images of its class"] = 0.5) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("centers", torch.randn(num_classes, embedding_dim))

    def forward(self, output: Output, batch: Batch) -> LossValue:
        squares = squared_distances(output.features, self.centers, batch.labels)
        if self.training:
            self.centers.copy_(moved(self.centers, output.features.detach(), batch.labels, self.alpha))
        return LossValue(squares.mean(), {"mean_dist": squares.detach().sqrt().mean()})


def squared_distances(features: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """From every row's own centre: (B, D), (K, D), (B,) -> (B,)."""
    return (features - centers[labels]).square().sum(dim=1)


def moved(centers: Tensor, features: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """The centres less alpha times the sum of (centre - feature) over 1 + their number (equation 4), (K, D)."""
    wide = centers.to(features.dtype)
    ways = torch.zeros_like(wide).index_add(0, labels, wide[labels] - features)
    return wide - alpha * ways / (1 + labels.bincount(minlength=len(centers)))[:, None]
