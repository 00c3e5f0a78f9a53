"""Pictures that were stored again are found, and nothing else."""

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from data.likeness import ALIKE, ROWS, SIDE, like_pairs, thumbnail


def pictures(count):
    """Photographs of nothing: smooth colours, 96 x 64."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((64, 96), Image.Resampling.BICUBIC) for one in coarse]


def saved(image, quality):
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality)
    return Image.open(encoded)


def thumbnails(images):
    return np.stack([thumbnail(image.convert("RGB")) for image in images])


def all_like(first, second):
    """All pairs, in order."""
    return sorted(pair for block in like_pairs(first, second) for pair in block.tolist())


AGAIN = {
    "at quality 40": lambda image: saved(image, 40),
    "at half its size": lambda image: saved(image.resize((32, 48)), 90),
    "brighter": lambda image: saved(ImageEnhance.Brightness(image).enhance(1.05), 90),
}


@pytest.mark.parametrize("how", AGAIN)
def test_a_picture_is_known_when_it_is_stored_again(how):
    images = pictures(100)
    found = all_like(thumbnails(images), thumbnails([AGAIN[how](image) for image in images]))
    assert found == [[i, i] for i in range(100)]


def test_the_same_shape_in_other_colours_is_another_picture():
    images = pictures(20)
    swapped = [Image.fromarray(np.asarray(image)[..., [0, 2, 1]] // 2 + np.uint8([90, 0, 0])) for image in images]
    assert len(all_like(thumbnails(images), thumbnails(swapped))) == 0


def test_plain_images_are_like_nothing():
    plain = np.full((3, SIDE, SIDE, 3), 200, np.uint8)
    plain[:, 0, 0] = [[198] * 3, [202] * 3, [200] * 3]
    assert len(all_like(plain, plain)) == 0


def test_the_pairs_are_all_that_there_are():
    random = np.random.default_rng(1)
    pictures = random.integers(0, 256, (20, SIDE, SIDE, 3))
    noise = random.integers(-25, 26, (ROWS + 40, SIDE, SIDE, 3)) * random.random((ROWS + 40, 1, 1, 1))
    images = np.clip(np.resize(pictures, noise.shape) + noise, 0, 255).astype(np.uint8)
    first, second = images, images[::3]
    expected = np.corrcoef(first.reshape(len(first), -1), second.reshape(len(second), -1))[:len(first), len(first):]
    found = all_like(first, second)
    np.testing.assert_array_equal(found, np.argwhere(expected >= ALIKE))
    assert len(second) < len(found) < len(first) * len(second) / 20


def test_of_no_image_there_is_no_pair():
    none, some = np.empty((0, SIDE, SIDE, 3), np.uint8), thumbnails(pictures(2))
    assert all_like(none, some) == all_like(some, none) == all_like(none, none) == []


def test_memory_does_not_grow_with_the_pairs():
    picture = thumbnails(pictures(1)).repeat(2500, axis=0)
    tracemalloc.start()
    assert sum(len(block) for block in like_pairs(picture, picture)) == 2500 ** 2
    largest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest < 60 << 20  # the pairs alone would take 95 MiB
