"""Pair and triplet losses to which every image brings its own margin."""

from abc import abstractmethod
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from data.records import Batch
from trainer.losses.logits import image_margins, spread
from trainer.losses.pairs import Margin, On, Scale, angle, hardest, pairwise_distances, same_label, soft_mined
from trainer.output import Loss, LossValue, Output


def shifted_chord(distances: Tensor, shifts: Tensor) -> Tensor:
    """The distance itself, shifted: distances of unit vectors (B, B), shifts (B, B) -> (B, B)."""
    return distances + shifts


def shifted_angle(distances: Tensor, shifts: Tensor) -> Tensor:
    """The angle in between, shifted."""
    return angle(distances) + shifts


def chord_of_shifted_angle(distances: Tensor, shifts: Tensor) -> Tensor:
    """The distance that belongs to the shifted angle."""
    return 2 * torch.sin((angle(distances) + shifts) / 2)


class NormAware(Loss):
    """Mean over anchors of what `mined` makes of distances between unit vectors, shifted by margins.

    With u the margins of the output, anchor and positive are shifted by margin + u_a + u_p, anchor and negative by
    -u_a - u_n. An image counts among its own positives; without a negative, its loss is 0. Huang et al., Norm-Aware
    Margin Assignment for Person Re-Identification, 2022.
    """

    reads_margins = True
    distance = staticmethod(shifted_chord)

    def __init__(self, margin: float, on: str) -> None:
        super().__init__()
        self.margin = margin
        self.on = on

    def forward(self, output: Output, batch: Batch) -> LossValue:
        margins = image_margins(output)
        same = same_label(batch.labels)
        of_pairs = self.pair_margins(margins)
        shifts = torch.where(same, self.margin + of_pairs, -of_pairs)
        distances = pairwise_distances(F.normalize(getattr(output, self.on)))
        value = self.mined(self.distance(distances, shifts), same).mean()
        return LossValue(value, spread(self.margin + 4 * margins))  # of triplets of three such images

    def pair_margins(self, margins: Tensor) -> Tensor:
        """(B,) -> (B, B), anchors by row."""
        return margins[:, None] + margins

    @abstractmethod
    def mined(self, distances: Tensor, same: Tensor) -> Tensor:
        """(B, B), (B, B) bool -> (B,)."""


class UcTriN(NormAware):
    """Soft-mined chords, divided by the scale."""

    def __init__(self, *, margin: Margin = 0.2, scale: Scale = 32.0, on: On = "features") -> None:
        super().__init__(margin, on)
        self.scale = scale

    def mined(self, distances: Tensor, same: Tensor) -> Tensor:
        return soft_mined(distances, same, self.scale) / self.scale


class UcTriDpn(UcTriN):
    """Soft-mined chords, divided by the scale; only the anchors' margins learn."""

    def pair_margins(self, margins: Tensor) -> Tensor:
        return margins[:, None] + margins.detach()


class UcPairN(UcTriN):
    """Soft-mined angles, divided by the scale."""

    distance = staticmethod(shifted_angle)


class UcPair(UcPairN):
    """Soft-mined angles, not divided by the scale."""

    def mined(self, distances: Tensor, same: Tensor) -> Tensor:
        return soft_mined(distances, same, self.scale)


class UcAtriN(UcTriN):
    """Soft-mined chords of shifted angles, divided by the scale."""

    distance = staticmethod(chord_of_shifted_angle)


class UcTriHard(NormAware):
    """The hardest chords: [d_ap - d_an]+, shifted."""

    def __init__(self, *, margin: Margin = 0.2, on: On = "features") -> None:
        super().__init__(margin, on)

    def mined(self, distances: Tensor, same: Tensor) -> Tensor:
        positive, negative = hardest(distances, same)
        return F.relu(positive.values - negative.values)


class UcTri(NormAware):
    """The hardest chords: ln(1 + exp(beta (d_ap - d_an))) / beta, shifted."""

    def __init__(
        self, *, margin: Margin = 0.2, on: On = "features",
        beta: Annotated[float, Field(gt=0), "sharpness of the corner that the loss has at 0"] = 20.0,
    ) -> None:
        super().__init__(margin, on)
        self.beta = beta

    def mined(self, distances: Tensor, same: Tensor) -> Tensor:
        positive, negative = hardest(distances, same)
        return F.softplus(positive.values - negative.values, beta=self.beta)


class UcAtri(UcTri):
    """The hardest angles: ln(1 + exp(beta (d_ap - d_an))) / beta, shifted."""

    distance = staticmethod(shifted_angle)
