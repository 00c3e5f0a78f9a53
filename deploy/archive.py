"""Archives that Kiln packed, read where nothing else of Kiln is installed."""

import json
import os
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

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


@dataclass(frozen=True)
class _Opened:
    file: tuple[int, int]  # its device and inode
    environment: lmdb.Environment
    end: int  # bytes that the file must have


# lmdb refuses to open a file twice in one process: all that read a file share one environment, as long as any does.
_opened: WeakValueDictionary[tuple[int, int], _Opened] = WeakValueDictionary()
_opening = threading.Lock()
os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_opening.release)


def records(path: Path) -> Records:
    """The images of an archive, each with the function that reads it; ImageError names archive and key.

    What is read is compared with the checksum that was packed with it. An archive that is packed again meanwhile
    is read on as it was.
    """
    archive = _shared(path)
    class_names, columns = _index(path, archive)
    paths, ends = columns["paths"].tobytes(), columns["path_ends"].tolist()
    names = [os.fsdecode(paths[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    images = [partial(_read, path, archive, f"{i:09d}", checksum)
              for i, checksum in enumerate(columns["checksums"].tolist())]
    tags = [class_names[label] if label >= 0 else "" for label in columns["labels"].tolist()]
    return Records(names, images, columns["cameras"].tolist(), tags)


def _shared(path: Path) -> _Opened:
    with _opening:
        file, _ = _file_and_size(path, str(path))
        archive = _opened.get(file)
        if archive is None:
            archive = _opened[file] = _open(path, file)
    return archive


def _file_and_size(path: Path, where: str) -> tuple[tuple[int, int], int]:
    try:
        status = path.stat()
    except OSError as error:
        raise ImageError(f"{where}: {error.strerror}; give an archive that data.pack wrote") from error
    return (status.st_dev, status.st_ino), status.st_size


def _open(path: Path, file: tuple[int, int]) -> _Opened:
    try:
        environment = lmdb.open(str(path), subdir=False, create=False, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        if "already open in this process" in str(error):
            raise ImageError(f"{path}: open in this process already, by data.archive; use another process") from error
        raise ImageError(f"{path}: cut short, or not an archive that data.pack wrote ({error})") from error
    return _Opened(file, environment, (environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def _index(path: Path, archive: _Opened) -> tuple[list[str], dict[str, np.ndarray]]:
    """The names of all classes, and the columns."""
    encoded = _read(path, archive, "index", int.from_bytes(_read(path, archive, "seal")))
    try:
        header = json.loads(encoded)
        if (kind := (header["format"], header["version"])) != KIND:
            raise ValueError(f"{kind} instead of {KIND}")
        sealed = {name: header["columns"][name] for name in COLUMNS}
        class_names: list[str] = header["class_names"]
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{path}: key index: not an index of this version of data.pack ({error})") from error
    return class_names, {name: np.frombuffer(_read(path, archive, f"index.{name}", checksum), COLUMNS[name])
                         for name, checksum in sealed.items()}


def _read(path: Path, archive: _Opened, key: str, checksum: int | None = None) -> bytes:
    where = f"{path}: key {key}"
    file, size = _file_and_size(path, where)
    if file == archive.file and size < archive.end:  # reading a mapped file beyond its end would kill the process
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
