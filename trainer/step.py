"""From a batch to its loss, as one module."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from data.records import Batch
from trainer import ranks
from trainer.criterion import Criterion
from trainer.output import Output, each

Losses = tuple[Tensor, dict[str, Tensor], Output]


class Step(nn.Module):
    """Batch -> (loss, scalars by name, output without gradient).

    The network sees this rank's images, in the arithmetic of `autocast`; the losses see the whole batch.
    """

    def __init__(
        self, network: nn.Module, criterion: Criterion, autocast: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__()
        self.network, self.criterion, self._autocast = network, criterion, autocast

    def forward(self, batch: Batch) -> Losses:
        with ranks.own_draws(batch.images.device), self._autocast():
            output: Output = self.network(batch.images)
        output = each(lambda rows: ranks.whole(rows, len(batch.labels)), output)
        loss, scalars = self.criterion(output, batch)
        return loss, scalars, each(torch.Tensor.detach, output)
