"""Batch norm over the images of all ranks."""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer import ranks

Network = TypeVar("Network", bound=nn.Module)
PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class CpuSyncBatchNorm(_BatchNorm):
    """What nn.SyncBatchNorm, which needs a GPU, computes: (B, C, ...) -> (B, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        shape = (1, -1, *[1] * (input.dim() - 2))
        values = input.float()
        mean, variance, count = self._moments(values)
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        normed = (values - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(input.dtype)

    def _moments(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and variance (C,) over all ranks, and over how many values; squares of differences cancel nothing."""
        dims = [dim for dim in range(values.dim()) if dim != 1]
        own = values.new_tensor([values.numel() / values.shape[1]])
        sums = ranks.total(torch.cat([values.sum(dims), own]))
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        shape = (1, -1, *[1] * (values.dim() - 2))
        return mean, ranks.total((values - mean.view(shape)).square().sum(dims)) / count, count

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def synchronised(network: Network, device: torch.device) -> Network:
    """The network with its batch norms made to see all ranks' images, their weights, statistics and names kept.

    ValueError for a batch norm that does more than torch's own.
    """
    kind = nn.SyncBatchNorm if device.type == "cuda" else CpuSyncBatchNorm
    for parent in list(network.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, _BatchNorm):
                setattr(parent, name, _alike(norm, kind))
    return network


def _alike(norm: _BatchNorm, kind: type[_BatchNorm]) -> _BatchNorm:
    if type(norm) not in PLAIN or not norm.track_running_stats:
        raise ValueError(f"sync_batch_norm: {type(norm).__name__} has no counterpart over several processes; set "
                         "sync_batch_norm false")
    new = kind(norm.num_features, norm.eps, norm.momentum, norm.affine)
    for name, value in [*norm.named_parameters(), *norm.named_buffers()]:
        setattr(new, name, value)
    return new.train(norm.training)
