"""data.resize: Pillow's pixels, whoever computes them."""

import numpy as np
import pytest
from PIL import Image

from data.resize import AT_ONCE, Resize, resized
from deploy.preprocess import Preprocessing

BILINEAR = Preprocessing(1, 1)


def noise(height, width, seed=0):
    """Noise, of which every other image has its extremes alone."""
    rng = np.random.default_rng([seed, height, width])
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    return np.where(image < 128, np.uint8(0), np.uint8(255)) if (height + width) % 2 else image


def assert_as_pillow(images, preprocessing=BILINEAR):
    resample = Image.Resampling[preprocessing.interpolation.upper()]
    for image, pixels in zip(images, resized(images, preprocessing), strict=True):
        expected = Image.fromarray(image.pixels).resize((image.width, image.height), resample)
        np.testing.assert_array_equal(pixels, np.array(expected), str((image.pixels.shape, pixels.shape)))


def test_every_size_enlarged_to_a_power_of_two_is_pillows():
    assert_as_pillow([Resize(noise(side, (side + 1) // 2), 256, 128) for side in range(1, 257)])
    assert_as_pillow([Resize(noise(5, side), 8, 4096) for side in (1, 2, 3, 1000, 2049, 4095, 4096)])


@pytest.mark.parametrize("before, after", [
    (112, 224), (28, 224), (7, 224), (96, 384), (60, 320), (99, 352), (3, 3), (1, 5), (40, 160)])
def test_sides_enlarged_by_a_power_of_two_over_a_whole_number_are_pillows(before, after):
    assert_as_pillow([Resize(noise(before, after), after, after), Resize(noise(after, before), after, after),
                      Resize(noise(before, before), after, after)])


@pytest.mark.parametrize("before, after", [
    ((300, 140), (256, 128)), ((100, 300), (256, 128)), ((128, 64), (224, 224)), ((64, 64), (32, 32)),
    ((33, 21), (224, 192)), ((375, 500), (224, 224)), ((9, 9), (8200, 8))])
def test_all_other_sizes_are_pillows(before, after):
    assert_as_pillow([Resize(noise(*before, seed), *after) for seed in range(3)])


@pytest.mark.parametrize("interpolation", ["nearest", "bicubic", "lanczos"])
def test_all_other_interpolations_are_pillows(interpolation):
    assert_as_pillow([Resize(noise(12, 7), 24, 16)], Preprocessing(1, 1, interpolation=interpolation))


def test_images_of_several_sizes_come_in_the_order_in_which_they_were_given():
    before = [(8, 4)] * (2 * AT_ONCE + 3) + [(9, 4), (8, 4), (16, 8), (40, 30), (8, 4)]
    after = [(16, 8)] * (AT_ONCE + 1) + [(32, 8)] * (len(before) - AT_ONCE - 1)
    assert_as_pillow([Resize(noise(*old, seed), *new)
                      for seed, (old, new) in enumerate(zip(before, after, strict=True))])


def test_a_part_of_an_image_knows_nothing_of_the_rest():
    image = noise(40, 30)
    assert_as_pillow([Resize(image[4:20, 5:21], 32, 32), Resize(image[4:39, 5:25], 32, 32)])


def test_no_image_gives_none():
    assert list(resized([], BILINEAR)) == []
