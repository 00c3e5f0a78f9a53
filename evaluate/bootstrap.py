"""How far a mean over queries could have come out otherwise: the bootstrap."""

from typing import NamedTuple

import numpy as np

_DRAWS = 2**21  # values drawn at a time


class Difference(NamedTuple):
    """How much better the first of two runs is than the second."""

    mean: float
    low: float
    high: float
    p: float  # two-sided


def interval(values: np.ndarray, *, seed: int = 0, resamples: int = 1000, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean over queries: (Q,) -> low, high.

    A function of its arguments alone. ValueError where there is no query, or a value is NaN.
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
    """
    return _middle(_resampled_means(_checked(values), seed, resamples), level)


def paired(first: np.ndarray, second: np.ndarray, *, seed: int = 0, resamples: int = 1000,
           level: float = 0.95) -> Difference:
    """Mean of first - second over the same queries, with its interval: (Q,), (Q,) -> Difference.

    `p` is twice the share of resampled means on the rarer side of 0, counting the one observed, 1 at most: it is
    never below 2 / (resamples + 1), and small where the interval is far from 0.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(f"{np.shape(first)} and {np.shape(second)} scores cannot be paired; "
                         "compare runs on the same queries")
    differences = _checked(np.subtract(first, second))
    means = _resampled_means(differences, seed, resamples)
    rarer = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    low, high = _middle(means, level)
    return Difference(float(differences.mean()), low, high, min(1.0, 2 * (rarer + 1) / (resamples + 1)))


def _resampled_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means of as many values as there are, drawn with replacement, again and again: (Q,) -> (resamples,)."""
    draw, count = np.random.default_rng(seed), len(values)
    at_once = max(1, _DRAWS // count)
    return np.concatenate([
        values[draw.integers(0, count, (min(at_once, resamples - done), count))].mean(axis=1)
        for done in range(0, resamples, at_once)])


def _middle(means: np.ndarray, level: float) -> tuple[float, float]:
    """The ends between which the middle `level` of all means lies."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _checked(values: np.ndarray) -> np.ndarray:
    """The values; ValueError where there are none, or one is NaN."""
    if not len(values) or np.isnan(values).any():
        raise ValueError(f"{np.count_nonzero(np.isnan(values))} of {len(values)} scores are NaN; "
                         "give those of the queries that have a match")
    return values
