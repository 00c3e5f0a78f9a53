"""In-Shop Clothes Retrieval (Liu et al., DeepFashion, 2016): one list of images, products and splits."""

from pathlib import Path

from data.sources import Item, Split, class_names
from data.sources.lists import below_header, lines_of

LIST = "list_eval_partition.txt"
COLUMNS = "image_name item_id evaluation_status"
SPLITS = ("train", "query", "gallery")


def inshop(root: Path) -> dict[str, Split]:
    """Train over its own products; query and gallery over theirs. There are no cameras.

    The list is in Eval/ or at the root, the images are in img/ or Img/img/.
    """
    path = root / "Eval" / LIST
    lines = lines_of(path if path.is_file() else root / LIST)
    rows = below_header(lines, COLUMNS, above=1)
    if lines[0].number(lines[0].text) != len(rows):
        raise lines[0].wrong(f"{len(rows)}, the number of images below")
    home = "Img" if (root / "Img" / "img").is_dir() else "."
    items: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for row in rows:
        image, product, split = row.fields(COLUMNS)
        if split not in items:
            raise row.wrong(f"{', '.join(SPLITS)} in the last column")
        items[split].append(Item(str(Path(home, image)), product))
    tested = class_names(items["query"] + items["gallery"])
    classes = {"train": class_names(items["train"]), "query": tested, "gallery": tested}
    return {split: Split(items[split], classes[split]) for split in SPLITS}
