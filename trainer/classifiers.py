"""Classifiers over the embedding, (B, E) -> logits (B, K)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ClassifierKind = Literal["linear", "cosine"]


class Cosine(nn.Module):
    """The cosine of every embedding with every class's weight vector, (B, E) -> (B, K) in -1..1."""

    def __init__(self, embedding_dim: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.empty(num_classes, embedding_dim).uniform_(-1, 1)))

    def forward(self, embedding: Tensor) -> Tensor:
        # Margin losses scale cosines by 30 and more: the 8 bits of bfloat16 would be noise of a tenth.
        with torch.autocast("cuda" if embedding.is_cuda else "cpu", enabled=False):  # "meta" is none of its devices
            wide = embedding.to(self.weight.dtype)
            return F.linear(F.normalize(wide), F.normalize(self.weight))


def linear_classifier(embedding_dim: int, num_classes: int, *, bias: bool) -> nn.Linear:
    """A linear layer with weights from N(0, 0.001) and bias 0."""
    layer = nn.Linear(embedding_dim, num_classes, bias=bias)
    nn.init.normal_(layer.weight, std=0.001)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
