"""The images behind a path: a folder, a list of paths, one image, or an archive that Kiln packed."""

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from .preprocess import SUFFIXES


class ListingError(ValueError):
    """A path leads to no images: one line that names it and says what was expected."""


class Listing(NamedTuple):
    """Images and what they are called, in the same order."""

    names: list[str]  # relative to the folder, as in the list, or as packed
    images: Iterable[Path | bytes]


def list_images(source: Path) -> Listing:
    """The images of a folder (recursive, sorted), a text file, or an .lmdb archive; or the one image given.

    A text file has a path per line, relative to its own folder.
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
        import lmdb  # only archives need it
    except ImportError:
        raise ListingError(f"{source}: reading an archive needs lmdb: pip install lmdb") from None
    try:
        environment = lmdb.open(str(source), subdir=False, readonly=True, lock=False, readahead=False)
        # Reading beyond the end of a mapped file would kill the process.
        if source.stat().st_size < (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]:
            raise ListingError(f"{source}: the archive is cut short; pack it again")
        with environment.begin() as transaction, np.load(io.BytesIO(transaction.get(b"index", b""))) as index:
            paths, ends = index["paths"].tobytes(), index["path_ends"].tolist()
    except (lmdb.Error, OSError, KeyError, EOFError, BadZipFile) as error:
        raise ListingError(f"{source}: not an archive that data.pack wrote ({error})") from error
    names = [os.fsdecode(paths[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    return Listing(names, _records(environment, len(names)))


def _records(environment: Any, count: int) -> Iterator[bytes]:
    for i in range(count):
        with environment.begin() as transaction:
            yield transaction.get(b"%09d" % i, b"")
