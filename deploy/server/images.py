"""Encoded images that strangers send: looked at before they are decoded."""

import re

import numpy as np

from ..preprocess import ImageError, Preprocessing

SCANS = 64  # of a JPEG, each of which goes over all pixels once more: most have one, progressive ones about ten
SEGMENTS = 4096  # likewise; those with many profiles and thumbnails have hundreds
SCAN, END = b"\xda", b"\xd9"
MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd8])")  # the next one with a length, as libjpeg finds it


def seen(encoded: bytes, preprocessing: Preprocessing, max_pixels: int) -> np.ndarray | str:
    """The pixels that the network sees of an image of at most so many, or why it cannot be used."""
    if not encoded:
        return "0 bytes"
    if encoded.startswith(b"\xff\xd8\xff") and _takes_long(encoded):
        return f"a JPEG of more than {SCANS} scans or {SEGMENTS} segments"
    try:
        return preprocessing(encoded, pixel_limit=max_pixels)
    except ImageError as error:
        return str(error).removeprefix("image bytes: ")  # text: the error itself would keep the bytes in memory


def _takes_long(encoded: bytes) -> bool:
    """Whether a few bytes of JPEG make libjpeg go over all pixels again and again."""
    if encoded.count(b"\xff" + SCAN) <= SCANS:  # of most files this is all that is looked at
        return False
    # Not all of those need be scans: thumbnails and profiles have such bytes, and so has a film behind the image.
    at = scans = 0
    for _ in range(SEGMENTS):
        found = MARKER.search(encoded, at)
        if found is None or found[1] == END:
            return False
        scans += found[1] == SCAN
        if scans > SCANS:
            return True
        at = found.end() + int.from_bytes(encoded[found.end():found.end() + 2])
    return True
