"""A gallery of one model's embeddings: who is nearest, of which camera, and near enough?"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..extractor import FeatureExtractor
from ..search import check_count, check_query, nearest
from .checks import check_cameras, check_entries, check_texts
from .entries import Entries, GalleryError, Hit, Part, Texts, cameras_of, encode_tags, merge, names_of, tags_of
from .folder import Column, locked, read, read_header, write
from .levels import check_thresholds, threshold_of


class Gallery:
    """Unit embeddings (N, D) of one model, each with a name of its own, a camera (-1 = none) and a tag ("" = none).

    `thresholds` are the model's metadata of that name; GalleryError for others. While one thread adds, removes or
    saves, others may search: each search sees the gallery as it was before or after a change, never between.
    """

    def __init__(self, fingerprint: str, dim: int, thresholds: Mapping[str, Any] | None = None) -> None:
        check_count("dim", dim)
        self.fingerprint, self.dim, self.thresholds = fingerprint, int(dim), check_thresholds(thresholds or {})
        nothing = Entries.of(np.empty((0, dim), np.float32), [], np.empty(0, np.int64), [])
        self._parts: tuple[Part, ...] = (Part.whole(nothing),)  # replaced as a whole, so that a search can go on

    @classmethod
    def of(cls, extractor: FeatureExtractor) -> Self:
        """An empty gallery for a model's embeddings; GalleryError where the model has no fingerprint."""
        return cls(_fingerprint(extractor), extractor.dim, extractor.metadata.get("thresholds"))

    def bind(self, extractor: FeatureExtractor) -> None:
        """GalleryError unless this is the model whose embeddings the gallery holds; its thresholds count from now on.

        A model that is exported again has the same fingerprint, but may have been measured on other pairs.
        """
        if (found := _fingerprint(extractor)) != self.fingerprint:
            raise GalleryError(f"{extractor.path}: its fingerprint is {found[:12]}, the gallery was built with a model "
                               f"of {self.fingerprint[:12]}; take that one, or build the gallery again")
        self.thresholds = check_thresholds(extractor.metadata.get("thresholds", {}))

    def __len__(self) -> int:
        return sum(part.size for part in self._parts)

    def __contains__(self, name: str) -> bool:
        return any(part.row(name) is not None for part in self._parts)

    @property
    def names(self) -> list[str]:
        """Every name, in order of adding."""
        return names_of(self._parts)

    @property
    def cameras(self) -> np.ndarray:
        """Every entry's camera, in order of adding: (N,) int64."""
        return cameras_of(self._parts)

    @property
    def tags(self) -> list[str]:
        """Every entry's tag, in order of adding."""
        return tags_of(self._parts)

    def add(self, embeddings: np.ndarray, names: Iterable[str], *, cameras: Iterable[int] | None = None,
            tags: Iterable[str] | None = None) -> None:
        """Add unit embeddings (N, D) float32; an entry of a known name is replaced, and counts as added last.

        The embeddings are copied. SearchError or GalleryError for what does not fit; the gallery is then unchanged.
        """
        entries = check_entries(self.dim, embeddings, names, cameras, tags)
        before = [part.without(entries.names) for part in self._parts]
        self._parts = merge([*before, Part.whole(entries)])

    def remove(self, names: Iterable[str]) -> int:
        """Remove the entries of these names, as far as they are there, and say how many were."""
        before, names = len(self), check_texts("names", names)
        self._parts = merge([part.without(names) for part in self._parts])
        return before - len(self)

    def search(self, embeddings: np.ndarray, k: int = 10, *, threshold: float | str | None = None,
               cameras: Iterable[int] | None = None, tags: Iterable[str] | None = None,
               query_cameras: Iterable[int] | None = None) -> list[list[Hit]]:
        """The k most similar entries for each of (Q, D) unit embeddings, the best first, ties in order of adding.

        Those below the threshold are left out, see `threshold_of`: an unknown person gets an empty list. Only entries
        of `cameras` count, where given, and only those with one of `tags`; none of a query's own camera does, where
        `query_cameras` (Q,) says it: -1 = all count. The search is exact, as `deploy.nearest` is.
        """
        check_query(embeddings, np.empty((0, self.dim), np.float32), k)
        least = self.threshold_of(threshold)
        parts = self._parts
        filters = (None if cameras is None else check_cameras("cameras", cameras),
                   None if tags is None else check_texts("tags", tags))
        masks = [part.among(*filters) for part in parts]
        found: list[list[Hit]] = [[] for _ in embeddings]
        for camera, queries in _by_camera(query_cameras, len(embeddings)):
            others = masks if camera == -1 else [mask & (part.entries.cameras != camera)
                                                 for part, mask in zip(parts, masks, strict=True)]
            hits = _nearest(embeddings[queries], parts, others, k, -math.inf if least is None else least)
            for query, of_query in zip(queries, hits, strict=True):
                found[query] = of_query
        return found

    def threshold_of(self, asked: float | str | None) -> float | None:
        """The cosine from which on an entry is accepted: a number, also as text, or what was measured at a level.

        None where none is asked for. A level's may be above 1, where too many impostor pairs are as alike as can be.
        GalleryError for a level, such as "far=1e-3", that the model's metadata do not have, and for a number that is
        no cosine.
        """
        return threshold_of(self.thresholds, asked)

    def save(self, folder: str | Path) -> None:
        """Write the gallery into a folder of its own, whole or not at all, and replace the one that is there.

        Who has loaded the old one goes on with it. Of several that save, each waits for the one before, and the
        last one's gallery stays; to change what others change too, see `edit`. GalleryError where it cannot be
        written.
        """
        with locked(Path(folder)):
            self._write(Path(folder))

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool = False) -> Self:
        """The gallery in a folder, memory-mapped: read as it is searched, and never written to.

        GalleryError where a file is missing, cut short, or not what was saved; embeddings are compared with their
        checksum only where asked to `verify`, since that reads all of them.
        """
        facts, columns = read(Path(folder), verify=verify)
        gallery = cls(facts["fingerprint"], facts["dim"], facts["thresholds"])
        gallery._parts = (Part.whole(Entries(
            columns["embeddings"], Texts(columns["names"], columns["name_ends"]), columns["cameras"],
            columns["tags"], Texts(columns["vocabulary"], columns["vocabulary_ends"]))),)
        return gallery

    @classmethod
    @contextmanager
    def edit(cls, folder: str | Path) -> Iterator[Self]:
        """The gallery in a folder, saved after the block unless that raises; others that save wait until then."""
        read_header(Path(folder))  # so that no folder is made where there is no gallery
        with locked(Path(folder)):
            gallery = cls.load(folder)
            yield gallery
            gallery._write(Path(folder))

    def _write(self, folder: Path) -> None:
        parts = self._parts
        names, cameras, (tags, vocabulary) = Texts.of(names_of(parts)), cameras_of(parts), encode_tags(tags_of(parts))
        words = Texts.of(vocabulary)
        small = {"names": names.encoded, "name_ends": names.ends, "cameras": cameras, "tags": tags,
                 "vocabulary": words.encoded, "vocabulary_ends": words.ends}
        embeddings = Column((len(names), self.dim), (block for part in parts for block in part.blocks()))
        facts = {"fingerprint": self.fingerprint, "dim": self.dim, "thresholds": self.thresholds}
        write(folder, facts, {"embeddings": embeddings} | {name: Column.of(array) for name, array in small.items()})


