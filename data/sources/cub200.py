"""CUB-200-2011 (Wah et al., The Caltech-UCSD Birds-200-2011 Dataset): lists in text files, and images/."""

from pathlib import Path
from typing import Literal

from data.records import DataError
from data.sources import Item, Split


def cub200(root: Path, *, split: Literal["classes", "official"] = "classes") -> dict[str, Split]:
    """Zero-shot retrieval: the first half of the classes is train, the others test.

    split="official" follows train_test_split.txt instead: train and val, each over all classes.
    """
    class_names, label = _List(root / "classes.txt"), _List(root / "image_class_labels.txt")
    items = {image: Item(f"images/{path}", class_names[label[image]])
             for image, path in _List(root / "images.txt").items()}
    classes = list(class_names.values())
    if split == "official":
        trained = _List(root / "train_test_split.txt")
        return {"train": Split([item for image, item in items.items() if trained[image] == "1"], classes),
                "val": Split([item for image, item in items.items() if trained[image] != "1"], classes)}
    half = len(classes) // 2
    return {"train": _of_classes(items, classes[:half]), "test": _of_classes(items, classes[half:])}


def _of_classes(items: dict[str, Item], classes: list[str]) -> Split:
    wanted = set(classes)
    return Split([item for item in items.values() if item.class_name in wanted], classes)


class _List(dict[str, str]):
    """The lines "number value" of a file, in order; DataError names the line that is wrong or missing."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        if not path.is_file():
            raise DataError(f"{path}: no such file; give the root of CUB-200-2011 as it is unpacked")
        for number, line in enumerate(path.read_text().splitlines(), 1):
            key, _, value = line.strip().partition(" ")
            if not value or key in self:
                raise DataError(f"{path}:{number}: expected a new number and a value, got {line!r}; "
                                "take the file from the original set")
            self[key] = value

    def __missing__(self, key: str) -> str:
        raise DataError(f"{self._path}: no line for number {key}; take the file from the original set")
