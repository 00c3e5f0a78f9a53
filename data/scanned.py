"""A split of which every record was read."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data.archive import Archive, open_archive
from data.likeness import SIDE, thumbnail
from data.parallel import map_in_processes
from data.records import DataError
from data.sources import PAIRED
from deploy.preprocess import ImageError, opened, turned

TESTED = ("query", "gallery", "multi_query", "val", "test")  # the splits that metrics are of
CHUNK = 64


class Scanned(NamedTuple):
    """A split of which every record was read."""

    archive: Archive
    digests: np.ndarray  # (N,) S20: sha1 of each record, empty where it cannot be used
    corrupt: Mapping[int, str]  # record -> what is wrong with it
    thumbnails: np.ndarray  # (N, SIDE, SIDE, 3) uint8, black where it cannot be used
    turned: np.ndarray  # (N,) bool: EXIF says that the stored pixels are not upright

    def per_class(self) -> np.ndarray:
        """Images of each class: (K,)."""
        labels = self.archive.labels
        return np.bincount(labels[labels >= 0], minlength=len(self.archive.class_names))

    @property
    def paired(self) -> bool:
        """Whether its images stand two by two, an image more than once and a class with one image too."""
        return (self.archive.source, self.archive.split) in PAIRED

    def class_names(self, where: np.ndarray) -> list[str]:
        """The names of the classes at which a mask (K,) is true."""
        return [self.archive.class_names[k] for k in np.flatnonzero(where)]

    def paths(self, records: Iterable[int]) -> list[str]:
        """The original paths of some records."""
        return [self.archive.original_path(int(i)) for i in records]


ScannedSplits = Mapping[str, Scanned]


class Examined(NamedTuple):
    """A record that was read and, where nothing is wrong with it, decoded."""

    digest: bytes = b""  # sha1
    thumbnail: bytes = bytes(3 * SIDE * SIDE)
    turned: bool = False
    wrong: str = ""


def scan(archive: Archive, workers: int) -> Scanned:
    """Read and decode every record; DataError where the index is damaged, BrokenProcessPool where the tree is."""
    archive.original_path(0)  # opening leaves the paths unread
    starts = range(0, len(archive), CHUNK)
    tasks = ((archive.path, start, min(start + CHUNK, len(archive))) for start in starts)
    records: list[Examined] = []
    with tqdm(total=len(archive), desc=archive.split, unit=" images", disable=None) as progress:
        for examined in map_in_processes(_examine, tasks, workers):
            records += examined
            progress.update(len(examined))
    digests, thumbnails, are_turned, wrong = zip(*records, strict=True)
    return Scanned(archive, np.array(digests, "S20"), {i: reason for i, reason in enumerate(wrong) if reason},
                   np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, SIDE, SIDE, 3), np.array(are_turned))


def _examine(task: tuple[Path, int, int]) -> list[Examined]:
    path, start, stop = task
    archive = _opened_once(path)
    return [_examine_one(archive, i) for i in range(start, stop)]


_opened_once = lru_cache(maxsize=1)(open_archive)  # called in the workers alone, which live for one scan


def _examine_one(archive: Archive, i: int) -> Examined:
    try:
        encoded = archive.read(i)
    except DataError as error:
        return Examined(wrong=str(error))
    try:
        image = opened(encoded)
    except ImageError as error:
        return Examined(wrong=f"{archive.where(i)}: {error}")
    return Examined(hashlib.sha1(encoded).digest(), thumbnail(image).tobytes(), turned(encoded))
