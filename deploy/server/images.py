"""Encoded images that strangers send: looked at before they are decoded."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..preprocess import ImageError, Preprocessing

# Not all that Pillow reads: some of its readers are seldom used and seldom checked, and one runs other programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def seen(encoded: bytes, preprocessing: Preprocessing, max_pixels: int) -> np.ndarray | ImageError:
    """The pixels that the network sees of an image of at most so many, or why it cannot be used."""
    try:
        width, height = _size(encoded)
        if width * height > max_pixels:
            raise ImageError(f"{width} x {height} pixels; the limit is {max_pixels} pixels")
        return preprocessing(encoded)
    except ImageError as error:
        return error


def _size(encoded: bytes) -> tuple[int, int]:
    """Width and height by the header alone."""
    if not encoded:
        raise ImageError("0 bytes")
    try:
        return Image.open(io.BytesIO(encoded), formats=FORMATS).size
    except UnidentifiedImageError:
        raise ImageError(f"not an image; one of {', '.join(FORMATS)} expected") from None
    except Exception as error:  # Pillow's readers let many kinds through on damaged files
        raise ImageError(str(error) or type(error).__name__) from error
