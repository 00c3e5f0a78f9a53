"""Encoded images that strangers send: looked at before they are decoded."""

import re

import numpy as np

from ..preprocess import ImageError, Preprocessing

SWEEPS = 16  # scans of a JPEG of all pixels that are allowed; most have one, progressive ones about ten
SEGMENTS = 4096  # of a JPEG; those with many profiles and thumbnails have hundreds
SCAN, END, FRAMES = b"\xda", b"\xd9", b"\xc0\xc1\xc2\xc3\xc5\xc6\xc7\xc9\xca\xcb\xcd\xce\xcf"
# The next one with a length: over the two bytes of others libjpeg steps, or it ends there. Fill bytes need no `+`,
# whose time grows with the square of their number.
MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")


def seen(encoded: bytes, preprocessing: Preprocessing, max_pixels: int) -> np.ndarray | str:
    """The pixels that the network sees of an image of at most so many, or why it cannot be used."""
    if not encoded:
        return "0 bytes"
    if encoded.startswith(b"\xff\xd8\xff") and _takes_long(encoded, SWEEPS * max_pixels):
        return f"a JPEG of at most {SWEEPS * max_pixels} pixels in all its scans expected, and of {SEGMENTS} segments"
    try:
        return preprocessing(encoded, pixel_limit=max_pixels)
    except ImageError as error:
        return str(error).removeprefix("image bytes: ")  # text: the error itself would keep the bytes in memory


def _takes_long(encoded: bytes, most: int) -> bool:
    """Whether a few bytes of JPEG make libjpeg go over more pixels than that, scan by scan."""
    if encoded.count(b"\xff" + SCAN) <= SWEEPS:  # of most files this is all that is looked at
        return False
    # Not all of those need be scans: thumbnails and profiles have such bytes, and so has a film behind the image.
    at = scans = pixels = 0
    for _ in range(SEGMENTS):
        found = MARKER.search(encoded, at)
        if found is None or found[1] == END:
            return False
        length, high, wide = (int.from_bytes(encoded[found.end() + i:found.end() + i + 2]) for i in (0, 3, 5))
        if found[1] in FRAMES:
            pixels = high * wide
        scans += found[1] == SCAN
        if scans * pixels > most:
            return True
        at = found.end() + length
    return True
