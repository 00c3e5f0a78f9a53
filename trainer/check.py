"""What a params.json will do, told before it is done."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from data.archive import Images
from params.describe import shown
from params.errors import dotted
from params.reader import Loaded
from params.schema import Params
from params.tree import leaves
from trainer import build

BLOCKS = "▁▂▃▄▅▆▇█"
COLUMNS = 60
STATES = {"sgd": 1, "nesterov": 1, "rmsprop": 2, "amsgrad": 3}  # tensors an optimiser keeps per weight; Adam's two else


def report(loaded: Loaded, archive: Images) -> Iterator[str]:
    """The lines of `--operation check`: every effective value and its origin, data, steps, rates, size, memory."""
    params = loaded.params
    width = max(len(name) for name in loaded.origins)
    for path, value in leaves(loaded.resolved):
        name = dotted(path)
        yield f"{name:<{width}}  {shown(value):<40}  {loaded.origins[name]}"
    yield ""
    yield from (f"note: {notice}" for notice in loaded.notices)
    batches = len(build.sampler(params, archive.labels))
    steps = -(-batches // params.gradient_accumulation)
    yield f"training images        {len(archive):,} of {len(archive.class_names):,} classes ({archive})"
    yield f"steps                  {steps:,} per epoch, {steps * params.epoch:,} in all"
    yield f"learning rate          {_curve(params, steps)}"
    yield from _size(params, len(archive.class_names))


def _curve(params: Params, steps: int) -> str:
    """The learning rate at the start of up to 60 epochs, as a line of blocks with its end points."""
    stages = build.stages(params, steps)
    epochs = sorted({i * (params.epoch - 1) // (COLUMNS - 1) for i in range(COLUMNS)})
    rates = [stages.at(epoch).lr.base_lr * stages.factor(epoch, epoch * steps) for epoch in epochs]
    bars = "".join(BLOCKS[round(rate / max(rates) * (len(BLOCKS) - 1))] for rate in rates)
    return (f"{bars}  base_lr {rates[0]:.3g} first, {max(rates):.3g} highest, {rates[-1]:.3g} last epoch; "
            f"counted in {stages.at(0).course.unit}s")


def _size(params: Params, num_classes: int) -> Iterator[str]:
    with torch.device("meta"):
        network = build.network(params, num_classes)
        losses = build.criterion(params, network, num_classes)
        weights = sum(p.numel() for p in [*network.parameters(), *losses.parameters()])
        activations = _activations(network, params)
    per_weight = 2 + STATES.get(params.optimizer.type, 2) + bool(params.ema_decay)
    width = 4 if params.precision == "fp32" else 2
    memory = 4 * weights * per_weight + width * activations * params.whole_batch / params.processes
    yield f"parameters             {weights:,}; embedding of {network.embedding_dim:,}"
    yield f"memory of a step       about {memory / 2**30:.2f} GiB (weights, gradients, optimiser, activations)"


def _activations(network: nn.Module, params: Params) -> int:
    """Numbers that the forward pass of one image keeps for the backward pass: what every leaf module puts out."""
    count = 0

    def add(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal count
        count += output.numel() if isinstance(output, torch.Tensor) else 0

    handles = [module.register_forward_hook(add) for module in network.modules() if not list(module.children())]
    network.eval()(torch.empty(1, 3, params.img_h, params.img_w, dtype=torch.uint8))
    for handle in handles:
        handle.remove()
    return count
