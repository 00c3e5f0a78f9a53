"""How well clusters of embeddings agree with the classes."""

import importlib.util

import numpy as np

RUNS = 10  # of k-means, where they are cheap
MANY = 1000  # classes; the first centres of one run cost time as images x classes, and ten times more classes hours


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
    classes = len(np.unique(labels))
    clusters = KMeans(classes, n_init=1 if classes > MANY else RUNS, random_state=0).fit_predict(embeddings)
    return nmi(labels, clusters)


def nmi(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Mutual information of two partitions over the geometric mean of their entropies: (N,), (N,) -> 0..1."""
    from sklearn.metrics import normalized_mutual_info_score
    return float(normalized_mutual_info_score(labels, clusters, average_method="geometric"))
