"""A split of which every record was read, and what a check says of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from data.archive import Archive
from data.sources import PAIRED

EXAMPLES = 3
TESTED = ("query", "gallery", "multi_query", "val", "test")  # the splits that metrics are of

Level = Literal["error", "warning", "note"]


class Finding(NamedTuple):
    """One thing that is wrong, what it does to a run, and what to do about it."""

    level: Level
    check: str
    what: str
    effect: str
    remedy: str


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

    def paths(self, records: Iterable[int]) -> str:
        """The original paths of the first of some records, and how many more there are."""
        return some([self.archive.original_path(int(i)) for i in records])


Splits = Mapping[str, Scanned]


def some(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    shown = ", ".join(names[:EXAMPLES])
    return shown if len(names) <= EXAMPLES else f"{shown} and {len(names) - EXAMPLES} more"
