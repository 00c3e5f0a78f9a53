"""k-reciprocal encodings: an image as weights of those that are among its nearest as it is among theirs."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from evaluate.neighbours import WORKERS, Neighbours, distance, products


class Sparse(NamedTuple):
    """A matrix by rows: row i holds values[starts[i]:starts[i + 1]] at the ascending columns[the same]."""

    starts: np.ndarray  # int64
    columns: np.ndarray  # int32
    values: np.ndarray  # float32

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the entries of several rows stand, row after row, and how many each row has."""
        counts = self.starts[rows + 1] - self.starts[rows]
        before = np.cumsum(counts) - counts
        return np.arange(counts.sum()) + np.repeat(self.starts[rows] - before, counts), counts

    def below(self, row: int) -> "Sparse":
        """The rows from this one on."""
        first = self.starts[row]
        return Sparse(self.starts[row:] - first, self.columns[first:], self.values[first:])

    def turned(self, width: int) -> "Sparse":
        """Rows and columns exchanged, of a matrix with so many columns."""
        order = np.argsort(self.columns, kind="stable")
        rows = np.repeat(np.arange(len(self.starts) - 1, dtype=np.int32), np.diff(self.starts))
        return Sparse(_starts(np.bincount(self.columns, minlength=width)), rows[order], self.values[order])


def encoded(embeddings: np.ndarray, near: Neighbours, k1: int, step: int) -> Sparse:
    """Each image by the weights exp(-distance) of its expanded k-reciprocal neighbours, their sum 1: (N, N).

    The set R*(p, k1) of the paper's equation 3 by 5; a distance counts in units of that of the image's farthest.
    `step` images are encoded at a time.
    """
    count = len(embeddings)
    mutual, half = _mutual(near.rows, k1), _mutual(near.rows, round(k1 / 2))

    def encode(first: int) -> Sparse:
        own, place = np.nonzero(mutual[first:first + step])
        reciprocal = near.rows[first + own, place]
        marks = np.zeros((min(step, count - first), count), bool)
        marks[own, reciprocal] = True
        theirs, members = half[reciprocal], near.rows[reciprocal, :half.shape[1]]  # (pairs, k1 / 2 + 1)
        common = theirs & marks[own[:, None], members]
        theirs &= (3 * np.count_nonzero(common, axis=1) > 2 * np.count_nonzero(theirs, axis=1))[:, None]
        marks[np.repeat(own, np.count_nonzero(theirs, axis=1)), members[theirs]] = True
        keys = np.flatnonzero(marks)
        rows, columns = np.divmod(keys, count)
        cosines = np.full(len(keys), np.nan)
        cosines[np.searchsorted(keys, own * count + reciprocal)] = near.cosines[first + own, place]
        joined = np.isnan(cosines)
        cosines[joined] = products(embeddings, first + rows[joined], columns[joined])
        weights = np.exp(-distance(cosines) / near.farthest[first + rows])
        return _sparse(rows, columns, weights / np.bincount(rows, weights)[rows], len(marks))

    with ThreadPoolExecutor(WORKERS) as pool:
        return _stacked(pool.map(encode, range(0, count, step)))


def most_entries(k1: int) -> int:
    """The most that an encoding can name: each neighbour brings fewer than a third of its own, else they are known."""
    return (k1 + 1) * (1 + (round(k1 / 2) + 1) // 3)


def averaged(encodings: Sparse, near: np.ndarray, step: int) -> Sparse:
    """Each encoding replaced by the mean of those of its nearest images, itself among them: near (N, k2)."""
    count, k2 = near.shape

    def average(first: int) -> Sparse:
        block = near[first:first + step]
        places, counts = encodings.places(block.ravel())
        keys = np.repeat(np.arange(len(block)) * count, counts.reshape(block.shape).sum(axis=1))
        keys += encodings.columns[places]
        named, sums = np.zeros(block.shape[0] * count, bool), np.zeros(block.shape[0] * count, np.float32)
        named[keys] = True
        np.add.at(sums, keys, encodings.values[places])
        keys = np.flatnonzero(named)
        return _sparse(*np.divmod(keys, count), sums[keys] / k2, len(block))

    with ThreadPoolExecutor(WORKERS) as pool:
        return _stacked(pool.map(average, range(0, count, step)))


def _mutual(near: np.ndarray, k: int) -> np.ndarray:
    """Which of an image's k nearest, itself first, have it among theirs: (N, K) -> (N, k + 1) bool."""
    own = np.arange(len(near), dtype=near.dtype)[:, None]
    nearest = near[:, :k + 1]
    return np.column_stack([(nearest[column] == own).any(axis=1) for column in nearest.T])


def _sparse(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, height: int) -> Sparse:
    """From entries by ascending row and column, of a matrix with so many rows."""
    return Sparse(_starts(np.bincount(rows, minlength=height)), columns.astype(np.int32), values.astype(np.float32))


def _stacked(blocks: Iterable[Sparse]) -> Sparse:
    """Matrices below one another."""
    starts, columns, values = zip(*blocks, strict=True)
    counts = np.concatenate([np.diff(of) for of in starts])
    return Sparse(_starts(counts), np.concatenate(columns), np.concatenate(values))


def _starts(counts: np.ndarray) -> np.ndarray:
    """Where rows with so many entries each begin, and the end."""
    return np.concatenate([[0], np.cumsum(counts)])
