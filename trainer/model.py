"""The network: uint8 images -> features, embedding and logits."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from params.plugin import Choice
from params.schema import ModelParams
from trainer import ranks
from trainer.backbones import BACKBONES
from trainer.backbones.backbone import Backbone
from trainer.branch import Branch, Head
from trainer.classifiers import ClassifierKind, Cosine, linear_classifier
from trainer.margins import MARGINS
from trainer.necks import NECKS, Neck
from trainer.output import Output, each, lengths_of
from trainer.pooling import POOLINGS
from trainer.resting import Resting


class Embedder(Resting):
    """(B, 3, H, W) uint8 RGB -> Output.

    With several branches the map is cut into as many equal horizontal stripes: Sun et al., Beyond Part
    Models (PCB), 2018; with a pcb_global_dim the last branch sees the whole map. `mean` and `std` are of channels
    in 0..1 and no part of the state dict: the run's parameters hold them. In evaluation mode the embedding is
    what the params ask to be used: before or after the neck, branches at one length, mirrored. In training a batch is
    cut into `batch_norm_parts`, each with statistics of its own: Hoffer et al., Train Longer, Generalize Better, 2017.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: Backbone, branches: Sequence[Branch], params: ModelParams, *,
        mean: Sequence[float], std: Sequence[float], margin: nn.Module | None = None, batch_norm_parts: int = 1,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)
        self.params = params
        self.backbone = backbone
        self.branches = nn.ModuleList(branches)
        self.margin = margin
        self.batch_norm_parts = batch_norm_parts
        self.dims = [branch.neck.dim for branch in branches]
        self.embedding_dim = sum(self.dims)
        if self.params.bn_freeze == "all":
            for norm in self._norms():
                norm.requires_grad_(False)

    def forward(self, images: Tensor) -> Output:
        if self.training:
            # A last batch may be small, and batch norm cannot normalise a part of one image.
            parts = max(min(self.batch_norm_parts, len(images) // 2), 1)
            return each(lambda *rows: torch.cat(rows), *map(self._seen, images.tensor_split(parts)))
        output = self._chosen(images)
        if self.params.flip:
            output = mean_of_mirrored(output, self._chosen(images.flip(3)))
        if self.params.part_norm:
            vectors = torch.split(output.embedding, self.dims, dim=1)
            output = replace(output, embedding=torch.cat([F.normalize(vector) for vector in vectors], dim=1))
        return output

    def train(self, mode: bool = True) -> "Embedder":
        super().train(mode)
        if self.params.bn_freeze:
            for norm in self._norms():
                norm.eval()
        return self

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.backbone.modules() if isinstance(module, _BatchNorm)]

    def _seen(self, images: Tensor) -> Output:
        maps = self.backbone((images.to(self.mean.dtype) - self.mean) / self.std)
        stripes = len(self.branches) - bool(self.params.pcb_global_dim)
        areas = [*maps.chunk(stripes, dim=2), *([maps] if stripes < len(self.branches) else [])]
        heads: list[Head] = [branch(area) for branch, area in zip(self.branches, areas, strict=True)]
        features = torch.cat([head.features for head in heads], dim=1)
        embedding = torch.cat([head.embedding for head in heads], dim=1)
        kept = self._kept([head for head in heads if head.logits is not None])
        vectors = features if self.params.margin is None or self.params.margin.on == "features" else embedding
        return Output(
            features, embedding,
            logits=_given(head.logits for head in kept),
            margins=None if self.margin is None else self.margin(vectors),
            norms=None if self.margin is None else lengths_of(vectors),
            lengths=_given(head.lengths for head in kept),
            class_lengths=_given(head.class_lengths for head in kept))

    def _kept(self, heads: list[Head]) -> list[Head]:
        """What is left in training when random branches are dropped: at least one."""
        draws = self.params.random_drop_branches
        if not (self.training and draws and heads):
            return heads
        dropped = torch.randint(len(heads), (draws,)).tolist()
        last = int(torch.randint(len(heads), ()))
        dropped, last = ranks.from_first((dropped, last))
        return [head for i, head in enumerate(heads) if i not in dropped] or [heads[last]]

    def _chosen(self, images: Tensor) -> Output:
        """The output whose embedding is the vector before the neck's batch norm, or after it, as the params say."""
        output = self._seen(images)
        return replace(output, embedding=output.features) if self.params.neck_feature == "before" else output


def _given(tensors: Iterable[Tensor | None]) -> list[Tensor] | None:
    return [tensor for tensor in tensors if tensor is not None] or None


def mean_of_mirrored(output: Output, mirrored: Output) -> Output:
    """What an image and its mirror image say together: the mean direction, at the mean length."""
    def vectors(a: Tensor, b: Tensor) -> Tensor:
        length = (lengths_of(a) + lengths_of(b)) / 2
        return F.normalize(F.normalize(a) + F.normalize(b)) * length[:, None]

    mean = each(lambda a, b: (a + b) / 2, output, mirrored)
    return replace(mean, features=vectors(output.features, mirrored.features),
                   embedding=vectors(output.embedding, mirrored.embedding))


def build_embedder(
    params: ModelParams, *, classifier: ClassifierKind | None, num_classes: int,
    height: int, width: int, mean: Sequence[float], std: Sequence[float], batch_norm_parts: int = 1,
) -> Embedder:
    """A network with fresh weights; ValueError, which begins with the key, where its parts do not fit."""
    stripes = max(params.pcb_n_parts, 1)
    trunk: Backbone = BACKBONES.build(params.choice, name=params.backbone, height=height, width=width)
    if stripes > 1:
        _check_stripes(trunk, params, height, width)
    elif params.pcb_global_dim:
        raise ValueError(f"model_params.pcb_global_dim: goes with stripes, got pcb_n_parts {params.pcb_n_parts}; "
                         "raise that to 2 or more, or leave this out")

    def branch(pooling: Choice, dim: int | None) -> Branch:
        neck: Neck = NECKS.build(params.neck.choice, channels=trunk.channels, feature_dim=dim)
        return Branch(POOLINGS.build(pooling), neck, _classifier(classifier, neck, params.classifier_bias, num_classes),
                      feature_bn=trunk.channels if params.feature_bn else None)

    dim = None if params.feature_dim is None else params.feature_dim // stripes
    branches = [branch(params.pooling.choice, dim) for _ in range(stripes)]
    if params.pcb_global_dim:
        branches.append(branch(Choice("max"), params.pcb_global_dim))
    _check_effects(params, branches, trunk)
    margin = None if params.margin is None else MARGINS.build(params.margin.choice)
    return Embedder(trunk, branches, params, mean=mean, std=std, margin=margin, batch_norm_parts=batch_norm_parts)


def group_of(name: str) -> str:
    """The group of a weight by its name: "backbone", "neck" (with the pooling's), "classifier" or "margin"."""
    first, *rest = name.split(".")
    group = rest[1] if first == "branches" else first  # branches.0.<group>
    return group if group in ("backbone", "classifier", "margin") else "neck"


def _classifier(kind: ClassifierKind | None, neck: Neck, bias: bool | None, num_classes: int) -> nn.Module | None:
    if bias is not None and kind != "linear":
        raise ValueError(f"model_params.classifier_bias: the losses read {kind or 'no'} classifier, which has none; "
                         "leave it out")
    if kind == "linear":
        return linear_classifier(neck.dim, num_classes, bias=neck.classifier_bias if bias is None else bias)
    return Cosine(neck.dim, num_classes) if kind == "cosine" else None


def _check_effects(params: ModelParams, branches: list[Branch], trunk: Backbone) -> None:
    """ValueError for a key that would change nothing."""
    neck, norms = branches[0].neck, any(isinstance(module, _BatchNorm) for module in trunk.modules())
    idle = {
        "part_norm": params.part_norm and len(branches) == 1 and "a single part has one length; give pcb_n_parts",
        "random_drop_branches": params.random_drop_branches > 0 and not (
            len(branches) > 1 and branches[0].classifier) and "needs several branches with logits; give pcb_n_parts",
        "neck_feature": params.neck_feature == "before" and not neck.two_vectors
        and f'neck "{params.neck.type}" has one vector before and after; take another neck',
        "bn_freeze": params.bn_freeze is not None and not norms
        and f"{params.backbone} has no batch norm; take another backbone",
    }
    for key, why in idle.items():
        if why:
            raise ValueError(f"model_params.{key}: {why}, or leave it out")


def _check_stripes(trunk: Backbone, params: ModelParams, height: int, width: int) -> None:
    stripes = params.pcb_n_parts
    trunk.eval()
    with torch.no_grad():
        rows = trunk(torch.zeros(1, 3, height, width)).shape[2]
    trunk.train()
    if rows % stripes:
        raise ValueError(
            f"model_params.pcb_n_parts: must divide the feature map's height, "
            f"{rows} rows at img_h {height}, got {stripes}"
        )
    if params.feature_dim is not None and params.feature_dim % stripes:
        raise ValueError(
            f"model_params.pcb_n_parts: must divide feature_dim {params.feature_dim}, got {stripes}")
