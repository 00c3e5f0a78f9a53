"""What the doctor says of a set: one thing that is wrong, what it does to a run, and what to do about it."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

EXAMPLES = 3

Level = Literal["error", "warning", "note"]


class Finding(NamedTuple):
    """One thing that is wrong, what it does to a run, and what to do about it."""

    level: Level
    what: str
    effect: str
    remedy: str
    check: str = ""  # the check that found it; the doctor fills it in


def findings(
    level: Level, where: str, what: str, names: Sequence[str], *, effect: str, remedy: str,
) -> Iterator[Finding]:
    """A finding, where there is any name: so many are `what`, and the first few of them."""
    if names:
        yield Finding(level, f"{where}: {len(names)} {what}: {first_few(names)}", effect, remedy)


def first_few(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    shown = ", ".join(names[:EXAMPLES])
    return shown if len(names) <= EXAMPLES else f"{shown} and {len(names) - EXAMPLES} more"
