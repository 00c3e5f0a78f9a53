"""Every image once per epoch, in random order."""

from typing import Annotated

import numpy as np


class Shuffled:
    """A new order each epoch, cut into batches of `batch_size`.

    The last batch may be smaller, or is then left out with `drop_last`; a last single image always is, because
    batch norm cannot normalise one.
    Raises ValueError where no batch would be left.
    """

    def __init__(
        self,
        labels: np.ndarray,
        seed: int,
        batch_size: int,
        *,
        drop_last: Annotated[bool, "leave the last, smaller batch out"] = False,
    ) -> None:
        self._count, self._seed, self._batch_size = len(labels), seed, batch_size
        self._least = batch_size if drop_last else 2  # images of the last batch
        if not len(self):
            remedy = "lower it or add images" if drop_last else "add images"
            raise ValueError(f"batch_size: {batch_size} images a batch asked, the train split has "
                             f"{len(labels)}, too few for any batch; {remedy}")

    def __len__(self) -> int:
        whole, rest = divmod(self._count, self._batch_size)
        return whole + (rest >= self._least)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The epoch's batches of image indices, each (batch_size,) or, the last, fewer."""
        order = np.random.default_rng([self._seed, epoch]).permutation(self._count)
        return np.split(order, range(self._batch_size, self._count, self._batch_size))[:len(self)]
