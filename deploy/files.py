"""Files that appear whole or not at all."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # on Windows, which has no such locks, moves no open file and syncs no folder
    fcntl = None  # type: ignore[assignment]

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # of a filesystem without them


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
    with _replacing(path, durable) as part:
        with explained(path):  # now, since how full the disk is shows while the part is there
            write(part)
            part.flush()


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """An empty file beside `path`, to be written by its name; it then takes the place of `path`, or goes on an error.

    One writer at a time: others wait. Raises DiskError; errors of the one who writes come as they are.
    """
    with _replacing(path, durable) as part:
        yield Path(part.name)


@contextmanager
def _replacing(path: Path, durable: bool) -> Iterator[BinaryIO]:
    part = path.with_name(f".{path.name}.part")
    with explained(path):
        file = _hold(part)
    with file:
        try:
            yield file
            with explained(path):
                if durable:
                    os.fsync(file.fileno())
                _let_go(file)
                os.replace(part, path)
        except BaseException:
            ours = file.closed or _is_at(part, file)
            _let_go(file)
            if ours:
                part.unlink(missing_ok=True)
            raise
    if durable:
        with explained(path):
            sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames in a directory last through a power cut."""
    if fcntl is None:
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hold(part: Path) -> BinaryIO:
    """The file, new or emptied of what a killed writer left; others wait until it is closed.

    One name for all writers, and a lock that goes with the process, and the children that it forked meanwhile: so
    there is one such file at most, whoever is killed how often. Names of their own would need no lock, but nobody
    could tell which of them nobody writes any more. Where there are no locks, writers are not kept apart.
    """
    while True:
        file = open(part, "r+b", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))
        try:
            _lock(file)
            if _is_at(part, file):  # and has not gone to its place while we waited
                file.truncate()
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: BinaryIO) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def _let_go(file: BinaryIO) -> None:
    """Close the file where it could not be moved or removed otherwise; where it is locked, it stays so until then."""
    if fcntl is None:
        file.close()


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _free_bytes(folder: Path) -> int:
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize
