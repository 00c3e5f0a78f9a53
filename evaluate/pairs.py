"""Are two images of one identity? The cosines of a search's pairs, and the thresholds that follow from them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.records import DataError
from evaluate.distances import Cosine, unit
from evaluate.protocol import Search
from evaluate.ranking import JUNK, blocks

LEVELS = {"far=1e-2": 1e-2, "far=1e-3": 1e-3, "far=1e-4": 1e-4}  # falling, so that thresholds rise

# From 30 errors on, and if trials are independent, the true rate is within 30 % of the observed one with 90 %
# confidence. Doddington et al., The NIST Speaker Recognition Evaluation, 2000 (rule of 30).
ERRORS = 30

Z = 1.959964  # normal quantile of a 95 % interval

PER_UNIT = 2**15  # bins; a power of two, so that no cosine is binned wrongly and edges are float32 numbers
BINS = 2 * PER_UNIT + 1  # from -1 on; what is 1 or, by rounding, above is in the last one
_NEITHER = 2 * BINS  # bin of what is no pair; impostors have 0..BINS - 1, genuine pairs BINS..2 * BINS - 1

BLOCK_BYTES = 16 * 2**20  # of cosines at a time; what is made of them takes about four times as much


class Pairs(NamedTuple):
    """Numbers of pairs by cosine."""

    edges: np.ndarray  # (BINS + 1,) float64: bin i is edges[i] <= cosine < edges[i + 1]
    genuine: np.ndarray  # (BINS,) int64: of a query and its positives
    impostors: np.ndarray  # (BINS,) int64: of a query and images of other identities


def pairs_of(found: Search, *, block_bytes: int = BLOCK_BYTES) -> Pairs:
    """All pairs of a query and a gallery image by plain cosine, whatever the search ranks by.

    What does not count for a query makes no pair with it, and a junk query none at all. A split searched for
    its own images (leave-one-out) has each pair once.
    """
    counts = np.zeros(_NEITHER + 1, np.int64)
    for _, bins in _blocks(found, block_bytes):
        counts += np.bincount(bins.ravel(), minlength=_NEITHER + 1)
    return Pairs(np.arange(BINS + 1) / PER_UNIT - 1, genuine=counts[BINS:_NEITHER], impostors=counts[:BINS])


def thresholds(found: Search, pairs: Pairs, *, block_bytes: int = BLOCK_BYTES) -> dict[str, Any]:
    """For each of LEVELS the smallest edge at which the false accept rate does not exceed the level.

    A pair is accepted whose cosine is the threshold or more; `far` and `tar` are the accepted shares of impostors
    and of genuine pairs, with 95 % intervals. A level that has fewer than 30 / FAR impostors says only that.
    DataError where there is no genuine pair.
    """
    if not pairs.genuine.any():
        raise DataError(f"{found}: no two images of one identity, by which a threshold could be judged")
    accepted = np.append(np.cumsum(pairs.impostors[::-1])[::-1], 0)  # from each edge on
    impostors = int(accepted[0])
    said: dict[str, Any] = {name: {"needs": round(ERRORS / far), "has": impostors} for name, far in LEVELS.items()}
    places = {name: int(np.argmax(accepted / impostors <= far))
              for name, far in LEVELS.items() if said[name]["needs"] <= impostors}
    if places:
        by_identity = _by_identity(found, list(places.values()), block_bytes)
        for (name, place), (false, true) in zip(places.items(), by_identity, strict=True):
            (far, far_interval), (tar, tar_interval) = _share(false, identities=2), _share(true, identities=1)
            said[name] = {"threshold": float(pairs.edges[place]), "far": far, "far_interval": far_interval,
                          "tar": tar, "tar_interval": tar_interval}
    return said | {"genuine": int(pairs.genuine.sum()), "impostors": impostors, "split": str(found)}


def _blocks(found: Search, block_bytes: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Some queries, and the bin of each of their pairs: (rows, G) int64."""
    query, gallery = found.query.embeddings, found.gallery.embeddings
    cosine = Cosine(unit(query, found.query_split), unit(gallery, found.gallery_split))
    for rows in blocks(len(query), len(gallery), block_bytes):
        place = cosine[rows]
        place *= PER_UNIT
        place += PER_UNIT
        bins = place.astype(np.int64)  # towards 0: also what is below -1 by rounding is in bin 0
        for number, row in enumerate(bins, rows.start):
            _mark(row, found, number)
        yield rows, bins


def _mark(bins: np.ndarray, found: Search, query: int) -> None:
    """Move a query's genuine pairs to their bins, and what is no pair out of all."""
    positives, ignored = found.matches[query]
    bins[positives] += BINS
    bins[ignored] = _NEITHER
    if found.query.labels[query] == JUNK:
        bins[:] = _NEITHER
    elif found.query_split == found.gallery_split:
        bins[:query + 1] = _NEITHER  # itself, and those that have asked for it


def _by_identity(found: Search, places: Sequence[int], block_bytes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per place, impostors and genuine pairs by the identities of their images: twice (I, 2), all and accepted.

    Places rise. Each pair is counted twice: for the identity of its query, and for that of its gallery image.
    """
    identities, numbers = np.unique(np.concatenate([found.query.labels, found.gallery.labels]), return_inverse=True)
    query, gallery = np.split(numbers, [len(found.query.labels)])
    steps, width = len(places) + 1, 2 * len(places) + 3
    reached = np.searchsorted(places, np.arange(BINS), side="right")  # how many places are at or below a bin
    kinds = np.concatenate([reached, reached + steps, [width - 1]])  # of impostors, of genuine pairs, of neither
    counts = np.zeros(len(identities) * width, np.int64)
    for rows, bins in _blocks(found, block_bytes):
        kind = kinds[bins]
        for identity in (query[rows, None], gallery):
            counts += np.bincount((identity * width + kind).ravel(), minlength=len(counts))
    by_reached = counts.reshape(-1, width)[:, :-1].reshape(-1, 2, steps)
    accepted = np.cumsum(by_reached[..., ::-1], axis=-1)[..., ::-1]  # (I, 2, steps): from each place on, first all
    for number in range(1, steps):
        yield accepted[:, 0, [0, number]], accepted[:, 1, [0, number]]


def _share(counts: np.ndarray, *, identities: int) -> tuple[float, list[float]]:
    """Accepted / all with a 95 % interval, of pairs of so many identities counted by identity: (I, 2) -> share.

    Pairs that have an identity in common are not independent: the interval is Wilson's for as many trials as
    would give the share the variance that it has over identities, the pairs' number at most. Where identities do
    not differ at all, each is one trial.
    Fogliato et al., Confidence Intervals for Error Rates in 1:1 Matching Tasks, 2024.
    """
    every, accepted = counts[counts[:, 0] > 0].T
    total, count = int(every.sum()), len(every)
    whole, share = int(accepted.sum()), float(accepted.sum() / total)
    # In Python's integers, since no rounding may look like a difference and int64 would overflow.
    adds = (accepted.astype(object) * total - whole * every.astype(object)) / total**2
    variance = float(np.sum((identities * adds.astype(np.float64))**2)) * count / max(count - 1, 1)
    trials = min(share * (1 - share) / variance, total / 2) if variance else count / identities
    return share, [_least(share, trials), 1 - _least(1 - share, trials)]


def _least(share: float, trials: float) -> float:
    """Lower end of Wilson's interval, in the form that is exactly 0 for a share of 0."""
    half = Z * math.sqrt(share * (1 - share) / trials + (Z / (2 * trials))**2)
    return share**2 / (share + Z**2 / (2 * trials) + half)
