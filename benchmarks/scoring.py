"""Scoring a re-identification gallery: CMC ranks, both average precisions, mINP and the junk rule.

python -m benchmarks.scoring [--rounds 3] [--small]

market_evaluate, from float32 embeddings to its metrics, against the one thing it cannot avoid: the float64 matrix
product of queries and gallery, over the same blocks of queries and with as many threads. At the size of Market-1501
with embeddings that know nothing (every row is nearer than some match), that are well separated, with distractors and
junk beside them, and that are all equal; then at the size of MSMT17. The ranks are compared with those of a stable
sort of every query's whole gallery.
"""

from collections.abc import Callable
from functools import partial
from resource import RUSAGE_SELF, getrusage
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measure import MIB, Comparison, Limit, agreed, arguments, at_most, extra_mib, in_turns, table
from data.records import Predictions
from evaluate.distances import Cosine, unit
from evaluate.market_evaluate import run_eval
from evaluate.ranking import BLOCK_BYTES, JUNK, Matches, positive_ranks

Splits = dict[str, Predictions]

DIMENSION = 512
MB = 1e6 / MIB
BAR = at_most(2.0)
DISTRACTORS, MARKET_JUNK = 2_798, 3_819  # rows of Market-1501's gallery with label 0, and with label -1


class Size(NamedTuple):
    """The numbers of a set."""

    queries: int
    gallery: int
    identities: int
    cameras: int

    def part(self, divisor: int) -> "Size":
        """A set with so many times fewer images and identities."""
        return Size(self.queries // divisor, self.gallery // divisor, self.identities // divisor, self.cameras)


MARKET = Size(3_368, 15_913, 750, 6)
MSMT = Size(11_659, 82_161, 3_060, 15)


def main() -> None:
    """Print the ratios to the product, the memory, and that the ranks are those of a sort."""
    given = arguments(__doc__, rounds=3)
    divisor = 20 if given.small else 1
    random = drawn(MARKET.part(divisor), signal=0.0)
    variants = {"nothing learnt": random, "well separated": drawn(MARKET.part(divisor), signal=1.0),
                "distractors and junk": with_junk(random, divisor), "all embeddings equal": collapsed(random)}
    for name, splits in variants.items():
        agreed(f"ranks and those of a stable sort, {name}", ranks_apart(splits), 0)
    lines: list[Comparison | Limit] = []
    for threads in (2, 1):
        with threadpool_limits(threads):
            lines += [against_product(f"{name}, threads: {threads}", splits, given.rounds)
                      for name, splits in variants.items()]
    lines += [*against_others(random, given.rounds), memory(random), *at_scale(MSMT.part(divisor), given.rounds)]
    print("\n" + table(lines))
    print("\nAll but the product runs on one core: with more threads than two the product is the smaller part.")


def drawn(size: Size, *, signal: float) -> Splits:
    """Noise about the centres of identities, `signal` times as far apart as the noise is wide."""
    draw = np.random.default_rng(0)
    centres = signal * draw.standard_normal((size.identities, DIMENSION), np.float32)

    def side(count: int) -> Predictions:
        labels, cameras = draw.integers(0, size.identities, count), draw.integers(0, size.cameras, count)
        noise = draw.standard_normal((count, DIMENSION), np.float32)
        return Predictions(noise + centres[labels], None, labels, cameras)

    return {"query": side(size.queries), "gallery": side(size.gallery)}


def with_junk(splits: Splits, divisor: int) -> Splits:
    """The same with a part of the gallery under the label 0, and junk beside it."""
    gallery, junk = splits["gallery"], MARKET_JUNK // divisor
    embeddings = np.concatenate([gallery.embeddings, gallery.embeddings[:junk] + 1])
    labels = np.concatenate([gallery.labels, np.full(junk, JUNK)])
    labels[:DISTRACTORS // divisor] = 0
    shuffled = np.random.default_rng(0).permutation(len(labels))
    cameras = np.concatenate([gallery.cameras, gallery.cameras[:junk]])
    return {**splits, "gallery": Predictions(embeddings[shuffled], None, labels[shuffled], cameras[shuffled])}


def collapsed(splits: Splits) -> Splits:
    """The same with one embedding for all."""
    return {name: side._replace(embeddings=np.ones_like(side.embeddings)) for name, side in splits.items()}


def search_in(splits: Splits) -> tuple[Cosine, Matches]:
    """Cosines and matches of the splits."""
    query, gallery = splits["query"], splits["gallery"]
    cosine = Cosine(unit(query.embeddings), unit(gallery.embeddings))
    return cosine, Matches(query.labels, query.cameras, gallery.labels, gallery.cameras)


def product(query: np.ndarray, gallery: np.ndarray) -> Callable[[], None]:
    """The bare product of the two, over the blocks of queries that scoring uses."""
    step = BLOCK_BYTES // (8 * len(gallery))

    def multiply() -> None:
        for first in range(0, len(query), step):
            query[first:first + step] @ gallery.T

    return multiply


def ranks_by_sorting(cosine: Cosine, splits: Splits) -> list[np.ndarray]:
    """The places of each query's matches, from a stable sort of the whole gallery."""
    query, gallery = splits["query"], splits["gallery"]
    step, ranks = BLOCK_BYTES // (8 * len(gallery.labels)), []
    for first in range(0, len(query.labels), step):
        for row, similarity in enumerate(cosine[first:first + step], first):
            order = np.argsort(-similarity, kind="stable")
            same = gallery.labels[order] == query.labels[row]
            seen = same & (gallery.cameras[order] == query.cameras[row])
            ranks.append(np.flatnonzero(same[(gallery.labels[order] != JUNK) & ~seen]))
    return ranks


def ranks_apart(splits: Splits) -> int:
    """The largest difference of our ranks to those of a sort."""
    cosine, matches = search_in(splits)
    ours, theirs = np.concatenate([*positive_ranks(cosine, matches)]), np.concatenate(ranks_by_sorting(cosine, splits))
    return int(np.abs(ours - theirs).max())


def against_product(what: str, splits: Splits, rounds: int) -> Comparison:
    """The evaluator beside the product."""
    cosine, _ = search_in(splits)
    ours, bare = in_turns(rounds, partial(run_eval, {}, splits.__getitem__), product(cosine.query, cosine.gallery))
    return Comparison(f"{_size(splits)}, {what}", ours, "float64 product", bare, at_most(2.0))


def against_others(splits: Splits, rounds: int) -> list[Comparison]:
    """The evaluator beside a product that gives no exact ranks, and beside what sorts each query's gallery."""
    cosine, _ = search_in(splits)
    single = product(cosine.query.astype(np.float32), cosine.gallery.astype(np.float32))
    ours, product_32, sort = in_turns(rounds, partial(run_eval, {}, splits.__getitem__), single,
                                      partial(ranks_by_sorting, cosine, splits))
    return [Comparison(f"{_size(splits)}, nothing learnt", ours, "float32 product", product_32),
            Comparison(f"{_size(splits)}, nothing learnt", ours, "ranks alone by stable sort", sort)]


def memory(splits: Splits) -> Limit:
    """By how much the evaluator makes the process grow."""
    grown = extra_mib(partial(run_eval, {}, splits.__getitem__)) / MB
    return Limit(f"{_size(splits)}, memory beyond the embeddings", grown, "MB", at_most(200))


def at_scale(size: Size, rounds: int) -> list[Comparison | Limit]:
    """A large gallery once: memory in all and the product; and its cost beside that of its smaller part."""
    splits = drawn(size, signal=0.0)
    ours = in_turns(1, partial(run_eval, {}, splits.__getitem__))[0]
    held = getrusage(RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # MB
    cosine, _ = search_in(splits)
    bare = in_turns(1, product(cosine.query, cosine.gallery))[0]
    return [Comparison(f"{_size(splits)}, nothing learnt", ours, "float64 product", bare, at_most(2.0)),
            Limit(f"{_size(splits)}, memory of the process in all", held, "MB", at_most(1500)),
            linearity(splits, size.identities // 4, rounds)]


def linearity(splits: Splits, identities: int, rounds: int) -> Comparison:
    """1,000 queries in all of the gallery, and in the part of a few identities, theirs among them."""
    query, gallery = splits["query"], splits["gallery"]
    asking = {"query": _rows(query, np.flatnonzero(query.labels < identities)[:1000])}
    whole, part = asking | {"gallery": gallery}, asking | {"gallery": _rows(gallery, gallery.labels < identities)}
    times = len(gallery.labels) / len(part["gallery"].labels)
    ours, less = in_turns(rounds, partial(run_eval, {}, whole.__getitem__), partial(run_eval, {}, part.__getitem__))
    return Comparison(f"{_size(whole)} for {_size(part)}", ours, f"{times:.2f} times the smaller",
                      [times * seconds for seconds in less], at_most(1.25))


def _rows(side: Predictions, rows: np.ndarray) -> Predictions:
    return Predictions(side.embeddings[rows], None, side.labels[rows], side.cameras[rows])


def _size(splits: Splits) -> str:
    return " x ".join(f"{len(splits[name].labels):,}" for name in ("query", "gallery"))


if __name__ == "__main__":
    main()
