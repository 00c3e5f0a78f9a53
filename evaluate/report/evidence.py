"""What the evaluator saw, made ready for the page: rank lists, pairs, cameras, confusions."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evaluate.bootstrap import interval
from evaluate.cameras import Cameras, by_cameras
from evaluate.pairs import LEVELS, Pairs, pairs_of, thresholds
from evaluate.protocol import Classified, Scored, Search
from evaluate.rank_lists import rank_list, worst_median_best
from evaluate.report.charts import Chart, chart, number
from evaluate.report.pictures import Pictures

QUERIES = 3  # of the worst, of the median and of the best
BARS = 80  # of the histogram of pairs
MOST_CAMERAS = 32  # a side of the table of cameras
MOST_CLASSES = 16  # of a confusion matrix; of more classes, the pairs that are confused most
MOST_CONFUSED = 20


class Interval(NamedTuple):
    """A mean over queries, and the ends of its bootstrap interval."""

    metric: str
    mean: float
    low: float
    high: float
    over: int  # queries


class Tile(NamedTuple):
    """An image of a rank list."""

    uri: str | None
    name: str
    camera: int
    similarity: float | None  # None: it is the query
    right: bool

    @property
    def alt(self) -> str:
        """What the image is, for those who do not see it."""
        who = f"{self.name}, {f'camera {self.camera}' if self.camera >= 0 else 'no camera'}"
        if self.similarity is None:
            return f"query: {who}"
        return f"{'right' if self.right else 'wrong'}: {who}, similarity {self.similarity:.3f}"


class Ranked(NamedTuple):
    """A query with its score, and its nearest gallery images."""

    score: float
    query: Tile
    nearest: Sequence[Tile]


class PairsShown(NamedTuple):
    """Cosines of pairs as a chart, and the thresholds that follow."""

    chart: Chart
    levels: Sequence[tuple[str, Mapping[str, Any]]]
    genuine: int
    impostors: int


class Confusion(NamedTuple):
    """A matrix of few classes, or of many the most frequent mistakes."""

    split: str
    names: Sequence[str]
    matrix: np.ndarray | None  # (K, K): of images of class i, how many were taken for j
    pairs: Sequence[tuple[str, str, int, int]]  # true, predicted, how many, of how many


def intervals(scored: Scored) -> list[Interval]:
    """Every metric that is a mean, with a 95 % interval."""
    return [Interval(name, float(values.mean()), *interval(values), len(values))
            for name, values in scored.counted.items() if len(values)]


def rank_lists(found: Search, scores: np.ndarray, pictures: Pictures) -> dict[str, list[Ranked]]:
    """The nearest images of the worst, the median and the best queries by their scores (Q,)."""
    return {name: [_ranked(found, int(query), float(scores[query]), pictures) for query in queries]
            for name, queries in worst_median_best(scores, QUERIES).items()}


def pairs(found: Search) -> PairsShown:
    """Shares of genuine and impostor pairs by cosine, and thresholds."""
    counted = pairs_of(found)
    said = thresholds(found, counted)
    levels = [(name, said[name]) for name in LEVELS]
    marks = {name.removeprefix("far="): level["threshold"] for name, level in levels if "threshold" in level}
    kinds = {kind: counts for kind, counts in
             (("genuine pairs", counted.genuine), ("impostor pairs", counted.impostors)) if counts.any()}
    lines = {kind: _shares(counted, counts) for kind, counts in kinds.items()}
    drawn = chart("Share of pairs by cosine", lines, "cosine", marks=marks, from_zero=True)
    return PairsShown(drawn._replace(description=_medians(counted.edges, kinds)), levels, said["genuine"],
                      said["impostors"])


def cameras(found: Search) -> Cameras | str | None:
    """Scores by camera pair, or a line that they are too many for a table; None where cameras are unknown, or one."""
    counts = [len(np.unique(side.cameras[side.cameras >= 0])) for side in (found.query, found.gallery)]
    if max(counts) < 2 or not min(counts):
        return None
    if max(counts) > MOST_CAMERAS:
        return f"No table: {max(counts)} cameras, and one has room for {MOST_CAMERAS}."
    return by_cameras(found)


def confusion(found: Classified, pictures: Pictures) -> Confusion:
    """Which classes are taken for which."""
    classes = np.unique(np.concatenate([found.labels, found.predicted]))
    pairs, counts = np.unique(np.stack([found.labels, found.predicted]), axis=1, return_counts=True)
    wrong = np.flatnonzero(pairs[0] != pairs[1])
    wrong = wrong[np.argsort(-counts[wrong], kind="stable")][:MOST_CONFUSED]
    matrix = None
    if len(classes) <= MOST_CLASSES:
        matrix = np.zeros((len(classes), len(classes)), np.int64)
        matrix[tuple(np.searchsorted(classes, pairs))] = counts
    most = [(pictures.name(found.split, int(pairs[0, i])), pictures.name(found.split, int(pairs[1, i])),
             int(counts[i]), int(np.count_nonzero(found.labels == pairs[0, i]))) for i in wrong]
    return Confusion(found.split, [pictures.name(found.split, int(label)) for label in classes], matrix, most)


def _ranked(found: Search, query: int, score: float, pictures: Pictures) -> Ranked:
    ranked = rank_list(found, query)
    asked = Tile(pictures.uri(found.query_split, query), pictures.name(found.query_split, found.query.labels[query]),
                 int(found.query.cameras[query]), None, True)
    return Ranked(score, asked, [
        Tile(pictures.uri(found.gallery_split, int(row)),
             pictures.name(found.gallery_split, found.gallery.labels[row]), int(found.gallery.cameras[row]),
             float(similarity), bool(right))
        for row, right, similarity in zip(ranked.rows, ranked.right, ranked.similarity, strict=True)])


def _shares(counted: Pairs, counts: np.ndarray) -> list[tuple[float, float]]:
    """Shares of one kind of pairs, by BARS equal parts of the cosines that there are."""
    there = np.flatnonzero(counted.genuine + counted.impostors)
    bounds = np.linspace(there[0], there[-1] + 1, BARS + 1).astype(int)
    sums = np.concatenate([[0], np.cumsum(counts)])[bounds]
    centres = (counted.edges[bounds[:-1]] + counted.edges[bounds[1:]]) / 2
    shares = np.diff(sums) / counts.sum()
    return list(zip(centres.tolist(), shares.tolist(), strict=True))


def _medians(edges: np.ndarray, kinds: Mapping[str, np.ndarray]) -> str:
    """The middle cosine of each kind, in words."""
    return "; ".join(f"half of the {kind} are above a cosine of "
                     f"{number(float(edges[np.searchsorted(np.cumsum(counts), counts.sum() / 2)]))}"
                     for kind, counts in kinds.items())
