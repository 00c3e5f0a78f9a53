"""A gallery's folder: a small file that names the files of the present generation, and those files."""

import io
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Self
from uuid import uuid4

import numpy as np

from .entries import GalleryError

FORMAT, VERSION = "kiln-gallery", 1
HEADER, LOCK, GENERATION = "gallery.json", "gallery.lock", "generation-"
REMEDY = "build the gallery again, or take a copy of it"
KINDS = {"embeddings": "<f4", "names": "|u1", "name_ends": "<i8", "cameras": "<i8", "tags": "<i4",
         "vocabulary": "|u1", "vocabulary_ends": "<i8"}
LARGE = "embeddings"  # the column that is too large to be read at each load


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
    own = any((folder / name).exists() for name in (HEADER, LOCK))
    if folder.exists() and not own and (not folder.is_dir() or any(folder.iterdir())):
        raise GalleryError(f"{folder}: there is something else; give a new or an empty folder")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one who writes into a folder, which is made where there is none; others wait.

    The kernel frees the lock of a process that dies. GalleryError where `check_place` says so, and where the folder
    cannot be written.
    """
    try:
        import fcntl  # not on Windows, where galleries can be loaded and searched
    except ImportError:
        raise GalleryError(f"{folder}: galleries can be saved on Linux and macOS only") from None
    check_place(folder)
    with _explained(folder):
        folder.mkdir(exist_ok=True)
        file = (folder / LOCK).open("a")
    with file:
        with _explained(folder):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write(folder: Path, facts: Mapping[str, Any], columns: Mapping[str, Column]) -> None:
    """Write a generation beside the present one, then put it in its place: to be called under `locked`.

    Whenever the process is killed or the disk is full, the folder holds the one or the other, whole; what is left
    of another is removed by the next call.
    """
    generation, part = folder / f"{GENERATION}{uuid4().hex}", folder / f".{HEADER}.part"
    with _explained(folder):
        _sweep(folder)
        try:
            generation.mkdir()
            written = {name: _write_column(generation / f"{name}.npy", KINDS[name], column)
                       for name, column in columns.items()}
            header = {"generation": generation.name, **facts, "columns": written}
            document = {"format": FORMAT, "version": VERSION, "checksum": _checksum(header), "gallery": header}
            with part.open("wb") as file:
                file.write(json.dumps(document, indent=1).encode())
                file.flush()
                os.fsync(file.fileno())
            for directory in (generation, folder, folder.parent):
                _sync_directory(directory)
            os.replace(part, folder / HEADER)
            _sync_directory(folder)
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


def _sweep(folder: Path) -> None:
    """Remove every generation that the header does not name; what cannot be removed waits for the next time."""
    header = folder / HEADER
    present = header.read_text(encoding="utf-8", errors="replace") if header.exists() else ""
    for generation in folder.glob(f"{GENERATION}*"):
        if generation.name not in present:
            shutil.rmtree(generation, ignore_errors=True)
    (folder / f".{HEADER}.part").unlink(missing_ok=True)


def _checksum(header: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(header, sort_keys=True).encode())


def _sync_directory(directory: Path) -> None:
    """Make what was created and renamed there last through a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GalleryError(f"{folder}: cannot be saved ({error.strerror or error}); "
                           f"what was there before still is") from error
