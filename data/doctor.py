"""Examine a packed set before a run does: python -m data.doctor OUT."""

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.archive import open_archive
from data.checks import CHECKS, missing_splits
from data.findings import Finding
from data.near_duplicates import near_duplicates_within
from data.records import DataError
from data.scanned import Scanned, scan
from data.sources import SPLITS
from deploy.cores import usable_cores

DONE, BAD_DATA, INTERRUPTED = 0, 3, 130
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
            splits[path.stem] = scan(open_archive(path), workers)
        except (DataError, BrokenProcessPool) as error:
            unreadable.append(_unreadable(path, error))
    # Of a split that cannot be read it is not known whether it is missing.
    asked = (*CHECKS, near_duplicates_within) if within else CHECKS
    checks = [check for check in asked if splits and not (unreadable and check is missing_splits)]
    findings = [finding._replace(check=check.__name__) for check in checks for finding in check(splits)]
    summaries = [_summary(name, split) for name, split in splits.items()]
    return Report(str(directory), summaries, unreadable + findings)


def _unreadable(path: Path, error: Exception) -> Finding:
    # A worker that dies was killed by SIGBUS: damage to the tree of the file makes lmdb read beyond its end.
    what = str(error) if isinstance(error, DataError) else f"{path}: damaged between its records"
    return Finding("error", what, "no run can open the split", "pack the set again", "unreadable")


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
        report = diagnose(arguments.out, usable_cores(), within=arguments.within)
    except DataError as error:
        print(error, file=sys.stderr)
        return BAD_DATA
    except KeyboardInterrupt:
        return INTERRUPTED
    print(report.as_json() if arguments.json else render(report))
    return DONE if report.healthy else BAD_DATA


if __name__ == "__main__":
    sys.exit(main())
