"""Softmax cross entropy of cosines with an additive margin."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from data.records import Batch
from trainer.losses.cosine import CosineSoftmax
from trainer.losses.logits import branch_lengths, branch_logits
from trainer.output import LossValue, Output

Margin = Annotated[float, Field(ge=0)]


class AMSoftmax(CosineSoftmax):
    """Cross entropy of scale (cos - margin [own class]), summed over branches.

    Scale 0 keeps the embedding's length |x|: |x| cos, and for the own class |x| ((1 + margin) cos - margin).
    A list of margins is gone through, `step` optimiser steps each; the last one stays.
    Wang et al., Additive Margin Softmax for Face Verification, 2018.
    """

    def __init__(
        self,
        *,
        margin: Annotated[
            Margin | Annotated[list[Margin], Field(min_length=1)], "one margin, or a list to go through"] = 0.35,
        scale: Annotated[float, Field(ge=0), "factor of the cosines; 0 = the embedding's length"] = 30.0,
        step: Annotated[
            Annotated[int, Field(ge=1)] | None, "optimiser steps per margin, with several"] = None,
    ) -> None:
        super().__init__()
        self.margins = margin if isinstance(margin, list) else [margin]
        if (step is None) != (len(self.margins) == 1):
            raise ValueError(
                f"am_softmax.step: the optimiser steps per margin go with a list of several margins, "
                f"got step {step} with margin {margin}; give both or neither"
            )
        self.scale = scale
        self.step = step
        self.margin = self.margins[0]

    def set_step(self, step: int) -> None:
        if self.step is not None:
            self.margin = self.margins[min(step // self.step, len(self.margins) - 1)]

    def forward(self, output: Output, batch: Batch) -> LossValue:
        value, scalars = super().forward(output, batch)
        return LossValue(value, scalars | {"margin": value.new_full((), self.margin)})

    def logits(self, output: Output, own: Tensor) -> list[Tensor]:
        if self.scale:
            return [self.scale * (cosines - self.margin * own) for cosines in branch_logits(output)]
        branches = zip(branch_logits(output), branch_lengths(output), strict=True)
        return [lengths[:, None] * (cosines - self.margin * own * (1 - cosines)) for cosines, lengths in branches]
