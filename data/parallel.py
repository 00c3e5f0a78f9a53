"""Work in other processes, in order and with bounded memory."""

import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import connection, parent_process
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_AHEAD = 2  # per worker: what is done and not yet asked for waits in memory


def map_in_processes(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int,
) -> Iterator[Result]:
    """function(task) for each task, in the order of the tasks.

    Raises what the function raises, and BrokenProcessPool when a worker was killed.
    """
    pool = ProcessPoolExecutor(workers, initializer=_follow_parent)
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > TASKS_AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it ends, however that happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module="PIL")  # of tags that it cannot read, into the progress bar
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
