"""The processes that train one run together, each a rank; functions that one process alone may call as well."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.parallel import DistributedDataParallel

from data.records import Share

Thing = TypeVar("Thing")
PATIENCE = timedelta(hours=6)  # the others wait while the first one scores; a rank that dies is noticed at once


def launched() -> bool:
    """Whether the launcher started this process as one of several."""
    return dist.is_torchelastic_launched()


@contextmanager
def together(devices: Sequence[torch.device]) -> Iterator[None]:
    """While entered, this process is one of those that the launcher started, one for each device."""
    device = devices[int(os.environ["RANK"])]
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(torch.get_num_threads() // len(devices), 1))
    # What is agreed on goes over the CPU, where it waits for no GPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    yield
    dist.destroy_process_group()  # not after an error: it would wait for the others


def share() -> Share:
    """This rank's number and how many there are."""
    return Share(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Share()


def is_first() -> bool:
    """Whether this rank is the one that writes and scores."""
    return share().rank == 0


def only_first(make: Callable[[], Thing]) -> Thing:
    """What the first rank writes with; the others get a stand-in that takes every call and does nothing."""
    return make() if is_first() else cast(Thing, _Bystander())


class _Bystander:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **options: None


def highest(number: int) -> int:
    """The highest of the ranks' numbers, >= 0."""
    if not dist.is_initialized():
        return number
    numbers = torch.tensor(number)
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return int(numbers)


def from_first(thing: Thing) -> Thing:
    """The first rank's, on every rank."""
    if not dist.is_initialized():
        return thing
    things = [thing]
    dist.broadcast_object_list(things, device=torch.device("cpu"))
    return things[0]


def take_buffers_of_first(module: nn.Module) -> None:
    """Give every rank's module the statistics of the first one's, which are saved; batch norms may have their own."""
    if dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def in_order(things: list[Thing]) -> list[Thing]:
    """All ranks' things, on every rank."""
    if not dist.is_initialized():
        return things
    lists: list[Any] = [None] * share().ranks
    dist.all_gather_object(lists, things)
    return [thing for some in lists for thing in some]


def whole(rows: Tensor, count: int) -> Tensor:
    """The `count` rows of all ranks from each one's share of them, (b, ...) -> (B, ...), with gradient.

    Every rank must compute the same loss from them.
    """
    joined: Tensor = _Whole.apply(rows, count) if dist.is_initialized() else rows  # type: ignore[no-untyped-call]
    return joined


def total(numbers: Tensor) -> Tensor:
    """The sum over the ranks, with gradient."""
    summed: Tensor = _Total.apply(numbers) if dist.is_initialized() else numbers  # type: ignore[no-untyped-call]
    return summed


def mean(values: Tensor) -> Tensor:
    """The mean of all ranks' values, (b,) -> scalar, with gradient."""
    if not dist.is_initialized():
        return values.mean()
    sums = total(torch.stack([values.sum(), values.new_tensor(len(values))]))
    return sums[0] / sums[1]


class _Whole(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, count: int) -> Tensor:
        ctx.share, ctx.count = share(), count
        ranks = range(ctx.share.ranks)
        parts = [Share(rank, len(ranks)).of(count) for rank in ranks]
        most = max(part.stop - part.start for part in parts)
        padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
        told = [torch.empty_like(padded) for _ in ranks]
        dist.all_gather(told, padded)
        return torch.cat([some[:part.stop - part.start] for some, part in zip(told, parts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # All ranks have this gradient: their sum is asked, of which DistributedDataParallel takes the mean.
        return gradient[ctx.share.of(ctx.count)] * ctx.share.ranks, None


class _Total(Function):
    @staticmethod
    def forward(ctx: Any, numbers: Tensor) -> Tensor:
        summed = numbers.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Total.forward(ctx, gradient)


def with_shared_gradients(module: nn.Module) -> nn.Module:
    """The module, whose backward pass leaves the mean of the ranks' gradients; what trains must not change after."""
    return DistributedDataParallel(module, find_unused_parameters=True) if dist.is_initialized() else module


def sharing(module: nn.Module, *, now: bool) -> AbstractContextManager[None]:
    """Within it gradients are shared at once, or gathered until a later backward pass shares them."""
    return nullcontext() if now or not isinstance(module, DistributedDataParallel) else module.no_sync()


@contextmanager
def own_draws(device: torch.device) -> Iterator[None]:
    """Within it each rank draws its own numbers, outside all draw the same; one process's are as without it."""
    if not dist.is_initialized():
        yield
        return
    seed = int(torch.randint(2**62, ()))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed + share().rank)
        yield
