"""What can be wrong with a packed set: each check looks at all splits and says what it found."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from data.archive import Archive
from data.duplicates import contradictory_labels, duplicates_across, duplicates_within
from data.findings import Finding, findings
from data.near_duplicates import near_duplicates_across
from data.scanned import Scanned, ScannedSplits


def corrupt_records(splits: ScannedSplits) -> Iterator[Finding]:
    """Records that cannot be read or decoded."""
    for name, split in splits.items():
        yield from findings("error", name, "corrupt records", list(split.corrupt.values()),
                            effect="the run stops when it comes to one", remedy="pack the set again, with "
                            "--skip_corrupt where the image files are corrupt themselves")


def missing_splits(splits: ScannedSplits) -> Iterator[Finding]:
    """ScannedSplits without which others are of no use."""
    for one, other in (("query", "gallery"), ("gallery", "query"), ("multi_query", "query")):
        if one in splits and other not in splits:
            yield Finding("error", f"{one} without {other}", "market_evaluate needs both", "pack the whole set again")
    if "train" not in splits:
        yield Finding("warning", "no train", "there is nothing to train on",
                      "nothing, if the set is for evaluation alone")
    elif len(splits) == 1:
        yield Finding("warning", "train alone", "no metric can choose the best snapshot",
                      "add images to test on, or hold some back: --holdout 0.1 of source folder")


def mixed_packings(splits: ScannedSplits) -> Iterator[Finding]:
    """Query, and gallery or multi_query, with labels that do not mean the same."""
    for name in ("gallery", "multi_query"):
        if {"query", name} <= splits.keys() and (
                splits["query"].archive.class_names != splits[name].archive.class_names):
            yield Finding("error", f"query and {name} number their identities differently",
                          "equal labels are different identities, and every metric is wrong",
                          "pack both from one set, in one go")


def junk_in_train(splits: ScannedSplits) -> Iterator[Finding]:
    """Training images that belong to no class."""
    if "train" in splits:
        junk = np.flatnonzero(splits["train"].archive.labels < 0)
        yield from findings("error", "train", "images of label -1", splits["train"].paths(junk),
                            effect="no loss takes -1 for a class", remedy="keep junk out of train in the source")


def leaked_identities(splits: ScannedSplits) -> Iterator[Finding]:
    """Identities that are trained on and tested on, where retrieval should be tested on new ones."""
    if "train" not in splits:
        return
    trained = _present(splits["train"])
    for name in ("query", "gallery", "multi_query", "test"):
        leaked = sorted(trained & _present(splits[name])) if _asks_for_new_classes(splits, name) else []
        yield from findings("error", f"train and {name}", "identities in common", leaked,
                            effect="the metric is of identities that training has seen, and too high",
                            remedy="give every identity to one side only")


def singletons(splits: ScannedSplits) -> Iterator[Finding]:
    """Training identities with one image."""
    if "train" in splits:
        alone = splits["train"].class_names(splits["train"].per_class() == 1)
        yield from findings("warning", "train", "identities with one image", alone,
                            effect="their only positive is the image itself: pair losses learn nothing from it",
                            remedy="add images of them, or leave them out")


def empty_classes(splits: ScannedSplits) -> Iterator[Finding]:
    """Training classes without any image."""
    if "train" in splits:
        empty = splits["train"].class_names(splits["train"].per_class() == 0)
        yield from findings("warning", "train", "classes without any image", empty,
                            effect="the classifier has outputs for them that nothing trains",
                            remedy="take them out of the set, and pack again")


def queries_without_match(splits: ScannedSplits) -> Iterator[Finding]:
    """Queries that the gallery shows by no other camera; test images that are alone in their class."""
    if {"query", "gallery"} <= splits.keys():
        matches, by_own = _matches(splits["query"].archive, splits["gallery"].archive)
        why, remedy = "not in the gallery by another camera", "check the cameras and labels of the set"
        alone = int(((matches == 0) & (by_own > 0)).sum())
        if alone:
            why += f", {alone} of them by their own alone"
            remedy += ", or give no image a camera: then those of the query's own camera count too"
        yield from _unmatched("query", splits["query"], matches, why, remedy)
    if "test" in splits and not splits["test"].paired:
        labels = splits["test"].archive.labels
        yield from _unmatched("test", splits["test"], np.bincount(labels + 1)[labels + 1] - 1,
                              "alone in their class", "check the labels of the set")


def cameras(splits: ScannedSplits) -> Iterator[Finding]:
    """Images without a camera."""
    for name, split in splits.items():
        without = np.flatnonzero(split.archive.cameras < 0)
        if 0 < len(without) < len(split.archive):
            yield from findings("warning", name, f"of {len(split.archive)} images have no camera",
                                split.paths(without), effect="images of their own camera count as matches",
                                remedy="give every image a camera, or none")
        elif len(without) and name in ("query", "gallery"):
            yield _no_camera(name, splits)


def turned(splits: ScannedSplits) -> Iterator[Finding]:
    """Images that are stored on their side, with an EXIF tag that says so."""
    for name, split in splits.items():
        yield from findings("note", name, "images are stored turned or mirrored, and their EXIF orientation says how",
                            split.paths(np.flatnonzero(split.turned)), remedy="nothing, where the tags are right",
                            effect="Kiln shows them upright, in training and in deployment; other programs may not")


CHECKS: tuple[Callable[[ScannedSplits], Iterator[Finding]], ...] = (
    corrupt_records, missing_splits, mixed_packings, junk_in_train, leaked_identities, contradictory_labels,
    duplicates_within, duplicates_across, near_duplicates_across, turned, singletons, empty_classes,
    queries_without_match, cameras,
)


def _present(split: Scanned) -> set[str]:
    return set(split.class_names(split.per_class() > 0))


def _asks_for_new_classes(splits: ScannedSplits, name: str) -> bool:
    """Whether a split is of retrieval; a test split over the list of training's classes is a classifier's."""
    if name not in splits:
        return False
    closed = splits[name].archive.class_names == splits["train"].archive.class_names
    return not (closed and name == "test")


def _matches(query: Archive, gallery: Archive) -> tuple[np.ndarray, np.ndarray]:
    """How many images of its label each query can find, (Q,), and how many not, for they are by its camera, (Q,)."""
    shown = Counter(gallery.labels.tolist())
    shown_by = Counter(zip(gallery.labels.tolist(), gallery.cameras.tolist(), strict=True))
    asked = list(zip(query.labels.tolist(), query.cameras.tolist(), strict=True))
    by_own = np.array([shown_by[label, camera] if camera >= 0 else 0 for label, camera in asked])
    return np.array([shown[label] for label, _ in asked]) - by_own, by_own


def _unmatched(name: str, split: Scanned, matches: np.ndarray, why: str, remedy: str) -> Iterator[Finding]:
    asked = split.archive.labels >= 0
    without = np.flatnonzero(asked & (matches <= 0))
    if len(without) == asked.sum():
        yield Finding("error", f"{name}: no image has a match, all are {why}",
                      "the evaluator refuses to score the split", remedy)
    else:
        yield from findings("warning", name, f"images are {why}", split.paths(without),
                            effect="the evaluator drops them, and says how many",
                            remedy=f"{remedy}; nothing, if that is how they are")


def _no_camera(name: str, splits: ScannedSplits) -> Finding:
    other = {"query": "gallery", "gallery": "query"}[name]
    what, effect = f"{name}: no image has a camera", "images of the query's own camera count as matches"
    if other in splits and (splits[other].archive.cameras >= 0).any():
        return Finding("warning", f"{what}, those of {other} have one", effect,
                       "give the images of both a camera, or none")
    return Finding("note", what, effect, "nothing, if that is meant")
