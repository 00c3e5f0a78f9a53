"""Examine a packed set before a run does: python -m data.doctor OUT."""

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image
from tqdm import tqdm

from data.archive import Archive, open_archive
from data.checks import CHECKS, missing_splits
from data.likeness import SIDE, thumbnail
from data.near_duplicates import near_duplicates_within
from data.parallel import cores, map_in_processes
from data.records import DataError
from data.scanned import Finding, Scanned
from data.sources import SPLITS
from deploy.preprocess import ImageError, opened

DONE, BAD_DATA, INTERRUPTED = 0, 3, 130
CHUNK = 64
BAR = 40


class Summary(NamedTuple):
    """A split in numbers; `histogram` counts classes by their images, in ranges 1, 2-3, 4-7, ..."""

    split: str
    images: int
    identities: int
    cameras: int
    junk: int
    smallest: int
    median: float
    largest: int
    histogram: dict[str, int]


class Report(NamedTuple):
    """What `diagnose` found."""

    directory: str
    splits: list[Summary]
    findings: list[Finding]

    @property
    def healthy(self) -> bool:
        """Whether a run can use the set."""
        return all(finding.level != "error" for finding in self.findings)

    def as_json(self) -> str:
        """The report as one JSON object."""
        return json.dumps({"directory": self.directory, "healthy": self.healthy,
                           "splits": [split._asdict() for split in self.splits],
                           "findings": [finding._asdict() for finding in self.findings]}, indent=1)


class Examined(NamedTuple):
    """A record that was read and, where nothing is wrong with it, decoded."""

    digest: bytes = b""  # sha1
    thumbnail: bytes = bytes(3 * SIDE * SIDE)
    turned: bool = False
    wrong: str = ""


def diagnose(directory: Path, workers: int = 1, *, within: bool = False) -> Report:
    """Read and decode every record of a packed set, and check it; DataError where there is no archive.

    With `within` also for images of one split that look the same.
    """
    paths = [path for path in (directory / f"{split}.lmdb" for split in SPLITS) if path.exists()]
    if not paths:
        raise DataError(f"{directory}: no archive; make one with python -m data.pack SOURCE ROOT {directory}")
    splits, unreadable = {}, []
    for path in paths:
        try:
            splits[path.stem] = _scan(open_archive(path), workers)
        except (DataError, BrokenProcessPool) as error:
            unreadable.append(_unreadable(path, error))
    # Of a split that cannot be read it is not known whether it is missing.
    asked = (*CHECKS, near_duplicates_within) if within else CHECKS
    checks = [check for check in asked if splits and not (unreadable and check is missing_splits)]
    findings = [finding for check in checks for finding in check(splits)]
    summaries = [_summary(name, split) for name, split in splits.items()]
    return Report(str(directory), summaries, unreadable + findings)


def _scan(archive: Archive, workers: int) -> Scanned:
    archive.original_path(0)  # DataError where the paths are damaged, which opening leaves unread
    starts = range(0, len(archive), CHUNK)
    tasks = ((archive.path, start, min(start + CHUNK, len(archive))) for start in starts)
    records: list[Examined] = []
    with tqdm(total=len(archive), desc=archive.split, unit=" images", disable=None) as progress:
        for examined in map_in_processes(_examine, tasks, workers):
            records += examined
            progress.update(len(examined))
    digests, thumbnails, turned, wrong = zip(*records, strict=True)
    return Scanned(archive, np.array(digests, "S20"), {i: reason for i, reason in enumerate(wrong) if reason},
                   np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, SIDE, SIDE, 3), np.array(turned))


def _examine(task: tuple[Path, int, int]) -> list[Examined]:
    path, start, stop = task
    archive = _opened_once(path)
    return [_examine_one(archive, i) for i in range(start, stop)]


_opened_once = lru_cache(maxsize=1)(open_archive)  # called in the workers alone, which live for one scan


def _examine_one(archive: Archive, i: int) -> Examined:
    try:
        encoded = archive.read(i)
    except DataError as error:
        return Examined(wrong=str(error))
    try:
        image = opened(encoded)
    except ImageError as error:
        return Examined(wrong=f"{archive.where(i)}: {error}")
    turned = Image.open(io.BytesIO(encoded)).getexif().get(ExifTags.Base.Orientation, 1) != 1
    return Examined(hashlib.sha1(encoded).digest(), thumbnail(image).tobytes(), turned)


def _unreadable(path: Path, error: Exception) -> Finding:
    # A worker that dies was killed by SIGBUS: damage to the tree of the file makes lmdb read beyond its end.
    what = str(error) if isinstance(error, DataError) else f"{path}: damaged between its records"
    return Finding("error", "unreadable", what, "no run can open the split", "pack the set again")


def _summary(name: str, split: Scanned) -> Summary:
    archive, per_class = split.archive, split.per_class()
    sizes = per_class[per_class > 0] if per_class.any() else np.zeros(1, np.int64)  # all may be junk
    exponents, classes = np.unique([int(size).bit_length() - 1 for size in sizes], return_counts=True)
    return Summary(
        split=name, images=len(archive), identities=int((per_class > 0).sum()),
        cameras=len(np.unique(archive.cameras[archive.cameras >= 0])), junk=int((archive.labels < 0).sum()),
        smallest=int(sizes.min()), median=float(np.median(sizes)), largest=int(sizes.max()),
        histogram={_range(int(e)): int(count) for e, count in zip(exponents, classes, strict=True)})


def _range(exponent: int) -> str:
    return f"{2 ** exponent}-{2 ** (exponent + 1) - 1}" if exponent > 0 else str(exponent + 1)


def render(report: Report) -> str:
    """The report as text."""
    lines = [f"{'split':<10}{'images':>10}{'identities':>12}{'cameras':>9}{'junk':>7}   images per identity"]
    for split in report.splits:
        lines.append(f"{split.split:<10}{split.images:>10}{split.identities:>12}{split.cameras:>9}"
                     f"{split.junk:>7}   {split.smallest} to {split.largest}, median {split.median:g}")
    for split in report.splits:
        lines += ["", f"{split.split}: identities by their number of images", *_bars(split.histogram)]
    for finding in report.findings:
        lines += ["", f"{finding.level}: {finding.what}", f"  effect: {finding.effect}",
                  f"  remedy: {finding.remedy}"]
    return "\n".join([*lines, "", f"{report.directory}: {_verdict(report)}"])


def _bars(histogram: dict[str, int]) -> list[str]:
    most = max(histogram.values(), default=1)
    return [f"  {size:>15} {count:>8} {'#' * round(BAR * count / most)}" for size, count in histogram.items()]


def _verdict(report: Report) -> str:
    levels = [finding.level for finding in report.findings]
    return ", ".join(f"{level}s: {levels.count(level)}" for level in dict.fromkeys(levels)) or "nothing found"


def main(given: Sequence[str] | None = None) -> int:
    """0 healthy (warnings and notes are no errors), 2 usage, 3 errors found or no archive to read."""
    parser = argparse.ArgumentParser(prog="python -m data.doctor", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder that data.pack wrote")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--within", action="store_true", help="tell of images of one split that look the same, too")
    arguments = parser.parse_args(given)
    try:
        report = diagnose(arguments.out, cores(), within=arguments.within)
    except DataError as error:
        print(error, file=sys.stderr)
        return BAD_DATA
    except KeyboardInterrupt:
        return INTERRUPTED
    print(report.as_json() if arguments.json else render(report))
    return DONE if report.healthy else BAD_DATA


if __name__ == "__main__":
    sys.exit(main())
