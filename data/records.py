"""The types that pass between data, trainer and evaluate.

Shape letters, here and everywhere: B batch, C channels, H height, W width, D features, E embedding,
K classes, N rows, Q queries, G gallery.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:  # importing torch takes seconds, which packing an image set need not wait
    from torch import Tensor


class DataError(ValueError):
    """An image set or archive cannot be used: one line that names the file, the record and the remedy."""

    exit_code = 3


class Batch(NamedTuple):
    """One step's images with what is known of them."""

    images: "Tensor"  # (B, 3, H, W) uint8 RGB at network size; of several processes, this one's share of them
    labels: "Tensor"  # (B,) int64, 0..K-1
    cameras: "Tensor"  # (B,) int64, -1 where the source has none


class Share(NamedTuple):
    """What one of several processes takes of things in order: a run of them, as long as the others' or one longer."""

    rank: int = 0
    ranks: int = 1

    def of(self, count: int) -> slice:
        """Its part of `count` things; all parts together are each thing once."""
        return slice(count * self.rank // self.ranks, count * (self.rank + 1) // self.ranks)


WHOLE = Share()


class Predictions(NamedTuple):
    """What a network, or its exported file, says of one split, in the split's order."""

    embeddings: np.ndarray  # (N, E) float32
    logits: np.ndarray | None  # (N, K) float32
    labels: np.ndarray  # (N,) int64; -1 = junk
    cameras: np.ndarray  # (N,) int64, -1 where the source has none
    margins: np.ndarray | None = None  # (N,) float32 of norm-aware networks
    norms: np.ndarray | None = None  # (N,) float32 likewise: length of the vectors that have them


Predict = Callable[[str], Predictions]  # split name ("query", "gallery", "val", "test") -> Predictions


RunEval = Callable[[Mapping[str, Any], Predict], dict[str, float]]  # (config, predict) -> metrics


class BatchSampler(Protocol):
    """Which images form which batch; a function of (labels, seed, epoch) alone."""

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The epoch's batches of image indices, in order."""

    def __len__(self) -> int:
        """Batches per epoch, exactly."""
