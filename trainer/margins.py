"""Norm-aware margins: vectors (B, D) -> margins (B,), larger = the image must be told apart more widely."""

import math
from abc import abstractmethod
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from params.plugin import Table
from trainer import ranks
from trainer.output import lengths_of

MARGINS = Table("margin", {
    "legendre": "trainer.margins:Legendre",
    "linear": "trainer.margins:Linear",
    "nn": "trainer.margins:NN",
    "taylor": "trainer.margins:Taylor",
})

EMA = 0.01  # share of the newest batch in the running mean of the margins

Size = Annotated[int, Field(ge=1, le=1024), "numbers that are learned"]
Range = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)]
Log = Annotated[bool, "read the logarithm of the length"]


class Learned(nn.Module):
    """Margins that are learned as a curve over the length of the vector and keep a mean of about 0.

    The length is brought to mean 0 and variance 1; of the curve's values r, the batch's mean of clamp(r, -0.5, 0.5)
    is taken off, in evaluation the running one. Huang et al., Norm-Aware Margin Assignment for Person
    Re-Identification, 2022. A larger margin is a wider one for every loss of Kiln, where the metric losses of the
    original code read theirs with the opposite sign: its u is -margin there, and margin in its classification
    losses. A curve is as easily learned with either sign.
    """

    average: Tensor

    def __init__(self, log: bool) -> None:
        super().__init__()
        self.log = log
        self.norm = nn.BatchNorm1d(1, affine=False)
        self.register_buffer("average", torch.zeros(()))

    @abstractmethod
    def curve(self, lengths: Tensor) -> Tensor:
        """Standardised lengths (B,) -> (B,)."""

    def forward(self, vectors: Tensor) -> Tensor:
        lengths = lengths_of(vectors)
        if self.log:
            lengths = lengths.clamp(min=1e-12).log()
        if self.training:
            self._begin_at(lengths.detach())
        values = self.curve(self.norm(lengths[:, None])[:, 0])
        if not self.training:
            return values - self.average
        mean = ranks.mean(values.clamp(-0.5, 0.5))
        self.average.lerp_(mean.detach(), EMA)
        return values - mean

    def _begin_at(self, lengths: Tensor) -> None:
        """Let the running statistics begin at those of the first batch, not at 0 and 1, which are far off."""
        statistics = dict(self.norm.named_buffers())
        first = statistics["num_batches_tracked"] == 0
        mean = ranks.mean(lengths)
        for name, value in ("running_mean", mean), ("running_var", ranks.mean((lengths - mean).square())):
            statistics[name].copy_(value.where(first, statistics[name]))


class NN(Learned):
    """A layer of fixed steps over the length, up to 4 deviations from the mean, of which one weight each is learned."""

    steps: Tensor

    def __init__(self, *, size: Size = 128, log: Log = False) -> None:
        super().__init__(log)
        self.weights = nn.Parameter(1e-4 / math.sqrt(size) * torch.randn(size))
        self.register_buffer("steps", torch.linspace(-0.8, 0.8, size), persistent=False)

    def curve(self, lengths: Tensor) -> Tensor:
        near = (0.1 * lengths).clamp(-0.4, 0.4)
        near = 0.1 * near + 0.9 * near.detach()  # the lengths themselves learn a tenth as fast
        hidden = F.leaky_relu(near[:, None] + self.steps, 0.1)  # (B, size)
        return torch.sum(hidden * self.weights, dim=1) / math.sqrt(len(self.weights))


class Taylor(Learned):
    """A polynomial of the length without constant: of powers 1, 3, 5 ..., or of all; without bounds."""

    def __init__(self, *, size: Size = 5, powers: Annotated[
            Literal["odd", "all"], "odd = longer and shorter than the mean are opposites"] = "odd",
                 log: Log = False) -> None:
        super().__init__(log)
        self.powers = powers
        self.coefficients = nn.Parameter(torch.zeros(size))

    def curve(self, lengths: Tensor) -> Tensor:
        factor = lengths.square() if self.powers == "odd" else lengths
        value = torch.zeros_like(lengths)
        for coefficient in self.coefficients.flip(0):
            value = value * factor + coefficient
        return value * lengths


class Legendre(Learned):
    """A sum of the Legendre polynomials P1, P3, P5 ... of the length; without bounds."""

    def __init__(self, *, size: Size = 5, log: Log = False) -> None:
        super().__init__(log)
        self.coefficients = nn.Parameter(torch.zeros(size))

    def curve(self, lengths: Tensor) -> Tensor:
        polynomials = [torch.ones_like(lengths), lengths]
        for n in range(1, 2 * len(self.coefficients) - 1):  # Bonnet's recursion
            polynomials.append(((2 * n + 1) * lengths * polynomials[n] - n * polynomials[n - 1]) / (n + 1))
        return (torch.stack(polynomials[1::2], dim=1) * self.coefficients).sum(dim=1)


class Linear(nn.Module):
    """A fixed map: the margin goes straight from the first to the second while the length crosses the range."""

    def __init__(
        self,
        *,
        range: Annotated[Range, "lengths between which the margin changes"] = [10.0, 110.0],  # noqa: B006
        margins: Annotated[list[float], Field(min_length=2, max_length=2),
                           "margin at either end of the range and beyond"] = [0.0, 0.25],  # noqa: B006
    ) -> None:
        super().__init__()
        ascending("model_params.margin.range", range)
        self.range = range
        self.margins = margins

    def forward(self, vectors: Tensor) -> Tensor:
        shortest, longest = self.range
        first, second = self.margins
        share = (lengths_of(vectors).clamp(shortest, longest) - shortest) / (longest - shortest)
        return first + (second - first) * share


def ascending(key: str, ends: list[float]) -> None:
    """ValueError, which begins with the key, where the first number is not the smaller one."""
    low, high = ends
    if not low < high:
        raise ValueError(f"{key}: expected two numbers, the smaller one first, got [{low:g}, {high:g}]; "
                         "swap or spread them")
