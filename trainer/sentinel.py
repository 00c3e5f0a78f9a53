"""What goes wrong in training, said as soon as it shows."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

log = logging.getLogger("kiln")
COLLAPSED = 0.01  # spread of unit embeddings below which all images look alike to the network


class TrainingError(RuntimeError):
    """Training cannot go on: one line with epoch, step and what to change."""

    exit_code = 5


class NonFinite:
    """Stops the run at a loss that is not finite.

    Each step is looked at when the next one has been launched, so that a GPU is never waited for in between;
    `settle` looks at the last one, and is called before every snapshot.
    """

    def __init__(self) -> None:
        self._pending: tuple[int, int, Mapping[str, Tensor]] | None = None

    def watch(self, epoch: int, step: int, losses: Mapping[str, Tensor]) -> None:
        """Look at the step before; remember this one's losses by name."""
        self.settle()
        self._pending = (epoch, step, losses)

    def settle(self) -> None:
        """Raise TrainingError when the remembered step's loss is not finite."""
        if self._pending is None:
            return
        epoch, step, losses = self._pending
        values = {name: float(value) for name, value in losses.items()}
        bad = [f"{name} is {value}" for name, value in values.items() if value - value != 0]
        if bad:
            raise TrainingError(
                f"epoch {epoch} step {step}: {', '.join(bad)}; lower lr.base_lr and lr.fc_lr, lengthen lr.warmup, set "
                "gradient_clip, or use precision fp32; the last good snapshot is kept")
        self._pending = None


def embedding_spread(embedding: Tensor) -> Tensor:
    """Root mean squared distance of unit embeddings (B, E) from their mean: 0 = collapsed, about 1 = spread out."""
    unit = normalize(embedding.detach().float(), dim=1)
    return (unit - unit.mean(dim=0)).square().sum(dim=1).mean().sqrt()


class Collapse:
    """Warns, once, when the embeddings of a batch are all alike."""

    def __init__(self) -> None:
        self._warned = False

    def watch(self, epoch: int, step: int, spread: float) -> None:
        """Look at a logged step's embedding spread."""
        if spread < COLLAPSED and not self._warned:
            self._warned = True
            log.warning(
                "epoch %d step %d: the embedding has collapsed (spread %.2g): every image gets the same one; lower "
                'lr.base_lr and lr.fc_lr, lengthen lr.warmup, or set the triplet\'s margin to "soft_margin"',
                epoch, step, spread)


def first_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory; lower batch_size and raise gradient_accumulation, or set precision to bf16"
    return (str(error) or type(error).__name__).splitlines()[0]


def finite_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """An evaluation's values as plain floats, which snapshots hold; TrainingError when one is not finite."""
    plain = {name: float(value) for name, value in metrics.items()}
    bad = [name for name, value in plain.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(f"evaluation: {', '.join(bad)} not finite; the last good snapshot is kept")
    return plain


def finite_weights(state: Mapping[str, Any], epoch: int, step: int) -> None:
    """TrainingError when a number of the network or the losses is not finite.

    An overflow in the backward pass leaves the loss finite once.
    """
    for part in ("network", "averaged", "criterion"):
        for name, tensor in (state[part] or {}).items():
            if not torch.isfinite(tensor).all():
                raise TrainingError(f"epoch {epoch} step {step}: {part} {name} is not finite; lower lr.base_lr "
                                    "and lr.fc_lr, or use precision fp32; the last good snapshot is kept")
