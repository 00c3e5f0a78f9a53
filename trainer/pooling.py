"""Pooling of a feature map, (B, C, h, w) -> (B, C)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from params.plugin import Table

POOLINGS = Table("pooling", {
    "avg": "trainer.pooling:Average",
    "max": "trainer.pooling:Maximum",
    "avg+max": "trainer.pooling:AverageMaximum",
    "gem": "trainer.pooling:GeM",
})


class Average(nn.Module):
    """The mean over the map."""

    def __init__(self) -> None:  # nn.Module's own takes any key
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3))


class Maximum(nn.Module):
    """The maximum over the map."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        return features.amax(dim=(2, 3))


class AverageMaximum(nn.Module):
    """The sum of mean and maximum."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3)) + features.amax(dim=(2, 3))


class GeM(nn.Module):
    """The power mean over the map, its exponent trained from `p`: 1 is the mean, infinity the maximum.

    Values below `eps` count as `eps`. Radenovic et al., Fine-tuning CNN Image Retrieval, 2018.
    """

    def __init__(
        self, *, p: Annotated[float, Field(gt=0), "exponent at the start; it is trained"] = 3.0,
        eps: Annotated[float, Field(gt=0), "least value that is raised to p"] = 1e-6
    ) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))
        self.eps = eps

    def forward(self, features: Tensor) -> Tensor:
        wide = features.to(self.p.dtype)  # half precision would lose the powers of small values
        return wide.clamp(min=self.eps).pow(self.p).mean(dim=(2, 3)).pow(1 / self.p)
