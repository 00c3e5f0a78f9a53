"""Does an exported file say what its network says?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trainer.predict import Run, Said, joined

BATCH_SIZES = (1, 2, 3, 7, 16)
LEAST_SCALE = 0.01  # margins of a young network are near 0, where rounding is a large share of them


class Level(NamedTuple):
    """How near a file has to be to its network."""

    cosine: float  # of the embeddings, at least
    relative: float  # difference of logits and margins, at most
    replayed: float  # cosine of its embeddings on another machine to those here, at least


# Below fp32 the first two only tell a broken file from a rounded one: whether it is good enough, the metric tells.
LEVELS = {"fp32": Level(0.9999, 1e-3, 0.9999), "fp16": Level(0.999, 1e-2, 0.999), "int8": Level(0.9, 0.25, 0.99)}


class ProofError(ValueError):
    """An exported file differs from its network: one line that says at which batch size, and by how much."""

    exit_code = 5


@dataclass(frozen=True)
class Agreement:
    """How far file and network agree at one batch size, in the worst case over images."""

    batch_size: int
    cosine: float  # of the embeddings
    max_abs: float  # difference of a component of the embeddings
    relative: float  # difference of logits and margins as a fraction of the largest, or of LEAST_SCALE; 0 without any


def prove(by_network: Run, by_file: Run, pixels: np.ndarray, *,
          batch_sizes: Sequence[int] = BATCH_SIZES, level: Level = LEVELS["fp32"]) -> list[Agreement]:
    """Compare both on all pixels (N, H, W, 3), which the file sees in batches of every size in turn.

    Where there are fewer pixels than a batch takes, they are repeated. Raises ProofError at the first size at
    which the file fails or is farther off than the level allows.
    """
    pixels = pixels[np.arange(max(len(pixels), *batch_sizes)) % len(pixels)]
    expected = by_network(pixels)
    agreements = []
    for size in batch_sizes:
        agreement = _agreement(size, expected, _in_batches(by_file, pixels, size))
        _check(agreement, level)
        agreements.append(agreement)
    return agreements


def _in_batches(by_file: Run, pixels: np.ndarray, size: int) -> Said:
    try:
        return joined([by_file(pixels[start:start + size]) for start in range(0, len(pixels), size)])
    except Exception as error:  # onnxruntime's errors have no class in common
        raise ProofError(f"batch of {size}: the file does not run: {str(error).splitlines()[0]}") from error


def _agreement(size: int, expected: Said, found: Said) -> Agreement:
    if found.keys() != expected.keys():
        raise ProofError(f"outputs {', '.join(expected)} expected, the file has {', '.join(found)}")
    others = found.keys() - {"embeddings"}
    return Agreement(
        batch_size=size,
        cosine=_least_cosine(expected["embeddings"], found["embeddings"]),
        max_abs=float(np.abs(expected["embeddings"] - found["embeddings"]).max()),
        relative=max((_relative(expected[name], found[name]) for name in others), default=0.0))


def _check(agreement: Agreement, level: Level) -> None:
    where = f"batch of {agreement.batch_size}"
    if not agreement.cosine >= level.cosine:  # also where it is NaN
        raise ProofError(
            f"{where}: cosine {agreement.cosine:.6f} to the network, at least {level.cosine} expected")
    if not agreement.relative <= level.relative:
        raise ProofError(f"{where}: logits or margins of network and file differ by {agreement.relative:.2%} "
                         f"of the largest, at most {level.relative:.2%} expected")


def _least_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The smallest cosine of rows of (N, D) and (N, D), in float64; 0 with a row of zeros."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-12)).min())


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / max(float(np.abs(a).max()), LEAST_SCALE))
