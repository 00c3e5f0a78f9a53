"""The entries of a gallery: what is known of each, in parts that never change."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, compress
from typing import NamedTuple, Self

import numpy as np

from ..search import SearchError

MERGED = 2**16  # rows up to which parts are copied into one
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
        return cls(embeddings, names, cameras, *encode_tags(tags))

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

    def without(self, names: Iterable[str]) -> "Part":
        """This part with the entries of these names removed; where few of many are left, a copy of those few."""
        rows = [row for row in map(self.row, names) if row is not None]
        if not rows:
            return self
        kept = self.kept.copy()
        kept[rows] = False
        part = self._replace(kept=kept)
        return _joined([part]) if part.size <= min(len(kept) // 2, MERGED) else part

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


def names_of(parts: Sequence[Part]) -> list[str]:
    """The kept entries' names."""
    return [*chain.from_iterable(compress(part.entries.names, part.kept) for part in parts)]


def cameras_of(parts: Sequence[Part]) -> np.ndarray:
    """The kept entries' cameras: (N,) int64."""
    return np.concatenate([part.entries.cameras[part.kept] for part in parts])


def tags_of(parts: Sequence[Part]) -> list[str]:
    """The kept entries' tags."""
    return [part.entries.vocabulary[tag] for part in parts for tag in part.entries.tags[part.kept].tolist()]


def encode_tags(tags: Iterable[str]) -> tuple[np.ndarray, list[str]]:
    """Tags as places in a vocabulary: (N,) int32, and each tag once."""
    places: dict[str, int] = {}
    numbers = np.array([places.setdefault(tag, len(places)) for tag in tags], np.int32)
    return numbers, list(places)


def merge(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Parts without empty ones, the last as one where they are of like size: rows are copied seldom, parts stay few."""
    *before, last = parts
    before = [part for part in before if part.size]
    while before and before[-1].size <= min(2 * last.size, MERGED - last.size):
        last = _joined([before.pop(), last])
    return *before, last


def _joined(parts: Sequence[Part]) -> Part:
    """The kept entries of all parts, copied."""
    embeddings = np.concatenate([block for part in parts for block in part.blocks()])
    return Part.whole(Entries.of(embeddings, names_of(parts), cameras_of(parts), tags_of(parts)))
