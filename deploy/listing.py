"""The images behind a path: a folder, a list of paths, one image, or an archive that Kiln packed."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from .preprocess import SUFFIXES


class ListingError(ValueError):
    """A path leads to no images: one line that names it and says what was expected."""


class Listing(NamedTuple):
    """Images and what they are called, in the same order."""

    names: list[str]  # relative to the folder, as in the list, or as packed
    images: Iterable[Path | Callable[[], bytes]]
    cameras: Sequence[int] | None = None  # -1 = none; None where it is not known of any
    tags: Sequence[str] | None = None  # "" = none; likewise


def list_images(source: Path) -> Listing:
    """The images of a folder (recursive, sorted), a text file, or an .lmdb archive; or the one image given.

    A text file has a path per line, relative to its own folder. ListingError where there is nothing to read,
    ImageError where an archive is damaged.
    """
    listing = _list(source)
    if not listing.names:
        raise ListingError(f"{source}: no image in it; names that end in {' '.join(SUFFIXES)} count")
    return listing


def _list(source: Path) -> Listing:
    if source.is_dir():
        files = (path for path in source.rglob("*") if path.is_file())
        paths = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
        return Listing([path.relative_to(source).as_posix() for path in paths], paths)
    if not source.is_file():
        raise ListingError(f"{source}: no such folder or file")
    if source.suffix == ".lmdb":
        return _of_archive(source)
    if source.suffix.lower() in SUFFIXES:
        return Listing([source.name], [source])
    return _of_lines(source)


def _of_lines(source: Path) -> Listing:
    try:
        names = [line.strip() for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ListingError(f"{source}: folder, image, .lmdb archive or text of paths expected") from None
    return Listing(names, [source.parent / name for name in names])


def _of_archive(source: Path) -> Listing:
    try:
        from .archive import records  # only archives need lmdb
    except ImportError:
        raise ListingError(f"{source}: reading an archive needs lmdb: pip install lmdb") from None
    return Listing(**records(source)._asdict())
