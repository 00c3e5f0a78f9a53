"""The one reader of archives: LMDB files of data.pack, each value compared with its checksum in a sealed index."""

import json
import os
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import lmdb
import numpy as np

FORMAT, VERSION = "kiln-archive", 2
INDEX = b"index"  # JSON: the format, what holds for all records, and the checksum of each column
SEAL = b"seal"  # the checksum of the index, 4 bytes
COLUMNS = {  # each under a key of its own, so that only what is asked for is read
    "labels": np.int64, "cameras": np.int64, "sequences": np.int64, "checksums": np.uint32,
    "path_ends": np.int64, "paths": np.uint8,
}


class SealedError(ValueError):
    """A file is no whole archive: what is wrong with it, to be said after its name."""


class HeldOpen(SealedError):
    """Code other than this has the file open in this process, and lmdb opens it once: it may well be whole."""


class DamagedValue(SealedError):
    """A value is not what was packed under its key."""

    def __init__(self, key: bytes, complaint: str) -> None:
        super().__init__(key, complaint)
        self.complaint = complaint

    def __str__(self) -> str:
        return f"key {self.args[0].decode()} {self.complaint}"


class Header(NamedTuple):
    """What holds for all records of an archive."""

    seal: bytes
    source: str
    split: str
    class_names: list[str]
    columns: dict[str, int]  # the checksum of each


@dataclass(frozen=True)
class _Opened:
    file: tuple[int, int]  # its device and inode
    environment: lmdb.Environment
    end: int  # bytes that the file must have


# lmdb refuses to open a file twice in one process and in its forked children; with lock=False a child reads
# through what it inherited. So all that read a file share one environment. It stays open: closing one while another
# thread opens it, or forks, would leave it open for lmdb and closed for us.
_opened: dict[tuple[int, int], _Opened] = {}
_opening = threading.Lock()
os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_opening.release)


class SealedFile:
    """An archive opened for reading; SealedError where it is no whole one of this version.

    It may be forked with and opened as often as wanted. One that is packed again meanwhile is read on as it was.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened = _shared(path)
        self.header = _header(*self._sealed_index())

    def read(self, key: bytes, checksum: int | None = None) -> bytes:
        """The value under a key; DamagedValue where it is not the one with this checksum, SealedError."""
        file, size = _file_and_size(self.path)
        if size < self._opened.end and file == self._opened.file:  # to read a mapped file beyond its end is a SIGBUS
            raise SealedError(f"cut short, {size} of {self._opened.end} bytes")
        try:
            with self._opened.environment.begin() as transaction:
                value: bytes | None = transaction.get(key)
        except lmdb.Error as error:
            raise DamagedValue(key, f"cannot be read ({error})") from error
        if value is None:
            raise DamagedValue(key, "is missing")
        if checksum is not None and zlib.crc32(value) != checksum:
            raise DamagedValue(key, "is damaged: its bytes are not those that were packed")
        return value

    def column(self, name: str) -> np.ndarray:
        """A column of the index, (N,), read-only."""
        return np.frombuffer(self.read(column_key(name), self.header.columns[name]), COLUMNS[name])

    def _sealed_index(self) -> tuple[bytes, bytes]:
        seal = self.read(SEAL)
        return seal, self.read(INDEX, int.from_bytes(seal))


def record_key(i: int) -> bytes:
    """The key of record i; keys sort as the records do."""
    return b"%09d" % i


def column_key(name: str) -> bytes:
    """The key of a column; it sorts after the records and INDEX, and before SEAL."""
    return INDEX + b"." + name.encode()


def _header(seal: bytes, encoded: bytes) -> Header:
    try:
        index = json.loads(encoded)
        found = f"{index['format']} version {index['version']}"
        if found == f"{FORMAT} version {VERSION}":
            checksums = {name: int(index["columns"][name]) for name in COLUMNS}
            return Header(seal, index["source"], index["split"], index["class_names"], checksums)
    except (ValueError, KeyError, TypeError):  # version 1 had no JSON there
        found = "the index of an earlier version, or of something else"
    raise SealedError(f"{found}, expected {FORMAT} version {VERSION}")


def _shared(path: Path) -> _Opened:
    with _opening:
        file, _ = _file_and_size(path)
        opened = _opened.get(file)
        if opened is None:
            opened = _opened[file] = _open(path, file)
        return opened


def _open(path: Path, file: tuple[int, int]) -> _Opened:
    try:
        environment = lmdb.open(str(path), subdir=False, create=False, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        if "already open in this process" in str(error):
            raise HeldOpen("held open by other code of this process; close it there first") from error
        whole = f"cut short, or no archive ({error})"
        raise SealedError(whole if os.access(path, os.R_OK) else "no permission to read it") from error
    return _Opened(file, environment, (environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def _file_and_size(path: Path) -> tuple[tuple[int, int], int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise SealedError(error.strerror) from error
    return (status.st_dev, status.st_ino), status.st_size
