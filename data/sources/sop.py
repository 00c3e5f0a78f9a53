"""Stanford Online Products (Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, 2016)."""

from pathlib import Path

from data.sources import Item, Split, class_names, home_of
from data.sources.lists import Line, below_header, lines_of

COLUMNS = "image_id class_id super_class_id path"


def sop(root: Path) -> dict[str, Split]:
    """Zero-shot retrieval: the products of Ebay_train.txt are train, those of Ebay_test.txt test.

    The root may also be the folder that holds Stanford_Online_Products.
    """
    home = home_of(root, "Stanford_Online_Products")
    return {"train": _split(root, home, "Ebay_train.txt"), "test": _split(root, home, "Ebay_test.txt")}


def _split(root: Path, home: str, name: str) -> Split:
    items = [_item(line, home) for line in below_header(lines_of(root / home / name), COLUMNS)]
    return Split(items, class_names(items))


def _item(line: Line, home: str) -> Item:
    _, product, _, path = line.fields(COLUMNS)
    return Item(str(Path(home, path)), f"{line.number(product):05d}")  # of 22,634: sorted as numbered
