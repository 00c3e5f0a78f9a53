"""Images of a set that show one picture, stored again at another quality, size or brightness."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data.likeness import like_pairs
from data.scanned import TESTED, Finding, Level, Scanned, Splits, some


class Likes(NamedTuple):
    """Records of two splits, or of one, that show one picture but are not equal byte for byte."""

    first: Scanned
    second: Scanned
    pairs: np.ndarray  # (P, 2): a record of each

    def among(self, which: np.ndarray) -> "Likes":
        """Those pairs at which a mask (P,) is true."""
        return self._replace(pairs=self.pairs[which])

    def of_one_identity(self) -> np.ndarray:
        """Whether a pair is known to be of one identity: (P,) bool."""
        names, others = self._identities()
        return np.asarray((names == others) & (names != ""))

    def of_two_identities(self) -> np.ndarray:
        """Whether a pair is known to be of two identities: (P,) bool; junk is of none."""
        names, others = self._identities()
        return np.asarray((names != others) & (names != "") & (others != ""))

    def by_one_camera(self) -> np.ndarray:
        """Whether a pair is known to be by one camera: (P,) bool."""
        ours, theirs = self.first.archive.cameras[self.pairs[:, 0]], self.second.archive.cameras[self.pairs[:, 1]]
        return np.asarray((ours == theirs) & (ours >= 0))

    def told(self) -> tuple[int, str]:
        """How many records of the second split there are, and the first of them with what each looks like."""
        records, at = np.unique(self.pairs[:, 1], return_index=True)
        looks = [f"{self.second.archive.original_path(int(j))} like {self.first.archive.original_path(int(i))}"
                 for i, j in self.pairs[at]]
        return len(records), some(looks)

    def _identities(self) -> list[np.ndarray]:
        # A junk image's label, -1, takes the last name.
        return [np.array([*split.archive.class_names, ""])[split.archive.labels[rows]]
                for split, rows in zip((self.first, self.second), self.pairs.T, strict=True)]


MIXED_UP = ("no answer can be right, if they show one thing", "look at them; keep the identity that is right")


def near_duplicates_across(splits: Splits) -> Iterator[Finding]:
    """Images of two splits that show one picture.

    Of gallery and query only those that an evaluator compares: not of one identity by one camera, and no junk.
    """
    check = "near_duplicates_across"
    for name in TESTED:
        if {"train", name} <= splits.keys():
            yield from _findings("warning", check, f"train and {name}: {{}} images of {name} look like images of train",
                                 _likes(splits["train"], splits[name]),
                                 ("the metric counts pictures that training has seen", "take them out of train"))
    if {"gallery", "query"} <= splits.keys():
        likes = _likes(splits["gallery"], splits["query"])
        yield from _findings("warning", check, "gallery and query: {} queries look like images of another identity",
                             likes.among(likes.of_two_identities()), MIXED_UP)
        yield from _findings("note", check, "gallery and query: {} queries look like images that they are to find",
                             likes.among(likes.of_one_identity() & ~likes.by_one_camera()),
                             ("any network finds these", "nothing, where a thing looks the same from several sides; "
                              "take copies of a query out of gallery"))


def near_duplicates_within(splits: Splits) -> Iterator[Finding]:
    """Images of one split that show one picture, as neighbouring frames of a film do: to be asked for."""
    check = "near_duplicates_within"
    for name, split in splits.items():
        likes = _likes(split, split)
        likes = likes.among(likes.pairs[:, 0] < likes.pairs[:, 1])
        yield from _findings("warning", check, f"{name}: {{}} images look like images of another identity",
                             likes.among(likes.of_two_identities()), MIXED_UP)
        yield from _findings("note", check, f"{name}: {{}} images look like others of their identity",
                             likes.among(likes.of_one_identity()),
                             ("as positives of each other they teach little", "nothing, or keep one of each"))


def _likes(first: Scanned, second: Scanned) -> Likes:
    pairs = like_pairs(first.thumbnails, second.thumbnails)
    return Likes(first, second, pairs[first.digests[pairs[:, 0]] != second.digests[pairs[:, 1]]])


def _findings(level: Level, check: str, what: str, likes: Likes, advice: tuple[str, str]) -> Iterator[Finding]:
    """What is found where there is any pair; `what` has a place for their number."""
    if len(likes.pairs):
        count, examples = likes.told()
        yield Finding(level, check, f"{what.format(count)}: {examples}", *advice)
