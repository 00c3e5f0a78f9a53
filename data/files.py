"""Files that appear whole or not at all."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class DiskError(OSError):
    """A file could not be written: one line that names it and what is full."""

    exit_code = 5


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError while writing `path` into a DiskError that says what to do."""
    try:
        yield
    except DiskError:
        raise
    except (OSError, RuntimeError) as error:  # torch.save reports a failed write as RuntimeError
        number = error.errno if isinstance(error, OSError) else None
        full = number in (errno.ENOSPC, errno.EDQUOT) or number is None and _free_bytes(path.parent) < 1 << 16
        reason = f"the disk that holds {path.parent} is full; free some space" if full else error
        raise DiskError(f"{path}: cannot be written: {reason}") from error


def write_whole(path: Path, write: Callable[[BinaryIO], object], *, durable: bool = True) -> None:
    """Write beside, flush to disk, then replace: `path` holds the old bytes or the new ones, never a part.

    Raises DiskError; the old file is then still there and nothing else is left.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        with explained(path):  # within the try: whether the disk is full shows while the part is still there
            with beside.open("wb") as file:
                write(file)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(beside, path)
            if durable:
                sync_directory(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make renames in a directory last through a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_bytes(folder: Path) -> int:
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize
