"""From keys to batches: in whichever process asks, images are read, decoded and made network-sized."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from data.archive import Images
from data.augment import Augment
from data.records import WHOLE, Batch, DataError, Share
from deploy.preprocess import ImageError, Preprocessing

T = TypeVar("T")


class Key(NamedTuple):
    """Which image, and its place in the run, of which its random choices are a function."""

    epoch: int
    position: int  # among all images of the epoch's batches, in order
    image: int  # its number in the archive


class TrainImages(Dataset[Batch | DataError]):
    """Random variants, drawn from (seed, epoch, position) and nothing else."""

    def __init__(self, archive: Images, augment: Augment, seed: int, share: Share = WHOLE) -> None:
        self._archive, self._augment, self._seed, self._share = archive, augment, seed, share

    def __getitems__(self, keys: Sequence[Key]) -> Batch | DataError:
        """The share's images of one batch, and the labels of all.

        A DataError is handed over, not raised: torch would wrap it in a worker's traceback.
        """
        own = keys[self._share.of(len(keys))]
        rngs = [self._rng(key) for key in own]
        parts = (drawn(self._archive, key.image, partial(self._augment.part, rng=rng))
                 for key, rng in zip(own, rngs, strict=True))
        images, pixels = _room(len(own), self._augment.preprocessing)
        try:
            self._augment.draw(parts, rngs, pixels)
        except DataError as error:
            return error
        return _batch(self._archive, images, [key.image for key in keys])

    def _rng(self, key: Key) -> np.random.Generator:
        return np.random.default_rng([self._seed, key.epoch, key.position])


class EvaluationImages(Dataset[Batch | DataError]):
    """Images as deployment sees them."""

    def __init__(self, archive: Images, preprocessing: Preprocessing) -> None:
        self._archive, self._preprocessing = archive, preprocessing

    def __getitems__(self, numbers: Iterable[int]) -> Batch | DataError:
        """One batch, or a DataError handed over as by TrainImages."""
        numbers = list(numbers)
        images, pixels = _room(len(numbers), self._preprocessing)
        try:
            for seen, number in zip(pixels, numbers, strict=True):
                seen[:] = drawn(self._archive, number, self._preprocessing)
        except DataError as error:
            return error
        return _batch(self._archive, images, numbers)


def _room(count: int, size: Preprocessing) -> tuple[torch.Tensor, np.ndarray]:
    """Memory for images as (B, 3, H, W), and the same memory as (B, H, W, 3).

    A worker's is shared with the main process: torch would otherwise copy the batch into such memory. So would the
    public `share_memory_`, from memory of its own: of 64 images of 256 x 128 that takes 1 to 2 ms. This is what torch's
    `default_collate` calls.
    """
    shape = count, 3, size.height, size.width
    images = torch.empty(0, dtype=torch.uint8)
    if get_worker_info():
        images.set_(torch.UntypedStorage._new_shared(math.prod(shape)))  # type: ignore[no-untyped-call]
    images.resize_(shape)
    return images, images.permute(0, 2, 3, 1).numpy()


def _batch(archive: Images, images: torch.Tensor, numbers: Sequence[int]) -> Batch:
    labels, cameras = archive.labels[numbers], archive.cameras[numbers]
    return Batch(images, torch.from_numpy(labels), torch.from_numpy(cameras))


def drawn(archive: Images, number: int, draw: Callable[[bytes], T]) -> T:
    """What is made of a record's encoded image; DataError names it where it is no image or damaged."""
    encoded = archive.read(number)
    try:
        return draw(encoded)
    except ImageError as error:
        raise DataError(f"{archive.where(number)}: {error}; pack the split again, with --skip_corrupt to leave such "
                        "images out") from error
