"""What lies in an archive, as images to be embedded."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .preprocess import ImageError
from .sealed import HeldOpen, SealedError, SealedFile, record_key

REMEDY = "pack it again with data.pack"


class Records(NamedTuple):
    """The images of an archive and what was packed with them, in the same order."""

    names: list[str]  # where each came from
    images: Sequence[Callable[[], bytes]]
    cameras: list[int]  # -1 = none
    tags: list[str]  # the class; "" = junk


def records(path: Path) -> Records:
    """The images of an archive, each with the function that reads it; ImageError names archive and key.

    An archive that is packed again meanwhile is read on as it was.
    """
    try:
        file = SealedFile(path)
        paths, *columns = (file.column(name) for name in ("paths", "path_ends", "checksums", "cameras", "labels"))
    except HeldOpen as error:
        raise ImageError(f"{path}: {error}") from error
    except SealedError as error:
        raise ImageError(f"{path}: {error}; {REMEDY}") from error
    ends, checksums, cameras, labels = (column.tolist() for column in columns)
    text, class_names = paths.tobytes(), file.header.class_names
    names = [os.fsdecode(text[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    images = [partial(_read, file, record_key(i), checksum) for i, checksum in enumerate(checksums)]
    return Records(names, images, cameras, [class_names[label] if label >= 0 else "" for label in labels])


def _read(file: SealedFile, key: bytes, checksum: int) -> bytes:
    try:
        return file.read(key, checksum)
    except SealedError as error:
        raise ImageError(f"{file.path}: {error}; {REMEDY}") from error
