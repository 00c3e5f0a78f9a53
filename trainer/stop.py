"""SIGTERM and SIGINT become a request that the run answers between two steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType, TracebackType

from trainer import ranks


class Stopped(Exception):
    """The run was asked to stop; nothing of a step is half done."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StopSignal:
    """While entered, remembers SIGTERM and SIGINT instead of dying of them."""

    def __init__(self) -> None:
        self._number: int | None = None

    def __enter__(self) -> "StopSignal":
        self._handled = _handled_by(self._remember)
        self._handled.__enter__()
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._handled.__exit__(None, None, None)

    def check(self) -> None:
        """Raise Stopped when a signal has come, on every rank when it has come to one."""
        number = ranks.highest(self._number or 0)
        if number:
            raise Stopped(number)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._number = number


def interrupting() -> AbstractContextManager[None]:
    """While entered, SIGTERM and SIGINT raise KeyboardInterrupt with their name, wherever the process is."""
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    return _handled_by(interrupt)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
