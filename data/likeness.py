"""Images that look the same: one picture stored again at another quality, size or brightness."""

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

SIDE = 16  # of a thumbnail
ALIKE = 0.997  # correlation of thumbnails: pictures saved again reach it, two bottles or trousers of one kind do not
PLAIN = 4.0  # deviation of the pixels, of 255, below which a picture shows nothing to compare
ROWS, COLUMNS = 256, 4096  # thumbnails compared at once
CELLS = 4  # a side of a thumbnail in coarse cells


def thumbnail(image: Image.Image) -> np.ndarray:
    """An RGB image averaged to (SIDE, SIDE, 3) uint8."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def like_pairs(first: np.ndarray, second: np.ndarray) -> Iterator[np.ndarray]:
    """All pairs of thumbnails (N, SIDE, SIDE, 3) and (M, SIDE, SIDE, 3) that correlate with ALIKE, in blocks (P, 2).

    Brightness and contrast do not count, and plain ones are like nothing. Memory does not grow with the pairs.
    """
    ones, others = (np.flatnonzero(_deviation(thumbnails) >= PLAIN) for thumbnails in (first, second))
    for rows, columns in _near(_coarse(first[ones]), _coarse(second[others])):
        rows, columns = ones[rows], others[columns]
        i, j = np.nonzero(_standard(first[rows]) @ _standard(second[columns]).T >= ALIKE)
        yield np.stack([rows[i], columns[j]], axis=1)


def _near(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of two arrays (N, C) and (M, C), block by block, with all among them that are as near as the like must be.

    Along any one direction they are as near; so both are sorted along one, and only neighbours are compared.
    """
    if not (len(first) and len(second)):
        return
    nearest = math.sqrt(2 - 2 * ALIKE)  # of unit vectors
    spread = second - second.mean(axis=0)
    direction = np.linalg.eigh(spread.T @ spread)[1][:, -1]  # along which they vary most
    along, across = first @ direction, second @ direction
    order, sorted_second = np.argsort(along), np.argsort(across)
    across, second = across[sorted_second], second[sorted_second]
    squares = np.square(second).sum(axis=1)
    for start in range(0, len(first), ROWS):
        rows = order[start:start + ROWS]
        low = np.searchsorted(across, along[rows[0]] - 1.001 * nearest)
        high = np.searchsorted(across, along[rows[-1]] + 1.001 * nearest)
        own = np.square(first[rows]).sum(axis=1)[:, None]
        for at in range(low, high, COLUMNS):
            columns = slice(at, min(at + COLUMNS, high))
            distances = own + squares[columns] - 2 * first[rows] @ second[columns].T
            near = distances <= 1.001 * nearest ** 2  # what rounding may add
            if near.any():
                yield rows[near.any(axis=1)], sorted_second[columns][near.any(axis=0)]


def _coarse(thumbnails: np.ndarray) -> np.ndarray:
    """Thumbnails averaged to CELLS x CELLS, in a measure in which none are farther from each other than before."""
    size = SIDE // CELLS
    means = [_standard(thumbnails[start:start + ROWS]).reshape(-1, CELLS, size, CELLS, size, 3).mean(axis=(2, 4))
             for start in range(0, len(thumbnails), ROWS)]
    return size * np.concatenate([np.empty((0, CELLS, CELLS, 3), np.float32), *means]).reshape(-1, 3 * CELLS * CELLS)


def _deviation(thumbnails: np.ndarray) -> np.ndarray:
    deviation: np.ndarray = thumbnails.reshape(-1, 3 * SIDE * SIDE).std(axis=1, dtype=np.float32)
    return deviation


def _standard(thumbnails: np.ndarray) -> np.ndarray:
    """Thumbnails as vectors of mean 0 and length 1."""
    vectors = thumbnails.reshape(-1, 3 * SIDE * SIDE).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
