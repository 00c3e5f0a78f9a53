"""deploy.preprocess: every kind of image file, both modes, and the dict that travels in the ONNX file."""

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.preprocess import FORMATS, SUFFIXES, ImageError, Preprocessing, opened
from params.plugin import options_of

ROOT = Path(__file__).parents[2]


def decode(image):
    """The pixels of an image at its own size: (H, W, 3) uint8."""
    return np.array(opened(image))


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def photo():
    """A smooth 40 x 30 RGB image in which all four corners differ."""
    rows, columns = np.mgrid[0:30, 0:40]
    return Image.fromarray(np.stack([rows * 8, columns * 6, (rows + columns) * 3], axis=2).astype(np.uint8))


def test_bytes_file_text_path_and_array_give_the_same_pixels(photo, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(photo))
    for image in (path.read_bytes(), path, str(path), np.array(photo)):
        np.testing.assert_array_equal(decode(image), np.array(photo))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_colour_mode_becomes_rgb(mode):
    grey = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("RGB").convert(mode)
    kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    decoded = decode(encoded(grey, kind))
    assert (decoded.shape, decoded.dtype) == ((2, 2, 3), np.uint8)
    np.testing.assert_allclose(decoded[..., 0].astype(int), [[0, 255], [255, 0]], atol=2)
    np.testing.assert_allclose(decoded[..., 2].astype(int), [[0, 255], [255, 0]], atol=2)


def test_transparency_is_laid_over_white():
    image = Image.fromarray(np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 51]]], np.uint8), "RGBA")
    np.testing.assert_array_equal(decode(encoded(image))[0, :, 0], [255, 0, 204])


def test_a_palette_with_transparent_entries_is_laid_over_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    decoded = decode(encoded(image, transparency=b"\x00\xff"))
    np.testing.assert_array_equal(decoded, [[[255, 255, 255], [40, 50, 60]]])


def test_16_bit_grey_keeps_its_high_byte_instead_of_clipping():
    grey = np.array([[0, 255, 256, 0x7FFF, 0xFFFF]], np.uint16)
    for kind in ("PNG", "TIFF"):
        decoded = decode(encoded(Image.fromarray(grey), kind))
        np.testing.assert_array_equal(decoded[0, :, 1], [0, 0, 1, 127, 255])


