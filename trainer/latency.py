"""How long files take, run in turns on this machine."""

import statistics
import time
from collections.abc import Sequence

import numpy as np

from trainer.predict import Infer

SIZES, ROUNDS = (1, 32), 7  # batch sizes, and turns of each file


def latencies(images: Sequence[np.ndarray], *files: Infer) -> dict[int, tuple[float, ...]]:
    """Batch size -> each file's median seconds, on these images (H, W, 3), repeated where they are too few."""
    found = {}
    for size in SIZES:
        pixels = np.stack([images[i % len(images)] for i in range(size)])
        rounds = [[_timed(infer, pixels) for infer in files] for _ in range(1 + ROUNDS)][1:]  # the first warms up
        found[size] = tuple(statistics.median(column) for column in zip(*rounds, strict=True))
    return found


def _timed(infer: Infer, pixels: np.ndarray) -> float:
    began = time.perf_counter()
    infer(pixels)
    return time.perf_counter() - began
