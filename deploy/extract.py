"""Embeddings of many images as a file.   python -m deploy.extract MODEL INPUT --output features.npz"""

import argparse
import csv
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .command_line import BAD_IMAGES, DONE, USAGE, add_options
from .extractor import FeatureExtractor, Outputs
from .files import write_whole
from .listing import Listing, ListingError, list_images
from .preprocess import ImageError
from .session import ModelError


def extract(extractor: FeatureExtractor, listing: Listing, *, skip_bad: bool) -> tuple[list[str], Outputs]:
    """The names of the images that could be used, and the outputs of those; ImageError names a bad one.

    With `skip_bad`, bad images are reported on stderr and left out, unless all are bad.
    """
    left_out = set()

    def bad(position: int, error: ImageError) -> None:
        name = listing.names[position]
        line = str(error) if name in str(error) else f"{name}: {error}"
        if not skip_bad:
            raise ImageError(f"{line}; leave such images out with --skip_bad") from error
        print(f"left out: {line}", file=sys.stderr)
        left_out.add(position)

    batches: list[Outputs] = []
    done = 0
    for batch in extractor.stream(listing.images, bad=bad):
        batches.append(batch)
        done += len(batch.embeddings)
        if sys.stderr.isatty():
            print(f"\r{done + len(left_out)} of {len(listing.names)} images", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if not batches:
        raise ImageError("every image is bad; nothing is written")
    return [name for i, name in enumerate(listing.names) if i not in left_out], extractor.join(batches)


def write(path: Path, names: Sequence[str], outputs: Outputs) -> None:
    """Names and outputs as .npz or .csv, by the path's suffix; the file appears whole or not at all."""
    write_whole(path, lambda file: WRITERS[path.suffix](file, names, outputs))


def _write_npz(file: BinaryIO, names: Sequence[str], outputs: Outputs) -> None:
    arrays = {name: array for name, array in outputs._asdict().items() if array is not None}
    np.savez(file, paths=np.array(names), **arrays)


def _write_csv(file: BinaryIO, names: Sequence[str], outputs: Outputs) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")  # names as on the disk
    rows = csv.writer(text)
    rows.writerow(["path", *(f"e{i}" for i in range(outputs.embeddings.shape[1]))])
    for name, embedding in zip(names, outputs.embeddings, strict=True):
        rows.writerow([name, *(f"{x:.9g}" for x in embedding)])  # nine digits give every float32 back
    text.detach()


WRITERS = {".npz": _write_npz, ".csv": _write_csv}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file; 0 done, 2 usage, 3 an image or an archive cannot be used."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        listing = list_images(options.input)
        extractor = FeatureExtractor(options.model, providers=options.providers, batch_size=options.batch_size)
        names, outputs = extract(extractor, listing, skip_bad=options.skip_bad)
        write(options.output, names, outputs)
    except ImageError as error:
        print(error, file=sys.stderr)
        return BAD_IMAGES
    except (ModelError, ListingError, OSError) as error:
        print(error, file=sys.stderr)
        return USAGE
    print(f"{options.output}: {len(names)} embeddings of {extractor.dim}")
    return DONE


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m deploy.extract", description="Write embeddings of images.")
    parser.add_argument("model", type=Path, help="a file that export.py wrote")
    parser.add_argument("input", type=Path, help="folder of images, text of paths, image or .lmdb archive")
    parser.add_argument("--output", type=Path, required=True, help="features.npz (all outputs) or .csv")
    add_options(parser)
    options = parser.parse_args(arguments)
    if options.output.suffix not in WRITERS:
        parser.error(f"--output {options.output}: .npz or .csv expected")
    if not options.output.parent.is_dir():
        parser.error(f"--output {options.output}: no such folder")
    return options


if __name__ == "__main__":
    sys.exit(main())
