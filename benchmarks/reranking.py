"""Re-ranking: k-reciprocal distances (k1 20, k2 6, lambda 0.3) of queries and gallery.

The peer is the paper as it is usually written in numpy, in float32: the whole matrix of distances, each over the
largest of its column and then turned, its rows sorted, loops over images. Turned, rows do not lie along memory; the
same with rows that do is measured beside. Embeddings are made: a centre for each identity, and noise as large.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from benchmarks.measure import (NO_BAR, Comparison, Limit, agreed, arguments, at_least, at_most, extra_mib, in_turns,
                                table)
from evaluate.distances import Cosine, unit
from evaluate.rerank import Reranked, rerank

K1, K2, LAMBDA = 20, 6, 0.3


class Size(NamedTuple):
    name: str
    queries: int
    gallery: int
    identities: int
    dimension: int = 512

    def __str__(self) -> str:
        return f"{self.name} size ({self.queries:,} x {self.gallery:,}, {self.dimension} numbers)"

    def embeddings(self) -> tuple[np.ndarray, np.ndarray]:
        """Queries and gallery, float32."""
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((self.identities, self.dimension), np.float32)
        sides = (centres[rng.integers(0, self.identities, count)] for count in (self.queries, self.gallery))
        query, gallery = (side + rng.standard_normal(side.shape, np.float32) for side in sides)
        return query, gallery


MARKET = Size("Market-1501", 3368, 15913, 750)
MSMT = Size("MSMT17", 11659, 82161, 3060)
PART = Size("a part of Market-1501's", 500, 2500, 120)
TINY = Size("tiny", 100, 500, 30)


def dense(query: np.ndarray, gallery: np.ndarray, *, order: Literal["C", "F"] = "F") -> np.ndarray:
    """The peer, with its matrices in this order: (Q, D), (G, D) -> (Q, G), in the precision of the embeddings."""
    embeddings = np.concatenate([query, gallery])
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    original = np.maximum(2 - 2 * embeddings @ embeddings.T, 0)
    original = np.asarray((original / original.max(axis=0)).T, order=order)
    ranks = np.argsort(original, axis=1)
    encodings = dense_encodings(original, ranks)
    naming = [np.flatnonzero(column) for column in encodings.T]
    distances = np.empty((len(query), len(gallery)), original.dtype)
    for i in range(len(query)):
        shared = np.zeros(len(embeddings), original.dtype)
        for j in np.flatnonzero(encodings[i]):
            shared[naming[j]] += np.minimum(encodings[i, j], encodings[naming[j], j])
        jaccard = 1 - shared / (2 - shared)
        distances[i] = ((1 - LAMBDA) * jaccard + LAMBDA * original[i])[len(query):]
    return distances


def dense_encodings(original: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Of each image its weights of all images, averaged over its K2 nearest: (N, N), (N, N) -> (N, N)."""
    encodings = np.zeros_like(original)
    for i in range(len(original)):
        mine = reciprocal(ranks, i, K1)
        sets = [mine]
        for candidate in mine:
            theirs = reciprocal(ranks, candidate, K1 // 2)
            if 3 * len(np.intersect1d(theirs, mine)) > 2 * len(theirs):
                sets.append(theirs)
        members = np.unique(np.concatenate(sets))
        weights = np.exp(-original[i, members])
        encodings[i, members] = weights / weights.sum()
    averaged = np.zeros_like(encodings)
    for i in range(len(original)):
        averaged[i] = encodings[ranks[i, :K2]].mean(axis=0)
    return averaged


def reciprocal(ranks: np.ndarray, i: int, k: int) -> np.ndarray:
    """Those of the k nearest, and i itself, that have i among theirs."""
    forward = ranks[i, :k + 1]
    found: np.ndarray = forward[(ranks[forward, :k + 1] == i).any(axis=1)]
    return found


def products(query: np.ndarray, gallery: np.ndarray) -> None:
    """The floor: half of all products of embeddings in float32, and those of queries and gallery in float64."""
    embeddings, step = np.concatenate([query, gallery]), 1024
    for first in range(0, len(embeddings), step):
        embeddings[first:first + step] @ embeddings[first:].T
    exact = gallery.astype(np.float64)
    for first in range(0, len(query), step):
        query[first:first + step].astype(np.float64) @ exact.T


def by_blocks(query: np.ndarray, gallery: np.ndarray) -> None:
    """Ours as an evaluation reads it, no more than some rows at a time."""
    found = Reranked(Cosine(unit(query), unit(gallery)), k1=K1, k2=K2, lambda_value=LAMBDA)
    for first in range(0, len(query), 256):
        found[first:first + 256]


def ours(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    return rerank(query, gallery, k1=K1, k2=K2, lambda_value=LAMBDA)


def against_dense(size: Size, rounds: int) -> list[Comparison | Limit]:
    """Time and memory of ours and the peer, whose distances must agree."""
    query, gallery = size.embeddings()
    distances: dict[str, np.ndarray] = {}
    mib: dict[str, float] = {}

    def turn(name: str, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[], None]:
        def run() -> None:
            distances[name] = function(query, gallery)
        return lambda: mib.__setitem__(name, extra_mib(run))

    seconds = in_turns(rounds, turn("ours", ours), turn("dense", dense), turn("along", partial(dense, order="C")),
                       lambda: products(query, gallery))
    apart = np.mean(np.abs(distances["ours"] - distances["dense"]) > 1e-5)
    agreed(f"{size}, share of the distances that are more than 1e-5 apart, where the peer's float32 cannot tell "
           "which of two images is nearer", float(apart), 1e-4)
    return [Comparison(str(size), seconds[0], "dense numpy", seconds[1], at_least(15)),
            Comparison("the same", seconds[0], "its rows along memory", seconds[2]),
            Limit("the products alone, in float32 and float64", min(seconds[3]), "s", NO_BAR),
            Limit("extra memory of ours, with the distances", mib["ours"], "MiB", at_most(1430)),
            Limit("extra memory of the peer", mib["dense"], "MiB", NO_BAR)]


def by_itself(size: Size) -> list[Limit]:
    """Time and memory of ours where the peer's memory does not reach."""
    query, gallery = size.embeddings()
    mib: list[float] = []
    (seconds,), = in_turns(1, lambda: mib.append(extra_mib(lambda: by_blocks(query, gallery))))
    return [Limit(f"{size}, by blocks of rows", seconds, "s", NO_BAR),
            Limit("its extra memory", mib[0], "MiB", NO_BAR)]


def main() -> None:
    """Print the table."""
    asked = arguments(__doc__, rounds=2)
    query, gallery = (side.astype(np.float64) for side in (TINY if asked.small else PART).embeddings())
    agreed("every distance, against the peer in float64 on a part of the images",
           float(np.abs(ours(query, gallery) - dense(query, gallery)).max()), 1e-5)
    lines = against_dense(TINY if asked.small else MARKET, asked.rounds)
    for size in () if asked.small else (MARKET._replace(dimension=2048), MSMT):
        lines += by_itself(size)
    print(f"\n{table(lines)}")


if __name__ == "__main__":
    main()
