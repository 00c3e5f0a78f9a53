"""What users give to a gallery, checked: each mistake in one line."""

from collections.abc import Iterable
from contextlib import suppress
from numbers import Integral
from typing import Any

import numpy as np

from ..search import check_embeddings, check_lengths
from .entries import Entries, GalleryError

LAST_CAMERA = 2**63 - 1
CAMERA = f"a whole number from -1 (none) to {LAST_CAMERA}"


def check_entries(dim: int, embeddings: np.ndarray, names: Iterable[str], cameras: Iterable[int] | None,
                  tags: Iterable[str] | None) -> Entries:
    """Entries of what a user gives, copied; SearchError or GalleryError where that is no entries of this dimension."""
    check_embeddings("embeddings", embeddings)
    count, found = embeddings.shape
    if found != dim:
        raise GalleryError(f"embeddings: the gallery's {dim} dimensions expected, got {found}; "
                           f"embed with the model that it was built with")
    check_lengths("embedding", embeddings, np.arange(count))
    names, tags = check_texts("names", names), check_texts("tags", [""] * count if tags is None else tags)
    seen = np.full(count, -1) if cameras is None else check_cameras("cameras", cameras)
    for what, given in {"names": len(names), "cameras": len(seen), "tags": len(tags)}.items():
        if given != count:
            raise GalleryError(f"{what}: one for each of {count} embeddings expected, got {given}")
    entries = Entries.of(np.array(embeddings, order="C"), names, seen, tags)
    if len(entries.rows) < count:
        twice = next(name for row, name in enumerate(names) if entries.rows[name] != row)
        raise GalleryError(f"names: {twice!r} is there twice; give each entry a name of its own")
    return entries


def check_texts(what: str, values: Iterable[str]) -> list[str]:
    """Several texts; GalleryError for one alone, and for what is no text."""
    if isinstance(values, str):
        raise GalleryError(f"{what}: several texts expected, got {values!r} alone; write [{values!r}]")
    values = list(values)
    wrong = [value for value in values if not isinstance(value, str)]
    if wrong:
        raise GalleryError(f"{what}: texts expected, got {wrong[0]!r}")
    return values


def check_cameras(what: str, values: Iterable[int]) -> np.ndarray:
    """Several cameras: (N,) int64; GalleryError for one alone, and for what is none."""
    several = values.tolist() if isinstance(values, np.ndarray) else values
    if not np.iterable(several):
        raise GalleryError(f"{what}: several cameras expected, got {several!r} alone; write [{several!r}]")
    several = list(several)
    wrong = [value for value in several if not _is_camera(value)]
    if wrong:
        raise GalleryError(f"{what}: {CAMERA} expected, got {wrong[0]!r}")
    return np.array(several, np.int64)


def read_camera(text: str) -> int:
    """A camera of a table or of a command line; GalleryError where the text is none."""
    with suppress(ValueError):
        if _is_camera(camera := int(text)):
            return camera
    raise GalleryError(f"{CAMERA} expected, got {text!r}")


def _is_camera(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and -1 <= int(value) <= LAST_CAMERA
