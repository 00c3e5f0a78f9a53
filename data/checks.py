"""What can be wrong with a packed set: each check looks at all splits and says what it found."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np

from data.archive import Archive
from data.sources import PAIRED

EXAMPLES = 3


class Finding(NamedTuple):
    """One thing that is wrong, what it does to a run, and what to do about it."""

    level: Literal["error", "warning", "note"]
    check: str
    what: str
    effect: str
    remedy: str


class Scanned(NamedTuple):
    """A split of which every record was read."""

    archive: Archive
    digests: np.ndarray  # (N,) S20: sha1 of each record, empty where it cannot be used
    corrupt: Mapping[int, str]  # record -> what is wrong with it

    def per_class(self) -> np.ndarray:
        """Images of each class: (K,)."""
        labels = self.archive.labels
        return np.bincount(labels[labels >= 0], minlength=len(self.archive.class_names))

    @property
    def paired(self) -> bool:
        """Whether its images stand two by two, an image more than once and a class with one image too."""
        return (self.archive.source, self.archive.split) in PAIRED

    def class_names(self, where: np.ndarray) -> list[str]:
        """The names of the classes at which a mask (K,) is true."""
        return [self.archive.class_names[k] for k in np.flatnonzero(where)]

    def paths(self, records: Iterable[int]) -> str:
        """The original paths of the first of some records, and how many more there are."""
        return _some([self.archive.original_path(int(i)) for i in records])


Splits = Mapping[str, Scanned]
Place = tuple[str, int]  # split, record


def corrupt_records(splits: Splits) -> Iterator[Finding]:
    """Records that cannot be read or decoded."""
    for name, split in splits.items():
        if split.corrupt:
            yield Finding(
                "error", "corrupt_records",
                f"{name}: {len(split.corrupt)} corrupt records: {_some(list(split.corrupt.values()))}",
                "the run stops when it comes to one",
                "pack the set again, with --skip_corrupt where the image files are corrupt themselves")


def missing_splits(splits: Splits) -> Iterator[Finding]:
    """Splits without which others are of no use."""
    for one, other in (("query", "gallery"), ("gallery", "query"), ("multi_query", "query")):
        if one in splits and other not in splits:
            yield Finding("error", "missing_splits", f"{one} without {other}", "market_evaluate needs both",
                          "pack the whole set again")
    if "train" not in splits:
        yield Finding("warning", "missing_splits", "no train", "there is nothing to train on",
                      "nothing, if the set is for evaluation alone")
    elif len(splits) == 1:
        yield Finding("warning", "missing_splits", "train alone", "no metric can choose the best snapshot",
                      "add images to test on, or hold some back: --holdout 0.1 of source folder")


def mixed_packings(splits: Splits) -> Iterator[Finding]:
    """Query, and gallery or multi_query, with labels that do not mean the same."""
    for name in ("gallery", "multi_query"):
        if {"query", name} <= splits.keys() and (
                splits["query"].archive.class_names != splits[name].archive.class_names):
            yield Finding("error", "mixed_packings", f"query and {name} number their identities differently",
                          "equal labels are different identities, and every metric is wrong",
                          "pack both from one set, in one go")


def junk_in_train(splits: Splits) -> Iterator[Finding]:
    """Training images that belong to no class."""
    if "train" in splits:
        junk = np.flatnonzero(splits["train"].archive.labels < 0)
        if len(junk):
            yield Finding("error", "junk_in_train",
                          f"train: {len(junk)} images of label -1: {splits['train'].paths(junk)}",
                          "no loss takes -1 for a class", "keep junk out of train in the source")


def leaked_identities(splits: Splits) -> Iterator[Finding]:
    """Identities that are trained on and tested on, where retrieval should be tested on new ones."""
    if "train" not in splits:
        return
    trained = _present(splits["train"])
    for name in ("query", "gallery", "multi_query", "test"):
        leaked = sorted(trained & _present(splits[name])) if _asks_for_new_classes(splits, name) else []
        if leaked:
            yield Finding("error", "leaked_identities",
                          f"train and {name}: {len(leaked)} identities in common: {_some(leaked)}",
                          "the metric is of identities that training has seen, and too high",
                          "give every identity to one side only")


def duplicates_within(splits: Splits) -> Iterator[Finding]:
    """Images of one split that are equal, byte for byte."""
    for name, groups in _by_split(_equal_images(splits)).items():
        split = splits[name]
        torn = [group for group in groups if len(set(split.archive.labels[group])) > 1]
        copies = [i for group in groups if group not in torn for i in _copies(split, group)]
        if torn:
            yield Finding("warning", "contradictory_labels",
                          f"{name}: {len(torn)} images stand under several identities: "
                          f"{split.paths(i for group in torn for i in group)}",
                          "no answer for them can be right", "keep the one that is right")
        if copies:
            yield Finding("warning", "duplicates_within",
                          f"{name}: {len(copies)} images are copies of others: {split.paths(copies)}",
                          "they weigh twice, and as positives of each other they teach nothing",
                          "remove the copies")


def duplicates_across(splits: Splits) -> Iterator[Finding]:
    """Images that are equal, byte for byte, and in two splits."""
    groups = _equal_images(splits)
    for one, others, effect in (
        ("train", ("query", "gallery", "multi_query", "val", "test"),
         "the metric counts images that training has seen"),
        ("gallery", ("query",), "they find themselves, unless the camera is the same too, which is ignored"),
    ):
        for other in others:
            shared = [group for group in groups if any(name == one for name, _ in group)]
            copies = [i for group in shared for name, i in group if name == other]
            if copies:
                yield Finding("warning", "duplicates_across",
                              f"{one} and {other}: {len(copies)} images of {other} are in {one} too: "
                              f"{splits[other].paths(copies)}", effect, f"take them out of {one}")


def singletons(splits: Splits) -> Iterator[Finding]:
    """Training identities with one image."""
    if "train" in splits:
        alone = splits["train"].class_names(splits["train"].per_class() == 1)
        if alone:
            yield Finding("warning", "singletons",
                          f"train: {len(alone)} identities with one image: {_some(alone)}",
                          "their only positive is the image itself: pair losses learn nothing from it",
                          "add images of them, or leave them out")


def empty_classes(splits: Splits) -> Iterator[Finding]:
    """Training classes without any image."""
    if "train" in splits:
        empty = splits["train"].class_names(splits["train"].per_class() == 0)
        if empty:
            yield Finding("warning", "empty_classes",
                          f"train: {len(empty)} classes without any image: {_some(empty)}",
                          "the classifier has outputs for them that nothing trains",
                          "take them out of the set, and pack again")


def queries_without_match(splits: Splits) -> Iterator[Finding]:
    """Queries that the gallery shows by no other camera; test images that are alone in their class."""
    if {"query", "gallery"} <= splits.keys():
        matches = _matches(splits["query"].archive, splits["gallery"].archive)
        yield from _unmatched("query", splits["query"], matches, "not in the gallery by another camera")
    if "test" in splits and not splits["test"].paired:
        labels = splits["test"].archive.labels
        yield from _unmatched("test", splits["test"], np.bincount(labels + 1)[labels + 1] - 1,
                              "alone in their class")


def cameras(splits: Splits) -> Iterator[Finding]:
    """Images without a camera."""
    for name, split in splits.items():
        without = np.flatnonzero(split.archive.cameras < 0)
        if 0 < len(without) < len(split.archive):
            yield Finding("warning", "cameras",
                          f"{name}: {len(without)} of {len(split.archive)} images have no camera: "
                          f"{split.paths(without)}", "images of their own camera count as matches",
                          "give every image a camera, or none")
        elif len(without) and name in ("query", "gallery"):
            yield Finding("note", "cameras", f"{name}: no image has a camera",
                          "images of the query's own camera count as matches", "nothing, if that is meant")


CHECKS: tuple[Callable[[Splits], Iterator[Finding]], ...] = (
    corrupt_records, missing_splits, mixed_packings, junk_in_train, leaked_identities, duplicates_within,
    duplicates_across, singletons, empty_classes, queries_without_match, cameras,
)


def _present(split: Scanned) -> set[str]:
    return set(split.class_names(split.per_class() > 0))


def _asks_for_new_classes(splits: Splits, name: str) -> bool:
    """Whether a split is of retrieval; a test split over the list of training's classes is a classifier's."""
    if name not in splits:
        return False
    closed = splits[name].archive.class_names == splits["train"].archive.class_names
    return not (closed and name == "test")


def _equal_images(splits: Splits) -> list[list[Place]]:
    """The groups of two and more records with equal bytes."""
    digests = np.concatenate([split.digests for split in splits.values()])
    places = [(name, i) for name, split in splits.items() for i in range(len(split.archive))]
    _, group, size = np.unique(digests, return_inverse=True, return_counts=True)
    groups: dict[int, list[Place]] = {}
    for position in np.flatnonzero((size[group] > 1) & (digests != b"")):
        groups.setdefault(group[position], []).append(places[position])
    return list(groups.values())


def _copies(split: Scanned, group: list[int]) -> list[int]:
    """Of equal records those after the first; where images stand in pairs, a file counts once."""
    if split.paired:
        group = sorted({split.archive.original_path(i): i for i in reversed(group)}.values())
    return group[1:]


def _by_split(groups: list[list[Place]]) -> dict[str, list[list[int]]]:
    """For each split the parts of groups, of two and more records, that lie in it."""
    parts: dict[str, list[list[int]]] = {}
    for group in groups:
        for name in dict.fromkeys(name for name, _ in group):
            part = [i for other, i in group if other == name]
            if len(part) > 1:
                parts.setdefault(name, []).append(part)
    return parts


def _matches(query: Archive, gallery: Archive) -> np.ndarray:
    """How many gallery images each query can find, (Q,): its label, and another camera where it has one."""
    shown = Counter(gallery.labels.tolist())
    shown_by = Counter(zip(gallery.labels.tolist(), gallery.cameras.tolist(), strict=True))
    return np.array([shown[label] - (shown_by[label, camera] if camera >= 0 else 0)
                     for label, camera in zip(query.labels.tolist(), query.cameras.tolist(), strict=True)])


def _unmatched(name: str, split: Scanned, matches: np.ndarray, why: str) -> Iterator[Finding]:
    asked = split.archive.labels >= 0
    without = np.flatnonzero(asked & (matches <= 0))
    if len(without) == asked.sum():
        yield Finding("error", "queries_without_match", f"{name}: no image has a match, all are {why}",
                      "the evaluator refuses to score the split", "check the cameras and labels of the set")
    elif len(without):
        yield Finding("warning", "queries_without_match",
                      f"{name}: {len(without)} images are {why}: {split.paths(without)}",
                      "the evaluator drops them, and says how many", "nothing, or leave them out of the set")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:EXAMPLES])
    return shown if len(names) <= EXAMPLES else f"{shown} and {len(names) - EXAMPLES} more"
