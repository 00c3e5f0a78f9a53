"""What can be wrong with a params.json, and how it is said."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

Path = tuple[str | int, ...]  # ("losses", 0, "margin")


def dotted(path: Sequence[str | int]) -> str:
    """A JSON path as users write it: ("losses", 0, "margin") -> "losses[0].margin"."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def did_you_mean(wrong: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest one, or all of them when none is near."""
    known = {name.lower(): name for name in sorted(names)}
    near = get_close_matches(wrong.lower(), known, n=1, cutoff=0.6)
    if near:
        return f'; did you mean "{known[near[0]]}"?'
    return f"; there are {', '.join(known.values())}" if known else ""


class Mistake(NamedTuple):
    """One thing to mend, and where."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message


class ParamsError(ValueError):
    """Everything that is wrong with one params.json, a line per mistake."""

    exit_code = 2

    def __init__(self, source: str, mistakes: Sequence[Mistake]) -> None:
        super().__init__(source, mistakes)
        self.source = source
        self.mistakes = tuple(dict.fromkeys(mistakes))

    def __str__(self) -> str:
        return "\n".join(f"{self.source}: {mistake}" for mistake in self.mistakes)
