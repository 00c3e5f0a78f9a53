"""Sets of fine-grained classes, and the two ways in which papers split them."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from data.sources import Item, Split

SplitBy = Annotated[Literal["classes", "official"],
                    "classes: train and test share none, for retrieval; official: train and val share all"]


def by_classes(items: Iterable[Item], classes: Sequence[str]) -> dict[str, Split]:
    """Zero-shot retrieval: the first half of the classes is train, the others are test."""
    half = len(classes) // 2
    trained, images = set(classes[:half]), list(items)
    return {"train": Split([item for item in images if item.class_name in trained], classes[:half]),
            "test": Split([item for item in images if item.class_name not in trained], classes[half:])}


def by_images(items: Iterable[tuple[Item, bool]], classes: Sequence[str]) -> dict[str, Split]:
    """Classification: of (image, whether it is trained on), train and val, each over all classes."""
    images = list(items)
    return {"train": Split([item for item, trained in images if trained], classes),
            "val": Split([item for item, trained in images if not trained], classes)}