def test_an_exif_orientation_is_applied(photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn clockwise to see it upright
    np.testing.assert_array_equal(decode(encoded(photo, exif=exif)), np.rot90(np.array(photo), -1))


def test_an_array_may_be_grey_and_is_not_written_to():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    decoded = decode(grey)
    decoded[:] = 0
    np.testing.assert_array_equal(decode(grey), np.stack([np.arange(12).reshape(3, 4)] * 3, axis=2))


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3), np.float32), np.zeros((3, 4, 4), np.uint8),
                                   np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_other_arrays_are_refused_with_their_shape(array):
    with pytest.raises(ImageError, match="image array: uint8, .* got ") as refusal:
        decode(array)
    assert str(array.shape) in str(refusal.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_truncated_file_is_refused_by_name(photo, tmp_path, kind):
    path = tmp_path / "cut.img"
    whole = encoded(photo, kind)
    path.write_bytes(whole[:len(whole) * 2 // 3])
    with pytest.raises(ImageError, match=r"cut\.img: [^\n]+$"):
        decode(path)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"{}", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_refused_in_one_line(content):
    with pytest.raises(ImageError, match=r"^image bytes: [^\n]+$"):
        decode(content)


def test_every_suffix_that_is_listed_is_of_a_format_that_is_read():
    of_suffix = Image.registered_extensions()
    assert {of_suffix[suffix] for suffix in SUFFIXES} == {*FORMATS}


def test_other_formats_of_pillow_are_refused_and_those_that_are_read_named(photo):
    named = "BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"
    for kind in ("ICO", "PCX", "TGA"):
        with pytest.raises(ImageError, match=f"^image bytes: not an image; one of {named} expected"):
            decode(encoded(photo, kind))


def test_a_jpeg_of_several_pictures_shows_its_first(photo):
    several = encoded(photo, "MPO", save_all=True, append_images=[photo.rotate(180)])
    assert Image.open(io.BytesIO(several)).n_frames == 2
    np.testing.assert_array_equal(decode(several), decode(encoded(photo, "JPEG")))


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ImageError, match="absent.jpg: No such file or directory"):
        decode(tmp_path / "absent.jpg")


@pytest.mark.parametrize("side", [9_000, 65_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side):
    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    with pytest.raises(ImageError, match="image bytes: .*limit"):
        decode(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


@pytest.mark.parametrize("pixels", [np.full((2, 2), 0.5, np.float32), np.full((2, 2), 70_000, np.int32)])
def test_32_bit_pixels_of_unknown_range_are_refused(pixels):
    with pytest.raises(ImageError, match="image bytes: 32-bit .*save the image with 8 or 16 bits"):
        decode(encoded(Image.fromarray(pixels), "TIFF"))


def test_stretch_is_pillows_resize_to_the_networks_size(photo):
    expected = photo.resize((24, 48), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(Preprocessing(48, 24)(encoded(photo)), np.array(expected))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_every_interpolation_is_the_pillow_one_of_that_name(photo, interpolation):
    expected = photo.resize((11, 7), getattr(Image.Resampling, interpolation.upper()))
    preprocessing = Preprocessing(7, 11, interpolation=interpolation)
    np.testing.assert_array_equal(preprocessing(encoded(photo)), np.array(expected))


def test_a_resize_to_fewer_pixels_is_antialiased():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    inner = Preprocessing(8, 8)(stripes)[:, 1:-1]
    assert abs(inner.astype(int) - 127).max() <= 4  # without antialiasing the stripes would alias to 0 or 255


@pytest.mark.parametrize("size, resize", [((40, 30), 16), ((30, 40), 16), ((33, 21), 19), ((9, 90), None)])
def test_centre_crop_is_torchvisions_resize_and_centre_crop(size, resize):
    from trainer.vision import torchvision
    transforms = torchvision.transforms
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size, 3), np.uint8))
    peer = transforms.Compose([transforms.Resize(resize or 16), transforms.CenterCrop(16)])
    preprocessing = Preprocessing(16, 16, mode="centre_crop", resize=resize)
    np.testing.assert_array_equal(preprocessing(np.array(image)), np.array(peer(image)))


def test_centre_crop_of_an_oblong_network_just_covers_it(photo):
    # 40 x 30 must cover 10 x 20: two thirds of it, 26 x 20, of which the middle 10 columns remain.
    expected = photo.resize((26, 20), Image.Resampling.BILINEAR).crop((8, 0, 18, 20))
    cropped = Preprocessing(20, 10, mode="centre_crop")(encoded(photo))
    np.testing.assert_array_equal(cropped, np.array(expected))


@pytest.mark.parametrize("resize, sides", [(24, (24, 24)), ([20, 26], (20, 26))])
def test_a_stretch_to_more_than_the_networks_size_is_torchvisions_resize_and_centre_crop(photo, resize, sides):
    from trainer.vision import torchvision
    transforms = torchvision.transforms
    peer = transforms.Compose([transforms.Resize(sides), transforms.CenterCrop((18, 16))])
    preprocessing = Preprocessing(18, 16, resize=resize)
    np.testing.assert_array_equal(preprocessing(encoded(photo)), np.array(peer(photo)))


def test_centre_crop_covers_a_pair_of_sides_and_keeps_the_aspect_ratio(photo):
    # 40 x 30 must cover 12 x 24: four fifths of it, 32 x 24, of which the middle remains.
    expected = photo.resize((32, 24), Image.Resampling.BILINEAR).crop((11, 2, 21, 22))
    cropped = Preprocessing(20, 10, mode="centre_crop", resize=[24, 12])(encoded(photo))
    np.testing.assert_array_equal(cropped, np.array(expected))


def test_a_thread_like_image_is_refused_instead_of_filling_the_memory():
    with pytest.raises(ImageError, match="image of 1 x 30000: too thin"):
        Preprocessing(224, 224, mode="centre_crop")(np.zeros((30_000, 1), np.uint8))


def test_the_pixel_limit_of_a_call_is_one_for_the_resized_image_too():
    cropped = Preprocessing(24, 16, mode="centre_crop", resize=32)
    assert cropped(np.zeros((40, 1), np.uint8), pixel_limit=32 * 1280).shape == (24, 16, 3)
    with pytest.raises(ImageError, match="image of 1 x 41: too thin .* at 32 x 1312; the limit is 40960 pixels"):
        cropped(np.zeros((41, 1), np.uint8), pixel_limit=32 * 1280)
    # However few pixels a file may have, those that every image is brought to are not too many.
    assert cropped(np.zeros((4, 4), np.uint8), pixel_limit=16).shape == (24, 16, 3)


def test_a_pair_of_sides_survives_json():
    preprocessing = Preprocessing(224, 224, resize=[256, 240])
    described = json.loads(json.dumps(preprocessing.to_dict()))
    assert described["resize"] == [256, 240]
    assert Preprocessing.from_dict(described) == preprocessing


def test_the_dict_survives_json_and_names_what_is_fixed():
    preprocessing = Preprocessing(224, 200, mode="centre_crop", resize=256, interpolation="bicubic",
                                  mean=[0.5, 0.5, 0.5], std=[0.5, 0.25, 0.125])
    described = json.loads(json.dumps(preprocessing.to_dict()))
    assert described == {
        "decoder": "pillow", "colour": "rgb", "antialias": True, "height": 224, "width": 200,
        "mode": "centre_crop", "resize": 256, "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.25, 0.125]}
    assert Preprocessing.from_dict(described) == preprocessing
    assert hash(Preprocessing.from_dict(described)) == hash(preprocessing)


@pytest.mark.parametrize("change, message", [
    ({"decoder": "opencv"}, r"preprocess\.decoder: 'pillow' expected, got 'opencv'"),
    ({"antialias": False}, r"preprocess\.antialias: True expected"),
    ({"gamma": None}, r"preprocess\.gamma: no such key"),
    ({"mode": "letterbox"}, r"preprocess\.mode: one of"),
    ({"height": "256"}, r"preprocess: "),
])
def test_a_dict_that_asks_for_other_pixels_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_dict(Preprocessing(256, 128).to_dict() | change)


@pytest.mark.parametrize("options, message", [
    ({"resize": 200}, r"preprocess\.resize: .* at least 256 x 128, .* at most 4096 expected, got 200"),
    ({"resize": [256, 127]}, r"preprocess\.resize: .* at least 256 x 128, .* expected, got \(256, 127\)"),
    ({"resize": [256, 256, 256]}, r"preprocess\.resize: a number or \[height, width\], .*, got \(256, 256, 256\)"),
    ({"mode": "centre_crop", "resize": 200}, r"preprocess\.resize: .* at least 256 x 128, .* expected, got 200"),
    ({"mode": "centre_crop", "resize": 1_000_000}, r"preprocess\.resize: .* at most 4096 expected, got 1000000"),
    ({"interpolation": "cubic"}, r"preprocess\.interpolation: one of"),
    ({"mean": [0.5]}, r"preprocess\.mean: three numbers from 0 to 1 expected, got \[0.5\]"),
    ({"mean": [123.7, 116.3, 103.5]}, r"preprocess\.mean"),
    ({"std": [0.2, 0.2, 0.0]}, r"preprocess\.std: three numbers above 0"),
])
def test_contradictory_options_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
        Preprocessing(256, 128, **options)


def test_an_empty_network_size_is_refused():
    with pytest.raises(ValueError, match="height, width: at least 1 expected, got 0 x 128"):
        Preprocessing(0, 128)


def test_the_keyword_arguments_are_the_keys_of_params():
    options = options_of(Preprocessing)
    assert list(options.model_fields) == ["mode", "resize", "interpolation", "mean", "std"]
    for given in ({"mode": "centre_crop", "resize": 256, "mean": [0.5, 0.5, 0.5]}, {"resize": [256, 240]}):
        parsed = options.model_validate(given).model_dump()
        assert Preprocessing(224, 224, **parsed) == Preprocessing(224, 224, **given)
    with pytest.raises(ValueError, match="std"):
        options.model_validate({"std": "0.5"})


def test_nothing_but_numpy_and_pillow_is_loaded():
    loaded = "{'torch', 'pydantic', 'params', 'data', 'trainer'} & {*sys.modules}"
    command = [sys.executable, "-c", f"import sys, deploy.preprocess; print({loaded})"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