def _fingerprint(extractor: FeatureExtractor) -> str:
    if "fingerprint" not in extractor.metadata:
        raise GalleryError(f"{extractor.path}: no fingerprint in its metadata; export it again")
    return str(extractor.metadata["fingerprint"])


def _by_camera(cameras: Iterable[int] | None, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Each camera of the queries, and which queries are of it."""
    seen = np.full(count, -1) if cameras is None else check_cameras("query_cameras", cameras)
    if len(seen) != count:
        raise GalleryError(f"query_cameras: one for each of {count} queries expected, got {len(seen)}")
    for camera in np.unique(seen):
        yield int(camera), np.flatnonzero(seen == camera)


def _nearest(query: np.ndarray, parts: Sequence[Part], masks: Sequence[np.ndarray], k: int,
             least: float) -> Iterator[list[Hit]]:
    """What is found for each query in all parts, at least so similar."""
    each = [nearest(query, part.entries.embeddings, k, among=None if mask.all() else mask)
            for part, mask in zip(parts, masks, strict=True)]
    part_of = np.repeat(np.arange(len(parts)), [found.rows.shape[1] for found in each])
    rows, similarities = (np.concatenate(columns, axis=1) for columns in zip(*each, strict=True))
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]  # exact: no similarity depends on the part
    for columns, of_rows, of_query in zip(order, rows, similarities, strict=True):
        hits = zip(part_of[columns].tolist(), of_rows[columns].tolist(), of_query[columns].tolist(), strict=True)
        yield [parts[part].entries.hit(row, similarity) for part, row, similarity in hits if similarity >= least]
