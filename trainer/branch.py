"""One branch of the network: an area of the feature map -> features, embedding and logits."""

from typing import NamedTuple

from torch import Tensor, nn

from trainer.classifiers import Cosine
from trainer.necks import Neck
from trainer.output import lengths_of


class Head(NamedTuple):
    """What one branch says."""

    features: Tensor  # (B, D)
    embedding: Tensor  # (B, D)
    logits: Tensor | None  # (B, K)
    lengths: Tensor | None  # (B,) of the embedding, where the logits are cosines
    class_lengths: Tensor | None  # (K,) of the classes' weights, likewise


class Branch(nn.Module):
    """An area of the map, (B, C, h, w) -> Head; with `feature_bn`, batch norm without shift comes before the neck."""

    def __init__(
        self, pooling: nn.Module, neck: Neck, classifier: nn.Module | None, *, feature_bn: int | None = None,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.norm = nn.Identity() if feature_bn is None else nn.BatchNorm1d(feature_bn)
        if feature_bn is not None:
            self.norm.bias.requires_grad_(False)
        self.neck = neck
        self.dropout = nn.Dropout(neck.dropout)
        self.classifier = classifier

    def forward(self, area: Tensor) -> Head:
        features, embedding = self.neck(self.norm(self.pooling(area)))
        if self.classifier is None:
            return Head(features, embedding, None, None, None)
        seen = self.dropout(embedding)
        lengths, class_lengths = None, None
        if isinstance(self.classifier, Cosine):
            lengths = lengths_of(seen)
            class_lengths = lengths_of(self.classifier.weight)
        return Head(features, embedding, self.classifier(seen), lengths, class_lengths)
