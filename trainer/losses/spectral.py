"""Softmax cross entropy before and after the spectral feature transform."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from data.records import Batch
from trainer.losses.logits import accuracy, branch_logits
from trainer.losses.pairs import cosines
from trainer.output import Loss, LossValue, Output


class Spectral(Loss):
    """Cross entropy of the logits plus that of the transformed embedding's, summed over branches.

    A linear classifier gives the transformed embedding the transformed logits. All branches mix the images by their
    whole embeddings: which part of it a branch made is not known where branches are dropped at random. Until
    `accuracy` of a batch are right, its plain logits count twice. Luo et al., Spectral Feature Transformation for
    Person Re-identification, 2019.
    """

    classifier = "linear"

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0), "divisor of the cosines: the lower, the less images mix"] = 0.3,
        accuracy: Annotated[
            float, Field(ge=0, le=1), "share of a batch that must be right before it is transformed"] = 0.9,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.accuracy = accuracy

    def forward(self, output: Output, batch: Batch) -> LossValue:
        logits = branch_logits(output)
        share = accuracy(logits, batch.labels)
        weights = affinity(output.embedding, self.temperature)
        # not `if`: a GPU would have to be waited for
        second = [torch.where(share >= self.accuracy, weights @ z, z) for z in logits]
        terms = [F.cross_entropy(z, batch.labels) for z in (*logits, *second)]
        scalars = {"accuracy": share, "own_weight": weights.detach().diagonal().mean()}
        return LossValue(torch.stack(terms).sum(), scalars)


def affinity(vectors: Tensor, temperature: float) -> Tensor:
    """How much each image takes of each in the transform, (N, D) -> (N, N): rows softmax(cosine / temperature)."""
    return (cosines(vectors) / temperature).softmax(dim=1)
