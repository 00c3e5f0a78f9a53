"""Batches in the order of a sampler or of a split, made ahead of time by worker processes."""

import signal
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from data.archive import Images
from data.augment import Augment
from data.dataset import EvaluationImages, Key, TrainImages
from data.records import WHOLE, Batch, BatchSampler, DataError, Share
from deploy.preprocess import Preprocessing

PREFETCH = 2  # batches that each worker may be ahead

StartMethod = Literal["fork", "spawn", "forkserver"]


class TrainLoader:
    """The batches of an epoch: the same, to the last pixel, for any number of workers and from any batch on.

    Of every batch only the share's images are made. The worker processes live from the first batch until
    `close`; with 0 workers this process makes the batches. `start_method` None is the platform's default.
    """

    def __init__(
        self,
        archive: Images,
        sampler: BatchSampler,
        augment: Augment,
        *,
        seed: int,
        workers: int,
        start_method: StartMethod | None = None,
        pin_memory: bool = False,
        share: Share = WHOLE,
    ) -> None:
        self._keys = _EpochKeys(sampler)
        self._start = partial(
            _loader, TrainImages(archive, augment, seed, share), self._keys, workers=workers,
            start_method=start_method, pin_memory=pin_memory, persistent_workers=workers > 0)
        self._loader = self._start()
        self._reading = self._read()

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._keys)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The epoch's batches from number `first` on, those before it not even decoded.

        One epoch is read at a time: the next call ends this one's iterator, which raises DataError at the
        first image that cannot be read.
        """
        self._reading.close()
        self._keys.epoch, self._keys.first = epoch, first
        self._reading = self._read()
        return self._reading

    def close(self) -> None:
        """End the workers; a later epoch would start new ones."""
        self._reading.close()
        self._loader = self._start()  # torch ends the workers when the last reference to their loader goes

    def _read(self) -> Generator[Batch, None, None]:
        for batch in self._loader:
            yield _whole(batch)


def evaluation_batches(
    archive: Images,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int,
    start_method: StartMethod | None = None,
    share: Share = WHOLE,
) -> Iterator[Batch]:
    """The share's batches of every image of a split once, in the archive's order; the last batch may be smaller.

    The workers live as long as the iterator. Raises DataError at the first image that cannot be read.
    """
    count = len(archive)
    batches = [range(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]
    images = EvaluationImages(archive, preprocessing)
    for batch in _loader(images, batches[share.of(len(batches))], workers=workers, start_method=start_method):
        yield _whole(batch)


class _EpochKeys:
    """The keys of one epoch's batches, from batch `first` on: what torch calls a batch sampler."""

    def __init__(self, sampler: BatchSampler) -> None:
        self._sampler = sampler
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[list[Key]]:
        position = 0
        for number, images in enumerate(self._sampler.batches(self.epoch)):
            if number >= self.first:
                places = enumerate(images.tolist(), position)
                yield [Key(self.epoch, place, image) for place, image in places]
            position += len(images)


def _loader(
    images: TrainImages | EvaluationImages, batches: Iterable[Any], *, workers: int,
    start_method: StartMethod | None, **options: Any,
) -> DataLoader[Any]:
    return DataLoader(
        images, batch_sampler=batches, num_workers=workers, collate_fn=_as_made,
        worker_init_fn=_leave_signals_to_the_main_process,
        multiprocessing_context=start_method if workers else None,
        prefetch_factor=PREFETCH if workers else None,
        # Without one of its own, torch draws from the global generator at each epoch, and a run that is
        # resumed within an epoch would go on with other dropout masks.
        generator=torch.Generator(), **options)


def _whole(batch: Batch | DataError) -> Batch:
    if isinstance(batch, DataError):
        raise batch
    return batch


def _as_made(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_main_process(_worker: int) -> None:
    # Ctrl-C and service managers signal the whole group; the main process snapshots, then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
