"""Telling whether two images show the same identity."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from data.records import Batch
from trainer.classifiers import linear_classifier
from trainer.output import Loss, LossValue, Output


class Verification(Loss):
    """Cross entropy of every anchor with its positive, class 0, and with its negative, class 1; mean over the pairs.

    A linear layer sees the product or the squared difference of two unit vectors, with dropout. The batch is
    anchors, positives and negatives, in three equal blocks; ValueError when it cannot be.
    Zheng et al., A Discriminatively Learned CNN Embedding for Person Re-identification, 2018.
    """

    triplets = True

    def __init__(
        self,
        embedding_dim: int,
        *,
        op: Annotated[
            Literal["product", "sqdiff"], "what two vectors become: their product or squared difference"] = "product",
        dropout: Annotated[float, Field(ge=0, lt=1), "share of a pair's vector that is not seen in training"] = 0.75,
    ) -> None:
        super().__init__()
        self.op = op
        self.dropout = nn.Dropout(dropout)
        self.head = linear_classifier(embedding_dim, 2, bias=True)

    def forward(self, output: Output, batch: Batch) -> LossValue:
        count, rest = divmod(len(output.embedding), 3)
        if rest:
            raise ValueError('losses: "verification" reads anchors, positives and negatives, as many of each, and '
                             f'the batch holds {len(output.embedding)} images; take the sampler "triplet_items"')
        vectors = output.embedding.to(self.head.weight.dtype)
        unit = F.normalize(vectors)
        pairs = self._pairs(unit[:count].repeat(2, 1), unit[count:])  # (2 A, E), those of positives first
        scores = self.head(self.dropout(pairs))
        kinds = torch.arange(2, device=scores.device).repeat_interleave(count)
        same, different = (scores.argmax(dim=1) == kinds).to(scores.dtype).view(2, count).mean(dim=1)
        return LossValue(F.cross_entropy(scores, kinds), {"accuracy_same": same, "accuracy_different": different})

    def _pairs(self, first: Tensor, second: Tensor) -> Tensor:
        return first * second if self.op == "product" else (first - second).square()
