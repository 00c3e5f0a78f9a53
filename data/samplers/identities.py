"""Random identities with a random number of images each; Ustinova and Lempitsky, Histogram Loss, 2016."""

from typing import Annotated

import numpy as np
from pydantic import Field

from data.samplers.index import images_by_label


class Identities:
    """Batches of exactly `batch_size`: identities without repetition, each with `min` to `max` different images.

    An identity with fewer gives all of them; one with a single image is not drawn. The last one of a batch is cut
    to fit; where it would keep one image, another gives up a place, so that an identity is alone only in a batch
    of pairs. An epoch has as many images as the split, not each of them. Raises ValueError where `min` images
    of every identity do not fill a batch.
    """

    def __init__(
        self,
        labels: np.ndarray,
        seed: int,
        batch_size: int,
        *,
        min: Annotated[int, Field(ge=2, le=10**6), "fewest images of an identity, if it has as many"] = 5,
        max: Annotated[int, Field(ge=2, le=10**6), "most images of an identity"] = 10,
    ) -> None:
        self._images = [images for images in images_by_label(labels).values() if len(images) > 1]
        self._seed, self._batch_size, self._range = seed, batch_size, (min, max)
        self._length = len(labels) // batch_size
        if min > max:
            raise ValueError(f"batch_sampling_params.min: expected at most max {max}, found {min}; lower it")
        there = sum(len(images[:min]) for images in self._images)
        if there < batch_size:
            raise ValueError(f"batch_size: {batch_size} images a batch asked, the train split's {len(self._images)} "
                             f"identities of two images or more give {there} at {min} each; lower it or raise "
                             "batch_sampling_params.min")

    def __len__(self) -> int:
        return self._length

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The epoch's batches of image indices, each (batch_size,), an identity's side by side."""
        rng = np.random.default_rng([self._seed, epoch])
        return [self._draw(rng) for _ in range(len(self))]

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        drawn: list[np.ndarray] = []
        places = self._batch_size
        for identity in rng.permutation(len(self._images)):
            drawn.append(rng.permutation(self._images[identity])[:rng.integers(*self._range, endpoint=True)])
            places -= len(drawn[-1])
            if places <= 0:
                break
        sizes = [len(images) for images in drawn]
        sizes[-1] += places
        longest = int(np.argmax(sizes))
        if sizes[-1] == 1 and sizes[longest] > 2:
            sizes[longest], sizes[-1] = sizes[longest] - 1, 2
        return np.concatenate([images[:size] for images, size in zip(drawn, sizes, strict=True)])
