"""Instance loss."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from data.records import Batch
from trainer.losses.pairs import On, cosines
from trainer.output import Loss, LossValue, Output


class Instance(Loss):
    """Cross entropy of gamma times the cosines of every vector with all of the batch; the target is itself.

    Zheng et al., Dual-Path Convolutional Image-Text Embeddings with Instance Loss, 2020 (within the batch).
    """

    def __init__(
        self,
        *,
        gamma: Annotated[float, Field(gt=0), "factor of the cosines"] = 32.0,
        per_class: Annotated[bool, "tell classes, by their mean vectors, apart in place of images"] = False,
        on: On = "features",
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.per_class = per_class
        self.on = on

    def forward(self, output: Output, batch: Batch) -> LossValue:
        vectors: Tensor = getattr(output, self.on)
        if self.per_class:
            vectors = class_means(vectors, batch.labels)
        own = (self.gamma * cosines(vectors)).log_softmax(dim=1).diagonal()
        return LossValue(-own.mean(), {"own_probability": own.detach().exp().mean()})


def class_means(vectors: Tensor, labels: Tensor) -> Tensor:
    """The mean of each class of the batch, in the order of their labels: (N, D), (N,) -> (classes, D)."""
    classes, place, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    sums = vectors.new_zeros(len(classes), vectors.shape[1]).index_add(0, place, vectors)
    means: Tensor = sums / counts[:, None]
    return means
