"""deploy.jpeg: the pixels and the refusals of Pillow, on every kind of JPEG file, whole or damaged."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageCms

from deploy import jpeg
from deploy.preprocess import PIXEL_LIMIT, ImageError, opened

ROOT = Path(__file__).parents[2]
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")  # that Pillow writes
ORIENTATION = 0x0112


def photo(width, height, seed=0):
    """Smooth colours with some noise, as of a camera."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
    smooth = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return Image.fromarray((smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8))


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def exif(orientation=None):
    tags = Image.Exif()
    tags[0x010E] = "a description"
    if orientation:
        tags[ORIENTATION] = orientation
    return tags


def upright_files():
    """Names and JPEG files that show what they hold, from one pixel on."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kinds = {"plain": {}, "progressive": {"progressive": True}, "optimised": {"optimize": True},
             "restart markers": {"restart_marker_blocks": 3}, "ICC profile": {"icc_profile": profile},
             "exif": {"exif": exif()}, "exif upright": {"exif": exif(1)}, "exif unknown": {"exif": exif(99)},
             "comment": {"comment": b"by hand"},
             "RGB": {"keep_rgb": True}}
    for i, (kind, options) in enumerate(kinds.items()):
        for side in (1, 7, 16, 33, 70):
            for quality in (10, 60, 95, 100):
                image = photo(side, 2 * side - 1, i)
                yield f"{kind}, grey", encoded(image.convert("L"), quality=quality, **options)
                for name in SUBSAMPLINGS[:1 if kind == "RGB" else None]:
                    yield f"{kind}, {name}", encoded(image, quality=quality, subsampling=name, **options)
                for name in ("440", "411"):
                    yield name, simplejpeg.encode_jpeg(np.array(image), quality, colorsubsampling=name)
    yield "a large one", encoded(photo(501, 377), quality=90)


def by_pillow(file):
    return np.array(Image.open(io.BytesIO(file)).convert("RGB"))


def test_every_kind_of_jpeg_has_pillows_pixels():
    for name, file in upright_files():
        pixels = jpeg.decoded(file, PIXEL_LIMIT)
        assert pixels is not None, name
        np.testing.assert_array_equal(pixels, by_pillow(file), name)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_jpeg_that_has_to_be_turned_is_left_to_pillow(orientation):
    image = photo(20, 12)
    for file in (encoded(image, exif=exif(orientation)),
                 encoded(image, xmp=b'<x tiff:Orientation="%d"/>' % orientation)):
        assert jpeg.decoded(file, PIXEL_LIMIT) is None
        assert opened(file).size == ((20, 12) if orientation < 5 else (12, 20))


def test_what_is_no_plain_jpeg_is_left_to_pillow():
    cmyk = encoded(photo(20, 12).convert("CMYK"))
    png = io.BytesIO()
    photo(20, 12).save(png, "PNG")
    for file in (cmyk, png.getvalue(), b"", b"\xff\xd8\xff", b"no image"):
        assert jpeg.decoded(file, PIXEL_LIMIT) is None
    np.testing.assert_array_equal(np.array(opened(cmyk)), by_pillow(cmyk))


def damaged_files(count):
    """Files cut short, with other bytes in header or body, with bytes too few or too many."""
    rng = np.random.default_rng(0)
    whole = [encoded(photo(24, 33, i), **options)
             for i, options in enumerate([{}, {"progressive": True}, {"exif": exif(1)}, {"restart_marker_blocks": 2}])]
    for number in range(count):
        file = bytearray(whole[number % len(whole)])
        at = int(rng.integers(3, len(file)))
        match number // len(whole) % 5:
            case 0:
                del file[at:]
            case 1:
                file[at] ^= int(rng.integers(1, 256))
            case 2:
                file[at * 640 // len(file)] ^= int(rng.integers(1, 256))  # most of it is header
            case 3:
                del file[at:at + int(rng.integers(1, 20))]
            case _:
                file[at:at] = rng.bytes(5)
        yield bytes(file)
    yield from (file[:-cut] for file in whole for cut in (1, 2, 3))


def outcome(file):
    """The pixels, or what users are told."""
    try:
        return opened(file).tobytes()
    except ImageError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged EXIF
def test_damaged_files_are_refused_or_read_exactly_as_without_simplejpeg(monkeypatch):
    files = list(damaged_files(600))
    fast = [jpeg.decoded(file, PIXEL_LIMIT) is not None for file in files]
    outcomes = [outcome(file) for file in files]
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    for number, file in enumerate(files):
        assert outcome(file) == outcomes[number], number
    refused = [isinstance(told, str) for told in outcomes]
    assert sum(refused) > 150 and sum(fast) > 50 and not any(map(bool.__and__, refused, fast))


def test_the_pixel_limit_holds_before_anything_is_decoded():
    file = bytearray(encoded(photo(16, 16)))
    size = file.index(b"\xff\xc0") + 5
    file[size:size + 4] = (60_000).to_bytes(2) * 2
    assert jpeg.decoded(bytes(file), PIXEL_LIMIT) is None
    with pytest.raises(ImageError, match="image bytes: .*limit"):
        opened(bytes(file))
    file[size:size + 4] = (9_000).to_bytes(2) * 2
    assert jpeg.decoded(bytes(file), PIXEL_LIMIT) is None
    with pytest.raises(ImageError, match="image bytes: 9000 x 9000 pixels; the limit is 80000000 pixels"):
        opened(bytes(file))
    assert jpeg.decoded(encoded(photo(10, 10)), 99) is None
    assert jpeg.decoded(encoded(photo(10, 10)), 100) is not None


def test_without_simplejpeg_the_pixels_are_the_same(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(photo(40, 30)))
    code = ("import sys; sys.modules['simplejpeg'] = None\n"
            "from deploy.preprocess import opened\n"
            "sys.stdout.buffer.write(opened(sys.argv[1]).tobytes())")
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == opened(path).tobytes()
