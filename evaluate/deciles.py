"""Scores of queries in ten parts, from the least of some property to the most."""

import numpy as np

from data.records import DataError, Predictions

PARTS = 10


def by_decile(query: Predictions, counted: np.ndarray, precisions: np.ndarray) -> dict[str, float]:
    """mAP, and the queries it rests on, per decile of norm and of margin; decile 1 has the smallest.

    `counted` (Q,) bool chooses the queries of `precisions`. DataError where the network gives neither norms
    nor margins, or the queries are fewer than the deciles.
    """
    queries = len(precisions)
    if queries < PARTS:
        raise DataError(f"{queries} queries are too few for deciles; set evaluation_params.deciles to false")
    metrics: dict[str, float] = {}
    for name, values in (("norm", query.norms), ("margin", query.margins)):
        if values is None:
            raise DataError(f"the network gives no {name}s for evaluation_params.deciles; choose "
                            "model_params.margin, or set deciles to false")
        order = np.argsort(values[counted], kind="stable")
        for number, part in enumerate(np.array_split(order, PARTS), 1):
            metrics[f"mAP/{name}_decile_{number}"] = float(precisions[part].mean())
            metrics[f"queries/{name}_decile_{number}"] = float(len(part))
    return metrics
