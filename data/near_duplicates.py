"""Images of a set that show one picture, stored again at another quality, size or brightness, or mirrored."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from data.findings import Finding, findings
from data.likeness import like_pairs
from data.scanned import TESTED, Scanned, ScannedSplits


class SimilarPairs(NamedTuple):
    """Some pairs of records of two splits, or of one, that show one picture but are not equal byte for byte."""

    first: np.ndarray  # (P,) a record of the first split
    second: np.ndarray  # (P,) one of the second
    one_identity: np.ndarray  # (P,) bool: both are known to be of one identity
    two_identities: np.ndarray  # (P,) bool: known to be of two; junk is of none
    one_camera: np.ndarray  # (P,) bool: known to be by one


Kind = Callable[[SimilarPairs], np.ndarray]  # which of the pairs count: (P,) bool
MIXED_UP = {"effect": "no answer can be right, if they show one thing",
            "remedy": "look at them; keep the identity that is right"}


def near_duplicates_across(splits: ScannedSplits) -> Iterator[Finding]:
    """Images of two splits that show one picture; one that is trained on, also where it is mirrored.

    Of gallery and query only those that an evaluator compares: not of one identity by one camera, and no junk.
    """
    for name in TESTED:
        if {"train", name} <= splits.keys():
            yield from _seen_in_training(name, splits["train"], splits[name])
    if {"gallery", "query"} <= splits.keys():
        mixed_up, easy = _similar(splits["gallery"], splits["query"], lambda pairs: pairs.two_identities,
                                  lambda pairs: pairs.one_identity & ~pairs.one_camera)
        yield from findings("warning", "gallery and query", "queries look like images of another identity",
                            _descriptions(splits["gallery"], splits["query"], mixed_up), **MIXED_UP)
        yield from findings("note", "gallery and query", "queries look like images that they are to find",
                            _descriptions(splits["gallery"], splits["query"], easy), effect="any network finds these",
                            remedy="nothing, where a thing looks the same from several sides; take copies of a query "
                            "out of gallery")


def near_duplicates_within(splits: ScannedSplits) -> Iterator[Finding]:
    """Images of one split that show one picture, as neighbouring frames of a film do: to be asked for."""
    for name, split in splits.items():
        mixed_up, easy = _similar(split, split, lambda pairs: pairs.two_identities & (pairs.first < pairs.second),
                                  lambda pairs: pairs.one_identity & (pairs.first < pairs.second))
        yield from findings("warning", name, "images look like images of another identity",
                            _descriptions(split, split, mixed_up), **MIXED_UP)
        yield from findings("note", name, "images look like others of their identity",
                            _descriptions(split, split, easy), effect="as positives of each other they teach little",
                            remedy="nothing, or keep one of each")


def _seen_in_training(name: str, train: Scanned, tested: Scanned) -> Iterator[Finding]:
    advice = {"effect": "the metric counts pictures that training has seen", "remedy": "take them out of train"}
    seen, = _similar(train, tested, _every)
    turned_round, = _similar(train._replace(thumbnails=train.thumbnails[:, :, ::-1]), tested, _every)
    turned_round[seen >= 0] = -1  # a symmetric picture is told once
    yield from findings("warning", f"train and {name}", f"images of {name} look like images of train",
                        _descriptions(train, tested, seen), **advice)
    yield from findings("warning", f"train and {name}", f"images of {name} look like mirror images of train",
                        _descriptions(train, tested, turned_round), **advice)


def _every(pairs: SimilarPairs) -> np.ndarray:
    return np.ones(len(pairs.first), bool)


def _similar(first: Scanned, second: Scanned, *kinds: Kind) -> list[np.ndarray]:
    """For each kind, for each record of the second split, the first that is similar to it in that way or -1: (M,)."""
    none = len(first.archive)
    found = np.full((len(kinds), len(second.archive)), none)
    for pairs in _blocks(first, second):
        for kind, likes in zip(kinds, found, strict=True):
            which = kind(pairs)
            np.minimum.at(likes, pairs.second[which], pairs.first[which])
    return list(np.where(found == none, -1, found))


def _blocks(first: Scanned, second: Scanned) -> Iterator[SimilarPairs]:
    ours, theirs = _identities(first, second)
    digests = np.unique(np.concatenate([first.digests, second.digests]), return_inverse=True)[1]
    cameras, others = first.archive.cameras, second.archive.cameras
    for i, j in (block.T for block in like_pairs(first.thumbnails, second.thumbnails)):
        differing = digests[i] != digests[len(first.digests) + j]
        i, j = i[differing], j[differing]
        same, known = ours[i] == theirs[j], (ours[i] >= 0) & (theirs[j] >= 0)
        yield SimilarPairs(i, j, same & known, ~same & known, (cameras[i] == others[j]) & (cameras[i] >= 0))


def _identities(*splits: Scanned) -> list[np.ndarray]:
    """A number of each record's identity, the same in all splits: (N,) each; junk is -1."""
    numbers = {name: n for n, name in enumerate(dict.fromkeys(
        name for split in splits for name in split.archive.class_names))}
    return [np.array([*map(numbers.get, split.archive.class_names), -1])[split.archive.labels] for split in splits]


def _descriptions(first: Scanned, second: Scanned, likes: np.ndarray) -> list[str]:
    return [f"{second.archive.original_path(int(j))} like {first.archive.original_path(int(likes[j]))}"
            for j in np.flatnonzero(likes >= 0)]
