"""Market-1501 (Zheng et al., Scalable Person Re-identification, 2015): three folders, names that tell all."""

import re
from pathlib import Path

from data.sources import Split
from data.sources.boxes import Naming, splits_of

NAMING = Naming(re.compile(r"(-1|\d+)_c(\d+)s(\d+)_"),
                "0002_c1s1_000451_03.jpg (identity, camera, sequence, frame)")


def market1501(root: Path) -> dict[str, Split]:
    """Train over its own identities; query and gallery over theirs, with 0000 (distractors) among them.

    Junk (-1) stays only in the gallery.
    """
    return splits_of(root, NAMING)
