"""Files that appear whole or not at all."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # on Windows, where two that write one file at the same time are not kept apart
    fcntl = None  # type: ignore[assignment]


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
    with replacing(path, durable=durable) as part:
        with explained(path), part.open("wb") as file:  # now, since how full the disk is shows while the part is there
            write(file)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """An empty file beside `path`, to be written by its name; it then takes the place of `path`, or goes on an error.

    One writer at a time: others wait. Raises DiskError; errors of the one who writes come as they are.
    """
    part = path.with_name(f".{path.name}.part")
    with explained(path):
        held = _hold(part)
    with held:
        try:
            yield part
            with explained(path):
                if durable:
                    _sync(part)
                os.replace(part, path)
                if durable:
                    sync_directory(path.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def sync_directory(directory: Path) -> None:
    """Make renames in a directory last through a power cut."""
    _sync(directory)


def _hold(part: Path) -> AbstractContextManager[object]:
    """Make the file, or empty the one that a killed writer left; others wait until what is returned is closed.

    One name for all writers, and a lock that the kernel frees: so there is one such file at most, whoever is killed
    how often. Names of their own would need no lock, but nobody could tell which of them nobody writes any more.
    """
    if fcntl is None:
        part.write_bytes(b"")
        return nullcontext()
    while True:
        with ExitStack() as stack:
            file = stack.enter_context(part.open("ab"))
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(part, file):  # and has not gone to its place while we waited
                file.truncate(0)
                return stack.pop_all()


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free_bytes(folder: Path) -> int:
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize
