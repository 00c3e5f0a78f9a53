"""Requests that arrive together share a batch: one thread computes, others hand it their rows."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from itertools import takewhile
from threading import Condition, Thread
from time import monotonic
from typing import NamedTuple

import numpy as np

from ..extractor import Outputs


class Job(NamedTuple):
    """Rows that wait, and who waits for them."""

    rows: np.ndarray  # (n, ...), n <= batch_size
    answer: Future[Outputs]
    arrived: float


class Batcher:
    """Runs rows in batches of at most `batch_size`, none of which waits longer than `max_delay` seconds to start.

    While a batch runs, those that come gather for the next one: the longer it takes, the fuller that is.
    """

    def __init__(self, run: Callable[[np.ndarray], Outputs], *, batch_size: int, max_delay: float) -> None:
        self._run, self._batch_size, self._max_delay = run, batch_size, max_delay
        self._jobs: deque[Job] = deque()
        self._rows = 0  # of all jobs
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._work, name="inference")
        self._thread.start()

    def submit(self, rows: np.ndarray) -> Future[Outputs]:
        """The outputs of so many rows, to come; cancelled before they are computed, they never are."""
        if not 0 < len(rows) <= self._batch_size:
            raise ValueError(f"rows: 1 to {self._batch_size} expected, got {len(rows)}")
        job = Job(rows, Future(), monotonic())
        with self._changed:
            if self._closed:
                raise RuntimeError("rows after the end")
            self._jobs.append(job)
            self._rows += len(rows)
            if len(self._jobs) == 1 or self._rows >= self._batch_size:  # else the thread need not wake up
                self._changed.notify()
        return job.answer

    def hurry(self) -> None:
        """Wait for others no longer, since none will come."""
        with self._changed:
            self._max_delay = 0.0
            self._changed.notify()

    def close(self) -> None:
        """Finish what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._next():
            wanted = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)

    def _next(self) -> list[Job]:
        """The jobs of the next batch, once it is full or its first job has waited long enough; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return []
            while not self._closed and self._rows < self._batch_size:
                left = self._jobs[0].arrived + self._max_delay - monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            ends = np.cumsum([len(job.rows) for job in self._jobs])
            jobs = [self._jobs.popleft() for _ in takewhile(lambda end: end <= self._batch_size, ends)]
            self._rows -= sum(len(job.rows) for job in jobs)
            return jobs

    def _answer(self, jobs: list[Job]) -> None:
        try:
            outputs = self._run(np.concatenate([job.rows for job in jobs]))
        except Exception as error:  # of this batch; the next may do better
            for job in jobs:
                job.answer.set_exception(error)
            return
        start = 0
        for job in jobs:
            end = start + len(job.rows)
            job.answer.set_result(Outputs(**{name: value[start:end] for name, value in outputs._asdict().items()
                                             if value is not None}))
            start = end
