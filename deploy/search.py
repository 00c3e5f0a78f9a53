"""Exact search of a gallery: the embeddings most similar to a query, with numpy alone."""

from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

BLOCK_BYTES = 16 * 2**20
QUERIES = 256  # at once: enough for the product's speed, few enough for blocks of many gallery rows
PAIRS = 512  # at once, so that they stay in the processor's cache
COPIED = 16384  # gallery rows that are copied at once, where those wanted lie far apart
ROUNDING = 0.01  # of the length of a unit embedding, even in float16


class SearchError(ValueError):
    """A gallery cannot be searched as asked: one line that says what was expected and what came."""


class Nearest(NamedTuple):
    """The k gallery rows most similar to each of Q queries, by falling similarity, ties by row."""

    rows: np.ndarray  # (Q, k) int64
    similarities: np.ndarray  # (Q, k) float32, cosines


def nearest(query: np.ndarray, gallery: np.ndarray, k: int, *, among: np.ndarray | None = None,
            block_bytes: int = BLOCK_BYTES) -> Nearest:
    """The k most similar of all gallery rows: unit embeddings (Q, D), (G, D) float32 -> (Q, k), or all where k > G.

    `among`, a mask (G,) or an array of rows, says which rows count: others are never found. The gallery may be
    memory-mapped; it is read block by block, and memory follows `block_bytes` and the size of the result, not G.
    The answer is that of `similarities` and a full sort, whatever the blocks, the number of queries and the BLAS:
    float32 products only choose what is worth that, with room for their largest possible error. Where thousands of
    rows are within D / 4 million of the k-th best, as copies of one image are, all of them take this second look.
    SearchError for other shapes and types, for queries whose length is not 1, and for such gallery rows where they
    are met: those that are not finite always are.
    """
    check_embeddings("gallery", gallery)
    gallery = np.asarray(gallery)
    check_query(query, gallery, k)
    rows = None if among is None else chosen_rows(among, len(gallery))
    chunks = [_scan(query[first:first + QUERIES], gallery, k, rows, block_bytes)
              for first in range(0, max(1, len(query)), QUERIES)]
    return Nearest(*map(np.concatenate, zip(*chunks, strict=True)))


def similarities(query: np.ndarray, gallery: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cosines of N pairs (queries[i], rows[i]): summed in float64 in one fixed order, then rounded: (N,) float32."""
    found = np.empty(len(rows), np.float32)
    for first in range(0, len(rows), PAIRS):
        part = slice(first, first + PAIRS)
        vectors = gallery.take(rows[part], axis=0)
        check_lengths("gallery row", vectors, rows[part])
        found[part] = (query.take(queries[part], axis=0).astype(np.float64) * vectors).sum(axis=1)
    return found


def check_embeddings(what: str, array: np.ndarray) -> None:
    """SearchError for what is no array (N, D) float32."""
    if not isinstance(array, np.ndarray):
        raise SearchError(f"{what}: an array, float32 of shape (N, D), expected, got {type(array).__name__}")
    if array.dtype != np.float32 or array.ndim != 2 or not array.shape[1]:
        raise SearchError(f"{what}: float32 of shape (N, D) expected, got {array.dtype} {array.shape}")


def check_query(query: np.ndarray, gallery: np.ndarray, k: int) -> None:
    """SearchError where these are no queries of this gallery, or k is no number of rows."""
    check_embeddings("query", query)
    if query.shape[1] != gallery.shape[1]:
        raise SearchError(f"query: the gallery's {gallery.shape[1]} dimensions expected, got {query.shape[1]}; "
                          f"embed both with the same model")
    check_count("k", k)
    check_lengths("query", query, np.arange(len(query)))


def check_count(what: str, number: Any) -> None:
    """SearchError for what is no whole number from 1 on."""
    if not isinstance(number, Integral) or number < 1:
        raise SearchError(f"{what}: a whole number from 1 expected, got {number}")


def check_lengths(what: str, vectors: np.ndarray, numbers: np.ndarray) -> None:
    """SearchError that names the first vector that is not of length 1: (N, D), (N,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= ROUNDING))
    if len(wrong):
        raise SearchError(f"{what} {numbers[wrong[0]]}: length 1 expected, got {lengths[wrong[0]]:.4g}; "
                          f"use embeddings as the model gives them")


