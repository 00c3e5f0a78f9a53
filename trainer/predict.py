"""A network over one split: batches -> Predictions."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from data.records import Batch, Predictions


@torch.no_grad()
def predict(
    network: nn.Module, batches: Iterable[Batch], *, device: torch.device, logits: bool, between: Callable[[], None],
) -> Predictions:
    """Unit embeddings (N, E) float32 and, if asked for, logits (N, K) of every batch in turn.

    Evaluation mode and float32 throughout, which is what the exported file computes; the network's mode is
    put back. Logits of several branches (PCB) are averaged. `between` is called between two batches.
    """
    training = network.training
    network.eval()
    rows: list[tuple[np.ndarray, ...]] = []
    try:
        for batch in batches:
            between()
            output = network(batch.images.to(device, non_blocking=True))
            row = [normalize(output.embedding.float(), dim=1)]
            if logits and output.logits is not None:
                row.append(torch.stack(output.logits).float().mean(dim=0))
            rows.append((batch.labels.numpy(), batch.cameras.numpy(), *(tensor.cpu().numpy() for tensor in row)))
    finally:
        network.train(training)
    labels, cameras, embeddings, *rest = (np.concatenate(column) for column in zip(*rows, strict=True))
    return Predictions(embeddings, rest[0] if rest else None, labels, cameras)
