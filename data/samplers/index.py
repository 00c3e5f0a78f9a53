"""Where each identity's images are, for the samplers that draw by identity."""

from typing import Annotated

import numpy as np
from pydantic import Field

IdentityCount = Annotated[int, Field(ge=1, le=10**6), "identities in a batch"]
ImageCount = Annotated[int, Field(ge=1, le=10**6), "images of each identity"]


def images_by_label(labels: np.ndarray) -> dict[int, np.ndarray]:
    """(N,) labels -> {label: its image indices, ascending}, labels ascending; any labels, any counts."""
    order = np.argsort(labels, kind="stable")
    found, starts = np.unique(labels[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, starts[1:]), strict=True))


def at_least(p: int, labels: np.ndarray) -> list[np.ndarray]:
    """The image indices of each identity, of which there are `p` or more; else ValueError."""
    images = list(images_by_label(labels).values())
    if len(images) < p:
        raise ValueError(f"batch_sampling_params.P: {p} identities a batch asked, the train split has {len(images)}; "
                         "lower P")
    return images


def take(images: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the images in random order, (count,); where they are fewer, each of them and then any again."""
    again = rng.choice(images, max(count - len(images), 0))
    return np.concatenate([rng.permutation(images)[:count], again])
