"""Circle loss."""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from data.records import Batch
from trainer.losses.pairs import On, cosine_pairs, mean_where
from trainer.output import Loss, LossValue, Output


class Circle(Loss):
    """ln(1 + sum exp(gamma a_n (s_n - margin)) sum exp(-gamma a_p (s_p - 1 + margin))), a_n = [s_n + margin]+ and
    a_p = [1 + margin - s_p]+ taken as constants.

    The sums are over all negative and all positive pairs of the batch; without one or the other, the loss is 0.
    It is not divided by gamma: its weight does that. Sun et al., Circle Loss, 2020.
    """

    def __init__(
        self,
        *,
        margin: Annotated[float, Field(ge=0, le=1), "how far from 0 and 1 similarities may stay"] = 0.25,
        gamma: Annotated[float, Field(gt=0), "factor of the similarities"] = 32.0,
        similarity: Annotated[
            Literal["cosine", "sine"], "the cosine, or 1 less the sine of the angle in between"] = "cosine",
        on: On = "features",
    ) -> None:
        super().__init__()
        self.margin = margin
        self.gamma = gamma
        self.similarity = similarity
        self.on = on

    def forward(self, output: Output, batch: Batch) -> LossValue:
        cosines, same = cosine_pairs(getattr(output, self.on), batch.labels)
        similarities = cosines if self.similarity == "cosine" else one_less_sine(cosines)
        value = F.softplus(self._exponent(similarities, ~same, self.margin, 1)
                           + self._exponent(similarities, same, 1 - self.margin, -1))
        with torch.no_grad():
            scalars = {"mean_positive": mean_where(same, similarities),
                       "mean_negative": mean_where(~same, similarities)}
        return LossValue(value, scalars)

    def _exponent(self, similarities: Tensor, mask: Tensor, bound: float, sign: int) -> Tensor:
        """Logarithm of the sum over the pairs under the mask, which should stay on their side of the bound."""
        excess = sign * (similarities - bound)
        weights = F.relu(excess.detach() + 2 * self.margin)
        return (self.gamma * weights * excess).where(mask, -math.inf).logsumexp(dim=0)


def one_less_sine(cosines: Tensor) -> Tensor:
    """1 - the sine of the angle, which is 0 at right angles; vectors of one line have the gradient 0."""
    return 1 - (1 - cosines.square()).clamp(1e-6, 1).sqrt()
