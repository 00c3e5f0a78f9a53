"""Any set with one folder per class: ROOT/train/CLASS/*, ROOT/val/CLASS/*, or ROOT/CLASS/* alone."""

import zlib
from collections import defaultdict
from pathlib import Path
from typing import Annotated

from pydantic import Field

from data.records import DataError
from data.sources import Item, Split, class_names, image_files

Holdout = Annotated[float, Field(ge=0, lt=1), "fraction of each class's images that becomes val, in a set without"]


def folder(root: Path, *, holdout: Holdout = 0.0) -> dict[str, Split]:
    """Train, and val and test where the set has them, over the classes of train."""
    present = [name for name in ("train", "val", "test") if (root / name).is_dir()]
    if present and "train" not in present:
        raise DataError(f"{root / present[0]}: there is no folder train beside it; its classes count, add it")
    items = {name: _items(root, name) for name in present} or {"train": _items(root, ".")}
    if holdout and "val" in items:
        raise DataError(f"{root / 'val'}: the set has its own val; pack it without --holdout")
    if holdout:
        items["train"], items["val"] = _held_out(items["train"], holdout)
    classes = class_names(items["train"])
    for split in items.values():
        _refuse_other_classes(root, split, set(classes))
    return {name: Split(split, classes) for name, split in items.items()}


def _items(root: Path, directory: str) -> list[Item]:
    items = []
    for path in image_files(root, directory):
        below = Path(path).relative_to(directory).parts
        if len(below) == 1:
            raise DataError(f"{root / path}: not in the folder of a class; move it into one or remove it")
        items.append(Item(path, below[0]))
    return items


def _held_out(items: list[Item], fraction: float) -> tuple[list[Item], list[Item]]:
    """What stays and what is held out, at least one image of each class staying."""
    of_class = defaultdict(list)
    for item in items:
        of_class[item.class_name].append(item)
    held: set[Item] = set()
    for members in of_class.values():
        # By checksum of the name: an image that is added or removed changes the place of few others.
        members.sort(key=lambda item: zlib.crc32(item.path.encode(errors="surrogateescape")))
        held.update(members[:min(round(fraction * len(members)), len(members) - 1)])
    if not held:
        raise DataError(f"holdout of {fraction}: no class has enough images to give one; raise --holdout")
    return [item for item in items if item not in held], [item for item in items if item in held]


def _refuse_other_classes(root: Path, items: list[Item], classes: set[str]) -> None:
    for item in items:
        if item.class_name not in classes:
            raise DataError(f"{root / item.path}: class {item.class_name} has no image in train; "
                            "add some or remove the class")
