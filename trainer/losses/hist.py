"""HIST: distributions of classes, and a hypergraph network over the batch."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from data.records import Batch
from trainer.losses.pairs import On
from trainer.output import Loss, LossValue, Output


class Hist(Loss):
    """Cross entropy of the distances to class distributions, plus lambda_s times that of a hypergraph network.

    Every class is a Gaussian of direction `means` and diagonal covariance exp(log_variances in 0..6). The classes of
    the batch are hyperedges, to which an image belongs wholly or, of another class, as exp(-alpha distance). A batch
    of one image, which batch norm has nothing to compare with, counts its distance alone.
    Lim et al., Hypergraph-Induced Semantic Tuplet Loss for Deep Metric Learning, 2022.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        *,
        tau: Annotated[float, Field(gt=0), "factor of the distances to the classes"] = 32.0,
        alpha: Annotated[float, Field(gt=0), "how fast an image's share in other classes falls with distance"] = 0.9,
        lambda_s: Annotated[float, Field(ge=0), "weight of the hypergraph network's cross entropy"] = 1.0,
        hidden: Annotated[int, Field(ge=1), "width of the hypergraph network"] = 512,
        on: On = "embedding",
    ) -> None:
        super().__init__()
        self.tau = tau
        self.alpha = alpha
        self.lambda_s = lambda_s
        self.on = on
        self.means = nn.Parameter(torch.empty(num_classes, embedding_dim))
        self.log_variances = nn.Parameter(torch.empty(num_classes, embedding_dim))
        for weight in (self.means, self.log_variances):
            nn.init.kaiming_normal_(weight, mode="fan_out")
        self.hgnn = HypergraphNetwork(embedding_dim, hidden, num_classes)

    def forward(self, output: Output, batch: Batch) -> LossValue:
        vectors: Tensor = getattr(output, self.on).to(self.means.dtype)
        distances = squared_distances(vectors, self.means, self.log_variances)
        distribution = F.cross_entropy(-self.tau * distances, batch.labels)
        hypergraph = torch.zeros_like(distribution)
        if len(vectors) > 1:
            logits = self.hgnn(vectors, incidence(distances, batch.labels, self.alpha))
            hypergraph = F.cross_entropy(logits, batch.labels)
        scalars = {
            "distribution": distribution.detach(),
            "hypergraph": hypergraph.detach(),
            "accuracy": (distances.argmin(dim=1) == batch.labels).to(distances.dtype).mean(),
        }
        return LossValue(distribution + self.lambda_s * hypergraph, scalars)


class HypergraphNetwork(nn.Module):
    """Two layers of hypergraph convolution, (N, D) and incidence (N, M) of M hyperedges -> logits (N, K).

    Feng et al., Hypergraph Neural Networks, 2019.
    """

    def __init__(self, dim: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.second = nn.Linear(hidden, num_classes)

    def forward(self, vectors: Tensor, incidence: Tensor) -> Tensor:
        mix = propagation(incidence)
        inner = F.leaky_relu(self.norm(mix @ self.first(vectors)), 0.1)
        logits: Tensor = mix @ self.second(inner)
        return logits


def squared_distances(vectors: Tensor, means: Tensor, log_variances: Tensor) -> Tensor:
    """Squared Mahalanobis distances between unit vectors, (N, D), (K, D), (K, D) -> (N, K) in 0..4.

    From expanded squares, as (N, K, D) numbers do not fit. The terms are at most 1, since unit vectors meet variances
    of at least 1, and little is lost in their sum.
    """
    unit, means = F.normalize(vectors), F.normalize(means)
    precisions = (-F.relu6(log_variances)).exp()
    offsets = (means.square() * precisions).sum(dim=1)
    return unit.square() @ precisions.T - 2 * unit @ (means * precisions).T + offsets


def incidence(distances: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """How much each image belongs to each class of the batch in order, (N, K), (N,) -> (N, M) in 0..1."""
    present, own = torch.unique(labels, return_inverse=True)
    return (-alpha * distances[:, present]).exp().where(F.one_hot(own, len(present)) == 0, 1.0)


def propagation(incidence: Tensor) -> Tensor:
    """What a hypergraph mixes the images by, Dv^-1/2 H De^-1 H' Dv^-1/2: (N, M) -> (N, N)."""
    scaled = incidence / incidence.sum(dim=1, keepdim=True).sqrt()
    return scaled / incidence.sum(dim=0) @ scaled.T
