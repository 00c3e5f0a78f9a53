"""What the commands of this package share: exit codes and options."""

import argparse

DONE, FAILED, USAGE, BAD_IMAGES = 0, 1, 2, 3


def add_options(parser: argparse.ArgumentParser) -> None:
    """How images are embedded, for every command that embeds a listing."""
    parser.add_argument("--batch_size", type=count, default=32, help="images at a time; default: 32")
    add_providers(parser)
    parser.add_argument("--skip_bad", action="store_true", help="leave out images that cannot be read")


def add_providers(parser: argparse.ArgumentParser) -> None:
    """What computes."""
    parser.add_argument("--providers", nargs="+", default="auto",
                        help="onnxruntime's, in order of preference; default: auto")


def count(text: str) -> int:
    """A whole number from 1 on, as a type of options."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 expected, got {text}")
    return number
