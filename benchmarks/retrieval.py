"""Retrieval metrics at the size of Stanford Online Products: recall at 1, 10, 100 and 1,000, MAP@R, R-precision.

python -m benchmarks.retrieval [--rounds 1] [--small]

retrieval_evaluate, from float32 embeddings of 60,502 images of 11,316 classes to its metrics, each image asking all
others, against the bare float64 matrix product over the same blocks, and beside pytorch-metric-learning's
AccuracyCalculator with faiss, which finds as many neighbours as the largest class has images, and so gives no recall
beyond. NMI is that of one scikit-learn k-means run at a quarter of the images and classes; as it costs images x
classes, all of them take some 16 times as long.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from benchmarks.measure import (
    MIB, NO_BAR, Comparison, Limit, agreed, arguments, at_most, extra_mib, in_turns, table,
)
from data.records import Predictions
from evaluate.clustering import clustering_nmi
from evaluate.distances import unit
from evaluate.ranking import BLOCK_BYTES
from evaluate.retrieval_evaluate import run_eval

IMAGES, CLASSES, DIMENSION = 60_502, 11_316, 512
KS = [1, 10, 100, 1000]
SAME = {"recall@1": "precision_at_1", "map@r": "mean_average_precision_at_r", "r_precision": "r_precision"}


def main() -> None:
    """Print the ratio to the product, the memory, and how far the metrics are from the peer's."""
    given = arguments(__doc__, rounds=1)
    divisor = 20 if given.small else 1
    split = drawn(IMAGES // divisor, CLASSES // divisor)
    config = {"evaluation_params": {"k": KS}}
    found: dict[str, dict[str, float]] = {}
    grown: list[float] = []
    ours, bare, peer = in_turns(
        given.rounds,
        lambda: grown.append(extra_mib(lambda: found.update(ours=run_eval(config, lambda name: split)))),
        partial(product, unit(split.embeddings)),
        lambda: found.update(peer=peers_metrics(split)))
    for name, theirs in SAME.items():
        agreed(f"{name} and {theirs}", abs(found["ours"][name] - found["peer"][theirs]), 1e-4)
    size = f"{len(split.labels):,} images"
    part = drawn(IMAGES // divisor // 4, CLASSES // divisor // 4)
    clustering = in_turns(1, partial(clustering_nmi, unit(part.embeddings), part.labels))[0][0]
    print("\n" + table([
        Comparison(size, ours, "float64 product", bare, at_most(1.6)),
        Comparison(size, ours, "AccuracyCalculator", peer),
        Limit(f"{size}, memory beyond the embeddings", max(grown) * MIB / 1e6, "MB", at_most(1000)),
        Limit(f"NMI of {len(part.labels):,} images, {part.labels.max() + 1:,} classes", clustering, "s", NO_BAR)]))


def drawn(images: int, classes: int) -> Predictions:
    """Noise about the centres of classes, of two images at the least."""
    draw = np.random.default_rng(0)
    pairs = np.tile(np.arange(classes), 2)
    labels = draw.permutation(np.concatenate([pairs, draw.integers(0, classes, images - len(pairs))]))
    embeddings = draw.standard_normal((images, DIMENSION), np.float32)
    embeddings += 0.45 * draw.standard_normal((classes, DIMENSION), np.float32)[labels]
    return Predictions(embeddings, None, labels, np.full(images, -1))


def product(rows: np.ndarray) -> None:
    """The bare product of all with all, over the blocks of queries that ranking uses."""
    step = BLOCK_BYTES // (8 * len(rows))
    for first in range(0, len(rows), step):
        rows[first:first + step] @ rows.T


def peers_metrics(split: Predictions) -> dict[str, Any]:
    """The peer's metrics of unit embeddings in float32."""
    calculator = AccuracyCalculator(include=tuple(SAME.values()), k="max_bin_count", device=torch.device("cpu"))
    embeddings = torch.nn.functional.normalize(torch.from_numpy(split.embeddings))
    metrics: dict[str, Any] = calculator.get_accuracy(embeddings, torch.from_numpy(split.labels))
    return metrics


if __name__ == "__main__":
    main()
