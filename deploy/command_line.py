"""What the commands of this package share: exit codes and options."""

import argparse
from collections.abc import Callable
from contextlib import suppress

DONE, FAILED, USAGE, BAD_IMAGES = 0, 1, 2, 3


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Whole numbers of a range, as a type of options."""
    def read(text: str) -> int:
        with suppress(ValueError):
            number = int(text)
            if number >= least and (most is None or number <= most):
                return number
        ends = f"from {least}" if most is None else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"a whole number {ends} expected, got {text}")
    return read


count = whole(1)


def add_options(parser: argparse.ArgumentParser) -> None:
    """How images are embedded, for every command that embeds a listing."""
    parser.add_argument("--batch_size", type=count, default=32, help="images at a time; default: 32")
    add_providers(parser)
    parser.add_argument("--skip_bad", action="store_true", help="leave out images that cannot be read")


def add_providers(parser: argparse.ArgumentParser) -> None:
    """What computes."""
    parser.add_argument("--providers", nargs="+", default="auto",
                        help="onnxruntime's, in order of preference; default: auto")
