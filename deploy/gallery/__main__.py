"""Galleries of images from a command line.   python -m deploy.gallery build|add|remove|search|info"""

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..command_line import BAD_IMAGES, DONE, USAGE, add_options, count, whole
from ..extract import extract
from ..extractor import FeatureExtractor
from ..listing import ListingError, list_images
from ..preprocess import ImageError
from ..search import SearchError
from ..session import ModelError
from . import Gallery, GalleryError, Hit
from .checks import LAST_CAMERA
from .folder import check_place
from .levels import lacking, levels_of
from .table import Mark, marks_of

SHOWN = 10  # cameras and tags, the most frequent
PLACES = {"model": "a file that export.py wrote", "images": "folder, text of paths, image or .lmdb archive",
          "gallery": "the gallery's folder"}


def build(options: argparse.Namespace) -> None:
    """Put images into a new gallery, in place of one that is there."""
    check_place(options.gallery)  # before all images are embedded
    extractor = _extractor(options)
    gallery = Gallery.of(extractor)
    _add(gallery, *_embedded(extractor, options))
    gallery.save(options.gallery)
    print(f"{options.gallery}: {len(gallery)} entries of {gallery.dim}")


def add(options: argparse.Namespace) -> None:
    """Put images into a gallery that is there; a known name is replaced."""
    extractor = _extractor(options)
    Gallery.load(options.gallery).bind(extractor)
    embedded = _embedded(extractor, options)
    with Gallery.edit(options.gallery) as gallery:
        gallery.bind(extractor)
        _add(gallery, *embedded)
    print(f"{options.gallery}: {len(embedded[0])} entries added, {len(gallery)} in all")


def remove(options: argparse.Namespace) -> None:
    """Take entries out of a gallery, all those named or, where one is not there, none."""
    with Gallery.edit(options.gallery) as gallery:
        for name in options.names:
            if name not in gallery:
                raise GalleryError(f"{options.gallery}: no entry {name!r}; nothing is removed")
        removed = gallery.remove(options.names)
    print(f"{options.gallery}: {removed} entries removed, {len(gallery)} left")


def search(options: argparse.Namespace) -> None:
    """Print what is found for each image."""
    gallery, extractor = Gallery.load(options.gallery), _extractor(options)
    gallery.bind(extractor)
    threshold = gallery.threshold_of(options.threshold)  # before all images are embedded
    names, outputs = extract(extractor, list_images(options.images), skip_bad=options.skip_bad)
    own = None if options.query_camera is None else [options.query_camera] * len(names)
    found = gallery.search(outputs.embeddings, options.k, threshold=options.threshold, cameras=options.camera,
                           tags=options.tag, query_cameras=own)
    if options.json:
        results = [{"query": name, "hits": [hit._asdict() for hit in hits]}
                   for name, hits in zip(names, found, strict=True)]
        print(json.dumps({"threshold": threshold, "results": results}, indent=1))
    else:
        print("\n".join(_table(names, found)))


def info(options: argparse.Namespace) -> None:
    """Print what a gallery holds."""
    gallery = Gallery.load(options.gallery, verify=options.verify)
    print(f"{options.gallery}: {len(gallery)} entries of {gallery.dim}"
          f"{', every byte as it was saved' if options.verify else ''}")
    print(f"  model      {gallery.fingerprint}")
    print(f"  cameras    {_counted(gallery.cameras.tolist(), none=-1)}")
    print(f"  tags       {_counted(gallery.tags, none='')}")
    for name, level in levels_of(gallery.thresholds).items():
        print(f"  {name:<9}  {_level(level)}")


def _extractor(options: argparse.Namespace) -> FeatureExtractor:
    return FeatureExtractor(options.model, providers=options.providers, batch_size=options.batch_size)


def _embedded(extractor: FeatureExtractor, options: argparse.Namespace) -> tuple[list[str], np.ndarray, list[Mark]]:
    listing = list_images(options.images)
    marks = marks_of(listing, options.table)
    names, outputs = extract(extractor, listing, skip_bad=options.skip_bad)
    return names, outputs.embeddings, [marks[name] for name in names]


def _add(gallery: Gallery, names: list[str], embeddings: np.ndarray, marks: list[Mark]) -> None:
    cameras, tags = zip(*marks, strict=True)
    gallery.add(embeddings, names, cameras=cameras, tags=tags)


def _table(names: Sequence[str], found: Sequence[Sequence[Hit]]) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("query", "similarity", "camera", "tag", "name")]
    for name, hits in zip(names, found, strict=True):
        rows += [(name, f"{hit.similarity:.4f}", "-" if hit.camera == -1 else str(hit.camera), hit.tag or "-", hit.name)
                 for hit in hits] or [(name, "-", "-", "-", "nothing")]
    rows = [tuple(map(_shown, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _counted(values: Iterable[Any], none: Any) -> str:
    counts = Counter(values)
    most = [f"{'none' if value == none else _shown(str(value))} ({times})"
            for value, times in counts.most_common(SHOWN)]
    return (", ".join(most) or "none") + (f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else "")


def _shown(text: str) -> str:
    """A text in one line that leaves the terminal as it is."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _level(level: Mapping[str, Any]) -> str:
    if "threshold" not in level:
        return lacking(level)
    accepts = f", which accepts {level['tar']:.1%} of genuine pairs" if "tar" in level else ""
    return f"{level['threshold']:.4f}{accepts}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 2 usage, model or gallery, 3 an image or an archive cannot be used."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names may be in other encodings
    try:
        options.run(options)
    except ImageError as error:
        print(error, file=sys.stderr)
        return BAD_IMAGES
    except (ModelError, ListingError, SearchError, OSError) as error:
        print(error, file=sys.stderr)
        return USAGE
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m deploy.gallery", description="Galleries of embedded images.")
    commands = parser.add_subparsers(required=True, metavar="build|add|remove|search|info")
    for run, places in ((build, "model images gallery"), (add, "gallery model images"), (remove, "gallery"),
                        (search, "gallery model images"), (info, "gallery")):
        command = commands.add_parser(run.__name__, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        for place in places.split():
            command.add_argument(place, type=Path, help=PLACES[place])
        if "images" in places:
            add_options(command)
    _own_options(commands.choices)
    return parser


def _own_options(commands: Mapping[str, argparse.ArgumentParser]) -> None:
    """What only some commands can be told."""
    for name in ("build", "add"):
        commands[name].add_argument("--table", type=Path, help="CSV with columns name, camera, tag; default: what an "
                                                               "archive says of camera and class, else none")
    commands["remove"].add_argument("names", nargs="+", help="of the entries")
    option = commands["search"].add_argument
    option("--k", type=count, default=10, help="entries for each image; default: 10")
    option("--threshold", help="a cosine, or a level of the model, as far=1e-3; default: none")
    option("--camera", type=whole(-1, LAST_CAMERA), nargs="+", help="only entries of these cameras")
    option("--tag", nargs="+", help="only entries with one of these tags")
    option("--query_camera", type=whole(-1, LAST_CAMERA), help="the images' camera, of which no entry counts")
    option("--json", action="store_true", help="print JSON in place of a table")
    commands["info"].add_argument("--verify", action="store_true", help="compare every byte with its checksum")


if __name__ == "__main__":
    sys.exit(main())
