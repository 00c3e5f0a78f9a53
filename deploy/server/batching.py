"""Requests that arrive together share a batch: one thread computes, others hand it their rows."""

from collections.abc import Callable
from concurrent.futures import Future
from itertools import islice
from threading import Condition, Thread
from time import monotonic
from typing import NamedTuple

import numpy as np

from ..extractor import Outputs


class Job(NamedTuple):
    """Rows that wait."""

    rows: np.ndarray  # (n, ...), n <= batch_size
    arrived: float


class Batcher:
    """Runs rows in batches of at most `batch_size`, none of which waits longer than `max_delay` seconds to start.

    While a batch runs, those that come gather for the next one: the longer it takes, the fuller that is.
    """

    def __init__(self, run: Callable[[np.ndarray], Outputs], *, batch_size: int, max_delay: float) -> None:
        self._run, self._batch_size, self._max_delay = run, batch_size, max_delay
        self._jobs: dict[Future[Outputs], Job] = {}  # by who waits for them
        self._rows = 0  # of all jobs
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._work, name="inference")
        self._thread.start()

    def submit(self, rows: np.ndarray) -> Future[Outputs]:
        """The outputs of so many rows, to come; cancelled before they are computed, they never are."""
        if not 0 < len(rows) <= self._batch_size:
            raise ValueError(f"rows: 1 to {self._batch_size} expected, got {len(rows)}")
        answer: Future[Outputs] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("rows after the end")
            self._jobs[answer] = Job(rows, monotonic())
            self._rows += len(rows)
            if len(self._jobs) == 1 or self._rows >= self._batch_size:  # else the thread need not wake up
                self._changed.notify()
        answer.add_done_callback(self._drop)
        return answer

    def hurry(self) -> None:
        """Run what waits without delay."""
        with self._changed:
            self._max_delay = 0.0
            self._changed.notify()

    def close(self) -> None:
        """Finish what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _drop(self, answer: Future[Outputs]) -> None:
        """Forget rows that are cancelled; those that were computed wait no longer."""
        with self._changed:
            if job := self._jobs.pop(answer, None):
                self._rows -= len(job.rows)

    def _work(self) -> None:
        while jobs := self._next():
            wanted = {answer: job for answer, job in jobs.items() if answer.set_running_or_notify_cancel()}
            if not wanted:
                continue
            try:
                outputs = self._run(np.concatenate([job.rows for job in wanted.values()]))
            except Exception as error:  # of this batch; the next may do better
                for answer in wanted:
                    answer.set_exception(error)
            else:
                _hand_out(outputs, wanted)

    def _next(self) -> dict[Future[Outputs], Job]:
        """The jobs of the next batch, once it is full or its first job has waited long enough; none at the end."""
        with self._changed:
            while (left := self._left()) is None or left > 0:
                self._changed.wait(left)
            ends = np.cumsum([len(job.rows) for job in self._jobs.values()])
            count = int(np.searchsorted(ends, self._batch_size, "right"))
            jobs = dict(islice(self._jobs.items(), count))
            for answer in jobs:
                self._drop(answer)
            return jobs

    def _left(self) -> float | None:
        """Seconds that the next batch has to gather; None where nothing waits."""
        if self._closed or self._rows >= self._batch_size:
            return 0
        if not self._jobs:
            return None
        return next(iter(self._jobs.values())).arrived + self._max_delay - monotonic()


def _hand_out(outputs: Outputs, jobs: dict[Future[Outputs], Job]) -> None:
    """Give each job the outputs of its rows."""
    start = 0
    for answer, job in jobs.items():
        end = start + len(job.rows)
        answer.set_result(Outputs(**{name: value[start:end] for name, value in outputs._asdict().items()
                                     if value is not None}))
        start = end
