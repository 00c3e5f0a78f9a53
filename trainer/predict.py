"""A network, or its exported file, over one split: batches -> Predictions."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from data.records import Batch, Predictions
from trainer import ranks
from trainer.output import deployed
from trainer.sentinel import TrainingError

# "embeddings" (B, E); "logits" (B, K), "margins" and "norms" (B,) where there are any
Outputs = Mapping[str, np.ndarray]
Infer = Callable[[np.ndarray], Outputs]  # of (B, H, W, 3) uint8 RGB


def run_network(network: nn.Module, *, logits: bool, device: torch.device | str = "cpu") -> Infer:
    """Infer by a network: in evaluation mode and float32, as its exported file does; its own mode is put back."""
    @torch.no_grad()
    def infer(pixels: np.ndarray) -> Outputs:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        training = network.training
        network.eval()
        try:
            output = network(images.to(device, non_blocking=True))
        finally:
            network.train(training)
        return {name: value.cpu().numpy() for name, value in deployed(output, logits=logits).items()}

    return infer


def predict(infer: Infer, batches: Iterable[Batch | None], between: Callable[[], None] = lambda: None) -> Predictions:
    """The outputs of every batch in turn; `between` is called before each. TrainingError: not finite.

    Several ranks each give their batches, and None where others have one more; each gets those of all.
    """
    parts = []
    for batch in batches:
        between()
        if batch is not None:
            outputs = infer(batch.images.permute(0, 2, 3, 1).numpy())
            parts.append((outputs, batch.labels.numpy(), batch.cameras.numpy()))
    of_all, labels, cameras = zip(*ranks.in_order(parts), strict=True)
    whole = joined(of_all)
    if not np.isfinite(whole["embeddings"]).all():
        raise TrainingError("evaluation: the embeddings are not finite; lower lr.base_lr and lr.fc_lr, or set "
                            "gradient_clip; the last good snapshot is kept")
    return Predictions(whole["embeddings"], whole.get("logits"), np.concatenate(labels), np.concatenate(cameras),
                       whole.get("margins"), whole.get("norms"))


def joined(outputs: Sequence[Outputs]) -> dict[str, np.ndarray]:
    """The outputs of several batches, as of one."""
    return {name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}
