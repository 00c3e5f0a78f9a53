"""JPEG by libjpeg-turbo itself, where it is installed and gives the pixels that Pillow gives."""

import io

import numpy as np
from PIL import ExifTags, Image

try:
    import simplejpeg
except ImportError:  # deployment needs no more than numpy, Pillow and onnxruntime
    simplejpeg = None

KINDS = {("JPEG", "RGB"), ("JPEG", "L"), ("MPO", "RGB")}  # not CMYK, whose conversion is Pillow's own


def decoded(encoded: bytes, pixel_limit: int) -> np.ndarray | None:
    """The pixels of a whole, upright JPEG of at most so many: (H, W, 3) uint8 RGB; None leaves it to Pillow.

    Whatever is wrong with a file, Pillow has the last word on it, and the words that users read.
    """
    if simplejpeg is None or not encoded.startswith(b"\xff\xd8\xff"):
        return None
    try:
        header = Image.open(io.BytesIO(encoded))
        upright = header.getexif().get(ExifTags.Base.Orientation, 1) == 1
        if upright and (header.format, header.mode) in KINDS and header.width * header.height <= pixel_limit:
            # Strict: a mere warning of libjpeg's, as of a file cut short, raises.
            pixels: np.ndarray = simplejpeg.decode_jpeg(encoded, strict=True)
            return pixels
    except Exception:
        return None
    return None
