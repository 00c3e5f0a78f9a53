"""k-reciprocal re-ranking: images are near whose neighbours are the same, not only whose embeddings are."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from data.records import DataError
from evaluate.distances import Cosine, unit
from evaluate.encodings import Sparse, averaged, encoded, most_entries
from evaluate.neighbours import TILE_BYTES, WORKERS, bytes_per_image, distance, least_tile_bytes, neighbours

_LEAST_BLOCK = 32 * 2**20
_ROWS = 128  # of a block: enough for BLAS to be at its best
_CELL_BYTES = 48  # for each cell of a block of encodings or of distances
_PAIR_BYTES = 40  # for each pair of weights of which the smaller is taken


def rerank(query: np.ndarray, gallery: np.ndarray, *, k1: int = 20, k2: int = 6, lambda_value: float = 0.3,
           budget_mib: int | None = None) -> np.ndarray:
    """Distances in which shared neighbours count, smaller is nearer: (Q, D), (G, D) -> (Q, G) float32, 0..1.

    The whole matrix of `Reranked`, whose options these are.
    """
    cosine = Cosine(unit(query, "query"), unit(gallery, "gallery"))
    return Reranked(cosine, k1=k1, k2=k2, lambda_value=lambda_value, budget_mib=budget_mib).distances(slice(None))


class Reranked:
    """Minus the k-reciprocal distances (Q, G) float32 of unit embeddings, computed by the rows asked for.

    `k1` neighbours encode an image, `k2` encodings are averaged (1 = none), `lambda_value` is the weight of
    the original distance, 2 - 2 cosine over each image's largest. Equal similarities rank by row, queries
    before gallery; an image is its own first neighbour, whoever equals it.
    `budget_mib` bounds the memory beside the embeddings and the rows asked for; distances are the same under
    any. DataError where it is below `least_mib`. Time grows with the square of the images: each pair is multiplied.
    Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, 2017.
    """

    def __init__(self, cosine: Cosine, *, k1: int = 20, k2: int = 6, lambda_value: float = 0.3,
                 budget_mib: int | None = None) -> None:
        self.shape, self._cosine, self._lambda = cosine.shape, cosine, lambda_value
        self._block_bytes = _block_bytes(cosine, k1, k2, budget_mib)
        self._encodings, self._farthest = _encodings(cosine, k1, k2, self._block_bytes)
        self._naming = self._encodings.below(len(cosine.query)).turned(sum(self.shape))

    def __getitem__(self, rows: slice) -> np.ndarray:
        distances = self.distances(rows)
        np.negative(distances, out=distances)
        return distances

    def distances(self, rows: slice) -> np.ndarray:
        """The distances of these queries to the gallery, 0..1: (b, G) float32."""
        queries = np.arange(self.shape[0])[rows]
        distances = np.empty((len(queries), self.shape[1]), np.float32)
        step = _rows(self._block_bytes, _CELL_BYTES * self.shape[1])

        def fill(first: int) -> None:
            self._fill(distances[first:first + step], queries[first:first + step])

        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(fill, range(0, len(queries), step)))
        return distances

    def _fill(self, distances: np.ndarray, queries: np.ndarray) -> None:
        original = distance(self._cosine.query[queries] @ self._cosine.gallery.T)
        weight = self._lambda / self._farthest[queries, None]
        np.multiply(original, weight, out=distances, casting="same_kind")
        jaccard = np.minimum(self._shared(queries), 1)  # in float32 the sums of encodings can be above 1
        jaccard /= 2 - jaccard  # encodings sum to 1, so the union is 2 - what they share
        np.subtract(1, jaccard, out=jaccard)
        jaccard *= 1 - self._lambda
        distances += jaccard

    def _shared(self, queries: np.ndarray) -> np.ndarray:
        """Sums of the smaller weight of query and gallery image, by whom both name; the minimum of equation 10."""
        shared = np.zeros((len(queries), self.shape[1]), np.float32)
        places, counts = self._encodings.places(queries)
        rows = np.repeat(np.arange(len(queries)) * self.shape[1], counts)
        names, weights = self._encodings.columns[places], self._encodings.values[places]
        piece = np.cumsum(np.diff(self._naming.starts)[names]) // (self._block_bytes // (4 * WORKERS * _PAIR_BYTES))
        for own in np.split(np.arange(len(names)), np.flatnonzero(np.diff(piece)) + 1):
            others, counts = self._naming.places(names[own])
            cells = np.repeat(rows[own], counts) + self._naming.columns[others]
            np.add.at(shared.ravel(), cells, np.minimum(np.repeat(weights[own], counts), self._naming.values[others]))
        return shared


def least_mib(images: int, dimension: int, k1: int, k2: int) -> int:
    """The smallest budget: what grows with the number of images, at worst, and the smallest blocks."""
    k, entries = max(k1 + 1, k2), most_entries(k1)
    search = bytes_per_image(dimension, k)
    encode = 16 * k + (8 + 16 * k2) * entries
    invert = 28 * k2 * entries - 8 * dimension
    growing = images * (8 * dimension + max(search, encode, invert))
    blocks = max(_LEAST_BLOCK, least_tile_bytes(k), WORKERS * _row_bytes(images, k1, k2))
    return -(-(growing + blocks) // 2**20)


def _block_bytes(cosine: Cosine, k1: int, k2: int, budget_mib: int | None) -> int:
    """What is left of the budget for blocks."""
    images, dimension = sum(cosine.shape), cosine.query.shape[1]
    if budget_mib is None:
        return TILE_BYTES
    least = least_mib(images, dimension, k1, k2)
    if budget_mib < least:
        raise DataError(f"evaluation_params.rerank.budget_mib: {images} images of {dimension} numbers need {least} "
                        f"with k1 {k1} and k2 {k2}, {budget_mib} are given; raise it, or leave it out")
    return min(TILE_BYTES, (budget_mib - least) * 2**20 + _LEAST_BLOCK)


def _row_bytes(images: int, k1: int, k2: int) -> int:
    """For an image that is encoded."""
    return _CELL_BYTES * images + 64 * (k2 + 1) * most_entries(k1)


def _rows(block_bytes: int, row_bytes: int) -> int:
    return min(_ROWS, max(1, block_bytes // (WORKERS * max(1, row_bytes))))


def _encodings(cosine: Cosine, k1: int, k2: int, block_bytes: int) -> tuple[Sparse, np.ndarray]:
    """The averaged encodings of all images, (N, N), and the distance of each one's farthest, (N,)."""
    embeddings = np.concatenate([cosine.query, cosine.gallery])
    near = neighbours(embeddings, max(k1 + 1, k2), tile_bytes=block_bytes)
    step = _rows(block_bytes, _row_bytes(len(embeddings), k1, k2))
    return averaged(encoded(embeddings, near, k1, step), near.rows[:, :k2], step), near.farthest
