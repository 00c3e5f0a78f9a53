"""Pack an image set into archives, every image checked: python -m data.pack SOURCE ROOT OUT."""

import argparse
import fcntl
import inspect
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from tqdm import tqdm

from data.archive import Meta, Record, open_archive, write_archive
from data.parallel import map_in_processes
from data.records import DataError
from data.sources import PAIRED, SOURCES, SPLITS, Split
from deploy.command_line import count
from deploy.cores import usable_cores
from deploy.files import sync_directory
from deploy.preprocess import ImageError, opened
from params.plugin import Choice

DONE, USAGE, BAD_DATA, INTERRUPTED = 0, 2, 3, 130
CHUNK = 8  # images per task: more saves little time, and their bytes wait in memory
NAMES_SHOWN = 20
REPORT = "pack.json"

log = logging.getLogger(__name__)
OnCorrupt = Callable[[Path, str], None]  # file, what is wrong with it


class UsageError(Exception):
    """What was asked for cannot be done: one line that names the option or folder and says why."""


def pack(
    choice: Choice, root: Path, out: Path, *,
    workers: int = 1, skip_corrupt: bool = False, overwrite: bool = False,
) -> dict[str, Any]:
    """Write a source's splits as OUT/SPLIT.lmdb, all of them or none, and return what OUT/pack.json holds.

    Raises DataError for what is wrong with the images, UsageError for what is wrong with OUT.
    """
    report: dict[str, Any] = {
        "source": choice.type, "options": dict(choice.options), "splits": {}, "skipped": []}

    def on_corrupt(split: str, file: Path, reason: str) -> None:
        if (choice.type, split) in PAIRED:
            raise DataError(f"{file}: {reason}; mend it, of a pair no image can be left out")
        if not skip_corrupt:
            raise DataError(f"{file}: {reason}; mend it, or leave such images out with --skip_corrupt")
        report["skipped"].append({"file": str(file), "reason": reason})

    splits = SOURCES.build(choice, root=root)
    root = root if root.is_dir() else root.parent  # a file that lists the set stands for its folder
    with _staging(out, overwrite=overwrite) as staging:
        for name, split in splits.items():
            path = staging / f"{name}.lmdb"
            images = _images(root, split, workers, name)
            write_archive(path, _records(root, split, images, partial(on_corrupt, name)),
                          Meta(choice.type, name, list(split.class_names)))
            report["splits"][name] = _counts(path) | {"junk_left_out": split.left_out}
        (staging / REPORT).write_text(json.dumps(report, indent=1))
        _publish(staging, out)
    return report


