"""Where the time of a training step goes."""

import time
from collections.abc import Iterator

from data.records import Batch


class Clock:
    """Images per second, and the share of the time spent waiting for data, since the last lap."""

    def __init__(self) -> None:
        self.images = 0
        self._waited = 0.0
        self._began = time.monotonic()

    def waiting(self, items: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
        """The same items, the time they take to come being counted as waiting."""
        while True:
            asked = time.monotonic()
            item = next(items, None)
            self._waited += time.monotonic() - asked
            if item is None:
                return
            yield item

    def lap(self) -> dict[str, float]:
        """{images_per_second, data_wait, seconds} since the last lap."""
        elapsed = time.monotonic() - self._began
        lap = {"images_per_second": self.images / elapsed, "data_wait": self._waited / elapsed,
               "seconds": elapsed}
        self.images, self._waited, self._began = 0, 0.0, time.monotonic()
        return lap
