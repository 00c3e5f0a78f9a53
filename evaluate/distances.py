"""Unit embeddings and their cosines, by blocks of queries."""

from dataclasses import dataclass

import numpy as np

from data.records import DataError

# Coordinates are multiples of 2^-26, so products are multiples of 2^-52 and, as sums of unit vectors'
# products stay below 2, float64 holds every partial sum exactly. Cosines are then the same whatever the
# block, the order of summation, the number of threads and the BLAS, and equal embeddings tie exactly.
# The rounding, 2^-27 per coordinate, is finer than float32's own.
_GRID = 2.0**26
EPSILON = 1e-12  # what no length or distance that divides is below


def unit(embeddings: np.ndarray, split: str = "embeddings") -> np.ndarray:
    """Embeddings at unit length, (N, D) -> (N, D) float64; a zero vector stays zero.

    DataError names the split and the row of one that is not finite.
    """
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise DataError(f"{split}: the embedding of row {np.argmin(finite)} is not finite, "
                        f"nor are {np.count_nonzero(~finite)} of {len(finite)} in all; "
                        "has training diverged?")
    rows = embeddings.astype(np.float64, order="C")
    norms = np.sqrt(np.vecdot(rows, rows))[:, None]  # (N, 1)
    rows *= _GRID / np.maximum(norms, EPSILON)
    np.rint(rows, out=rows)
    rows /= _GRID
    return rows


@dataclass(frozen=True)
class Cosine:
    """The (Q, G) matrix of cosines of unit embeddings (Q, D) and (G, D), computed by the rows asked for."""

    query: np.ndarray
    gallery: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, G)."""
        return len(self.query), len(self.gallery)

    def __getitem__(self, rows: slice) -> np.ndarray:
        block: np.ndarray = self.query[rows] @ self.gallery.T
        return block


@dataclass(frozen=True)
class ShiftedAngle:
    """Minus the angle of unit embeddings, 2 asin(d / 2) of their distance d, minus a shift per gallery row (G,)."""

    cosine: Cosine
    shift: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, G)."""
        return self.cosine.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        nearness: np.ndarray = -np.arccos(np.clip(self.cosine[rows], -1, 1)) - self.shift
        return nearness
