"""Re-identification sets in three folders of boxes, whose file names tell identity and camera."""

import re
from pathlib import Path
from typing import NamedTuple

from data.records import DataError
from data.sources import JUNK, Item, Split, class_names, image_files

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


class Naming(NamedTuple):
    """How a set names its images."""

    pattern: re.Pattern[str]  # groups: identity, camera, and sequence where the set has one
    example: str


def splits_of(root: Path, naming: Naming, home: str = ".") -> dict[str, Split]:
    """Train over its own identities; query and gallery over theirs, with distractors among them.

    `home` is the folder of the set below the root. Junk (-1) stays only in the gallery.
    """
    train, query, gallery = (items_of(root, f"{home}/{folder}", naming) for folder in FOLDERS)
    known_train, known_query = _without_junk(train), _without_junk(query)
    tested = class_names(known_query + gallery)
    return {
        "train": Split(known_train, class_names(known_train), left_out=len(train) - len(known_train)),
        "query": Split(known_query, tested, left_out=len(query) - len(known_query)),
        "gallery": Split(gallery, tested),
    }


def items_of(root: Path, folder: str, naming: Naming) -> list[Item]:
    """The images of a folder; DataError names one whose name does not follow the set's naming."""
    return [_item(root, path, naming) for path in image_files(root, folder)]


def _item(root: Path, path: str, naming: Naming) -> Item:
    parsed = naming.pattern.match(Path(path).name)
    if parsed is None:
        raise DataError(f"{root / path}: expected a name like {naming.example}; rename or remove it")
    identity, *numbers = parsed.groups()
    return Item(path, None if identity == JUNK else identity, *map(int, numbers))


def _without_junk(items: list[Item]) -> list[Item]:
    return [item for item in items if item.class_name is not None]
