"""SIGTERM and SIGINT become a request that the run answers between two steps."""

import signal
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
        self._before = {number: signal.signal(number, self._remember) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise Stopped when a signal has come, on every rank when it has come to one."""
        number = ranks.highest(self._number or 0)
        if number:
            raise Stopped(number)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._number = number
