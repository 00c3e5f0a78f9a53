"""Every image's nearest among all: candidates from half the matrix of cosines in float32, then judged exactly."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from math import isqrt
from typing import NamedTuple

import numpy as np

from evaluate.distances import EPSILON

WORKERS = 2  # threads: BLAS has its own, these keep two cores busy where numpy uses one
TILE_BYTES = 256 * 2**20
_ENTRY_BYTES = 80  # for each cosine of a tile, at most: in float32 and, where a tile is crowded, exactly and ranked
_PAIR_BYTES = 2**19  # of embeddings gathered at a time: they stay in the cache


class Neighbours(NamedTuple):
    """The K nearest of N images."""

    rows: np.ndarray  # (N, K) int32: the image itself, then the others by falling cosine, ties by row
    cosines: np.ndarray  # (N, K) float64, exact
    farthest: np.ndarray  # (N,) distance, 2 - 2 cosine, of the farthest other image; above 0


def neighbours(embeddings: np.ndarray, k: int, *, tile_bytes: int = TILE_BYTES) -> Neighbours:
    """The k nearest of every unit embedding, (N, D), the same whatever tile_bytes; all N where k is more.

    Each pair is multiplied once in float32, tile by tile. What may be among the k largest, by a bound on the
    error that holds for any BLAS, is multiplied again exactly; so is a whole tile where that is too much of it.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        nearest, farthest = _Largest(embeddings, min(k, len(embeddings)), 1, pool), _Largest(embeddings, 1, -1, pool)
        for tile in _tiles(embeddings, isqrt(max(tile_bytes, least_tile_bytes(k)) // _ENTRY_BYTES)):
            nearest.meet(tile)
            farthest.meet(tile.negated())
        rows, cosines = nearest.settled()
        return Neighbours(rows, cosines, np.maximum(distance(farthest.settled()[1][:, 0]), EPSILON))


def least_tile_bytes(k: int) -> int:
    """Below this, tiles grow no smaller: they would keep most of what they hold."""
    return _ENTRY_BYTES * (8 * k)**2


def bytes_per_image(dimension: int, k: int) -> int:
    """What the search takes beside embeddings and tile: them in float32, and its candidates while they are ranked."""
    return 4 * dimension + 340 * k


def distance(cosines: np.ndarray) -> np.ndarray:
    """2 - 2 cosine: the squared distance of unit embeddings; 0 where rounding leaves a cosine above 1."""
    distances: np.ndarray = np.maximum(2 - 2 * cosines, 0)
    return distances


def products(embeddings: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Exact cosines of pairs of unit embeddings: (N, D), (P,), (P,) -> (P,)."""
    cosines, step = np.empty(len(rows)), max(1, _PAIR_BYTES // embeddings[0].nbytes)
    for first in range(0, len(rows), step):
        piece = slice(first, first + step)
        np.vecdot(embeddings[rows[piece]], embeddings[columns[piece]], out=cosines[piece])
    return cosines


class _Tile(NamedTuple):
    """The cosines of the images from `row` on with those from `column` on; of one with itself infinite."""

    row: int
    column: int
    quick: np.ndarray  # (h, w) float32
    exact: Callable[[], np.ndarray]  # the same, exact

    def turned(self) -> "_Tile":
        """The cosines of the columns with the rows."""
        return _Tile(self.column, self.row, self.quick.T, lambda: self.exact().T)

    def negated(self) -> "_Tile":
        """Minus the cosines, in their place."""
        np.negative(self.quick, out=self.quick)
        return self._replace(exact=lambda: -self.exact())


def _tiles(embeddings: np.ndarray, step: int) -> Iterator[_Tile]:
    """The upper half of the matrix of cosines; each tile's memory is the next one's."""
    single, step = embeddings.astype(np.float32), min(step, len(embeddings))
    buffer = np.empty(step * step, np.float32)

    def product(of: np.ndarray, row: int, column: int, out: np.ndarray | None = None) -> np.ndarray:
        tile = np.matmul(of[row:row + step], of[column:column + step].T, out=out)
        if row == column:
            np.fill_diagonal(tile, np.inf)
        return tile

    for row in range(0, len(single), step):
        for column in range(row, len(single), step):
            height, width = min(step, len(single) - row), min(step, len(single) - column)
            quick = product(single, row, column, buffer[:height * width].reshape(height, width))
            yield _Tile(row, column, quick, cache(partial(product, embeddings, row, column)))


class _Largest:
    """Each image's k largest of all cosines offered, or of their negatives where sign is -1."""

    def __init__(self, embeddings: np.ndarray, k: int, sign: int, pool: ThreadPoolExecutor) -> None:
        count, dimension = embeddings.shape
        self._embeddings, self._k, self._sign, self._pool = embeddings, k, sign, pool
        # A float32 product of D terms, of unit vectors rounded to float32, is within (D + 3) 2^-24 of the exact
        # one in whatever order it is summed. Of two products, one may be too small and the other too large.
        self._slack = np.float32(2.02 * (dimension + 4) * 2.0**-24)
        self._seen = np.full((count, k), -np.inf, np.float32)  # k of those offered, so a bound for the k largest
        self._waiting: list[tuple[np.ndarray, ...]] = []  # rows, columns and values of candidates
        self._count = 0  # of these

    def meet(self, tile: _Tile) -> None:
        """Offer the tile to its rows and its columns."""
        sides = [tile] if tile.row == tile.column else [tile, tile.turned()]
        for found in self._pool.map(self._candidates, sides):
            self._waiting.append(found)
            self._count += len(found[0])
        if self._count > 4 * self._seen.size:
            self.settled()

    def settled(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns and exact cosines of each row's k largest so far, largest first, ties by column: (N, k), (N, k)."""
        rows, columns, values = map(np.concatenate, zip(*self._waiting, strict=True))
        likely = values >= (self._seen[:, 0] - self._slack)[rows]
        rows, columns = rows[likely], columns[likely]
        halves = (np.array_split(places, WORKERS) for places in (rows, columns))
        cosines = np.concatenate(list(self._pool.map(partial(products, self._embeddings), *halves)))
        values = np.where(rows == columns, np.inf, self._sign * cosines)
        order = np.lexsort((columns, -values, rows))
        rows = rows[order]
        firsts = np.flatnonzero(np.diff(rows, prepend=-1))
        kept = np.arange(len(rows)) - np.repeat(firsts, np.diff(firsts, append=len(rows))) < self._k
        order = order[kept]
        self._waiting, self._count = [(rows[kept], columns[order], values[order].astype(np.float32))], len(order)
        return columns[order].reshape(-1, self._k), cosines[order].reshape(-1, self._k)

    def _candidates(self, tile: _Tile) -> tuple[np.ndarray, ...]:
        """What may be among the k largest of the tile's rows; their bounds rise."""
        values, k = tile.quick, self._k
        groups = min(max(64, 4 * k), values.shape[1])
        grouped = values[:, :values.shape[1] // groups * groups].reshape(len(values), -1, groups)
        maxima = grouped.max(axis=1)  # cheaper than an order of all, and hardly a weaker bound
        seen = self._seen[tile.row:tile.row + len(values)]
        seen[:] = np.partition(np.hstack([seen, maxima]), -k, axis=1)[:, -k:]
        floor = seen[:, :1] - self._slack
        crowd = 2 * k * len(values)
        found = np.nonzero(maxima >= floor)
        if len(found[0]) <= crowd:
            found = _above(floor, values, grouped, *found)
        if len(found[0]) > crowd:
            found = np.nonzero(_first(tile.exact(), k))
        rows, columns = (places.astype(np.int32) for places in found)
        return rows + tile.row, columns + tile.column, values[rows, columns]


def _above(floor: np.ndarray, values: np.ndarray, grouped: np.ndarray, rows: np.ndarray,
           group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where values reach their row's floor: in these groups of these rows, and in the columns of no group."""
    _, size, groups = grouped.shape
    place, member = np.nonzero(grouped[rows, :, group] >= floor[rows])
    rest, column = np.nonzero(values[:, size * groups:] >= floor)
    return (np.concatenate([rows[place], rest]),
            np.concatenate([member * groups + group[place], size * groups + column]))


def _first(values: np.ndarray, k: int) -> np.ndarray:
    """Which are the k largest of their row, ties by column: (h, w) -> (h, w) bool."""
    least = np.partition(values, -k, axis=1)[:, -k, None]
    larger, equal = values > least, values == least
    room = k - np.count_nonzero(larger, axis=1)
    first: np.ndarray = larger | equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= room[:, None])
    return first