def chosen_rows(among: np.ndarray, count: int) -> np.ndarray:
    """The rows that a mask (count,) or an array of rows names, ascending, each once."""
    if not isinstance(among, np.ndarray):
        raise SearchError(f"among: a mask ({count},) or an array of rows expected, got {type(among).__name__}")
    if among.dtype == bool and among.shape == (count,):
        return np.flatnonzero(among)
    if among.dtype.kind not in "iu" or among.ndim != 1:
        raise SearchError(f"among: a mask ({count},) or an array of rows expected, got {among.dtype} {among.shape}")
    rows = np.unique(among).astype(np.int64)
    if len(rows) and not 0 <= rows[0] <= rows[-1] < count:
        raise SearchError(f"among: rows from 0 to {count - 1} expected, got {rows[0]} to {rows[-1]}")
    return rows


def _scan(query: np.ndarray, gallery: np.ndarray, k: int, among: np.ndarray | None, block_bytes: int) -> Nearest:
    count = len(gallery) if among is None else len(among)
    k = min(k, count)
    best = Nearest(np.empty((len(query), 0), np.int64), np.empty((len(query), 0), np.float32))
    step = max(1, k, block_bytes // (4 * max(1, len(query))))
    pile: list[tuple[np.ndarray, np.ndarray]] = []
    for first in range(0, count, step):
        rows = np.arange(first, min(first + step, count)) if among is None else among[first:first + step]
        products = _products(query, gallery, rows)
        queries, columns = _worth_it(products, best, k, slack=(query.shape[1] + 1) * 2.0 ** -23)
        pile.append((queries, rows[columns]))
        if sum(len(queries) for queries, _ in pile) >= len(query) * k:  # so it is after the first block
            best, pile = _merged(query, gallery, best, pile, k), []
    return _merged(query, gallery, best, pile, k)


def _products(query: np.ndarray, gallery: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float32 products with ascending rows, (Q, B); SearchError where a row is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        products = _multiplied(query, gallery, rows)
    spoilt = rows[~np.isfinite(products[:1]).all(axis=0)]  # one number of a row spoils its product with any query
    check_lengths("gallery row", gallery[spoilt], spoilt)
    return products


def _multiplied(query: np.ndarray, gallery: np.ndarray, rows: np.ndarray) -> np.ndarray:
    first, last = rows[0], rows[-1] + 1
    if last - first > 2 * len(rows):  # else it is cheaper to multiply those between, too
        parts = np.split(rows, range(COPIED, len(rows), COPIED))
        return np.concatenate([query @ gallery[part].T for part in parts], axis=1)
    products: np.ndarray = query @ gallery[first:last].T
    return products if last - first == len(rows) else products.take(rows - first, axis=1)


def _worth_it(products: np.ndarray, best: Nearest, k: int, slack: float) -> tuple[np.ndarray, np.ndarray]:
    """Queries and columns whose similarity may be among the k best so far.

    `slack` is twice the bound of a float32 product's error, (D + 1) / 2 ** 24 for vectors of length 1, in whatever
    order it was summed (Higham, Accuracy and Stability of Numerical Algorithms, 2002, equation 3.5).
    """
    full = best.rows.shape[1] == k
    floor = best.similarities[:, -1] - np.float32(slack) if full else np.full(len(products), -np.inf, np.float32)
    worth = products >= floor[:, None]
    if np.count_nonzero(worth) > 2 * worth.shape[0] * k:  # the first block, or far better ones than all before
        floor = np.maximum(floor, np.partition(products, -k, axis=1)[:, -k] - np.float32(2 * slack))
        worth = products >= floor[:, None]
    queries, columns = np.divmod(np.flatnonzero(worth), worth.shape[1])  # np.nonzero takes several times longer
    return queries, columns


def _merged(query: np.ndarray, gallery: np.ndarray, best: Nearest,
            pile: list[tuple[np.ndarray, np.ndarray]], k: int) -> Nearest:
    """The k best of those so far and of the pile's pairs of query and row, at least k for each query."""
    count, width = best.rows.shape
    known = np.repeat(np.arange(count), width), best.rows.ravel()
    queries, rows = map(np.concatenate, zip(known, *pile, strict=True))
    new = slice(best.rows.size, None)
    found = np.concatenate([best.similarities.ravel(), similarities(query, gallery, queries[new], rows[new])])
    order = np.lexsort((-found, queries))  # stable, and of each query earlier rows stand first
    starts = np.searchsorted(queries[order], np.arange(count))
    kept = order[starts[:, None] + np.arange(k)]
    return Nearest(rows[kept], found[kept])
