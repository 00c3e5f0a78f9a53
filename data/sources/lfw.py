"""Labeled Faces in the Wild (Huang et al., 2007), aligned or not: a folder per person, and pairs.txt."""

from pathlib import Path
from typing import Annotated

from data.records import DataError
from data.sources import Item, Split, class_names, home_of, image_files
from data.sources.lists import Line, lines_of

FOLDERS = ("lfw", "lfw-deepfunneled", "lfw_funneled")
PAIRS = "pairs.txt"
SAME, OTHER = "name number number", "name number name number"


def lfw(
    root: Path, *,
    train: Annotated[bool, "also a split train, of the people who are in no pair"] = False,
) -> dict[str, Split]:
    """Test: the images of pairs.txt two by two, pair k as records 2k and 2k + 1, its fold from 0 as camera.

    The root holds pairs.txt beside lfw, lfw-deepfunneled or lfw_funneled, or the people's folders themselves.
    """
    home = home_of(root, *FOLDERS)
    path = root / PAIRS
    lines = lines_of(path if path.is_file() else root / home / PAIRS)
    images = {Path(image).stem: image for image in image_files(root, home)}
    tested = _pairs(lines, images)
    splits = {"test": Split(tested, class_names(tested))}
    if train:
        paired = {item.class_name for item in tested}
        items = [Item(image, Path(image).parent.name) for image in images.values()]
        others = [item for item in items if item.class_name not in paired]
        splits["train"] = Split(others, class_names(others))
    return splits


def _pairs(lines: list[Line], images: dict[str, str]) -> list[Item]:
    """Both images of each pair, in order: in each fold the pairs of one person, then as many of two."""
    header, *pairs = lines
    folds, half = map(header.number, header.fields("folds pairs"))
    if len(pairs) != folds * 2 * half:
        raise header.wrong(f"{folds} x 2 x {half} = {folds * 2 * half} pairs below, there are {len(pairs)}")
    items = []
    for k, line in enumerate(pairs):
        fold, place = divmod(k, 2 * half)
        first, number, *second = line.fields(SAME if place < half else OTHER)
        items += [_item(line, first, number, images, fold),
                  _item(line, second[0] if len(second) > 1 else first, second[-1], images, fold)]
    return items


def _item(line: Line, name: str, number: str, images: dict[str, str], fold: int) -> Item:
    image = f"{name}_{line.number(number):04d}"
    if image not in images:
        raise DataError(f"{line.where}: no image {image} among the {len(images)} of the set; unpack it again")
    return Item(images[image], name, fold)
