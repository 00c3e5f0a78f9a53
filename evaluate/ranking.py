"""Ranked retrieval: where each query's positives stand in the gallery, and the scores that follow from it.

A query's `ranks` are the places of its positives, 0-based and ascending, in the gallery sorted by falling
similarity, ties in gallery order, rows that do not count left out.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

JUNK = -1  # label of gallery rows that neither help nor harm
BLOCK_BYTES = 64 * 2**20
SORTED = 64  # contenders per positive up to which a sort of them costs less than a count for each positive


class Similarity(Protocol):
    """A (Q, G) matrix of floats read by slices of rows, larger is nearer: an array, or computed when asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(Q, G)."""

    def __getitem__(self, rows: slice, /) -> Any: ...


class Matches:
    """Which gallery rows are a query's positives and which do not count for it, from labels and cameras.

    Rows of the query's label are its positives, save those of its camera, which do not count; nor does
    junk. Camera -1 is unknown and equal to none. With cameras 0..N-1 on both sides an image meets all
    images but itself: leave-one-out.
    """

    def __init__(self, query_labels: np.ndarray, query_cameras: np.ndarray,
                 gallery_labels: np.ndarray, gallery_cameras: np.ndarray) -> None:
        self.shape = (len(query_labels), len(gallery_labels))
        self._junk = np.flatnonzero(gallery_labels == JUNK)
        known = np.flatnonzero(gallery_labels != JUNK)
        self._by_label = known[np.argsort(gallery_labels[known], kind="stable")]
        labels = gallery_labels[self._by_label]
        self._first = np.searchsorted(labels, query_labels, side="left")
        self._last = np.searchsorted(labels, query_labels, side="right")
        self._query_cameras, self._gallery_cameras = query_cameras, gallery_cameras

    def __getitem__(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Gallery rows of the query's positives, and those that do not count for it."""
        same = self._by_label[self._first[query]:self._last[query]]
        camera = self._query_cameras[query]
        seen = (self._gallery_cameras[same] == camera) & (camera != -1)
        return same[~seen], np.concatenate([self._junk, same[seen]])


def blocks(queries: int, gallery: int, block_bytes: int) -> Iterator[slice]:
    """Rows of a (Q, G) matrix of float64, as many at a time as fit into block_bytes, and one at the least."""
    step = max(1, block_bytes // (8 * max(1, gallery)))
    for first in range(0, queries, step):
        yield slice(first, min(first + step, queries))


def positive_ranks(similarity: Similarity, matches: Matches, *,
                   block_bytes: int = BLOCK_BYTES) -> Iterator[np.ndarray]:
    """The ranks of each query's positives, query by query; an empty array for a query without one.

    Similarities are held for as many queries as fit into block_bytes, and for one at the least.
    """
    if similarity.shape != matches.shape:
        raise ValueError(f"similarities are {similarity.shape}, labels and cameras {matches.shape} (Q, G)")
    for rows in blocks(*matches.shape, block_bytes):
        yield from _block_ranks(similarity[rows], matches, rows.start)


def _block_ranks(block: np.ndarray, matches: Matches, first: int) -> Iterator[np.ndarray]:
    for query, row in enumerate(block, first):  # the block is freed before the next one is computed
        if np.isnan(row).any():
            raise ValueError(f"query {query}: a similarity is not a number")
        yield ranks_of(row, *matches[query])


def ranks_of(similarity: np.ndarray, positives: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Ranks of the positives in one query's similarities when some rows are left out: (G,), (P,), (I,) -> (P,)."""
    if not positives.size:
        return positives
    row = similarity.astype(np.result_type(similarity, np.float16))  # a copy, in which NaN has a place
    row[ignored] = np.nan  # in every comparison false: neither nearer than a positive nor equal to one
    contends = row >= row[positives].min()  # nothing behind the last positive needs an order
    if np.count_nonzero(contends) > SORTED * len(positives):
        return _counted(row, positives)
    contenders = np.flatnonzero(contends)
    order = contenders[np.argsort(-row[contenders], kind="stable")]
    return np.flatnonzero(np.isin(order, positives))


def _counted(row: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Ranks of the positives by counting the rows before each: those nearer, and earlier ones as near."""
    before, ranks = np.empty(len(row), bool), []
    for positive, similarity in zip(positives.tolist(), row[positives].tolist(), strict=True):
        np.greater_equal(row[:positive], similarity, out=before[:positive])
        np.greater(row[positive:], similarity, out=before[positive:])
        ranks.append(np.count_nonzero(before))
    return np.sort(ranks)


def nearest(similarity: np.ndarray, k: int, ignored: np.ndarray | None = None) -> np.ndarray:
    """Gallery rows of one query's k nearest, nearest first, (G,) -> (k,); fewer where the others are ignored."""
    rows = np.arange(len(similarity))
    if ignored is not None:
        rows = np.delete(rows, ignored)
    if k < len(rows):
        rows = rows[similarity[rows] >= np.partition(similarity[rows], -k)[-k]]
    return rows[np.argsort(-similarity[rows], kind="stable")[:k]]


def average_precision(ranks: np.ndarray) -> float:
    """Mean over the positives of the precision at each: hits so far / images so far."""
    return float(np.mean(np.arange(1, len(ranks) + 1) / (ranks + 1)))


def trapezoid_average_precision(ranks: np.ndarray) -> float:
    """Area under the precision-recall curve by trapezoids; below `average_precision` unless ranks are 0..P-1.

    Zheng et al., Scalable Person Re-identification: A Benchmark, 2015 (the benchmark's own scoring code).
    """
    hits = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, hits / np.maximum(ranks, 1))
    return float(np.mean((before + (hits + 1) / (ranks + 1)) / 2))


def inverse_negative_penalty(ranks: np.ndarray) -> float:
    """Positives / images looked at until the last of them is found.

    Ye et al., Deep Learning for Person Re-identification: A Survey and Outlook, 2021 (mINP is its mean).
    """
    return float(len(ranks) / (ranks[-1] + 1))


def average_precision_at_r(ranks: np.ndarray) -> float:
    """Average precision of a list cut after R images, R being the number of positives; hits beyond score 0.

    Musgrave et al., A Metric Learning Reality Check, 2020 (MAP@R).
    """
    hits = ranks[ranks < len(ranks)]
    return float(np.sum(np.arange(1, len(hits) + 1) / (hits + 1)) / len(ranks))


def r_precision(ranks: np.ndarray) -> float:
    """Fraction of positives among the first R images, R being their number."""
    return np.count_nonzero(ranks < len(ranks)) / len(ranks)


class Scores(NamedTuple):
    """Each query's scores, (Q,) float64 each; NaN for a query without a positive."""

    first_hit: np.ndarray  # rank of the nearest positive, 0-based
    ap: np.ndarray
    ap_trapezoid: np.ndarray
    inp: np.ndarray
    valid: np.ndarray  # (Q,) bool: the query has a positive


def score(similarity: Similarity, matches: Matches, *, block_bytes: int = BLOCK_BYTES) -> Scores:
    """Every query's scores; the same whatever block_bytes, where the similarities are."""
    table = np.full((4, matches.shape[0]), np.nan)
    for query, ranks in enumerate(positive_ranks(similarity, matches, block_bytes=block_bytes)):
        if ranks.size:
            table[:, query] = (ranks[0], average_precision(ranks), trapezoid_average_precision(ranks),
                               inverse_negative_penalty(ranks))
    first_hit, ap, ap_trapezoid, inp = table
    return Scores(first_hit, ap, ap_trapezoid, inp, valid=~np.isnan(first_hit))
