"""Focal loss."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from data.records import Batch
from trainer.losses.logits import accuracy, branch_logits
from trainer.output import Loss, LossValue, Output


class Focal(Loss):
    """Mean of -(1 - p)^gamma ln p, p the probability of the image's class; summed over branches.

    Lin et al., Focal Loss for Dense Object Detection, 2017 (without its class weights).
    """

    classifier = "linear"

    def __init__(self, *, gamma: Annotated[
            float, Field(ge=0), "how much well classified images are played down"] = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, output: Output, batch: Batch) -> LossValue:
        logits = branch_logits(output)
        terms = [self._of_branch(z, batch.labels) for z in logits]
        return LossValue(torch.stack(terms).sum(), {"accuracy": accuracy(logits, batch.labels)})

    def _of_branch(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = logits.log_softmax(dim=1).gather(1, labels[:, None])
        # 1 - p without cancellation; not 0, where a gamma below 1 has an infinite slope
        rest = -torch.expm1(log_p).clamp(max=-torch.finfo(log_p.dtype).tiny)
        return -(rest.pow(self.gamma) * log_p).mean()
