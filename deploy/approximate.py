"""Approximate search of galleries too large for exact search: inverted lists of faiss, and what they miss."""

import struct
import zlib
from math import isqrt
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from .files import DiskError, write_whole
from .search import (Nearest, SearchError, check_count, check_embeddings, check_lengths, check_query, chosen_rows,
                     nearest, similarities)

PROBES = 64  # lists that a search looks into
PROPOSED = 2  # times k rows of those lists, by their 8-bit copies; the best k of them by the gallery itself
LEAST_OF_A_LIST, SAMPLE_OF_A_LIST = 39, 64  # rows from which its centre is learnt; below 39, faiss warns
BLOCK = 16384  # rows that are copied at once
COMPARED = 4096  # rows by which an index knows its gallery again, evenly spaced: to read all of them takes long
HEAD = struct.Struct("<8sI")  # of a saved index: what it is, the checksum of those rows; faiss's own bytes follow
KIND = b"kilnivf1"


class ApproximateIndex:
    """An index over a gallery (G, D) of unit embeddings, float32, which it needs for searching, too.

    sqrt(G) lists, each of the rows about one centre, as 8 bits a number. What it finds has the similarities that
    `search.nearest` gives, but it looks into few lists, so that neighbours in others are missed: ask `recall` how
    many. Embeddings of a trained network lie in clusters and lose little; random vectors lose most.
    """

    def __init__(self, gallery: np.ndarray, lists: Any) -> None:
        self.gallery = gallery
        self._lists = lists

    @classmethod
    def build(cls, gallery: np.ndarray) -> Self:
        """Learn the lists from a sample of the gallery and sort its rows into them; the same each time."""
        check_embeddings("gallery", gallery)
        gallery = np.asarray(gallery)
        count, dim = gallery.shape
        groups = min(isqrt(count), count // LEAST_OF_A_LIST)
        if not groups:
            raise SearchError(f"gallery: at least {LEAST_OF_A_LIST} rows expected, got {count}; search it exactly")
        faiss = _faiss()
        lists = faiss.index_factory(dim, f"IVF{groups},SQ8", faiss.METRIC_INNER_PRODUCT)
        draw = np.random.default_rng(0)
        lists.train(_rows(gallery, np.sort(draw.permutation(count)[:groups * SAMPLE_OF_A_LIST])))
        for first in range(0, count, BLOCK):
            lists.add(_rows(gallery, np.arange(first, min(first + BLOCK, count))))
        return cls(gallery, lists)

    @classmethod
    def load(cls, path: str | Path, gallery: np.ndarray) -> Self:
        """The index that `save` wrote, for the gallery it was built from; SearchError where it is not that one.

        Galleries of one shape are told apart by a sample of their rows: where few were changed it may miss those.
        """
        check_embeddings("gallery", gallery)
        checksum, lists = _read(Path(path))
        if (lists.ntotal, lists.d) != gallery.shape:
            raise SearchError(f"{path}: made for a gallery of {lists.ntotal} x {lists.d}, "
                              f"this one is {' x '.join(map(str, gallery.shape))}; build it again")
        gallery = np.asarray(gallery)
        if _checksum(gallery) != checksum:
            raise SearchError(f"{path}: made for a gallery of other rows; build it again")
        return cls(gallery, lists)

    def save(self, path: str | Path) -> None:
        """Write the index without the gallery; the file appears whole or not at all, and SearchError says why not."""
        faiss = _faiss()

        def write(file: BinaryIO) -> None:
            file.write(HEAD.pack(KIND, _checksum(self.gallery)))
            faiss.write_index(self._lists, faiss.PyCallbackIOWriter(file.write))

        try:
            write_whole(Path(path), write)
        except DiskError as error:
            raise SearchError(str(error)) from error

    def nearest(self, query: np.ndarray, k: int, *, among: np.ndarray | None = None,
                probes: int = PROBES) -> Nearest:
        """As `search.nearest`; where the lists hold fewer than k rows that count, row -1 and similarity -inf follow.

        `probes` of the lists are looked into: more find more and take longer.
        """
        check_query(query, self.gallery, k)
        check_count("probes", probes)
        faiss = _faiss()
        selector, count = None, len(self.gallery)
        if among is not None:
            mask = np.zeros(count, bool)
            mask[chosen_rows(among, count)] = True
            selector, count = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little")), int(mask.sum())
        k = min(k, count)
        _, rows = self._lists.search(query, max(1, PROPOSED * k),
                                     params=faiss.SearchParametersIVF(nprobe=probes, sel=selector))
        return _best(query, self.gallery, rows, k)

    def recall(self, query: np.ndarray, k: int, *, probes: int = PROBES) -> float:
        """Share of the found rows, k for each query (Q, D), that are as similar as the k-th in truth: 0 to 1."""
        if not len(query):
            raise SearchError("query: at least 1 expected to measure recall, got none")
        truth = nearest(query, self.gallery, k).similarities[:, -1:]
        return float((self.nearest(query, k, probes=probes).similarities >= truth).mean())


def _best(query: np.ndarray, gallery: np.ndarray, rows: np.ndarray, k: int) -> Nearest:
    """The k best of the rows proposed for each query, (Q, M) of which -1 is none."""
    queries, columns = np.nonzero(rows >= 0)
    found = np.full(rows.shape, -np.inf, np.float32)
    found[queries, columns] = similarities(query, gallery, queries, rows[queries, columns])
    order = np.lexsort((rows, -found))[:, :k]
    return Nearest(np.take_along_axis(rows, order, axis=1), np.take_along_axis(found, order, axis=1))


def _read(path: Path) -> tuple[int, Any]:
    """The checksum of the gallery's rows, and the lists, of a saved index."""
    faiss = _faiss()
    try:
        with path.open("rb") as file:
            kind, checksum = HEAD.unpack(file.read(HEAD.size))
            if kind == KIND:
                return checksum, faiss.read_index(faiss.PyCallbackIOReader(file.read))
    except OSError as error:
        raise SearchError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (struct.error, RuntimeError):  # by RuntimeError faiss tells what it cannot read
        pass
    raise SearchError(f"{path}: damaged, or not an index; build it again")


def _checksum(gallery: np.ndarray) -> int:
    count = len(gallery)
    rows = np.linspace(0, count - 1, min(count, COMPARED)).astype(np.int64)
    return zlib.crc32(np.ascontiguousarray(gallery.take(rows, axis=0)).data)


def _rows(gallery: np.ndarray, rows: np.ndarray) -> np.ndarray:
    vectors = gallery.take(rows, axis=0)
    check_lengths("gallery row", vectors, rows)
    return vectors


def _faiss() -> Any:
    try:
        import faiss  # large, and for large galleries only
    except ImportError:
        raise SearchError("approximate search needs faiss: pip install faiss-cpu") from None
    return faiss
