"""Necks: pooled (B, C) -> features (B, D) for metric losses, embedding (B, D) for classifier and use."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from params.plugin import Table
from trainer import ranks

NECKS = Table("neck", {
    "none": "trainer.necks:NoNeck",
    "linear": "trainer.necks:Linear",
    "linear+bn": "trainer.necks:LinearBN",
    "linear+bn+dropout": "trainer.necks:LinearBNDropout",
    "linear+dropout": "trainer.necks:LinearDropout",
    "linear+ln": "trainer.necks:LinearLN",
    "dropout+linear": "trainer.necks:DropoutLinear",
    "bnneck": "trainer.necks:BNNeck",
    "bn": "trainer.necks:BN",
    "scale": "trainer.necks:Scale",
})


class Neck(nn.Module):
    """Pooled (B, C) -> (features, embedding), both (B, dim); a batch norm stands between them, if any.

    A classifier over the embedding has a bias or not, and sees it with `dropout` in training.
    """

    classifier_bias: ClassVar[bool] = True
    two_vectors: ClassVar[bool] = False  # whether features and embedding differ in more than length
    dropout: float = 0.0
    dim: int


class NoNeck(Neck):
    """The pooled vector itself."""

    def __init__(self, channels: int, feature_dim: int | None) -> None:
        super().__init__()
        if feature_dim is not None:
            raise ValueError(f'model_params.feature_dim: a neck without linear layer keeps all {channels} '
                             f'channels, got {feature_dim}; leave it out or choose model_params.neck "linear"')
        self.dim = channels

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        return pooled, pooled


class Scale(NoNeck):
    """The pooled vector, for a classifier without bias times a number that is learned and begins at 1.6."""

    classifier_bias = False

    def __init__(self, channels: int, feature_dim: int | None) -> None:
        super().__init__(channels, feature_dim)
        self.scale = nn.Parameter(torch.tensor(1.6))

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        return pooled, self.scale * pooled


class Linear(Neck):
    """One linear layer."""

    def __init__(self, channels: int, feature_dim: int | None) -> None:
        super().__init__()
        if feature_dim is None:
            raise ValueError('model_params.feature_dim: the linear necks need it, and it is missing; '
                             'give it or choose model_params.neck "bnneck"')
        self.linear = linear(channels, feature_dim)
        self.dim = feature_dim

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        features = self.linear(pooled)
        return features, features


class LinearBN(Linear):
    """A linear layer, then batch norm with its scale drawn from N(1, 0.02)."""

    two_vectors = True

    def __init__(self, channels: int, feature_dim: int | None) -> None:
        super().__init__(channels, feature_dim)
        self.norm = nn.BatchNorm1d(self.dim)
        nn.init.normal_(self.norm.weight, mean=1.0, std=0.02)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        features, _ = super().forward(pooled)
        return features, self.norm(features)


class LinearDropout(Linear):
    """One linear layer; the classifier sees the embedding with dropout."""

    def __init__(
        self, channels: int, feature_dim: int | None, *, dropout: Annotated[
            float, Field(ge=0, lt=1), "share of the embedding that the classifier does not see in training"] = 0.5
    ) -> None:
        super().__init__(channels, feature_dim)
        self.dropout = dropout


class LinearBNDropout(LinearDropout, LinearBN):
    """A linear layer, then batch norm; the classifier sees the embedding with dropout."""


class LinearLN(Linear):
    """A linear layer, then layer norm without weights; features are the embedding."""

    def __init__(self, channels: int, feature_dim: int | None) -> None:
        super().__init__(channels, feature_dim)
        self.norm = nn.LayerNorm(self.dim, elementwise_affine=False)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        features, _ = super().forward(pooled)
        embedding = self.norm(features)
        return embedding, embedding


class DropoutLinear(Linear):
    """Dropout of channels, then a linear layer that begins as torch's own do."""

    def __init__(
        self, channels: int, feature_dim: int | None, *,
        dropout: Annotated[float, Field(ge=0, lt=1), "share of the channels left out in training"] = 0.7,
        dropout_type: Annotated[
            Literal["element", "shared"], "of each image by itself, or the same channels of a whole batch"] = "element",
    ) -> None:
        super().__init__(channels, feature_dim)
        self.linear.reset_parameters()
        self.drop = nn.Dropout(dropout) if dropout_type == "element" else SharedDropout(dropout)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(self.drop(pooled))


class SharedDropout(nn.Dropout):
    """Dropout of the same channels for the whole batch, on whichever process: (B, C) -> (B, C)."""

    def forward(self, pooled: Tensor) -> Tensor:
        if not self.training:
            return pooled
        kept = ranks.from_first(super().forward(torch.ones(1, pooled.shape[1])))
        return pooled * kept.to(pooled)


class BNNeck(Neck):
    """Batch norm without shift before a classifier without bias; with a feature_dim, a linear layer first.

    Luo et al., Bag of Tricks and a Strong Baseline for Deep Person Re-identification, 2019.
    """

    classifier_bias = False
    two_vectors = True

    def __init__(self, channels: int, feature_dim: int | None) -> None:
        super().__init__()
        self.dim = channels if feature_dim is None else feature_dim
        self.linear = nn.Identity() if feature_dim is None else linear(channels, feature_dim, bias=False)
        self.norm = nn.BatchNorm1d(self.dim)
        self.norm.bias.requires_grad_(False)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        features = self.linear(pooled)
        return features, self.norm(features)


class BN(BNNeck):
    """BNNeck, of which metric losses too see what is behind the batch norm."""

    two_vectors = False

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        _, embedding = super().forward(pooled)
        return embedding, embedding


def linear(channels: int, dim: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer with weights from N(0, sqrt(2 / dim)) (He, fan out) and bias 0."""
    layer = nn.Linear(channels, dim, bias=bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
