"""The archive: encoded images of one split in one LMDB file, with an index of what is known of them."""

import json
import os
import zlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import lmdb
import numpy as np

from data.records import DataError
from deploy.files import replacing
from deploy.sealed import (COLUMNS, FORMAT, INDEX, SEAL, VERSION, DamagedValue, HeldOpen, SealedError, SealedFile,
                           column_key, record_key)

COMMIT_BYTES = 1 << 24
FIRST_MAP_BYTES = 1 << 24


class Record(NamedTuple):
    """One image of a split."""

    image: bytes  # encoded, as the source had it
    label: int  # index into the class names; -1 = junk
    camera: int  # -1 where the source has none
    sequence: int  # -1 where the source has none
    path: str  # where it came from, relative to the source's root


class Meta(NamedTuple):
    """What holds for all records of an archive."""

    source: str
    split: str
    class_names: list[str]


class Images(Protocol):
    """Encoded images by number, with what is known of them: an archive, or several as one."""

    labels: np.ndarray  # (N,) int64, 0..K-1; -1 = junk
    cameras: np.ndarray  # (N,) int64; -1 where the source has none
    checksums: np.ndarray  # (N,) uint32, of the encoded images
    class_names: list[str]  # K of them

    def __len__(self) -> int: ...

    def read(self, i: int) -> bytes:
        """The encoded image i; DataError when it is damaged."""

    def where(self, i: int) -> str:
        """Image i for people: file, record and original path."""


class Archive:
    """A split opened for reading: labels, cameras, sequences, each (N,) int64, and encoded images by number.

    It may be pickled, forked with, and opened as often as wanted. One that is packed again meanwhile is read on as it
    was, but can no longer be unpickled. DataError names the file and the remedy where it is not whole.
    """

    def __init__(self, path: Path, seal: bytes | None = None) -> None:
        self.path = path
        try:
            self._file = SealedFile(path)
            self._seal, self.source, self.split, self.class_names, _ = self._file.header
            self.labels, self.cameras, self.sequences, self.checksums = (
                self._file.column(name) for name in ("labels", "cameras", "sequences", "checksums"))
        except HeldOpen as error:
            raise DataError(f"{path}: {error}") from error
        except SealedError as error:
            raise _refusal(f"{path}: {error}", path) from error
        if seal not in (None, self._seal):
            raise DataError(f"{path}: was packed again since it was opened; start again")
        self._paths: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return Archive, (self.path, self._seal)

    def __str__(self) -> str:
        return str(self.path)

    def read(self, i: int) -> bytes:
        """The encoded image of record i, its checksum compared; DataError when it is damaged."""
        if not 0 <= i < len(self):
            raise IndexError(f"{self.path}: record {i} of {len(self)}")
        try:
            return self._file.read(record_key(i), int(self.checksums[i]))
        except DamagedValue as error:
            raise _refusal(f"{self.where(i)} {error.complaint}", self.path, self.source) from error
        except SealedError as error:
            raise _refusal(f"{self.path}: {error}", self.path, self.source) from error

    def where(self, i: int) -> str:
        """Record i for people: file, key and original path."""
        return f"{self.path}: record {record_key(i).decode()} ({self.original_path(i)})"

    def original_path(self, i: int) -> str:
        """Where record i came from, relative to its source's root; the first call loads the paths."""
        try:
            self._paths = self._paths or (self._file.column("paths"), self._file.column("path_ends"))
        except SealedError as error:
            raise _refusal(f"{self.path}: {error}", self.path, self.source) from error
        paths, ends = self._paths
        return os.fsdecode(paths[ends[i - 1] if i else 0:ends[i]].tobytes())


def open_archive(path: str | Path) -> Archive:
    """The archive in a file; DataError names the file and the remedy when it is not whole."""
    return Archive(Path(path))


def write_archive(path: str | Path, records: Iterable[Record], meta: Meta) -> int:
    """Write records, in order, as one archive and return their number; the file appears whole or not at all.

    Raises DataError where there is no record, a label outside -1..K-1, or no room, and DiskError.
    """
    path = Path(path)
    try:
        with replacing(path) as part:
            return _write_records(part, records, meta)
    except lmdb.Error as error:
        raise DataError(f"{path}: cannot be written ({error}); choose a folder with room for it") from error


class _Index:
    """The columns of an archive while it is written: 36 bytes a record and its path, and a sixteenth to grow."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta
        self._columns = {name: array(np.dtype(kind).char) for name, kind in COLUMNS.items()}

    def __len__(self) -> int:
        return len(self._columns["labels"])

    def add(self, record: Record) -> bytes:
        """Note a record and return its key."""
        if not -1 <= record.label < len(self._meta.class_names):
            raise DataError(f"{record.path}: label {record.label}, expected -1 (junk) or one of "
                            f"{len(self._meta.class_names)} classes; correct the source")
        *columns, paths = self._columns.values()
        paths.frombytes(os.fsencode(record.path))
        values = (record.label, record.camera, record.sequence, zlib.crc32(record.image), len(paths))
        for column, value in zip(columns, values, strict=True):
            column.append(value)
        return record_key(len(self) - 1)

    def values(self) -> Iterator[tuple[bytes, bytes | memoryview]]:
        """Every key of the index with its value, in the order of the keys."""
        checksums = {name: zlib.crc32(column) for name, column in self._columns.items()}
        header = {"format": FORMAT, "version": VERSION, **self._meta._asdict(), "columns": checksums}
        encoded = json.dumps(header).encode()
        yield INDEX, encoded
        for name in sorted(self._columns):
            yield column_key(name), memoryview(self._columns[name]).cast("B")
        yield SEAL, zlib.crc32(encoded).to_bytes(4)


def _write_records(path: Path, records: Iterable[Record], meta: Meta) -> int:
    index = _Index(meta)
    environment = lmdb.open(str(path), subdir=False, lock=False, sync=False, map_size=FIRST_MAP_BYTES)
    try:
        batch: list[tuple[bytes, bytes | memoryview]] = []
        waiting = 0
        for record in records:
            batch.append((index.add(record), record.image))
            waiting += len(record.image)
            if waiting >= COMMIT_BYTES:
                _commit(environment, batch)
                batch, waiting = [], 0
        if not len(index):
            raise DataError(f"{path.parent}: split {meta.split} of {meta.source} has no image to write")
        _commit(environment, batch)
        for item in index.values():
            _commit(environment, [item])  # one at a time: lmdb keeps a copy of what is not committed
    finally:
        environment.close()
    return len(index)


def _commit(environment: lmdb.Environment, batch: list[tuple[bytes, bytes | memoryview]]) -> None:
    page, info = environment.stat()["psize"], environment.info()
    # A value takes its pages and at most one more of the tree; 64 for the free list and the path to the root.
    end = (info["last_pgno"] + 64) * page + sum(len(value) + 2 * page for _, value in batch)
    size = info["map_size"]
    while size < end:
        size *= 2
    environment.set_mapsize(size)
    with environment.begin(write=True) as transaction:
        for key, value in batch:
            transaction.put(key, value, append=True)


def _refusal(what: str, path: Path, source: str = "SOURCE") -> DataError:
    return DataError(f"{what}; pack it again with python -m data.pack {source} ROOT {path.parent} --overwrite")
