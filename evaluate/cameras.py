"""Which camera's queries find their matches in which camera's images."""

from typing import NamedTuple

import numpy as np

from evaluate.protocol import Search
from evaluate.ranking import BLOCK_BYTES, average_precision, blocks, ranks_of


class Cameras(NamedTuple):
    """Scores of queries of one camera in the gallery images of one camera alone; NaN where nothing matches."""

    query: np.ndarray  # (A,) their numbers, rising; unknown ones are left out
    gallery: np.ndarray  # (B,)
    ap: np.ndarray  # (A, B) means over the queries that have a match there
    rank1: np.ndarray  # (A, B)
    queries: np.ndarray  # (A, B) how many those are


def by_cameras(found: Search, *, block_bytes: int = BLOCK_BYTES) -> Cameras:
    """Every pair of a query camera and a gallery camera, by the similarities of the search."""
    asking, shown = found.query.cameras, found.gallery.cameras
    numbers = [np.unique(cameras[cameras >= 0]) for cameras in (asking, shown)]
    elsewhere = [np.flatnonzero(shown != camera) for camera in numbers[1]]
    sums = np.zeros((3, len(numbers[0]), len(numbers[1])))  # of average precisions, of first hits, of queries
    for rows in blocks(len(asking), len(shown), block_bytes):
        for query, row in enumerate(found.similarity[rows], rows.start):
            if asking[query] < 0:
                continue
            positives, ignored = found.matches[query]
            for place in np.flatnonzero(np.isin(numbers[1], shown[positives])):
                there = positives[shown[positives] == numbers[1][place]]
                ranks = ranks_of(row, there, np.concatenate([ignored, elsewhere[place]]))
                own = np.searchsorted(numbers[0], asking[query])
                sums[:, own, place] += average_precision(ranks), ranks[0] == 0, 1
    with np.errstate(invalid="ignore"):  # 0 / 0 where there is no query
        ap, rank1 = sums[:2] / sums[2]
    return Cameras(numbers[0], numbers[1], ap, rank1, sums[2].astype(np.int64))
