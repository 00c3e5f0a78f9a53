"""Archives that Kiln packed, read where nothing else of Kiln is installed."""

import json
import os
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import lmdb
import numpy as np

from .preprocess import ImageError

KIND = ("kiln-archive", 2)  # format and version
COLUMNS = {"paths": np.uint8, "path_ends": np.int64, "checksums": np.uint32,  # of those that an index has
           "labels": np.int64, "cameras": np.int64}


class Records(NamedTuple):
    """The images of an archive and what was packed with them, in the same order."""

    names: list[str]  # where each came from
    images: Sequence[Callable[[], bytes]]
    cameras: list[int]  # -1 = none
    tags: list[str]  # the class; "" = junk


class _Opened(NamedTuple):
    path: Path
    environment: lmdb.Environment
    end: int  # bytes that the file must have


def records(path: Path) -> Records:
    """The images of an archive, each with the function that reads it; ImageError names archive and key.

    What is read is compared with the checksum that was packed with it.
    """
    archive = _open(path)
    class_names, columns = _index(archive)
    paths, ends = columns["paths"].tobytes(), columns["path_ends"].tolist()
    names = [os.fsdecode(paths[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    images = [partial(_read, archive, f"{i:09d}", checksum) for i, checksum in enumerate(columns["checksums"].tolist())]
    tags = [class_names[label] if label >= 0 else "" for label in columns["labels"].tolist()]
    return Records(names, images, columns["cameras"].tolist(), tags)


def _open(path: Path) -> _Opened:
    try:
        environment = lmdb.open(str(path), subdir=False, create=False, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise ImageError(f"{path}: cut short, or not an archive that data.pack wrote ({error})") from error
    return _Opened(path, environment, (environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def _index(archive: _Opened) -> tuple[list[str], dict[str, np.ndarray]]:
    """The names of all classes, and the columns."""
    encoded = _read(archive, "index", int.from_bytes(_read(archive, "seal")))
    try:
        header = json.loads(encoded)
        if (kind := (header["format"], header["version"])) != KIND:
            raise ValueError(f"{kind} instead of {KIND}")
        sealed = {name: header["columns"][name] for name in COLUMNS}
        class_names: list[str] = header["class_names"]
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{archive.path}: key index: not an index of this version of data.pack ({error})") from error
    return class_names, {name: np.frombuffer(_read(archive, f"index.{name}", checksum), COLUMNS[name])
                         for name, checksum in sealed.items()}


def _read(archive: _Opened, key: str, checksum: int | None = None) -> bytes:
    where = f"{archive.path}: key {key}"
    if archive.path.stat().st_size < archive.end:  # reading a mapped file beyond its end would kill the process
        raise ImageError(f"{where}: the archive is cut short; pack it again")
    try:
        with archive.environment.begin() as transaction:
            value: bytes | None = transaction.get(key.encode())
    except lmdb.Error as error:
        raise ImageError(f"{where}: cannot be read ({error}); pack it again") from error
    if value is None:
        raise ImageError(f"{where} is missing; give an archive that data.pack wrote")
    if checksum is not None and zlib.crc32(value) != checksum:
        raise ImageError(f"{where}: its bytes are not those that were packed; pack it again")
    return value
