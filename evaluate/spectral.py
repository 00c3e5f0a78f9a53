"""Spectral transformation of a query's nearest gallery images, which are then ranked anew among themselves."""

from dataclasses import dataclass

import numpy as np

from evaluate.distances import Cosine
from evaluate.ranking import nearest

REFINED = 50  # gallery images per query
_AHEAD = 3.0  # lifts similarities of -1..1 above all cosines, and so keeps these images in front


def refined(embeddings: np.ndarray, temperature: float) -> np.ndarray:
    """Each embedding as the mean of all, weighted by the softmax of its products over temperature: (N, D) -> (N, D).

    Luo et al., Spectral Feature Transformation for Person Re-identification, 2019 (post-processing).
    """
    scores = embeddings @ embeddings.T / temperature
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    transformed: np.ndarray = weights / weights.sum(axis=1, keepdims=True) @ embeddings
    return transformed


@dataclass(frozen=True)
class Spectral:
    """Cosines (Q, G) in which each query's first 50 gallery rows stay first, in the order after `refined`."""

    cosine: Cosine
    temperature: float

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, G)."""
        return self.cosine.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        block = self.cosine[rows]
        for query, similarity in zip(self.cosine.query[rows], block, strict=True):
            first = nearest(similarity, REFINED)
            similarity[first] = _AHEAD + refined(self.cosine.gallery[first], self.temperature) @ query
        return block
