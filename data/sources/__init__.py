"""Image sets that can be packed: one file each, and what all of them give."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data.records import DataError
from deploy.preprocess import SUFFIXES
from params.plugin import Table

# A source is called with the root folder, and its options by keyword, and gives {split name: Split}.
SOURCES = Table("source", {
    "cars196": "data.sources.cars196:cars196",
    "csv": "data.sources.csv_file:csv_file",
    "cub200": "data.sources.cub200:cub200",
    "dukemtmc": "data.sources.dukemtmc:dukemtmc",
    "folder": "data.sources.folder:folder",
    "inshop": "data.sources.inshop:inshop",
    "lfw": "data.sources.lfw:lfw",
    "market1501": "data.sources.market1501:market1501",
    "msmt17": "data.sources.msmt17:msmt17",
    "sop": "data.sources.sop:sop",
})
JUNK = "-1"  # how image sets label it
PAIRED = (("lfw", "test"),)  # (source, split) of images two by two, in which an image may stand more than once
SPLITS = ("train", "query", "gallery", "multi_query", "val", "test")


class Item(NamedTuple):
    """One image of a set, not read yet."""

    path: str  # relative to the root
    class_name: str | None  # None = junk
    camera: int = -1
    sequence: int = -1


class Split(NamedTuple):
    """The images of a split; a label is a position in `class_names`."""

    items: Sequence[Item]
    class_names: Sequence[str]
    left_out: int = 0  # junk images that are not among the items


def class_names(items: Iterable[Item]) -> list[str]:
    """The classes of the images, sorted; junk has none."""
    return sorted({item.class_name for item in items if item.class_name is not None})


def home_of(root: Path, *names: str) -> str:
    """The folder of a set below the root: the first of these that is there, else the root itself, "."."""
    return next((name for name in names if (root / name).is_dir()), ".")


def image_files(root: Path, directory: str) -> list[str]:
    """The images in a folder of the set and below it, sorted, relative to the root.

    Other files and hidden ones are passed over. Raises DataError where the folder is missing or has no image.
    """
    top = root / directory
    if not top.is_dir():
        raise DataError(f"{top}: no such folder; give the root of the image set as it is unpacked")
    paths = (Path(folder, name).relative_to(root)
             for folder, _, names in os.walk(top, followlinks=True) for name in names)
    found = sorted(str(path) for path in paths if path.suffix.lower() in SUFFIXES
                   and not any(part.startswith(".") for part in path.parts))
    if not found:
        raise DataError(f"{top}: no image in it; expected files that end in {' '.join(SUFFIXES)}")
    return found
