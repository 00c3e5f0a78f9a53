"""Softmax over cosines with the classes' vectors: margins between them, and lengths."""

import math
from abc import abstractmethod
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from data.records import Batch
from trainer.losses.logits import (
    accuracy, branch_class_lengths, branch_lengths, branch_logits, image_margins, spread,
)
from trainer.output import Loss, LossValue, Output

Form = Literal["cos", "angle", "arc"]
Margin = Annotated[float, Field(ge=0), "by how much the own class must be nearer"]
Scale = Annotated[float, Field(gt=0), "factor of the logits"]

LARGEST_COSINE = 0.99  # acos is infinitely steep at 1
LENGTH, CLASS_LENGTH, PULL = 40.0, 10.0, 0.01  # where "proj" wants the lengths, and how much


class CosineSoftmax(Loss):
    """Cross entropy of logits made of cosines, summed over branches."""

    classifier = "cosine"

    def forward(self, output: Output, batch: Batch) -> LossValue:
        cosines = branch_logits(output)
        own = batch.labels[:, None] == torch.arange(cosines[0].shape[1], device=batch.labels.device)
        terms = [F.cross_entropy(logits, batch.labels) for logits in self.logits(output, own)]
        return LossValue(torch.stack(terms).sum(), {"accuracy": accuracy(cosines, batch.labels)})

    @abstractmethod
    def logits(self, output: Output, own: Tensor) -> list[Tensor]:
        """One (B, K) per branch; `own` is true for the class of the image, (B, K)."""


class MarginSoftmax(CosineSoftmax):
    """Logits of cosines with a margin, times a scale."""

    def __init__(self, *, margin: Margin = 0.3, scale: Scale = 16.0) -> None:
        super().__init__()
        self.margin = margin
        self.scale = scale


class CosFace(MarginSoftmax):
    """Logits scale (cos - margin [own class]).

    Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, 2018.
    """

    form: Form = "cos"

    def logits(self, output: Output, own: Tensor) -> list[Tensor]:
        margins = self.margins(output, own)
        return [self.scale * less_margin(cosines, margins, self.form) for cosines in branch_logits(output)]

    def margins(self, output: Output, own: Tensor) -> Tensor:
        """By how much every class must be nearer to count as near as it is, (B, K)."""
        return self.margin * own


class ArcFace(MarginSoftmax):
    """Logits scale cos(angle + margin [own class]).

    Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, 2019.
    """

    def logits(self, output: Output, own: Tensor) -> list[Tensor]:
        return [self.scale * torch.where(own, (own_angles(cosines, own) + self.margin).cos(), cosines)
                for cosines in branch_logits(output)]


class NSoftmax(CosFace):
    """Logits scale cos. Wang et al., NormFace: L2 Hypersphere Embedding for Face Verification, 2017."""

    def __init__(self, *, scale: Scale = 16.0) -> None:
        super().__init__(margin=0.0, scale=scale)


class UcxCls(CosFace):
    """Logits with a margin for the own class, in one of three forms.

    Huang et al., Norm-Aware Margin Assignment for Person Re-Identification, 2022, without the images' own margins.
    """

    def __init__(
        self,
        *,
        form: Annotated[Form, "taken off the cosine, off pi / 2 - angle, or added to the angle within the cosine"
                        ] = "angle",
        margin: Margin = 0.0,
        scale: Scale = 16.0,
    ) -> None:
        super().__init__(margin=margin, scale=scale)
        self.form = form


class UcCls(UcxCls):
    """Logits with a margin for the own class to which the image's own is added; it is taken off all others.

    Huang et al., Norm-Aware Margin Assignment for Person Re-Identification, 2022.
    """

    reads_margins = True

    def forward(self, output: Output, batch: Batch) -> LossValue:
        value, scalars = super().forward(output, batch)
        return LossValue(value, scalars | spread(self.margin + 2 * image_margins(output)))  # between own and others

    def margins(self, output: Output, own: Tensor) -> Tensor:
        return super().margins(output, own) + (2 * own - 1) * image_margins(output)[:, None]


class UcXent(CosineSoftmax):
    """Plain softmax without bias: logits |x| |w| cos; both lengths are reported."""

    def forward(self, output: Output, batch: Batch) -> LossValue:
        value, scalars = super().forward(output, batch)
        return LossValue(value, scalars | mean_lengths(output))

    def logits(self, output: Output, own: Tensor) -> list[Tensor]:
        parts = zip(branch_logits(output), branch_lengths(output), branch_class_lengths(output), strict=True)
        return [cosines * lengths[:, None] * class_lengths for cosines, lengths, class_lengths in parts]


class Proj(MarginSoftmax):
    """Logits scale (cos - margin) for the own class and scale (1 - sin) for others, which so are best at right angles.

    Both lengths are pulled towards fixed ones, in every branch: + 0.01 mean (|w| - 10)^2 + 0.01 mean (|x| - 40)^2.
    """

    def forward(self, output: Output, batch: Batch) -> LossValue:
        value, scalars = super().forward(output, batch)
        pulls = [(lengths - LENGTH).square().mean() for lengths in branch_lengths(output)]
        pulls += [(lengths - CLASS_LENGTH).square().mean() for lengths in branch_class_lengths(output)]
        return LossValue(value + PULL * torch.stack(pulls).sum(), scalars | mean_lengths(output))

    def logits(self, output: Output, own: Tensor) -> list[Tensor]:
        return [self.scale * torch.where(own, cosines - self.margin, 1 - angles(cosines).sin())
                for cosines in branch_logits(output)]


def angles(cosines: Tensor) -> Tensor:
    """The angles with these cosines, of which those beyond 0.99 have no slope."""
    return cosines.clamp(-LARGEST_COSINE, LARGEST_COSINE).acos()


def own_angles(cosines: Tensor, own: Tensor) -> Tensor:
    """The angle with the own class, (B, K), (B, K) bool -> (B, 1): acos takes long, and of K angles one counts."""
    return angles((cosines * own).sum(dim=1, keepdim=True))


def less_margin(cosines: Tensor, margins: Tensor, form: Form) -> Tensor:
    """How near every class is when it must be nearer by its margin: (B, K), (B, K) -> (B, K)."""
    if form == "cos":
        return cosines - margins
    return (angles(cosines) + margins).cos() if form == "arc" else math.pi / 2 - angles(cosines) - margins


def mean_lengths(output: Output) -> dict[str, Tensor]:
    """Mean length of what the classifier compares, and of the classes' vectors."""
    return {"norm": torch.stack(branch_lengths(output)).detach().mean(),
            "class_norm": torch.stack(branch_class_lengths(output)).detach().mean()}
