"""The entries of a gallery: what is known of each, in parts that never change."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, compress
from typing import NamedTuple, Self

import numpy as np

from ..search import SearchError, check_embeddings, check_lengths

MERGED = 2**16  # rows up to which neighbouring parts become one
BLOCK = 4096  # rows that are copied at once


class GalleryError(SearchError):
    """A gallery cannot do what is asked: one line that says what was expected and what came."""


class Hit(NamedTuple):
    """An entry that was found."""

    name: str
    similarity: float  # cosine
    camera: int  # -1 = none
    tag: str  # "" = none


class Texts:
    """N texts as bytes and where each ends, read as they are asked for: (B,) uint8, (N,) int64."""

    def __init__(self, encoded: np.ndarray, ends: np.ndarray) -> None:
        self.encoded, self.ends = encoded, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Texts as UTF-8; also those that stand for file names of other encodings come back as they were."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        ends = np.cumsum([len(each) for each in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> str:
        start = self.ends[i - 1] if i else 0
        return self.encoded[start:self.ends[i]].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        encoded, ends = self.encoded.tobytes(), self.ends.tolist()
        for start, end in zip([0, *ends], ends, strict=False):
            yield encoded[start:end].decode("utf-8", "surrogatepass")


@dataclass(frozen=True, eq=False)
class Entries:
    """N entries in order of adding."""

    embeddings: np.ndarray  # (N, D) float32
    names: list[str] | Texts  # N, each once
    cameras: np.ndarray  # (N,) int64
    tags: np.ndarray  # (N,) int32, places in the vocabulary
    vocabulary: list[str] | Texts  # the tags there are, each once

    @classmethod
    def of(cls, embeddings: np.ndarray, names: list[str], cameras: np.ndarray, tags: Iterable[str]) -> Self:
        """Entries with the tag of each."""
        return cls(embeddings, names, cameras, *coded(tags))

    @cached_property
    def rows(self) -> dict[str, int]:
        """Where each name stands."""
        return {name: row for row, name in enumerate(self.names)}

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each tag stands in the vocabulary."""
        return {tag: place for place, tag in enumerate(self.vocabulary)}

    def hit(self, row: int, similarity: float) -> Hit:
        """The entry of a row as it is found."""
        return Hit(self.names[row], similarity, int(self.cameras[row]), self.vocabulary[self.tags[row]])


class Part(NamedTuple):
    """Entries, and which of them were not removed."""

    entries: Entries
    kept: np.ndarray  # (N,) bool

    @classmethod
    def whole(cls, entries: Entries) -> Self:
        """A part of which nothing was removed."""
        return cls(entries, np.ones(len(entries.names), bool))

    @property
    def size(self) -> int:
        """How many entries are kept."""
        return int(np.count_nonzero(self.kept))

    def row(self, name: str) -> int | None:
        """Where a kept entry stands."""
        row = self.entries.rows.get(name)
        return row if row is not None and self.kept[row] else None

    def without(self, names: Iterable[str]) -> Self:
        """This part with the entries of these names removed."""
        rows = [row for row in map(self.row, names) if row is not None]
        if not rows:
            return self
        kept = self.kept.copy()
        kept[rows] = False
        return self._replace(kept=kept)

    def among(self, cameras: np.ndarray | None, tags: Iterable[str] | None) -> np.ndarray:
        """Which kept entries are of these cameras and have one of these tags; None for all: (N,) bool."""
        mask = self.kept
        if cameras is not None:
            mask = mask & np.isin(self.entries.cameras, cameras)
        if tags is not None:
            places = [self.entries.places[tag] for tag in tags if tag in self.entries.places]
            mask = mask & np.isin(self.entries.tags, places)
        return mask

    def blocks(self) -> Iterator[np.ndarray]:
        """The kept embeddings, some rows at a time."""
        for first in range(0, len(self.kept), BLOCK):
            rows = slice(first, first + BLOCK)
            yield self.entries.embeddings[rows][self.kept[rows]]


def named(parts: Sequence[Part]) -> list[str]:
    """The kept entries' names."""
    return [*chain.from_iterable(compress(part.entries.names, part.kept) for part in parts)]


def seen_by(parts: Sequence[Part]) -> np.ndarray:
    """The kept entries' cameras: (N,) int64."""
    return np.concatenate([part.entries.cameras[part.kept] for part in parts])


def tagged(parts: Sequence[Part]) -> list[str]:
    """The kept entries' tags."""
    return [part.entries.vocabulary[tag] for part in parts for tag in part.entries.tags[part.kept].tolist()]


def coded(tags: Iterable[str]) -> tuple[np.ndarray, list[str]]:
    """Tags as places in a vocabulary: (N,) int32, and each tag once."""
    places: dict[str, int] = {}
    numbers = np.array([places.setdefault(tag, len(places)) for tag in tags], np.int32)
    return numbers, list(places)


def merged(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The last parts as one where they are of like size, so that each row is copied seldom and parts stay few."""
    *before, last = parts
    before = [part for part in before if part.size]
    while before and before[-1].size <= min(2 * last.size, MERGED - last.size):
        pair = before.pop(), last
        embeddings = np.concatenate([block for part in pair for block in part.blocks()])
        last = Part.whole(Entries.of(embeddings, named(pair), seen_by(pair), tagged(pair)))
    return *before, last


def checked(dim: int, embeddings: np.ndarray, names: Iterable[str], cameras: Iterable[int] | None,
            tags: Iterable[str] | None) -> Entries:
    """Entries of what a user gives, copied; SearchError or GalleryError where that is no entries of this dimension."""
    check_embeddings("embeddings", embeddings)
    count, found = embeddings.shape
    if found != dim:
        raise GalleryError(f"embeddings: the gallery's {dim} dimensions expected, got {found}; "
                           f"embed with the model that it was built with")
    check_lengths("embedding", embeddings, np.arange(count))
    names, tags = checked_texts("names", names), checked_texts("tags", [""] * count if tags is None else tags)
    seen = np.full(count, -1) if cameras is None else checked_cameras("cameras", cameras)
    for what, given in {"names": len(names), "cameras": len(seen), "tags": len(tags)}.items():
        if given != count:
            raise GalleryError(f"{what}: one for each of {count} embeddings expected, got {given}")
    entries = Entries.of(np.array(embeddings, order="C"), names, seen, tags)
    if len(entries.rows) < count:
        twice = next(name for row, name in enumerate(names) if entries.rows[name] != row)
        raise GalleryError(f"names: {twice!r} is there twice; give each entry a name of its own")
    return entries


def checked_texts(what: str, values: Iterable[str]) -> list[str]:
    """Several texts; GalleryError for one alone, and for what is no text."""
    if isinstance(values, str):
        raise GalleryError(f"{what}: several texts expected, got {values!r} alone; write [{values!r}]")
    values = list(values)
    wrong = [value for value in values if not isinstance(value, str)]
    if wrong:
        raise GalleryError(f"{what}: texts expected, got {wrong[0]!r}")
    return values


def checked_cameras(what: str, values: Iterable[int]) -> np.ndarray:
    """Several cameras, int64; GalleryError for what is no whole number."""
    cameras = np.array(list(values) if np.iterable(values) else values)
    if cameras.ndim != 1 or len(cameras) and cameras.dtype.kind not in "iu":
        raise GalleryError(f"{what}: several whole numbers expected, got {values!r}")
    return cameras.astype(np.int64)
