"""Softmax cross entropy."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field

from data.records import Batch
from trainer.losses.logits import accuracy, branch_logits
from trainer.output import Loss, LossValue, Output


class Softmax(Loss):
    """Cross entropy, summed over branches; a target is (1 - label_smoothing) one-hot + label_smoothing / K.

    Szegedy et al., Rethinking the Inception Architecture, 2016 (label smoothing).
    """

    classifier = "linear"

    def __init__(self, *, label_smoothing: Annotated[
            float, Field(ge=0, lt=1), "share of the target spread over all classes"] = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, output: Output, batch: Batch) -> LossValue:
        logits = branch_logits(output)
        terms = [F.cross_entropy(z, batch.labels, label_smoothing=self.label_smoothing) for z in logits]
        return LossValue(torch.stack(terms).sum(), {"accuracy": accuracy(logits, batch.labels)})
