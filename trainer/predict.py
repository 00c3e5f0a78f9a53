"""A network, or its exported file, over one split: batches -> Predictions."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from data.records import Batch, Predictions
from trainer import ranks
from trainer.output import deployed
from trainer.sentinel import TrainingError

Said = Mapping[str, np.ndarray]  # "embeddings" (B, E); "logits" (B, K), "margins" and "norms" (B,) where there are any
Run = Callable[[np.ndarray], Said]  # (B, H, W, 3) uint8 RGB -> what is said of them


def run_network(network: nn.Module, *, logits: bool, device: torch.device | str = "cpu") -> Run:
    """A network as a Run: in evaluation mode and float32, as its exported file computes; its own mode is put back."""
    @torch.no_grad()
    def run(pixels: np.ndarray) -> Said:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        training = network.training
        network.eval()
        try:
            output = network(images.to(device, non_blocking=True))
        finally:
            network.train(training)
        return {name: value.cpu().numpy() for name, value in deployed(output, logits=logits).items()}

    return run


def predict(run: Run, batches: Iterable[Batch | None], between: Callable[[], None] = lambda: None) -> Predictions:
    """What is said of every batch in turn; `between` is called before each. TrainingError: not finite.

    Several ranks each give their batches, and None where others have one more; each gets what is said of all.
    """
    parts = []
    for batch in batches:
        between()
        if batch is not None:
            parts.append((run(batch.images.permute(0, 2, 3, 1).numpy()), batch.labels.numpy(), batch.cameras.numpy()))
    said, labels, cameras = zip(*ranks.in_order(parts), strict=True)
    whole = joined(said)
    if not np.isfinite(whole["embeddings"]).all():
        raise TrainingError("evaluation: the embeddings are not finite; lower lr.base_lr and lr.fc_lr, or set "
                            "gradient_clip; the last good snapshot is kept")
    return Predictions(whole["embeddings"], whole.get("logits"), np.concatenate(labels), np.concatenate(cameras),
                       whole.get("margins"), whole.get("norms"))


def joined(said: Sequence[Said]) -> dict[str, np.ndarray]:
    """What is said of several batches, as of one."""
    return {name: np.concatenate([part[name] for part in said]) for name in said[0]}
