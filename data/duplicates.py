"""Images that stand in a set more than once, byte for byte."""

from collections.abc import Iterator

import numpy as np

from data.findings import Finding, findings
from data.scanned import TESTED, Scanned, ScannedSplits

Place = tuple[str, int]  # split, record


def contradictory_labels(splits: ScannedSplits) -> Iterator[Finding]:
    """Images of one split that are equal, byte for byte, and of different identities."""
    for name, groups in _by_split(splits).items():
        torn = [" and ".join(splits[name].paths(group)) for group in groups if _is_torn(splits[name], group)]
        yield from findings("warning", name, "images stand under several identities", torn,
                            effect="no answer for them can be right", remedy="keep the one that is right")


def duplicates_within(splits: ScannedSplits) -> Iterator[Finding]:
    """Images of one split and one identity that are equal, byte for byte."""
    for name, groups in _by_split(splits).items():
        split = splits[name]
        copies = [i for group in groups if not _is_torn(split, group) for i in _copies(split, group)]
        yield from findings("warning", name, "images are copies of others", split.paths(copies),
                            effect="they weigh twice, and as positives of each other they teach nothing",
                            remedy="remove the copies")


def duplicates_across(splits: ScannedSplits) -> Iterator[Finding]:
    """Images that are equal, byte for byte, and in two splits."""
    groups = _equal_images(splits)
    for one, others, effect in (
        ("train", TESTED, "the metric counts images that training has seen"),
        ("gallery", ("query",), "they find themselves, unless the camera is the same too, which is ignored"),
    ):
        shared = [group for group in groups if any(name == one for name, _ in group)]
        for other in (name for name in others if name in splits):
            copies = [i for group in shared for name, i in group if name == other]
            yield from findings("warning", f"{one} and {other}", f"images of {other} are in {one} too",
                                splits[other].paths(copies), effect=effect, remedy=f"take them out of {one}")


def _equal_images(splits: ScannedSplits) -> list[list[Place]]:
    """The groups of two and more records with equal bytes."""
    digests = np.concatenate([split.digests for split in splits.values()])
    places = [(name, i) for name, split in splits.items() for i in range(len(split.archive))]
    _, group, size = np.unique(digests, return_inverse=True, return_counts=True)
    groups: dict[int, list[Place]] = {}
    for position in np.flatnonzero((size[group] > 1) & (digests != b"")):
        groups.setdefault(group[position], []).append(places[position])
    return list(groups.values())


def _by_split(splits: ScannedSplits) -> dict[str, list[list[int]]]:
    """For each split the parts of groups of equal images, of two and more records, that lie in it."""
    parts: dict[str, list[list[int]]] = {}
    for group in _equal_images(splits):
        for name in dict.fromkeys(name for name, _ in group):
            part = [i for other, i in group if other == name]
            if len(part) > 1:
                parts.setdefault(name, []).append(part)
    return parts


def _is_torn(split: Scanned, group: list[int]) -> bool:
    return len(set(split.archive.labels[group].tolist())) > 1


def _copies(split: Scanned, group: list[int]) -> list[int]:
    """Of equal records those after the first; where images stand in pairs, a file counts once."""
    if split.paired:
        group = sorted({split.archive.original_path(i): i for i in reversed(group)}.values())
    return group[1:]
