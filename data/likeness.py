"""Images that look the same: one picture stored again at another quality, size or brightness."""

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

SIDE = 16  # of a thumbnail
ALIKE = 0.997  # correlation of thumbnails: pictures saved again reach it, two bottles or trousers of one kind do not
PLAIN = 4.0  # deviation of the pixels, of 255, below which a picture shows nothing to compare
BLOCK = 256  # thumbnails compared at once with those that may be like them
PAIRS_AT_ONCE = 1 << 14
CELLS = 4  # a side of a thumbnail in coarse cells


def thumbnail(image: Image.Image) -> np.ndarray:
    """An RGB image averaged to (SIDE, SIDE, 3) uint8."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def like_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """All pairs (P, 2), sorted, of thumbnails (N, SIDE, SIDE, 3) and (M, SIDE, SIDE, 3) that correlate with ALIKE.

    Brightness and contrast do not count, and plain ones are like nothing. Of 100,000 with each other: ten seconds.
    """
    ones, others = (np.flatnonzero(_deviation(thumbnails) >= PLAIN) for thumbnails in (first, second))
    found = [np.empty((0, 2), np.int64)]
    for rows, columns in _near(_coarse(first[ones]), _coarse(second[others])):
        candidates = np.stack([ones[rows], others[columns]], axis=1)
        for start in range(0, len(candidates), PAIRS_AT_ONCE):
            pairs = candidates[start:start + PAIRS_AT_ONCE]
            alike = (_standard(first[pairs[:, 0]]) * _standard(second[pairs[:, 1]])).sum(axis=1) >= ALIKE
            found.append(pairs[alike])
    pairs = np.concatenate(found)
    return pairs[np.lexsort(pairs.T[::-1])]


def _near(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of two arrays (N, C) and (M, C) that are as near as thumbnails have to be, block by block.

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
    for start in range(0, len(first), BLOCK):
        rows = order[start:start + BLOCK]
        low = np.searchsorted(across, along[rows[0]] - 1.001 * nearest)
        high = np.searchsorted(across, along[rows[-1]] + 1.001 * nearest)
        distances = (np.square(first[rows]).sum(axis=1)[:, None] + squares[low:high]
                     - 2 * first[rows] @ second[low:high].T)
        i, j = np.nonzero(distances <= 1.001 * nearest ** 2)  # what rounding may add
        yield rows[i], sorted_second[low:high][j]


def _coarse(thumbnails: np.ndarray) -> np.ndarray:
    """Thumbnails averaged to CELLS x CELLS, in a measure in which none are farther from each other than before."""
    size = SIDE // CELLS
    means = [_standard(thumbnails[start:start + BLOCK]).reshape(-1, CELLS, size, CELLS, size, 3).mean(axis=(2, 4))
             for start in range(0, len(thumbnails), BLOCK)]
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
