"""Several images ask as one query."""

import numpy as np

from data.records import DataError, Predictions
from evaluate.distances import unit


def averaged(query: Predictions, images: Predictions, split: str = "multi_query") -> np.ndarray:
    """Per query the mean of the unit embeddings of the images with its label and camera: (Q, D).

    DataError names the first query that has none. Zheng et al., Scalable Person Re-identification, 2015.
    """
    embeddings = unit(images.embeddings, split)
    rows: dict[tuple[int, int], list[int]] = {}
    for row, key in enumerate(zip(images.labels.tolist(), images.cameras.tolist(), strict=True)):
        rows.setdefault(key, []).append(row)
    asked = list(zip(query.labels.tolist(), query.cameras.tolist(), strict=True))
    for row, (label, camera) in enumerate(asked):
        if (label, camera) not in rows:
            raise DataError(f"{split}: holds no image of query {row} (label {label}, camera {camera}); "
                            "pack the set again with all its images, or set evaluation_params.multi_query to false")
    return np.stack([embeddings[rows[key]].mean(axis=0) for key in asked])
