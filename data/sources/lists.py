"""Text files that list the images of a set, a line each."""

from pathlib import Path
from typing import NamedTuple

from data.records import DataError


class Line(NamedTuple):
    """A line of a list and where it stands, "file:number"."""

    where: str
    text: str

    def fields(self, names: str) -> list[str]:
        """The words of the line, one for each word of `names`; DataError when they are more or fewer."""
        found = self.text.split()
        if len(found) != len(names.split()):
            raise self.wrong(names)
        return found

    def number(self, text: str) -> int:
        """A word of the line as a whole number from 0; DataError when it is none."""
        if not (text.isascii() and text.isdecimal()):
            raise self.wrong(f"a whole number in place of {text}")
        return int(text)

    def wrong(self, expected: str) -> DataError:
        """The error that says what was expected here."""
        return DataError(f"{self.where}: expected {expected}, got {self.text!r}; take the file from the original set")


def lines_of(path: Path) -> list[Line]:
    """The lines of a list that are not blank; DataError where there is none, or no text."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the root of the image set as it is unpacked")
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; take the file from the original set") from None
    lines = [Line(f"{path}:{number}", text.strip()) for number, text in enumerate(texts, 1) if text.strip()]
    if not lines:
        raise DataError(f"{path}: an empty file; take it from the original set")
    return lines


def below_header(lines: list[Line], names: str, above: int = 0) -> list[Line]:
    """The lines after the header, which stands after `above` lines and must give the names of the columns."""
    header = lines[min(above, len(lines) - 1)]
    if header.text.split() != names.split():
        raise header.wrong(f"the header {names}")
    return lines[above + 1:]
