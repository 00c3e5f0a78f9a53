"""k-reciprocal re-ranking: images are near whose neighbours are the same, not only whose embeddings are."""

from typing import NamedTuple

import numpy as np

from evaluate.distances import unit
from evaluate.neighbours import Neighbours, distance, neighbours

_PAIRS = 4096  # pairs of embeddings multiplied at a time


class Sparse(NamedTuple):
    """A matrix by rows: row i holds values[starts[i]:starts[i + 1]] at the ascending columns[the same]."""

    starts: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    def entries(self, rows: np.ndarray) -> np.ndarray:
        """Where the entries of several rows stand, row after row."""
        counts = self.starts[rows + 1] - self.starts[rows]
        before = np.cumsum(counts) - counts
        positions: np.ndarray = np.arange(counts.sum()) + np.repeat(self.starts[rows] - before, counts)
        return positions


def rerank(query: np.ndarray, gallery: np.ndarray, *, k1: int = 20, k2: int = 6,
           lambda_value: float = 0.3) -> np.ndarray:
    """Distances in which shared neighbours count, smaller is nearer: (Q, D), (G, D) -> (Q, G) float32, 0..1.

    `k1` neighbours encode an image, `k2` encodings are averaged (1 = none), `lambda_value` is the weight of
    the original distance, 2 - 2 cosine over each image's largest. Equal similarities rank by row, queries
    before gallery; an image is its own first neighbour, whoever equals it.
    Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, 2017.
    """
    embeddings = np.concatenate([unit(query, "query"), unit(gallery, "gallery")])
    near = neighbours(embeddings, len(query), max(k1 + 1, k2))
    encodings = _averaged(_encodings(embeddings, near, k1), near.rows[:, :k2])
    shared = _Shared(encodings, len(query))
    for row, original in enumerate(near.distances):  # overwritten: at Market's size it is the largest array here
        original[:] = (1 - lambda_value) * shared.jaccard(row) + lambda_value / near.farthest[row] * original
    return near.distances


def _encodings(embeddings: np.ndarray, near: Neighbours, k1: int) -> Sparse:
    """Each image by the weights exp(-distance) of its expanded k-reciprocal neighbours, their sum 1: (N, N)."""
    count = len(embeddings)
    rows, columns = np.divmod(_expanded(near.rows, k1), count)
    cosines = np.concatenate([np.vecdot(embeddings[rows[i:i + _PAIRS]], embeddings[columns[i:i + _PAIRS]])
                              for i in range(0, len(rows), _PAIRS)])
    weights = np.exp(-distance(cosines) / near.farthest[rows])
    return Sparse(_starts(rows, count), columns, weights / np.bincount(rows, weights)[rows])


def _expanded(near: np.ndarray, k1: int) -> np.ndarray:
    """The sets R*(p, k1) of the paper's equation 3 as ascending keys p * N + member."""
    count = len(near)
    mutual, half = _mutual(near, k1), _mutual(near, round(k1 / 2))
    own, place = np.nonzero(mutual)
    keys = own * count + near[own, place]
    candidates = near[own, place]
    theirs = half[candidates]  # (pairs, k1 / 2 + 1)
    members = own[:, None] * count + near[candidates, :theirs.shape[1]]
    known = np.isin(members, keys) & theirs
    joins = 3 * np.count_nonzero(known, axis=1) > 2 * np.count_nonzero(theirs, axis=1)
    expanded: np.ndarray = np.unique(np.concatenate([keys, members[joins][theirs[joins]]]))
    return expanded


def _mutual(near: np.ndarray, k: int) -> np.ndarray:
    """Which of an image's k nearest, itself first, have it among theirs: (N, K) -> (N, k + 1) bool."""
    own = np.arange(len(near))[:, None]
    nearest = near[:, :k + 1]
    return np.column_stack([(nearest[column] == own).any(axis=1) for column in nearest.T])


def _averaged(encodings: Sparse, near: np.ndarray) -> Sparse:
    """Each encoding replaced by the mean of those of its nearest images, itself among them: near (N, k2)."""
    count, k2 = near.shape
    positions = encodings.entries(near.ravel())
    lengths = np.diff(encodings.starts)[near].sum(axis=1)
    keys = np.repeat(np.arange(count) * count, lengths) + encodings.columns[positions]
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    rows, columns = np.divmod(keys[firsts], count)
    return Sparse(_starts(rows, count), columns, np.add.reduceat(encodings.values[positions[order]], firsts) / k2)


class _Shared:
    """What queries' and gallery images' encodings have in common, found through the images they name."""

    def __init__(self, encodings: Sparse, queries: int) -> None:
        first = encodings.starts[queries]
        columns, count = encodings.columns[first:], len(encodings.starts) - 1
        order = np.argsort(columns, kind="stable")
        rows = np.repeat(np.arange(count - queries), np.diff(encodings.starts[queries:]))
        self._encodings, self._gallery = encodings, count - queries
        self._naming = Sparse(_starts(columns[order], count), rows[order], encodings.values[first:][order])

    def jaccard(self, query: int) -> np.ndarray:
        """Jaccard distances of one query to the gallery, equation 10: (G,), 0..1."""
        starts, columns, values = self._encodings
        own = slice(starts[query], starts[query + 1])
        positions = self._naming.entries(columns[own])
        lengths = np.diff(self._naming.starts)[columns[own]]
        least = np.minimum(np.repeat(values[own], lengths), self._naming.values[positions])
        common = np.bincount(self._naming.columns[positions], least, minlength=self._gallery)
        distances: np.ndarray = 1 - common / (2 - common)  # encodings sum to 1, so the union is 2 - common
        return distances


def _starts(rows: np.ndarray, count: int) -> np.ndarray:
    """Where each of `count` rows begins among ascending row numbers, and the end."""
    starts: np.ndarray = np.searchsorted(rows, np.arange(count + 1))
    return starts
