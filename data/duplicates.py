"""Images that stand in a set more than once, byte for byte."""

from collections.abc import Iterator

import numpy as np

from data.scanned import TESTED, Finding, Scanned, Splits

Place = tuple[str, int]  # split, record


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
        ("train", TESTED, "the metric counts images that training has seen"),
        ("gallery", ("query",), "they find themselves, unless the camera is the same too, which is ignored"),
    ):
        for other in others:
            shared = [group for group in groups if any(name == one for name, _ in group)]
            copies = [i for group in shared for name, i in group if name == other]
            if copies:
                yield Finding("warning", "duplicates_across",
                              f"{one} and {other}: {len(copies)} images of {other} are in {one} too: "
                              f"{splits[other].paths(copies)}", effect, f"take them out of {one}")


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
