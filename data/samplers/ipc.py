"""A fixed number of images per class; Lim et al., Hypergraph-Induced Semantic Tuplet Loss, 2022."""

from typing import Annotated

import numpy as np
from pydantic import Field

from data.samplers.index import images_by_label


class ImagesPerClass:
    """Batches of batch_size / images different classes, rounded down, with `images` each, drawn with replacement.

    Every batch is drawn anew; an epoch has as many as batch_size fits into the split. Raises ValueError where a
    batch would hold no class, or more than there are.
    """

    def __init__(
        self,
        labels: np.ndarray,
        seed: int,
        batch_size: int,
        *,
        images: Annotated[int, Field(ge=1, le=10**6), "images of each class in a batch"],
    ) -> None:
        self._images, self._seed = list(images_by_label(labels).values()), seed
        self._classes, self._each = batch_size // images, images
        self._length = len(labels) // batch_size
        if not self._classes:
            raise ValueError(f"batch_sampling_params.images: expected at most batch_size {batch_size}, found {images}; "
                             "lower it or raise batch_size")
        if self._classes > len(self._images):
            raise ValueError(f"batch_size: {self._classes} classes with {images} images each asked, the train split "
                             f"has {len(self._images)}; lower batch_size or raise batch_sampling_params.images")
        if not self._length:
            raise ValueError(f"batch_size: {batch_size} images a batch asked, the train split has {len(labels)}; "
                             "lower it")

    def __len__(self) -> int:
        return self._length

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The epoch's batches of image indices, a class's side by side."""
        rng = np.random.default_rng([self._seed, epoch])
        return [self._draw(rng) for _ in range(len(self))]

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        classes = rng.permutation(len(self._images))[:self._classes]
        return np.concatenate([rng.choice(self._images[label], self._each) for label in classes])
