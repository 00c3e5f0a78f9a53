"""Gallery search: the exact top k, against the bare matrix product plus partition.

python -m benchmarks.gallery_search [--rounds 5] [--small]

One query and 100 queries against 1,000,000 x 512 float32 unit vectors in memory, k = 10 and 100, on all cores. The
plain way holds the whole matrix of similarities and does not even sort what it finds. Beside that, what the
approximate index costs and what it misses, on embeddings as a trained network gives them and on random vectors, its
worst case.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.measure import NO_BAR, Comparison, Limit, agreed, arguments, at_most, extra_mib, in_turns, table
from deploy.approximate import PROBES, ApproximateIndex
from deploy.search import Nearest, nearest

ROWS, SMALL, DIM, QUERIES = 1_000_000, 20_000, 512, 100
OF_EACH, COSINE = 20, 0.75  # images of an identity, and their mean similarity, among the trained
BLOCK = 10_000
ROUNDING = 1e-6  # by which a float32 product may differ from another
RECALLED = 10


def main() -> None:
    """Print the table of both kinds of search."""
    options = arguments(__doc__)
    gallery = np.empty((SMALL if options.small else ROWS, DIM), np.float32)
    query = trained(gallery)
    lines = memory(query, gallery, k=100)  # first, while nothing freed is at hand to be used again
    lines += [exact(query[:queries], gallery, k, options.rounds) for queries in (1, QUERIES) for k in (10, 100)]
    lines += approximate("trained", query, gallery, options.rounds)
    lines += approximate("random", drawn(gallery), gallery, options.rounds)
    print(f"\n{table(lines)}\n\nThe approximate index has sqrt(G) lists of 8 bits a number, of which a search probes "
          f"{PROBES}; recall is that of {QUERIES} queries, k = {RECALLED}. *Trained* embeddings are {OF_EACH} about "
          f"each random centre, of a mean cosine of {COSINE}; among *random* ones all are about equally far.")


def memory(query: np.ndarray, gallery: np.ndarray, k: int) -> list[Comparison | Limit]:
    """What the process grows by in a search, and in the plain way."""
    what = f"extra memory, {len(query)} x {len(gallery):,}, k = {k}"
    return [Limit(what, extra_mib(lambda: nearest(query, gallery, k)), "MiB", at_most(100)),
            Limit(f"{what}, the plain way", extra_mib(lambda: plain(query, gallery, k)), "MiB", NO_BAR)]


def exact(query: np.ndarray, gallery: np.ndarray, k: int, rounds: int) -> Comparison:
    """`nearest` against the plain way, which finds the same rows."""
    what = f"{len(query)} x {len(gallery):,}, k = {k}"
    check_same(what, nearest(query, gallery, k), *plain(query, gallery, k))
    ours, bare = in_turns(rounds, lambda: nearest(query, gallery, k), lambda: plain(query, gallery, k))
    return Comparison(f"exact, {what}", ours, "product and partition", bare, at_most(1.3))


def plain(query: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best rows of each query, in no order, and all similarities: (Q, k), (Q, G)."""
    similarity = query @ gallery.T
    return np.argpartition(similarity, -k, axis=1)[:, -k:], similarity


def check_same(what: str, found: Nearest, rows: np.ndarray, similarity: np.ndarray) -> None:
    """SystemExit where similarities differ, or the rows do by others than those about as near as the k-th."""
    theirs = np.take_along_axis(similarity, found.rows, axis=1)
    agreed(f"similarities of {what}", float(np.abs(theirs - found.similarities).max()), ROUNDING)
    beyond = [np.abs(similarity[i, np.setxor1d(found.rows[i], rows[i])] - found.similarities[i, -1]).max(initial=0)
              for i in range(len(rows))]
    agreed(f"rows of {what}, by their distance from the k-th where one alone found them", float(max(beyond)), ROUNDING)


def approximate(kind: str, query: np.ndarray, gallery: np.ndarray, rounds: int) -> list[Comparison | Limit]:
    """What the index costs and misses on one kind of embeddings, its searches beside the exact ones."""
    what = f"{kind} {len(gallery):,}"
    seconds, index = timed(lambda: ApproximateIndex.build(gallery))
    return [Limit(f"index of {what}: built in", seconds, "s", NO_BAR),
            beside_exact(f"index of {what}, 1 query", query[:1], index, rounds),
            beside_exact(f"index of {what}, {len(query)} queries", query, index, rounds),
            *(Limit(f"index of {what}: recall with {probes} probes", index.recall(query, RECALLED, probes=probes), "",
                    NO_BAR) for probes in (PROBES, 4 * PROBES))]


def beside_exact(what: str, query: np.ndarray, index: ApproximateIndex, rounds: int) -> Comparison:
    """Search by the index against exact search."""
    near, exactly = in_turns(rounds, lambda: index.nearest(query, RECALLED),
                             lambda: nearest(query, index.gallery, RECALLED))
    return Comparison(what, near, "exact", exactly)


def timed(function: Callable[[], ApproximateIndex]) -> tuple[float, ApproximateIndex]:
    """Seconds that a function takes, and what it gives."""
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def drawn(gallery: np.ndarray) -> np.ndarray:
    """Fill the gallery with random unit vectors; such queries for it."""
    draw = np.random.default_rng(0)
    for block in blocks(gallery):
        draw.standard_normal(out=block, dtype=np.float32)
        normalise(block)
    return normalise(draw.standard_normal((QUERIES, DIM), dtype=np.float32))


def trained(gallery: np.ndarray) -> np.ndarray:
    """Fill the gallery with unit vectors about a centre for each identity; further ones of the first as queries."""
    query = drawn(gallery)
    noise = (1 - COSINE) ** 0.5
    centres = normalise(np.random.default_rng(1).standard_normal((len(gallery) // OF_EACH, DIM), dtype=np.float32))
    centres *= COSINE ** 0.5
    first = 0
    for block in blocks(gallery):
        block *= noise
        block += centres[np.arange(first, first + len(block)) % len(centres)]
        normalise(block)
        first += len(block)
    return normalise(noise * query + centres[:QUERIES])


def blocks(gallery: np.ndarray) -> Iterator[np.ndarray]:
    """Views of so many rows at a time, that filling them needs little memory."""
    return (gallery[first:first + BLOCK] for first in range(0, len(gallery), BLOCK))


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to length 1, in place."""
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


if __name__ == "__main__":
    main()
