"""Which camera and which tag an image has: from a CSV, or from the archive that it is in."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..listing import Listing
from .checks import read_camera
from .entries import GalleryError

COLUMNS = {"name", "camera", "tag"}


class Mark(NamedTuple):
    """What is known of an image besides its name."""

    camera: int = -1  # none
    tag: str = ""  # none


def marks_of(listing: Listing, table: Path | None) -> dict[str, Mark]:
    """The mark of each image of a listing, from the table where one is given.

    GalleryError where the table has no row for an image, and where two images have one name.
    """
    names = listing.names
    if table is None:
        cameras, tags = listing.cameras or [-1] * len(names), listing.tags or [""] * len(names)
        marks = dict(zip(names, map(Mark, cameras, tags), strict=True))
    else:
        marks = _read(table)
        missing = [name for name in names if name not in marks]
        if missing:
            raise GalleryError(f"{table}: no row for {missing[0]!r}, {len(missing)} of {len(names)} images have none; "
                               f"give each a row, with an empty camera or tag where there is none")
    if len(set(names)) < len(names):
        twice, _ = Counter(names).most_common(1)[0]
        raise GalleryError(f"images: {twice!r} is there twice; name each image once")
    return marks


def _read(table: Path) -> dict[str, Mark]:
    """The rows of a CSV with a column name, and camera, tag or both; others may stand beside."""
    marks: dict[str, Mark] = {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            for line, name, mark in _rows(table, csv.DictReader(file)):
                if name in marks:
                    raise GalleryError(f"{table} line {line}: {name!r} has a row above; give each image one")
                marks[name] = mark
    except (UnicodeDecodeError, csv.Error) as error:
        raise GalleryError(f"{table}: not a CSV in UTF-8 ({error})") from error
    return marks


def _rows(table: Path, rows: "csv.DictReader[str]") -> Iterator[tuple[int, str, Mark]]:
    found = rows.fieldnames or []
    if "name" not in found or len(COLUMNS.intersection(found)) < 2:
        raise GalleryError(f"{table}: columns name and camera, tag or both expected, got {', '.join(found) or 'none'}")
    for row in rows:
        name, camera, tag = (row.get(column) or "" for column in ("name", "camera", "tag"))
        try:
            yield rows.line_num, name, Mark(read_camera(camera) if camera.strip() else -1, tag)
        except GalleryError as error:
            raise GalleryError(f"{table} line {rows.line_num}: camera: {error}") from None
