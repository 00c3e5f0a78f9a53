"""JPEG by libjpeg-turbo itself, where it is installed and gives the pixels that Pillow gives."""

import io
import struct

import numpy as np
from PIL import ExifTags, Image

try:
    import simplejpeg
except ImportError:  # deployment needs no more than numpy, Pillow and onnxruntime
    simplejpeg = None

START = b"\xff\xd8\xff"
SCAN = b"\xff\xda"
FRAMES = (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2")  # baseline, extended, progressive
JFIF = b"\xff\xe0"
TABLES = (b"\xff\xdb", b"\xff\xc4", b"\xff\xdd", b"\xff\xfe")  # quantisation, Huffman, restart interval; comment
KINDS = {("JPEG", "RGB"), ("JPEG", "L"), ("MPO", "RGB")}  # not CMYK, whose conversion is Pillow's own


def decoded(encoded: bytes, pixel_limit: int) -> np.ndarray | None:
    """The pixels of a whole, upright JPEG of at most so many: (H, W, 3) uint8 RGB; None leaves it to Pillow.

    Whatever is wrong with a file, Pillow has the last word on it, and the words that users read.
    """
    if simplejpeg is None or not encoded.startswith(START):
        return None
    try:
        if _is_bare(encoded, pixel_limit) or _is_upright(encoded, pixel_limit):
            # Strict: a mere warning of libjpeg's, as of a file cut short, raises.
            pixels: np.ndarray = simplejpeg.decode_jpeg(encoded, strict=True)
            return pixels
    except Exception:
        return None
    return None


def turned(image: Image.Image) -> bool:
    """Whether Pillow, asked to show an image upright, turns or mirrors it, as its EXIF orientation says: 2 to 8."""
    return image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)


def _is_bare(encoded: bytes, pixel_limit: int) -> bool:
    """Whether a header holds nothing but what libjpeg itself reads: to have Pillow open it takes half as long again."""
    at = 2
    while (marker := encoded[at:at + 2]) != SCAN:
        length = int.from_bytes(encoded[at + 2:at + 4])
        if marker in FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", encoded, at + 4)
            if bits != 8 or channels not in (1, 3) or height * width > pixel_limit:
                return False
        elif marker not in TABLES and (marker != JFIF or length < 16):
            return False
        at += 2 + length
    return True


def _is_upright(encoded: bytes, pixel_limit: int) -> bool:
    """Whether Pillow, given the header, would show the stored pixels as they are."""
    header = Image.open(io.BytesIO(encoded))
    return not turned(header) and (header.format, header.mode) in KINDS and header.width * header.height <= pixel_limit
