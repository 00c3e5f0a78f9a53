"""How well clusters of embeddings agree with the classes."""

import importlib.util

import numpy as np


def needs_sklearn(wanted: bool) -> bool:
    """`wanted` itself; ValueError when clusters are wanted and scikit-learn is not installed."""
    if wanted and importlib.util.find_spec("sklearn") is None:
        raise ValueError("nmi needs scikit-learn, which is not installed; pip install scikit-learn")
    return wanted


def clustering_nmi(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """NMI of the classes and as many k-means clusters, the best of 10 seeded runs: (N, D), (N,) -> 0..1."""
    needs_sklearn(True)
    from sklearn.cluster import KMeans
    runs = KMeans(len(np.unique(labels)), n_init=10, random_state=0)
    return nmi(labels, runs.fit_predict(embeddings))


def nmi(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Mutual information of two partitions over the geometric mean of their entropies: (N,), (N,) -> 0..1."""
    from sklearn.metrics import normalized_mutual_info_score
    return float(normalized_mutual_info_score(labels, clusters, average_method="geometric"))
