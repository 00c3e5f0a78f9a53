"""A pull on the lengths of vectors towards the upper end of a range."""

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from data.records import Batch
from trainer.losses.pairs import On
from trainer.margins import Range, ascending
from trainer.output import Loss, LossValue, Output, lengths_of


class NormRegulariser(Loss):
    """Mean of a convex function of the length that falls by 1 per width of the range at its lower end, and by 0 at
    its upper one.

    Huang et al., Norm-Aware Margin Assignment for Person Re-Identification, 2022. Beside losses of norm-aware
    margins, which alone would have all lengths grow or shrink.
    """

    def __init__(
        self,
        *,
        form: Annotated[Literal["exp", "quad", "log", "arc"],
                        "of exp(-k t), of (1 - t)^2, t = 0 to 1 in the range, of -log of the length, or of 1 over it"
                        ] = "exp",
        k: Annotated[Annotated[float, Field(gt=0)] | None, "how soon exp levels off; null = 3 with exp"] = None,
        range: Annotated[Range, "lengths between which the pull goes down to 0"] = [10.0, 110.0],  # noqa: B006
        on: On = "features",
    ) -> None:
        super().__init__()
        ascending("norm_regulariser.range", range)
        if k is not None and form != "exp":
            raise ValueError(f'norm_regulariser.k: goes with form "exp", got {k:g} with "{form}"; leave it out')
        self.form = form
        self.k = 3.0 if k is None else k
        self.range = range
        self.on = on

    def forward(self, output: Output, batch: Batch) -> LossValue:
        lengths = lengths_of(getattr(output, self.on))
        return LossValue(self._of(lengths).mean(), {"norm": lengths.detach().mean()})

    def _of(self, lengths: Tensor) -> Tensor:
        low, high = self.range
        width = high - low
        if self.form == "exp":
            share, end = (lengths - low) / width, math.exp(-self.k)
            return ((-self.k * share).exp() / self.k + end * share) / (1 - end)
        if self.form == "quad":
            return (1 - (lengths - low) / width).square() / 2
        x, a, b = lengths.clamp(min=low) / width, width / high, width / low
        return (a * x - x.log()) / (b - a) if self.form == "log" else (a * a * x + 1 / x) / (b * b - a * a)
