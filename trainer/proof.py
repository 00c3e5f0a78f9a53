"""Does an exported file say what its network says?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trainer.predict import Infer, Outputs, joined
from trainer.sentinel import first_line

BATCH_SIZES = (1, 2, 3, 7, 16)
LEAST_SCALE = 0.01  # margins of a young network are near 0, where rounding is a large share of them


class Tolerance(NamedTuple):
    """How near a file has to be to its network."""

    cosine: float  # of the embeddings, at least
    relative: float  # difference of any other output, at most
    replayed: float  # cosine of its embeddings on another machine to those here, at least


# Below fp32 the first two only tell a broken file from a rounded one: whether it is good enough, the metric tells.
TOLERANCES = {"fp32": Tolerance(0.9999, 1e-3, 0.9999), "fp16": Tolerance(0.999, 1e-2, 0.999),
              "int8": Tolerance(0.9, 0.25, 0.99)}


class ProofError(ValueError):
    """An exported file differs from its network: one line that says at which batch size, and by how much."""

    exit_code = 5


@dataclass(frozen=True)
class Agreement:
    """How far file and network agree at one batch size, in the worst case over images."""

    batch_size: int
    cosine: float  # of the embeddings
    max_abs: float  # difference of a component of the embeddings
    relative: Mapping[str, float]  # other output -> difference as a fraction of the largest, or of LEAST_SCALE


def prove(by_network: Infer, by_file: Infer, pixels: np.ndarray,
          tolerance: Tolerance = TOLERANCES["fp32"]) -> list[Agreement]:
    """Compare both on all pixels (N, H, W, 3), which the file sees in batches of every size of BATCH_SIZES in turn.

    Where there are fewer pixels than a batch takes, they are repeated. Raises ProofError at the first size at
    which the file fails or is farther off than the tolerance.
    """
    pixels = pixels[np.arange(max(len(pixels), *BATCH_SIZES)) % len(pixels)]
    expected = by_network(pixels)
    agreements = []
    for size in BATCH_SIZES:
        agreement = _agreement(size, expected, _in_batches(by_file, pixels, size))
        _check(agreement, tolerance)
        agreements.append(agreement)
    return agreements


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the rows of (N, D) with those of (N, D), in float64; 0 with a row of zeros."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: np.ndarray = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
    return found


def _in_batches(by_file: Infer, pixels: np.ndarray, size: int) -> Outputs:
    try:
        return joined([by_file(pixels[start:start + size]) for start in range(0, len(pixels), size)])
    except Exception as error:  # onnxruntime's errors have no class in common
        raise ProofError(f"batch of {size}: the file does not run: {first_line(error)}") from error


def _agreement(size: int, expected: Outputs, found: Outputs) -> Agreement:
    if found.keys() != expected.keys():
        raise ProofError(f"outputs {', '.join(expected)} expected, the file has {', '.join(found)}")
    return Agreement(
        batch_size=size,
        cosine=float(cosines(expected["embeddings"], found["embeddings"]).min()),
        max_abs=float(np.abs(expected["embeddings"] - found["embeddings"]).max()),
        relative={name: _relative(value, found[name]) for name, value in expected.items() if name != "embeddings"})


def _check(agreement: Agreement, tolerance: Tolerance) -> None:
    where = f"batch of {agreement.batch_size}"
    if not agreement.cosine >= tolerance.cosine:  # also where it is NaN
        raise ProofError(
            f"{where}: cosine {agreement.cosine:.6f} to the network, at least {tolerance.cosine} expected")
    for name, difference in agreement.relative.items():
        if not difference <= tolerance.relative:
            raise ProofError(f"{where}: {name} of network and file differ by {difference:.2%} of the largest, at most "
                             f"{tolerance.relative:.2%} expected")


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / max(float(np.abs(a).max()), LEAST_SCALE))