@contextmanager
def _staging(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder in OUT for what is not finished; one process at a time has it, and it is gone afterwards."""
    out.mkdir(parents=True, exist_ok=True)
    present = [name for name in _archive_names() if (out / name).exists()]
    if present and not overwrite:
        raise UsageError(f"{out}: holds {', '.join(present)} already; give another folder, or --overwrite")
    staging = out / ".packing"
    with _locked(out):
        shutil.rmtree(staging, ignore_errors=True)  # what a killed process left
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{directory}: another process packs into it; wait for it or stop it") from None
        yield
    finally:
        os.close(descriptor)


def _publish(staging: Path, out: Path) -> None:
    """Replace what was there; while there is a report, the archives beside it belong together."""
    (out / REPORT).unlink(missing_ok=True)
    for name in _archive_names():
        if (staging / name).exists():
            os.replace(staging / name, out / name)
        else:
            (out / name).unlink(missing_ok=True)
    os.replace(staging / REPORT, out / REPORT)
    sync_directory(out)


def _archive_names() -> list[str]:
    return [f"{split}.lmdb" for split in SPLITS]


def _images(root: Path, split: Split, workers: int, name: str) -> Iterator[bytes | str]:
    """For each item its encoded image, or what is wrong with it."""
    paths = [item.path for item in split.items]
    chunks = (paths[start:start + CHUNK] for start in range(0, len(paths), CHUNK))
    log.info("%s: %d images", name, len(paths))
    with tqdm(total=len(paths), desc=name, unit=" images", disable=None) as progress:
        for checked in map_in_processes(partial(_checked, root), chunks, workers):
            yield from checked
            progress.update(len(checked))


def _checked(root: Path, paths: Sequence[str]) -> list[bytes | str]:
    return [_checked_one(root / path) for path in paths]


def _checked_one(file: Path) -> bytes | str:
    try:
        encoded = file.read_bytes()
        opened(encoded)
    except OSError as error:
        return str(error.strerror)
    except ImageError as error:
        return str(error)
    return encoded


def _records(
    root: Path, split: Split, images: Iterator[bytes | str], on_corrupt: OnCorrupt,
) -> Iterator[Record]:
    labels = {name: label for label, name in enumerate(split.class_names)}
    for item, image in zip(split.items, images, strict=True):
        if isinstance(image, str):
            on_corrupt(root / item.path, image)
        else:
            label = -1 if item.class_name is None else labels[item.class_name]
            yield Record(image, label, item.camera, item.sequence, item.path)


def _counts(path: Path) -> dict[str, int]:
    archive = open_archive(path)
    known = [np.unique(column[column >= 0]) for column in (archive.labels, archive.cameras)]
    return {"images": len(archive), "identities": len(known[0]), "cameras": len(known[1]),
            "junk": int((archive.labels < 0).sum())}


def _add_sources(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_subparsers(dest="source", metavar="SOURCE", required=True)
    for name in SOURCES:
        source = sources.add_parser(name, help=(inspect.getdoc(SOURCES.load(name)) or name).splitlines()[0])
        source.add_argument("root", type=Path, metavar="ROOT", help="the image set as it is unpacked")
        source.add_argument("out", type=Path, metavar="OUT", help="the folder for the archives")
        source.add_argument("--workers", type=count, default=usable_cores(), help="processes that check images")
        source.add_argument("--skip_corrupt", action="store_true", help="leave corrupt images out")
        source.add_argument("--overwrite", action="store_true", help="replace the archives that OUT holds")
        for option, field in SOURCES.options(name).model_fields.items():
            source.add_argument(f"--{option}", default=argparse.SUPPRESS,
                                help=f"{field.description} (default: {field.default})".replace("%", "%%"))


def _choice(arguments: argparse.Namespace) -> Choice:
    options = SOURCES.options(arguments.source)
    given = {name: value for name, value in vars(arguments).items() if name in options.model_fields}
    try:
        return Choice(arguments.source, options.model_validate_strings(given).model_dump())
    except ValidationError as error:
        wrong = error.errors()[0]
        raise UsageError(f"--{wrong['loc'][0]}: {wrong['msg'].lower()}, got {wrong['input']}") from None


def _print(report: dict[str, Any]) -> None:
    print(f"{'split':<10}{'images':>10}{'identities':>12}{'cameras':>9}")
    for name, counts in report["splits"].items():
        print(f"{name:<10}{counts['images']:>10}{counts['identities']:>12}{counts['cameras']:>9}")
    for name, counts in report["splits"].items():
        if counts["junk_left_out"]:
            print(f"{name}: {counts['junk_left_out']} junk images left out")
    skipped = report["skipped"]
    if skipped:
        print(f"{len(skipped)} corrupt images left out, listed in {REPORT}:", file=sys.stderr)
        for entry in skipped[:NAMES_SHOWN]:
            print(f"  {entry['file']}: {entry['reason']}", file=sys.stderr)


def main(given: Sequence[str] | None = None) -> int:
    """0 done, 2 usage, 3 something is wrong with the images."""
    parser = argparse.ArgumentParser(prog="python -m data.pack", description=__doc__)
    _add_sources(parser)
    arguments = parser.parse_args(given)
    # A terminal has the progress bar instead.
    logging.basicConfig(format="%(message)s", level="WARNING" if sys.stderr.isatty() else "INFO")
    try:
        _print(pack(_choice(arguments), arguments.root, arguments.out, workers=arguments.workers,
                    skip_corrupt=arguments.skip_corrupt, overwrite=arguments.overwrite))
    except (UsageError, OSError) as error:
        parser.error(str(error))
    except (DataError, BrokenProcessPool) as error:
        print(error, file=sys.stderr)
        return BAD_DATA
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
