"""How well clusters of embeddings agree with the classes."""

import importlib.util

import numpy as np

RUNS = 10  # of k-means
MANY = 1000  # classes above which it is one: choosing its first centres costs time as images x classes


def needs_sklearn(wanted: bool) -> bool:
    """`wanted` itself; ValueError when clusters are wanted and scikit-learn is not installed."""
    if wanted and importlib.util.find_spec("sklearn") is None:
        raise ValueError("nmi needs scikit-learn, which is not installed; pip install scikit-learn")
    return wanted


def clustering_nmi(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """NMI of the classes and as many k-means clusters: (N, D), (N,) -> 0..1.

    The best of 10 seeded runs, of one where there are more than 1,000 classes.
    """
    needs_sklearn(True)
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits
    classes = len(np.unique(labels))
    runs = KMeans(classes, n_init=1 if classes > MANY else RUNS, random_state=0)
    with threadpool_limits(1, "blas"):  # the many small products of the first centres only wait for its threads
        return nmi(labels, runs.fit_predict(embeddings))


def nmi(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Mutual information of two partitions over the geometric mean of their entropies: (N,), (N,) -> 0..1."""
    from sklearn.metrics import normalized_mutual_info_score
    return float(normalized_mutual_info_score(labels, clusters, average_method="geometric"))
