"""The network: uint8 images -> features, embedding and logits."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from params.plugin import Choice
from trainer.backbones import BACKBONES
from trainer.backbones.backbone import Backbone
from trainer.classifiers import ClassifierKind, Cosine, linear_classifier
from trainer.necks import NECKS, Neck
from trainer.output import Output
from trainer.pooling import POOLINGS


class Branch(nn.Module):
    """A part of the map, (B, C, h, w) -> features (B, D), embedding (B, D), logits (B, K) or None."""

    def __init__(self, pooling: nn.Module, neck: Neck, classifier: nn.Module | None) -> None:
        super().__init__()
        self.pooling = pooling
        self.neck = neck
        self.classifier = classifier

    def forward(self, part: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        features, embedding = self.neck(self.pooling(part))
        return features, embedding, None if self.classifier is None else self.classifier(embedding)


class Embedder(nn.Module):
    """(B, 3, H, W) uint8 RGB -> Output.

    With several branches the map is cut into as many equal horizontal stripes: Sun et al., Beyond Part
    Models (PCB), 2018. `mean` and `std` are of channels in 0..1 and no part of the state dict: the run's
    parameters hold them.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: Backbone, branches: Sequence[Branch], *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)
        self.backbone = backbone
        self.branches = nn.ModuleList(branches)
        self.embedding_dim = sum(branch.neck.dim for branch in branches)
        self._frozen = False

    def forward(self, images: Tensor) -> Output:
        pixels = (images.to(self.mean.dtype) - self.mean) / self.std
        stripes = self.backbone(pixels).chunk(len(self.branches), dim=2)
        parts = [branch(stripe) for branch, stripe in zip(self.branches, stripes, strict=True)]
        logits = [part[2] for part in parts if part[2] is not None]
        return Output(
            features=torch.cat([part[0] for part in parts], dim=1),
            embedding=torch.cat([part[1] for part in parts], dim=1),
            logits=logits or None,
        )

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Every parameter once, under "backbone", "neck" (with the pooling's) or "classifier"."""
        groups: dict[str, list[nn.Parameter]] = {"backbone": [], "neck": [], "classifier": []}
        for name, parameter in self.named_parameters():
            part = "backbone" if name.startswith("backbone.") else name.split(".")[2]  # branches.0.<part>
            groups[part if part in groups else "neck"].append(parameter)
        return groups

    def freeze_backbone(self) -> None:
        """Train the rest only; the backbone's batch norms keep their statistics too."""
        self._frozen = True
        self.backbone.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Embedder":
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self


def build_embedder(
    backbone: Choice,
    pooling: Choice,
    neck: Choice,
    *,
    feature_dim: int | None,
    parts: int,
    classifier: ClassifierKind | None,
    num_classes: int,
    height: int,
    width: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Embedder:
    """A network with fresh weights; `parts` 0 or 1 is one branch over the whole map."""
    parts = max(parts, 1)
    trunk = BACKBONES.build(backbone, name=backbone.type, height=height, width=width)
    if parts > 1:
        _check_parts(trunk, parts, feature_dim, height, width)

    def branch() -> Branch:
        dim = None if feature_dim is None else feature_dim // parts
        part_neck = NECKS.build(neck, channels=trunk.channels, feature_dim=dim)
        return Branch(POOLINGS.build(pooling), part_neck, _classifier(classifier, part_neck, num_classes))

    return Embedder(trunk, [branch() for _ in range(parts)], mean=mean, std=std)


def _classifier(kind: ClassifierKind | None, neck: Neck, num_classes: int) -> nn.Module | None:
    if kind == "linear":
        return linear_classifier(neck.dim, num_classes, bias=neck.classifier_bias)
    return Cosine(neck.dim, num_classes) if kind == "cosine" else None


def _check_parts(trunk: Backbone, parts: int, feature_dim: int | None, height: int, width: int) -> None:
    trunk.eval()
    with torch.no_grad():
        rows = trunk(torch.zeros(1, 3, height, width)).shape[2]
    trunk.train()
    if rows % parts:
        raise ValueError(
            f"model_params.pcb_n_parts: must divide the feature map's height, "
            f"{rows} rows at img_h {height}, got {parts}"
        )
    if feature_dim is not None and feature_dim % parts:
        raise ValueError(f"model_params.pcb_n_parts: must divide feature_dim {feature_dim}, got {parts}")
