"""data.augment draws as torchvision does: two samples, one question, whether they are of one distribution."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, ks_2samp

from data.augment import Augment, RandomErasing, RandomResizedCrop
from deploy.preprocess import Preprocessing

DRAWS = 3_000
CHANCE = 1e-3  # of a smaller p-value where both are the same; with fixed seeds it is drawn once and for all
SIZE = Preprocessing(32, 16)
WHITE = np.full((32, 16, 3), 255, np.uint8)


@pytest.fixture
def transforms():
    """torchvision's transforms, on a generator of their own."""
    from trainer.vision import torchvision
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield torchvision.transforms


def generators(count=DRAWS):
    return (np.random.default_rng([7, number]) for number in range(count))


def p_value_of_counts(ours, theirs):
    """Chi-squared of how often each value, of few, occurs in either sample."""
    values = np.union1d(ours, theirs)
    return chi2_contingency([[np.sum(sample == value) for value in values] for sample in (ours, theirs)]).pvalue


def measures(rectangles):
    """What is compared of rectangles given as (top, left, height, width)."""
    top, left, height, width = np.array(rectangles).T
    return {"top": top, "left": left, "height": height, "width": width, "area": height * width,
            "aspect": height / width, "middle": 2 * top + height, "centre": 2 * left + width}


def p_values(ours, theirs):
    """Kolmogorov-Smirnov, measure by measure; where values repeat, as of pixels, they come out the larger."""
    ours, theirs = measures(ours), measures(theirs)
    return {name: ks_2samp(ours[name], theirs[name]).pvalue for name in ours}


def parts(options):
    boxes = (options.box(60, 120, rng) for rng in generators())
    return [(top, left, bottom - top, right - left) for left, top, right, bottom in boxes]


def erased(options):
    found = []
    for rng in generators():
        pixels = np.zeros((64, 32, 3), np.uint8)
        options(pixels, SIZE, rng)
        rows, columns = pixels[..., 0].nonzero()
        found.append((rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1))
    return found


def test_mirroring_is_as_frequent(transforms):
    ramp = np.broadcast_to(np.arange(16, dtype=np.uint8)[:, None], (32, 16, 3))
    augment, flip = Augment(SIZE, mirror=True), transforms.RandomHorizontalFlip()
    ours = [augment(ramp, rng)[0, 0, 0] for rng in generators()]
    theirs = [int(flip(torch.arange(16)[None])[0, 0]) for _ in range(DRAWS)]
    assert set(ours) == set(theirs) == {0, 15}
    assert p_value_of_counts(ours, theirs) > CHANCE


def test_the_crop_of_the_padded_image_is_anywhere_as_often(transforms):
    rows, columns = np.mgrid[:32, :16].astype(np.uint8)
    places = np.stack([rows, columns, rows], axis=2)
    augment, padding = Augment(SIZE, padding=3), 3
    ours = np.array([augment(places, rng)[16, 8, :2] for rng in generators()], int) - (16, 8) + padding
    padded = torch.zeros(3, 32 + 2 * padding, 16 + 2 * padding)
    theirs = np.array([transforms.RandomCrop.get_params(padded, (32, 16))[:2] for _ in range(DRAWS)])
    for mine, peer in zip(ours.T, theirs.T, strict=True):
        assert set(mine) == set(peer) == set(range(2 * padding + 1))
        assert p_value_of_counts(mine, peer) > CHANCE
    assert p_value_of_counts(ours @ (7, 1), theirs @ (7, 1)) > CHANCE  # both together, 49 places


@pytest.mark.parametrize("scale, ratio", [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.2, 0.6), (2.5, 3.0))])
def test_parts_of_an_image_are_drawn_alike(transforms, scale, ratio):
    image = torch.zeros(3, 120, 60)
    theirs = [transforms.RandomResizedCrop.get_params(image, scale, ratio) for _ in range(DRAWS)]
    assert min(p_values(parts(RandomResizedCrop(scale=scale, ratio=ratio)), theirs).values()) > CHANCE


@pytest.mark.parametrize("area, ratio", [((0.02, 0.4), (0.3, 3.33)), ((0.1, 0.2), (1.0, 2.0))])
def test_erased_rectangles_are_drawn_alike(transforms, area, ratio):
    image = torch.zeros(3, 64, 32)
    theirs = [transforms.RandomErasing.get_params(image, area, ratio, [0.0])[:4] for _ in range(DRAWS)]
    assert min(p_values(erased(RandomErasing(p=1.0, area=area, ratio=ratio)), theirs).values()) > CHANCE


def test_erasing_is_as_frequent(transforms):
    augment, erase = Augment(SIZE, random_erasing={"p": 0.3}), transforms.RandomErasing(0.3, (0.02, 0.4), (0.3, 3.33))
    ours = [bool((augment(WHITE, rng) != 255).any()) for rng in generators()]
    theirs = [bool((erase(torch.ones(3, 32, 16)) == 0).any()) for _ in range(DRAWS)]
    assert p_value_of_counts(ours, theirs) > CHANCE


def test_rectangles_of_other_options_are_told_apart(transforms):
    image = torch.zeros(3, 64, 32)
    for area, ratio, measure in [((0.02, 0.34), (0.3, 3.33), "area"), ((0.02, 0.4), (0.4, 3.33), "aspect")]:
        theirs = [transforms.RandomErasing.get_params(image, area, ratio, [0.0])[:4] for _ in range(DRAWS)]
        assert p_values(erased(RandomErasing(p=1.0)), theirs)[measure] < CHANCE
