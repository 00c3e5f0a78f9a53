"""Market-1501 (Zheng et al., Scalable Person Re-identification, 2015): three folders, names that tell all."""

import re
from pathlib import Path

from data.records import DataError
from data.sources import Item, Split, image_files

NAME = re.compile(r"(-1|\d+)_c(\d+)s(\d+)_")
FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
JUNK = "-1"


def market1501(root: Path) -> dict[str, Split]:
    """Train over its own identities; query and gallery over theirs, with 0000 (distractors) among them.

    Junk (-1) stays only in the gallery.
    """
    train, query, gallery = (_items(root, folder) for folder in FOLDERS)
    known_train, known_query = _without_junk(train), _without_junk(query)
    tested = _identities(known_query + gallery)
    return {
        "train": Split(known_train, _identities(known_train), left_out=len(train) - len(known_train)),
        "query": Split(known_query, tested, left_out=len(query) - len(known_query)),
        "gallery": Split(gallery, tested),
    }


def _items(root: Path, folder: str) -> list[Item]:
    return [_item(root, path) for path in image_files(root, folder)]


def _item(root: Path, path: str) -> Item:
    parsed = NAME.match(Path(path).name)
    if parsed is None:
        raise DataError(f"{root / path}: expected a name like 0002_c1s1_000451_03.jpg (identity, camera, "
                        "sequence, frame); rename or remove it")
    identity, camera, sequence = parsed.groups()
    return Item(path, None if identity == JUNK else identity, int(camera), int(sequence))


def _without_junk(items: list[Item]) -> list[Item]:
    return [item for item in items if item.class_name is not None]


def _identities(items: list[Item]) -> list[str]:
    return sorted({item.class_name for item in items if item.class_name is not None})
