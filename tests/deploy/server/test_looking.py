"""What is looked at before an encoded image of a stranger is decoded, and what stays of a bad one."""

import gc
import io
import signal
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from deploy.preprocess import Preprocessing
from deploy.server.images import SWEEPS, seen

PREPROCESSING = Preprocessing(24, 16)
SCAN = b"\xff\xda"
PIXELS = 16 * 16  # of the images here, and the limit
TOO_MANY = f"a JPEG of at most {SWEEPS * PIXELS} pixels in all its scans expected, and of 4096 segments"


def look(encoded, max_pixels=PIXELS):
    return seen(encoded, PREPROCESSING, max_pixels)


@pytest.fixture(scope="module")
def progressive():
    """A progressive JPEG of so many scans: it has its last one, with the Huffman table of that, again and again."""
    buffer = io.BytesIO()
    Image.new("L", (16, 16), 128).save(buffer, "JPEG", progressive=True)
    encoded = buffer.getvalue()
    once = encoded.count(SCAN)
    last = encoded[encoded.rfind(b"\xff\xc4"):-2]
    assert last.count(SCAN) == 1
    return lambda scans: encoded[:-2] + last * (scans - once) + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_not_decoded(progressive):
    assert look(progressive(SWEEPS)).shape == (24, 16, 3)
    assert look(progressive(SWEEPS + 1)) == TOO_MANY
    assert look(progressive(2 * SWEEPS), max_pixels=2 * PIXELS).shape == (24, 16, 3)  # a small one may have more


def test_what_only_looks_like_scans_is_no_reason_to_refuse(progressive):
    whole, bytes_like_scans = progressive(10), SCAN * 200
    comment = b"\xff\xfe" + (len(bytes_like_scans) + 2).to_bytes(2) + bytes_like_scans
    for harmless in (whole[:2] + comment + whole[2:], whole + bytes_like_scans):  # a profile; a film behind the image
        np.testing.assert_array_equal(look(harmless), look(whole))


@pytest.mark.parametrize("between", [b"\xff" * 5, b"\x00\x17", b"\xff\x00", b"\xff\xd0", b"\xff\xfe\x00\x02",
                                     b"\xff\x02\xff\xff"],
                         ids=["fill bytes", "garbage", "a stuffed byte", "a restart marker", "a comment",
                              "a marker that a restart skips, but no segment"])
def test_scans_are_found_behind_all_that_libjpeg_skips(progressive, between):
    table_and_scan = progressive(SWEEPS)[:-2]
    last = table_and_scan[table_and_scan.rfind(b"\xff\xc4"):]
    assert look(table_and_scan + (between + last) + b"\xff\xd9") == TOO_MANY


def test_fill_bytes_without_end_take_no_time_worth_mentioning(progressive):
    whole = progressive(10)
    comment = b"\xff\xfe" + (2 * SWEEPS + 4).to_bytes(2) + SCAN * (SWEEPS + 1)
    usual = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("not done within a minute"))
    signal.alarm(60)  # time that grows with their square is minutes
    try:
        assert look(whole[:2] + comment + whole[2:-2] + b"\xff" * 2**18 + b"\x00\xff\xd9").shape == (24, 16, 3)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, usual)


def test_segments_without_end_are_not_walked_through(progressive):
    whole = progressive(10)
    assert look(whole[:2] + b"\xff\xfe\x00\x04\xff\xda" * 10_000 + whole[2:]) == TOO_MANY


def test_a_file_is_decoded_as_what_it_was_measured_as():
    head = b"II*\x00" + struct.pack("<I", 0x10101) + b": x\nImage type: RGB image\nImage size (x*y): 40*40\n\x1a"
    ones = dict.fromkeys((256, 257, 259, 277, 278, 279), 1) | {258: 8, 262: 1, 273: 8}
    tags = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in sorted(ones.items()))
    both = head.ljust(0x10101, b"\x80") + struct.pack("<H", len(ones)) + tags + bytes(4)
    # A TIFF of one pixel, and for a reader of Pillow's that is not asked an image of 40 x 40.
    np.testing.assert_array_equal(look(both, max_pixels=1), np.full((24, 16, 3), both[8]))


@pytest.mark.parametrize("bad", [
    lambda good, huge: b"no image" * 9,
    lambda good, huge: good[:len(good) // 2],
    lambda good, huge: huge(9000),
    lambda good, huge: huge(50_000),
], ids=["not an image", "truncated", "huge", "far too huge"])
def test_nothing_stays_of_a_bad_image(encoded, huge, bad):
    image = bad(encoded[0], huge)
    gc.disable()
    try:
        before = sys.getrefcount(image)
        reason = look(image, max_pixels=80_000_000)
        assert isinstance(reason, str) and sys.getrefcount(image) == before
    finally:
        gc.enable()
