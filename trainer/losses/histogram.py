"""Histogram loss."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from data.records import Batch
from trainer.losses.pairs import On, cosine_pairs, mean_where
from trainer.output import Loss, LossValue, Output


class Histogram(Loss):
    """How likely a random positive pair is less similar than a random negative one, by histograms of their cosines.

    Without a positive or without a negative pair, as the scalars count them, the loss is 0.
    Ustinova and Lempitsky, Learning Deep Embeddings with Histogram Loss, 2016.
    """

    def __init__(
        self, *, bins: Annotated[int, Field(ge=2), "nodes of the histograms, from cosine -1 to 1"] = 151,
        on: On = "features",
    ) -> None:
        super().__init__()
        self.bins = bins
        self.on = on

    def forward(self, output: Output, batch: Batch) -> LossValue:
        cosines, same = cosine_pairs(getattr(output, self.on), batch.labels)
        negative, positive = histograms(cosines, same, self.bins)
        value = (negative * positive.cumsum(dim=0)).sum()
        with torch.no_grad():
            scalars = {
                "mean_positive": mean_where(same, cosines),
                "mean_negative": mean_where(~same, cosines),
                "positive_pairs": same.sum().to(cosines.dtype),
                "negative_pairs": (~same).sum().to(cosines.dtype),
            }
        return LossValue(value, scalars)


def histograms(cosines: Tensor, same: Tensor, bins: int) -> Tensor:
    """Of negative and of positive pairs, (P,), (P,) bool -> (2, bins), each of sum 1, or of 0 where it has no pair.

    A pair counts for its two nearest nodes, in proportion to how near they are.
    """
    step = 2 / (bins - 1)
    position = (cosines.clamp(-1, 1) + 1) / step  # a rounded cosine of 1 + 1e-7 would lie beyond the last node
    # A cosine that is not a number has a place here too; its share makes the loss none, which is told by name.
    node = position.detach().nan_to_num().floor().long().clamp(0, bins - 2)
    share = position - node
    place = node + bins * same
    mass = cosines.new_zeros(2 * bins).index_add(0, place, 1 - share).index_add(0, place + 1, share)
    pairs = torch.stack([(~same).sum(), same.sum()]).clamp(min=1)
    return mass.view(2, bins) / pairs[:, None]
