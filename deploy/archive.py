"""Archives that Kiln packed, read where nothing else of Kiln is installed."""

import io
import json
import os
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import lmdb
import numpy as np

from .preprocess import ImageError

KIND = ("kiln-archive", 1)  # format and version


class _Opened(NamedTuple):
    path: Path
    environment: lmdb.Environment
    end: int  # bytes that the file must have


def records(path: Path) -> tuple[list[str], list[Callable[[], bytes]]]:
    """Where each image came from, and the function that reads it; ImageError names archive and key.

    What is read is compared with the checksum that was packed with it.
    """
    archive = _open(path)
    names, checksums = _index(archive)
    return names, [partial(_read, archive, f"{i:09d}", checksum) for i, checksum in enumerate(checksums)]


def _open(path: Path) -> _Opened:
    try:
        environment = lmdb.open(str(path), subdir=False, create=False, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise ImageError(f"{path}: cut short, or not an archive that data.pack wrote ({error})") from error
    return _Opened(path, environment, (environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def _index(archive: _Opened) -> tuple[list[str], list[int]]:
    """Names and checksums of all records."""
    encoded = _read(archive, "index", int.from_bytes(_read(archive, "seal")))
    try:
        with np.load(io.BytesIO(encoded)) as columns:
            header = json.loads(columns["header"].tobytes())
            if (kind := (header["format"], header["version"])) != KIND:
                raise ValueError(f"{kind} instead of {KIND}")
            paths, ends = columns["paths"].tobytes(), columns["path_ends"].tolist()
            checksums = columns["checksums"].tolist()
    except (ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise ImageError(f"{archive.path}: key index: not an index of this version of data.pack ({error})") from error
    return [os.fsdecode(paths[start:end]) for start, end in zip([0, *ends], ends, strict=False)], checksums


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
