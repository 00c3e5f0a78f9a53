"""Center loss."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from data.records import Batch
from trainer.output import Loss, LossValue, Output


class Center(Loss):
    """Mean squared distance of the features from the centre of their class.

    Training moves the centres, after the value is taken, down their own gradient at a rate of their own, whatever the
    optimiser and the weight. Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, 2016;
    with the gradient of Luo et al., Bag of Tricks, 2019, in place of the paper's equation 4.
    """

    centers: Tensor

    def __init__(self, embedding_dim: int, num_classes: int, *, lr: Annotated[
            float, Field(gt=0), "learning rate of the centres"] = 0.5) -> None:
        super().__init__()
        self.lr = lr
        self.register_buffer("centers", torch.randn(num_classes, embedding_dim))

    def forward(self, output: Output, batch: Batch) -> LossValue:
        squares = squared_distances(output.features, self.centers, batch.labels)
        if self.training:
            self.centers.copy_(moved(self.centers, output.features.detach(), batch.labels, self.lr))
        return LossValue(squares.mean(), {"mean_dist": squares.detach().sqrt().mean()})


def squared_distances(features: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """From every row's own centre: (B, D), (K, D), (B,) -> (B,)."""
    return (features - centers[labels]).square().sum(dim=1)


def moved(centers: Tensor, features: Tensor, labels: Tensor, lr: float) -> Tensor:
    """The centres one step of gradient descent on the mean squared distance further, (K, D)."""
    wide = centers.to(features.dtype)
    gradient = torch.zeros_like(wide).index_add(0, labels, 2 * (wide[labels] - features) / len(labels))
    return wide - lr * gradient
