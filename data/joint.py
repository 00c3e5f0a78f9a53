"""Several archives as one: what joint training on several sets reads."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data.archive import Archive


class Joint:
    """The images of several archives, one archive after the other; no class and no camera is in two of them.

    Class 0002 of the second one, which source market1501 packed, is called "market1501.2/0002". Like an archive it
    holds no handle and may be pickled.
    """

    def __init__(self, archives: Sequence[Archive]) -> None:
        self._archives = tuple(archives)
        self._ends = np.cumsum([len(archive) for archive in archives])
        self.class_names = [f"{archive.source}.{place}/{name}"
                            for place, archive in enumerate(archives, 1) for name in archive.class_names]
        self.labels = _apart([archive.labels for archive in archives],
                             [len(archive.class_names) for archive in archives])
        self.cameras = _apart([archive.cameras for archive in archives],
                              [int(archive.cameras.max()) + 1 for archive in archives])
        self.checksums = np.concatenate([archive.checksums for archive in archives])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        return Joint, (self._archives,)

    def __str__(self) -> str:
        return " and ".join(map(str, self._archives))

    def read(self, i: int) -> bytes:
        """The encoded image i, as its archive gives it."""
        archive, own = self._place(i)
        return archive.read(own)

    def where(self, i: int) -> str:
        """Image i for people, by the archive that it is in."""
        archive, own = self._place(i)
        return archive.where(own)

    def _place(self, i: int) -> tuple[Archive, int]:
        """The archive that holds image i, and its number there."""
        if not 0 <= i < len(self):
            raise IndexError(f"{self}: image {i} of {len(self)}")
        place = int(np.searchsorted(self._ends, i, side="right"))
        archive = self._archives[place]
        return archive, i - int(self._ends[place]) + len(archive)


def _apart(columns: Sequence[np.ndarray], counts: Sequence[int]) -> np.ndarray:
    """Columns as one, the numbers of each counted on from those before it; -1 stays."""
    firsts = np.cumsum([0, *counts[:-1]])
    return np.concatenate([np.where(column < 0, column, column + first)
                           for column, first in zip(columns, firsts, strict=True)])
