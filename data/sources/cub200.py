"""CUB-200-2011 (Wah et al., The Caltech-UCSD Birds-200-2011 Dataset): lists in text files, and images/."""

from pathlib import Path

from data.records import DataError
from data.sources import Item, Split
from data.sources.fine_grained import SplitBy, by_classes, by_images
from data.sources.lists import lines_of


def cub200(root: Path, *, split: SplitBy = "classes") -> dict[str, Split]:
    """Zero-shot retrieval: the first half of the classes is train, the others test.

    split="official" follows train_test_split.txt instead: train and val, each over all classes.
    """
    class_names, label = _List(root / "classes.txt"), _List(root / "image_class_labels.txt")
    items = {image: Item(f"images/{path}", class_names[label[image]])
             for image, path in _List(root / "images.txt").items()}
    classes = list(class_names.values())
    if split == "official":
        trained = _List(root / "train_test_split.txt")
        return by_images(((item, trained[image] == "1") for image, item in items.items()), classes)
    return by_classes(items.values(), classes)


class _List(dict[str, str]):
    """The lines "number value" of a file, in order; DataError names the line that is wrong or missing."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        for line in lines_of(path):
            key, _, value = line.text.partition(" ")
            if not value or key in self:
                raise line.wrong("a new number and a value")
            self[key] = value

    def __missing__(self, key: str) -> str:
        raise DataError(f"{self._path}: no line for number {key}; take the file from the original set")
