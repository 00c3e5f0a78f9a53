"""A gallery's folder: a small file that names the files of the present generation, and those files."""

import io
import json
import os
import re
import shutil
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Self
from uuid import uuid4

import numpy as np

from ..files import DiskError, explained, sync_directory, write_whole
from .entries import GalleryError

FORMAT, VERSION = "kiln-gallery", 1
HEADER, LOCK, GENERATION = "gallery.json", "gallery.lock", re.compile("generation-[0-9a-f]{32}")
REMEDY = "build the gallery again, or take a copy of it"
KINDS = {"embeddings": "<f4", "names": "|u1", "name_ends": "<i8", "cameras": "<i8", "tags": "<i4",
         "vocabulary": "|u1", "vocabulary_ends": "<i8"}
LARGE = "embeddings"  # the column that is too large to be read at each load


class _Held(threading.local):
    """The lock files that a thread holds: process, device and number. A second lock on one would wait for the first."""

    def __init__(self) -> None:
        self.files: set[tuple[int, int, int]] = set()


_held = _Held()


class Column(NamedTuple):
    """An array to be written, in blocks of its rows."""

    shape: tuple[int, ...]
    blocks: Iterable[np.ndarray]

    @classmethod
    def of(cls, array: np.ndarray) -> Self:
        """A column of one block."""
        return cls(array.shape, [array])


def check_place(folder: Path) -> None:
    """GalleryError where no gallery can be made or replaced: the folder holds other files, or its parent is absent."""
    if not folder.parent.is_dir():
        raise GalleryError(f"{folder}: no folder {folder.parent}; make it first")
    try:
        found = os.listdir(folder)  # one look: others may be making their first gallery there
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise GalleryError(f"{folder}: is a file; give a new or an empty folder") from None
    if found and not {HEADER, LOCK}.intersection(found):
        raise GalleryError(f"{folder}: holds other files; give a new or an empty folder")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one who writes into a folder, which is made where there is none; others wait.

    Where the process dies, the kernel frees the lock, once children that it has forked meanwhile have ended, too.
    GalleryError where `check_place` says so, where the folder cannot be written, and where this very thread has the
    lock already.
    """
    try:
        import fcntl  # not on Windows, where galleries can be loaded and searched
    except ImportError:
        raise GalleryError(f"{folder}: galleries can be saved on Linux and macOS only") from None
    with _explained(folder):
        check_place(folder)
        _make(folder)
        file = (folder / LOCK).open("a")
    with file:
        found = os.fstat(file.fileno())
        lock, held = (os.getpid(), found.st_dev, found.st_ino), _held.files
        if lock in held:
            raise GalleryError(f"{folder}: this thread is editing it; let it be saved by the end of that block")
        with _explained(folder):
            fcntl.flock(file, fcntl.LOCK_EX)
        held.add(lock)
        try:
            yield
        finally:
            held.remove(lock)
            fcntl.flock(file, fcntl.LOCK_UN)  # closing the file would not, where a forked child has it open, too


def write(folder: Path, facts: Mapping[str, Any], columns: Mapping[str, Column]) -> None:
    """Write a generation beside the present one, then put it in its place: to be called under `locked`.

    Whenever the process is killed or the disk is full, the folder holds the one or the other, whole; what is left
    of another is removed by the next call.
    """
    generation = folder / f"generation-{uuid4().hex}"
    with _explained(folder):
        _sweep(folder)
        try:
            generation.mkdir()
            written = {name: _write_column(generation / f"{name}.npy", KINDS[name], column)
                       for name, column in columns.items()}
            header = {"generation": generation.name, **facts, "columns": written}
            document = {"format": FORMAT, "version": VERSION, "checksum": _checksum(header), "gallery": header}
            sync_directory(generation)
            sync_directory(folder)
            write_whole(folder / HEADER, lambda file: file.write(json.dumps(document, indent=1).encode()))
        finally:
            _sweep(folder)


def read(folder: Path, *, verify: bool) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `write` was given: facts, and memory-mapped columns; GalleryError where it is not all there.

    The largest column is compared with its checksum only where asked to `verify`, the others always.
    """
    header = read_header(folder)
    while True:
        try:
            generation, columns = folder / header["generation"], header["columns"]
            return header, {name: _map_column(generation / f"{name}.npy", columns[name], kind, verify or name != LARGE)
                            for name, kind in KINDS.items()}
        except FileNotFoundError as error:
            newer = read_header(folder)
            if newer["generation"] == header["generation"]:
                raise GalleryError(f"{error.filename}: missing; {REMEDY}") from None
            header = newer  # the one before was replaced since


def read_header(folder: Path) -> dict[str, Any]:
    """Facts, and of each column its shape, bytes and checksum; GalleryError where there is no gallery."""
    path = folder / HEADER
    try:
        document = json.loads(path.read_bytes())
        kind = document["format"], document["version"]
    except (FileNotFoundError, NotADirectoryError):
        raise GalleryError(f"{folder}: no gallery there") from None
    except (ValueError, KeyError, TypeError) as error:
        raise GalleryError(f"{path}: damaged, or not of a gallery; {REMEDY}") from error
    if kind != (FORMAT, VERSION):
        raise GalleryError(f"{path}: {FORMAT} {VERSION} expected, got {kind[0]} {kind[1]}; {REMEDY}")
    header: dict[str, Any] = document.get("gallery", {})
    if document.get("checksum") != _checksum(header):
        raise GalleryError(f"{path}: its text is not what was saved; {REMEDY}")
    return header


def _write_column(path: Path, kind: str, column: Column) -> dict[str, Any]:
    """Write a column as .npy, for `numpy.load` and for `read`, and say what that must hold."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": kind, "fortran_order": False, "shape": column.shape})
    checksum = 0
    with path.open("wb") as file:
        file.write(head.getvalue())
        for block in column.blocks:
            data = np.ascontiguousarray(block, kind).data
            file.write(data)
            checksum = zlib.crc32(data, checksum)
        file.flush()
        os.fsync(file.fileno())
        return {"shape": column.shape, "bytes": file.tell(), "crc32": checksum}


def _map_column(path: Path, said: Mapping[str, Any], kind: str, compare: bool) -> np.ndarray:
    size, shape = path.stat().st_size, tuple(said["shape"])
    if size != said["bytes"]:  # to read a mapped file beyond its end would kill the process
        raise GalleryError(f"{path}: {said['bytes']} bytes expected, got {size}; {REMEDY}")
    start = size - prod(shape) * np.dtype(kind).itemsize
    column = np.asarray(np.memmap(path, kind, "r", start, shape))
    if compare and zlib.crc32(column.data) != said["crc32"]:
        raise GalleryError(f"{path}: its bytes are not those that were saved; {REMEDY}")
    return column


def _make(folder: Path) -> None:
    """Make a folder that lasts; one that is there may be in another that cannot be opened."""
    try:
        folder.mkdir()
    except FileExistsError:
        return
    sync_directory(folder.parent)


def _sweep(folder: Path) -> None:
    """Remove every generation that the header does not name; what cannot be removed waits for the next time."""
    header = folder / HEADER
    present = header.read_text(encoding="utf-8", errors="replace") if header.exists() else ""
    for name in filter(GENERATION.fullmatch, os.listdir(folder)):
        if name not in present:
            shutil.rmtree(folder / name, ignore_errors=True)


def _checksum(header: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(header, sort_keys=True).encode())


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        with explained(folder):
            yield
    except DiskError as error:
        raise GalleryError(f"{error}; a gallery in it is whole, the one before or this one") from error
