"""Every image's nearest among all, from one half of the symmetric matrix of cosines."""

from typing import NamedTuple

import numpy as np

from evaluate.distances import EPSILON

PANEL_BYTES = 128 * 2**20


class Neighbours(NamedTuple):
    """The nearest images of queries and gallery, N in all, queries first."""

    rows: np.ndarray  # (N, K) the image itself, then the K - 1 nearest by falling cosine, ties by row
    farthest: np.ndarray  # (N,) distance, 2 - 2 cosine, of the farthest; above 0
    distances: np.ndarray  # (Q, G) float32 of queries and gallery, the same


def neighbours(embeddings: np.ndarray, queries: int, k: int, *, panel_bytes: int = PANEL_BYTES) -> Neighbours:
    """The k nearest of every unit embedding, (N, D) with the queries first; all N where k, at least 2, is more.

    A panel of rows meets the rows from itself on, so that each pair is multiplied once; only pairs that may
    be among the nearest are kept and sorted. A panel is of 8 k rows, or as many as fit into panel_bytes.
    """
    count = len(embeddings)
    step = max(8 * k, panel_bytes // (8 * count))
    distances = np.empty((queries, count - queries), np.float32)
    smallest = np.full(count, np.inf)
    nearest = _Nearest(count, min(k, count) - 1)
    for first in range(0, count, step):
        panel = embeddings[first:first + step] @ embeddings[first:].T
        height = len(panel)
        if first < queries:
            distances[first:first + step] = distance(panel[:queries - first, queries - first:])
        smallest[first:] = np.minimum(smallest[first:], panel.min(axis=0))
        smallest[first:first + height] = np.minimum(smallest[first:first + height], panel.min(axis=1))
        np.fill_diagonal(panel, -np.inf)  # an image's own place is the first, whoever equals it
        nearest.offer(panel, first, first)
        nearest.offer(panel[:, height:].T, first + height, first)
    return Neighbours(nearest.rows(), np.maximum(distance(smallest), EPSILON), distances)


def distance(cosines: np.ndarray) -> np.ndarray:
    """2 - 2 cosine: the squared distance of unit embeddings; 0 where rounding leaves a cosine above 1."""
    distances: np.ndarray = np.maximum(2 - 2 * cosines, 0)
    return distances


class _Nearest:
    """The k largest cosines of each row so far, by a bound that only grows."""

    def __init__(self, count: int, k: int) -> None:
        self._best = np.full((count, k), -np.inf)  # cosines of k of the images seen: the k-th nearest is no farther
        self._found: list[tuple[np.ndarray, ...]] = []

    def offer(self, cosines: np.ndarray, row: int, column: int) -> None:
        """Cosines of the rows from `row` on with the columns from `column` on, right of all seen before."""
        best = self._best[row:row + len(cosines)]
        k = best.shape[1]
        if not cosines.size:
            return
        before = best.min(axis=1)
        best[:] = np.partition(np.hstack([best, _maxima(cosines, 8 * k)]), -k, axis=1)[:, -k:]
        now = best.min(axis=1)
        floor = np.where(now > before, now, np.nextafter(before, np.inf))  # an equal one further right comes later
        if cosines.flags.c_contiguous:
            rows, columns = np.nonzero(cosines >= floor[:, None])
        else:
            columns, rows = np.nonzero(cosines.T >= floor)
        found = _first(rows, columns, cosines[rows, columns], k)
        self._found.append((found[0] + row, found[1] + column, found[2]))

    def rows(self) -> np.ndarray:
        """The nearest of each row, itself first: (N, k + 1)."""
        count, k = self._best.shape
        rows, columns, values = map(np.concatenate, zip(*self._found, strict=True))
        near = _first(rows, columns, values, k)[1].reshape(count, k)
        return np.column_stack([np.arange(count), near])


def _maxima(cosines: np.ndarray, groups: int) -> np.ndarray:
    """Each row's largest in groups of columns, (B, M) -> (B, groups), cheaper than an order of all."""
    width = max(1, cosines.shape[1] // groups)
    groups = min(groups, cosines.shape[1])
    maxima: np.ndarray = cosines[:, :groups * width].reshape(len(cosines), width, groups).max(axis=1)
    return maxima


def _first(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
    """Of entries with ascending columns in each row, the k largest of each row, row by row; ties by column."""
    order = np.lexsort((-values, rows))
    rows = rows[order]
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))
    place = np.arange(len(rows)) - np.repeat(firsts, np.diff(firsts, append=len(rows)))
    kept = order[place < k]
    return rows[place < k], columns[kept], values[kept]
