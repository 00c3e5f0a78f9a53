"""From keys to batches: in whichever process asks, images are read, decoded and made network-sized."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from data.archive import Images
from data.augment import Augment
from data.records import WHOLE, Batch, DataError, Share
from deploy.preprocess import ImageError, Preprocessing

Draw = Callable[[bytes], np.ndarray]  # an encoded image -> (H, W, 3) uint8


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
        draws = [(key.image, partial(self._augment, rng=self._rng(key))) for key in own]
        return _batch(self._archive, self._augment.preprocessing, draws, [key.image for key in keys])

    def _rng(self, key: Key) -> np.random.Generator:
        return np.random.default_rng([self._seed, key.epoch, key.position])


class EvaluationImages(Dataset[Batch | DataError]):
    """Images as deployment sees them."""

    def __init__(self, archive: Images, preprocessing: Preprocessing) -> None:
        self._archive, self._preprocessing = archive, preprocessing

    def __getitems__(self, numbers: Iterable[int]) -> Batch | DataError:
        """One batch, or a DataError handed over as by TrainImages."""
        draws = [(number, self._preprocessing) for number in numbers]
        return _batch(self._archive, self._preprocessing, draws, [number for number, _ in draws])


def _batch(
    archive: Images, size: Preprocessing, draws: Sequence[tuple[int, Draw]], numbers: Sequence[int],
) -> Batch | DataError:
    """The pictures that are drawn, and what is known of the images with these numbers."""
    images = torch.empty((len(draws), 3, size.height, size.width), dtype=torch.uint8)
    rows = images.numpy()
    try:
        for row, (number, draw) in zip(rows, draws, strict=True):
            row[:] = drawn(archive, number, draw).transpose(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    except DataError as error:
        return error
    labels, cameras = archive.labels[numbers], archive.cameras[numbers]
    return Batch(images, torch.from_numpy(labels), torch.from_numpy(cameras))


def drawn(archive: Images, number: int, draw: Draw) -> np.ndarray:
    """What is drawn of a record, (H, W, 3) uint8; DataError names it where it is no image or damaged."""
    encoded = archive.read(number)
    try:
        return draw(encoded)
    except ImageError as error:
        raise DataError(f"{archive.where(number)}: {error}; pack the split again, with --skip_corrupt to leave such "
                        "images out") from error
