"""Where each identity's images are, for the samplers that draw by identity."""

import numpy as np


def images_by_label(labels: np.ndarray) -> dict[int, np.ndarray]:
    """(N,) labels -> {label: its image indices, ascending}, labels ascending; any labels, any counts."""
    order = np.argsort(labels, kind="stable")
    found, starts = np.unique(labels[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, starts[1:]), strict=True))
