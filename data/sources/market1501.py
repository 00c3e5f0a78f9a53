"""Market-1501 (Zheng et al., Scalable Person Re-identification, 2015): three folders, names that tell all."""

import re
from pathlib import Path
from typing import Annotated

from data.sources import Split
from data.sources.boxes import Naming, items_of, splits_of

NAMING = Naming(re.compile(r"(-1|\d+)_c(\d+)s(\d+)_"),
                "0002_c1s1_000451_03.jpg (identity, camera, sequence, frame)")


def market1501(
    root: Path, *,
    multi_query: Annotated[bool, "also a split multi_query, of the images in gt_bbox that belong to a query"] = False,
) -> dict[str, Split]:
    """Train over its own identities; query and gallery over theirs, with 0000 (distractors) among them.

    Junk (-1) stays only in the gallery. To a query belong the images of its identity by its camera.
    """
    splits = splits_of(root, NAMING)
    if multi_query:
        asked = {(item.class_name, item.camera) for item in splits["query"].items}
        items = [item for item in items_of(root, "gt_bbox", NAMING) if (item.class_name, item.camera) in asked]
        splits["multi_query"] = Split(items, splits["query"].class_names)
    return splits
