"""The archive: encoded images of one split in one LMDB file, with an index of what is known of them."""

import json
import os
import threading
import zlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import lmdb
import numpy as np

from deploy.files import sync_directory
from data.records import DataError

FORMAT = "kiln-archive"
VERSION = 2
INDEX = b"index"  # JSON: the format, what holds for all records, and the checksum of each column
SEAL = b"seal"  # the checksum of the index, 4 bytes
COLUMNS = {  # each under a key of its own, so that only what is asked for is read
    "labels": np.int64, "cameras": np.int64, "sequences": np.int64, "checksums": np.uint32,
    "path_ends": np.int64, "paths": np.uint8,
}
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
    class_names: list[str]  # K of them

    def __len__(self) -> int: ...

    def read(self, i: int) -> bytes:
        """The encoded image i; DataError when it is damaged."""

    def original_path(self, i: int) -> str:
        """Where image i came from, relative to its source's root."""

    def where(self, i: int) -> str:
        """Image i for people: file, record and original path."""


class Archive:
    """A split opened for reading: labels, cameras, sequences, each (N,) int64, and encoded images by number.

    It holds no handle: it may be pickled, forked with, and opened as often as wanted, until it is packed again.
    """

    def __init__(self, path: Path, seal: bytes, meta: Meta, index: dict[str, np.ndarray]) -> None:
        self.path = path
        self._seal = seal
        self.source, self.split, self.class_names = meta
        self.labels, self.cameras, self.sequences = index["labels"], index["cameras"], index["sequences"]
        self._checksums = index["checksums"]
        self._paths: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_archive, (self.path, self._seal)

    def __str__(self) -> str:
        return str(self.path)

    def read(self, i: int) -> bytes:
        """The encoded image of record i, its checksum compared; DataError when it is damaged."""
        if not 0 <= i < len(self):
            raise IndexError(f"{self.path}: record {i} of {len(self)}")
        try:
            return _get(self.path, record_key(i), int(self._checksums[i]))
        except _DamagedValue as error:
            _load(self.path, [], self._seal)  # an archive that was packed again is not damaged, and says so
            raise DataError(f"{self.where(i)} {error}; {_remedy(self.path, self.source)}") from error

    def where(self, i: int) -> str:
        """Record i for people: file, key and original path."""
        return f"{self.path}: record {record_key(i).decode()} ({self.original_path(i)})"

    def original_path(self, i: int) -> str:
        """Where record i came from, relative to its source's root; the first call loads the paths."""
        if not self._paths:
            *_, self._paths = _load(self.path, ["paths", "path_ends"], self._seal)
        ends = self._paths["path_ends"]
        return os.fsdecode(self._paths["paths"][ends[i - 1] if i else 0:ends[i]].tobytes())


def record_key(i: int) -> bytes:
    """The key of record i; keys sort as the records do."""
    return b"%09d" % i


def column_key(name: str) -> bytes:
    """The key of a column; it sorts after the records and INDEX, and before SEAL."""
    return INDEX + b"." + name.encode()


def open_archive(path: str | Path, seal: bytes | None = None) -> Archive:
    """The archive in a file, with this seal if any; DataError names the file and the remedy when it is not whole."""
    path = Path(path)
    return Archive(path, *_load(path, ["labels", "cameras", "sequences", "checksums"], seal))


def write_archive(path: str | Path, records: Iterable[Record], meta: Meta) -> int:
    """Write records, in order, as one archive and return their number; the file appears whole or not at all.

    Raises DataError where there is no record, a label outside -1..K-1, or no room.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.part")
    beside.unlink(missing_ok=True)  # what a killed writer left
    try:
        count = _write_records(beside, records, meta)
        os.replace(beside, path)
    except lmdb.Error as error:
        raise DataError(f"{path}: cannot be written ({error}); choose a folder with room for it") from error
    finally:
        beside.unlink(missing_ok=True)
    sync_directory(path.parent)
    return count


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
        environment.sync(True)
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


class _Opened(NamedTuple):
    environment: lmdb.Environment
    end: int  # bytes that the file must have


# lmdb refuses to open a file twice in one process and in its forked children; with lock=False a child reads
# through what it inherited. So: one environment per file, found by what lmdb itself goes by.
_opened: dict[tuple[int, int], _Opened] = {}
_opening = threading.Lock()
os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_opening.release)


def _environment(path: Path) -> lmdb.Environment:
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; {_remedy(path)}") from error
    key = status.st_dev, status.st_ino
    if key not in _opened:
        with _opening:
            if key not in _opened:
                _opened[key] = _open(path)
    environment, end = _opened[key]
    if status.st_size < end:  # to read a mapped file beyond its end kills the process with SIGBUS
        raise DataError(f"{path}: cut short, {status.st_size} of {end} bytes; {_remedy(path)}")
    return environment


def _open(path: Path) -> _Opened:
    try:
        environment = lmdb.open(str(path), subdir=False, create=False, readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        if "already open in this process" in str(error):
            raise DataError(f"{path}: open in this process already, by deploy; use another process") from error
        what = f"cut short, or no archive ({error})" if os.access(path, os.R_OK) else "no permission to read it"
        raise DataError(f"{path}: {what}; {_remedy(path)}") from error
    return _Opened(environment, (environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


class _DamagedValue(Exception):
    """A value is not what was written; says what is wrong with it."""


def _get(path: Path, key: bytes, checksum: int | None = None) -> bytes:
    try:
        with _environment(path).begin() as transaction:
            value: bytes | None = transaction.get(key)
    except lmdb.Error as error:
        raise _DamagedValue(f"cannot be read ({error})") from error
    if value is None:
        raise _DamagedValue("is missing")
    if checksum is not None and zlib.crc32(value) != checksum:
        raise _DamagedValue("is damaged: its bytes are not those that were packed")
    return value


def _load(path: Path, names: list[str], seal: bytes | None = None) -> tuple[bytes, Meta, dict[str, np.ndarray]]:
    """The seal, the one expected if any, what holds for all records, and the columns of these names, read-only."""
    try:
        found = _get(path, SEAL)
        if seal not in (None, found):
            raise DataError(f"{path}: was packed again since it was opened; start again")
        header = _header(path, _get(path, INDEX, int.from_bytes(found)))
        columns = {name: np.frombuffer(_get(path, column_key(name), header["columns"][name]), COLUMNS[name])
                   for name in names}
    except _DamagedValue as error:
        raise DataError(f"{path}: the index {error}; {_remedy(path)}") from error
    return found, Meta(*(header[name] for name in Meta._fields)), columns


def _header(path: Path, encoded: bytes) -> dict[str, Any]:
    """What the index says, of an archive of this version."""
    expected = f"expected {FORMAT} version {VERSION}"
    try:
        header: dict[str, Any] = json.loads(encoded)
    except ValueError as error:  # version 1 had no JSON there
        raise DataError(f"{path}: an archive of an earlier version, {expected}; {_remedy(path)}") from error
    if (header["format"], header["version"]) != (FORMAT, VERSION):
        found = f"{header['format']} version {header['version']}"
        raise DataError(f"{path}: {found}, {expected}; {_remedy(path, header['source'])}")
    return header


def _remedy(path: Path, source: str = "SOURCE") -> str:
    return f"pack it again with python -m data.pack {source} ROOT {path.parent} --overwrite"
