"""Opening an archive of 10 million records.

python -m benchmarks.opening [--rounds 5] [--small]

The archive is written by data.archive's own writer with images of 8 bytes, so that it is an index and little else.
The peer reads the same columns as one plain file. Memory is what the process grows by at its largest, pages of the
mapped archive included, which the system may take back at any time.
"""

import pickle
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measure import MIB, NO_BAR, Comparison, Limit, agreed, arguments, at_most, extra_mib, in_turns, table
from data.archive import Archive, Meta, Record, open_archive, write_archive

RECORDS, SMALL = 10_000_000, 100_000
CLASSES, CAMERAS = 50_000, 6
PATH = "train/{:05d}/{:08d}_c{}.jpg"
READS = 10_000


def main() -> None:
    """Print the table of writing, opening and reading."""
    options = arguments(__doc__)
    count = SMALL if options.small else RECORDS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.lmdb"
        lines = [*writing(path, count), *opening(path, count, options.rounds), *reading(open_archive(path))]
    print(f"\n{table(lines)}\n\nOpening reads and compares 28 bytes a record; the paths, here {len(original_path(0))} "
          "bytes each, and where they end wait until one is asked for.")


def original_path(i: int) -> str:
    """Where record i is said to come from."""
    return PATH.format(i % CLASSES, i, i % CAMERAS)


def writing(path: Path, count: int) -> Iterator[Limit]:
    """Write the archive; what a record costs."""
    names = [f"{i:05d}" for i in range(CLASSES)]
    records = (Record(b"%08d" % i, i % CLASSES, i % CAMERAS, i // CAMERAS, original_path(i)) for i in range(count))
    began = time.perf_counter()
    extra = extra_mib(lambda: write_archive(path, records, Meta("synthetic", "train", names)))
    yield Limit(f"writing {count:,} records", time.perf_counter() - began, "s", NO_BAR)
    yield Limit("memory while writing, of a record", extra * MIB / count, "bytes", NO_BAR)


def opening(path: Path, count: int, rounds: int) -> Iterator[Limit | Comparison]:
    """Open the archive: seconds, memory, and the same bytes from a plain file."""
    extra = extra_mib(lambda: open_archive(path))
    archive = open_archive(path)
    numbers = np.arange(count)
    found, written = ((archive.labels, archive.cameras, archive.sequences),
                      (numbers % CLASSES, numbers % CAMERAS, numbers // CAMERAS))
    differing = [not np.array_equal(*pair) for pair in zip(found, written, strict=True)]
    agreed("labels, cameras and sequences, opened and written", sum(differing), 0)
    plain = path.with_name("columns")
    with plain.open("wb") as file:
        for column in (*found, archive.labels.astype(np.uint32)):
            column.tofile(file)
    del archive, numbers, found, written
    ours, peer = in_turns(rounds, lambda: open_archive(path), lambda: np.fromfile(plain, np.uint8))
    yield Limit(f"opening {count:,} records, the slowest of {rounds}", max(ours), "s", at_most(2))
    yield Comparison(f"opening {count:,} records", ours, "its columns from a plain file", peer)
    index = count * (36 + len(original_path(0))) / MIB
    yield Limit(f"memory while opening, of an index of {index:,.0f} MiB", extra, "MiB", at_most(round(index)))


def reading(archive: Archive) -> Iterator[Limit]:
    """Random records, the first path, and a pickled archive."""
    numbers = np.random.default_rng(0).integers(0, len(archive), READS).tolist()
    began = time.perf_counter()
    images = [archive.read(i) for i in numbers]
    yield Limit("reading a random record", 1e6 * (time.perf_counter() - began) / READS, "us", NO_BAR)
    began = time.perf_counter()
    path = archive.original_path(numbers[0])
    yield Limit("the first path that is asked for", time.perf_counter() - began, "s", NO_BAR)
    pickled = pickle.dumps(archive)
    yield Limit("a pickled archive", len(pickled), "bytes", NO_BAR)
    began = time.perf_counter()
    again = pickle.loads(pickled)
    yield Limit("unpickling it, which opens it", time.perf_counter() - began, "s", NO_BAR)
    wrong = sum(image != b"%08d" % i for i, image in zip(numbers, images, strict=True))
    wrong += (path != original_path(numbers[0])) + (len(again) != len(archive))
    agreed("images, path and length, read and written", wrong, 0)


if __name__ == "__main__":
    main()
