"""What the benchmarks share: contenders that take turns, the memory one of them needs, and the table of results."""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 2**20


def arguments(doc: str | None, *, rounds: int = 5, **more: dict[str, Any]) -> argparse.Namespace:
    """The command line that every benchmark has: --rounds, --small, and its own options as add_argument takes them."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each contender")
    parser.add_argument("--small", action="store_true", help="a few seconds on little data: whether it runs, no more")
    for name, option in more.items():
        parser.add_argument(f"--{name}", **option)
    return parser.parse_args()


def in_turns(rounds: int, *contenders: Callable[[], object]) -> list[list[float]]:
    """Seconds of each contender in each round; they take turns, so that a change of the machine's speed meets all."""
    seconds: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds):
        for column, contender in zip(seconds, contenders, strict=True):
            gc.collect()
            began = time.perf_counter()
            contender()
            column.append(time.perf_counter() - began)
    return seconds


def extra_mib(function: Callable[[], object]) -> float:
    """MiB by which the process grows, at its largest, while the function runs. Linux only."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status_mib("VmRSS")
    function()
    return max(0.0, _status_mib("VmHWM") - before)


def _status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


@dataclass(frozen=True)
class Bar:
    """What a ratio has to reach: at least or at most so much."""

    least: float | None = None
    most: float | None = None

    def met(self, ratio: float) -> bool:
        """Whether the ratio is within the bar."""
        return (self.least is None or ratio >= self.least) and (self.most is None or ratio <= self.most)

    def __str__(self) -> str:
        limits = {">=": self.least, "<=": self.most}
        return " and ".join(f"{sign} {limit:g}" for sign, limit in limits.items() if limit is not None) or "none set"


def at_least(ratio: float) -> Bar:
    """A bar on peer / ours: so many times faster."""
    return Bar(least=ratio)


def at_most(ratio: float) -> Bar:
    """A bar on ours / peer: the cost of what it cannot be faster than."""
    return Bar(most=ratio)


NO_BAR = Bar()


@dataclass(frozen=True)
class Comparison:
    """One line of a table of results: our seconds and the peer's, round by round in the same run."""

    what: str
    ours: Sequence[float]
    peer_name: str
    peer: Sequence[float]
    bar: Bar = NO_BAR
    count: int = 0  # things done in each turn; 0 = seconds are shown, else things per second

    @property
    def ratios(self) -> list[float]:
        """Of each round: ours / peer in seconds where the bar is an upper one, else peer / ours."""
        pairs = zip(self.ours, self.peer, strict=True)
        return [ours / peer if self.bar.most is not None else peer / ours for ours, peer in pairs]

    def __str__(self) -> str:
        ratio = statistics.median(self.ratios)
        verdict = "" if self.bar == NO_BAR else " met" if self.bar.met(ratio) else " **missed**"
        spread = f"{min(self.ratios):.2f} .. {max(self.ratios):.2f}"
        sense = "of the peer's time" if self.bar.most is not None else "times faster"
        return (f"| {self.what} | {self._shown(self.ours)} | {self.peer_name}: {self._shown(self.peer)} "
                f"| {ratio:.2f} {sense} | {spread} | {self.bar}{verdict} |")

    def _shown(self, seconds: Sequence[float]) -> str:
        median = statistics.median(seconds)
        return f"{self.count / median:,.1f}/s" if self.count else _seconds(median)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


@dataclass(frozen=True)
class Limit:
    """One line of a table of results: a figure that has to keep under a limit of its own."""

    what: str
    figure: float
    unit: str
    bar: Bar

    def __str__(self) -> str:
        verdict = "" if self.bar == NO_BAR else " met" if self.bar.met(self.figure) else " **missed**"
        return f"| {self.what} | {self.figure:,.4g} {self.unit} | | | | {self.bar}{verdict} |"


def table(lines: Iterable[Comparison | Limit]) -> str:
    """The results as a Markdown table: medians, the median of the rounds' ratios, their spread, and the bar."""
    head = "| what | ours | peer | ratio | spread | bar |\n|---|---|---|---|---|---|"
    return "\n".join([head, *map(str, lines)])


def agreed(what: str, difference: float, tolerance: float) -> None:
    """Print that both gave the same; SystemExit where they did not, since then no time of theirs means anything."""
    if not difference <= tolerance:
        raise SystemExit(f"{what}: {difference:.3g} apart, at most {tolerance:.3g} expected")
    print(f"\nSame results: {what}, largest difference {difference:.2g} (at most {tolerance:.2g} allowed).")
