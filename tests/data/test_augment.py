"""data.augment: each step against what it promises; what it draws, against torchvision, is in another file."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from data.augment import Augment, ColourJitter, RandomErasing, RandomResizedCrop
from deploy.preprocess import Preprocessing
from params.plugin import options_of

STRETCH = Preprocessing(32, 16)
MEAN_COLOUR = [124, 116, 104]  # ImageNet's mean in grey levels
EVERYTHING = {"mirror": True, "padding": 3, "rotation": 10.0, "colour_jitter": {"hue": 0.1},
              "random_erasing": {"p": 1.0, "value": "random"}, "gaussian_noise": 2.0}


@pytest.fixture
def encoded():
    """A JPEG of 20 x 40 smooth random colours."""
    coarse = np.random.default_rng(0).integers(30, 220, (5, 3, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((20, 40), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture
def transforms():
    """torchvision's transforms."""
    from trainer.vision import torchvision
    return torchvision.transforms


def rng(*seed):
    return np.random.default_rng(seed)


def variants(augment, image, count):
    return np.stack([augment(image, rng(number)) for number in range(count)])


def test_with_everything_off_the_preprocessing_remains(encoded):
    np.testing.assert_array_equal(Augment(STRETCH)(encoded, rng(1)), STRETCH(encoded))


@pytest.mark.parametrize("preprocessing", [STRETCH, Preprocessing(16, 16, mode="centre_crop", resize=24)])
@pytest.mark.parametrize("options", [EVERYTHING, {"random_resized_crop": True}])
def test_a_variant_is_a_function_of_the_image_and_the_generator(encoded, preprocessing, options):
    augment = Augment(preprocessing, **options)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = augment(encoded, rng(4, 2))
    assert (first.shape, first.dtype) == ((preprocessing.height, preprocessing.width, 3), np.uint8)
    np.testing.assert_array_equal(augment(encoded, rng(4, 2)), first)
    assert (augment(encoded, rng(4, 3)) != first).any()
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


def test_an_array_given_as_image_is_not_written_to():
    image = np.full((32, 16, 3), 200, np.uint8)
    image.flags.writeable = False
    assert (Augment(STRETCH, **EVERYTHING)(image, rng(1)) != 200).any()


def test_half_of_the_variants_are_mirrored(encoded):
    plain = STRETCH(encoded)
    drawn = variants(Augment(STRETCH, mirror=True), encoded, 400)
    mirrored = (drawn == plain[:, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored ^ (drawn == plain).all(axis=(1, 2, 3))).all()
    assert 150 < mirrored.sum() < 250  # 5 standard deviations


def test_padding_shifts_the_image_over_black_by_every_amount_equally_often():
    image = np.full((32, 16, 3), 255, np.uint8)
    moved = variants(Augment(STRETCH, padding=2), image, 1_000)[..., 0]
    tops = [row.argmax() - row[::-1].argmax() for row in moved.any(axis=2)]
    lefts = [column.argmax() - column[::-1].argmax() for column in moved.any(axis=1)]
    for shifts in (tops, lefts):
        assert sorted(set(shifts)) == [-2, -1, 0, 1, 2]
        assert np.bincount(np.array(shifts) + 2).min() > 140  # 200 expected, standard deviation 12.6
    assert set(np.unique(moved)) == {0, 255}


def test_centre_crop_mode_cuts_anywhere_from_the_resized_image():
    ramp = np.tile(np.arange(24, dtype=np.uint8) * 10, (24, 1))
    augment = Augment(Preprocessing(16, 16, mode="centre_crop", resize=24))
    assert set(variants(augment, ramp, 200)[:, 0, 0, 0]) == {10 * left for left in range(9)}


def test_a_stretch_to_more_than_the_networks_size_is_cut_anywhere():
    ramp = np.tile(np.arange(24, dtype=np.uint8) * 10, (24, 1))
    drawn = variants(Augment(Preprocessing(16, 16, resize=[24, 20])), ramp, 300)
    whole = np.array(Image.fromarray(ramp).convert("RGB").resize((20, 24), Image.Resampling.BILINEAR))
    offsets = {tuple(variant[0, :, 0]) for variant in drawn}
    assert offsets == {tuple(whole[0, left:left + 16, 0]) for left in range(5)}
    columns = variants(Augment(Preprocessing(16, 16, resize=[24, 20])), ramp.T.copy(), 300)[:, :, 0, 0]
    assert len({tuple(column) for column in columns}) == 9


def test_rotation_stays_within_its_degrees_and_turns_both_ways():
    square = Preprocessing(65, 65)
    bar = np.zeros((65, 65), np.uint8)
    bar[:, 31:34] = 255
    tops = variants(Augment(square, rotation=20.0), bar, 60)[:, 4, :, 0].astype(float)
    angles = np.degrees(np.arctan(((tops @ np.arange(65)) / tops.sum(axis=1) - 32) / 28))
    assert -20.5 < angles.min() < -15 and 15 < angles.max() < 20.5


def test_a_crop_that_never_fits_is_torchvisions_centre(transforms):
    image = Image.new("RGB", (200, 10))
    options = RandomResizedCrop(scale=(1.0, 1.0))
    top, left, height, width = transforms.RandomResizedCrop.get_params(image, [1.0, 1.0], [3 / 4, 4 / 3])
    assert options.box(200, 10, rng(0)) == (left, top, left + width, top + height)


def test_a_resized_crop_is_the_part_at_the_networks_size(encoded, transforms):
    box = RandomResizedCrop().box(20, 40, rng(6))
    image = Image.open(io.BytesIO(encoded))
    expected = image.crop(box).resize((16, 32), Image.Resampling.BILINEAR)
    variant = Augment(STRETCH, random_resized_crop=True)(encoded, rng(6))
    np.testing.assert_array_equal(variant, np.array(expected))


def test_erasing_fills_one_rectangle_with_the_mean_colour_and_leaves_the_rest(encoded):
    plain = STRETCH(encoded)
    erased = Augment(STRETCH, random_erasing=RandomErasing(p=1.0))(encoded, rng(3))
    rows, columns = (erased == MEAN_COLOUR).all(axis=2).nonzero()
    inside = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    assert (erased[inside] == MEAN_COLOUR).all()
    restored = erased.copy()
    restored[inside] = plain[inside]
    np.testing.assert_array_equal(restored, plain)


def test_erasing_happens_with_probability_p(encoded):
    erased = variants(Augment(STRETCH, random_erasing={"p": 0.3}), encoded, 400) != STRETCH(encoded)
    assert 0.3 * 400 - 46 < erased.any(axis=(1, 2, 3)).sum() < 0.3 * 400 + 46  # 5 standard deviations


def test_random_erasing_values_are_standard_normal_once_normalised():
    # Small standard deviations, so that hardly a value is clipped.
    preprocessing = Preprocessing(64, 64, mean=[0.5, 0.4, 0.6], std=[0.1, 0.1, 0.1])
    erase = RandomErasing(p=1.0, area=(0.4, 0.4), ratio=(1.0, 1.0), value="random")
    pixels = np.zeros((64, 64, 3), np.uint8)
    erase(pixels, preprocessing, rng(1))
    values = pixels[pixels.any(axis=2)] / 255
    normalised = (values - preprocessing.mean) / preprocessing.std
    assert abs(normalised.mean(axis=0)).max() < 0.1
    assert abs(normalised.std(axis=0) - 1).max() < 0.1


def test_brightness_scales_all_levels_within_its_strength():
    grey = np.full((32, 16, 3), 100, np.uint8)
    jitter = ColourJitter(brightness=0.2, contrast=0, saturation=0)
    levels = variants(Augment(STRETCH, colour_jitter=jitter), grey, 200)[:, 0, 0, 0]
    assert (80 <= levels.min() <= 82) and (118 <= levels.max() <= 120)


def test_contrast_of_a_flat_and_saturation_of_a_grey_image_change_nothing():
    grey = np.full((32, 16, 3), 100, np.uint8)
    jitter = ColourJitter(brightness=0, contrast=0.5, saturation=0.5)
    assert (variants(Augment(STRETCH, colour_jitter=jitter), grey, 50) == 100).all()


def test_hue_turns_colours_within_its_strength():
    red = np.zeros((32, 16, 3), np.uint8)
    red[..., 0] = 255
    jitter = ColourJitter(brightness=0, contrast=0, saturation=0, hue=0.1)
    hues = [Image.fromarray(variant).convert("HSV").getpixel((0, 0))[0]
            for variant in variants(Augment(STRETCH, colour_jitter=jitter), red, 100)]
    turns = (np.array(hues) + 128) % 256 - 128  # 256 levels are one turn
    assert -27 <= turns.min() < -15 and 15 < turns.max() <= 27


def test_colour_steps_come_in_random_order():
    # Black and nearly white in equal parts. Brightened, then less contrast: white is cut off at 255, then
    # black rises as far as white falls. The other way round both rise.
    image = np.zeros((32, 16, 3), np.uint8)
    image[:16] = 250
    jitter = ColourJitter(brightness=0.9, contrast=0.9, saturation=0)
    drawn = variants(Augment(STRETCH, colour_jitter=jitter), image, 60)[:, :, 0, 0].astype(int)
    white, black = drawn[:, 0], drawn[:, -1]
    assert (abs(white + black - 255) <= 1)[black > 1].sum() > 4
    assert (white + black > 260)[black > 1].sum() > 4


@pytest.mark.parametrize("ratio", [0.01, 100.0])
def test_the_most_extreme_ratio_leaves_a_part_of_the_smallest_image(ratio):
    image = np.full((2, 2, 3), 99, np.uint8)
    augment = Augment(STRETCH, random_resized_crop={"ratio": [ratio, ratio]}, random_erasing={"ratio": [ratio, ratio]})
    assert augment(image, rng(0)).shape == (32, 16, 3)


def test_noise_is_rounded_and_clipped_never_wrapped():
    image = np.zeros((32, 16, 3), np.uint8)
    image[16:] = 255
    noisy = Augment(STRETCH, gaussian_noise=3.0)(image, rng(1))
    assert noisy[:16].max() < 20 and noisy[16:].min() > 235
    grey = Augment(STRETCH, gaussian_noise=3.0)(np.full((32, 16, 3), 128, np.uint8), rng(1)).astype(float)
    assert abs(grey.mean() - 128) < 0.5 and abs(grey.std() - 3) < 0.3


def test_padding_beside_a_resized_crop_is_refused():
    with pytest.raises(ValueError, match="^data_augmentation.padding: random_resized_crop leaves nothing"):
        Augment(STRETCH, padding=10, random_resized_crop=True)


@pytest.mark.parametrize("section", [
    EVERYTHING,
    {"random_resized_crop": {"scale": [0.2, 1.0], "ratio": [0.5, 2]}, "colour_jitter": True},
    {"random_erasing": True, "mirror": False, "rotation": 0},
    {"random_erasing": {}},
])
def test_the_keys_of_params_build_the_same_augmentation(encoded, section):
    parsed = options_of(Augment).model_validate(section)
    expected = Augment(STRETCH, **section)(encoded, rng(8))
    for options in (parsed.model_dump(), dict(parsed)):  # plain dicts, and the option types themselves
        np.testing.assert_array_equal(Augment(STRETCH, **options)(encoded, rng(8)), expected)


def test_an_empty_object_means_the_defaults_not_off(encoded):
    on = Augment(STRETCH, random_erasing=True)
    np.testing.assert_array_equal(
        variants(Augment(STRETCH, random_erasing={}), encoded, 8), variants(on, encoded, 8))


@pytest.mark.parametrize("section", [
    {"mirror": 1}, {"padding": -1}, {"padding": 1.5}, {"rotation": 200}, {"gaussian_noise": -1},
    {"colour_jitter": {"hue": 0.6}}, {"random_erasing": {"probability": 0.5}}, {"random_erasing": {"p": 2}},
    {"random_erasing": {"area": [0.4, 0.02]}}, {"random_erasing": {"area": [0.02, 1.4]}},
    {"random_resized_crop": {"ratio": [1.0]}}, {"random_erasing": 0.5}, {"gaussian_noise": 1e300},
    {"random_resized_crop": {"ratio": [1e-300, 1]}}, {"random_erasing": {"ratio": [1, 1e300]}},
])
def test_sections_out_of_range_are_refused_by_the_schema(section):
    with pytest.raises(ValueError, match="|".join(section)):
        options_of(Augment).model_validate(section)


@pytest.mark.parametrize("seed", range(20))
def test_padding_larger_than_the_network_s_size_may_leave_nothing_of_the_image(seed):
    image = np.full((40, 20, 3), 255, np.uint8)
    variant = Augment(Preprocessing(32, 16), padding=40)(image, rng(seed))
    down, across = (np.flatnonzero(variant[..., 0].any(axis=axis)) for axis in (1, 0))
    assert variant.shape == (32, 16, 3)
    assert (variant[down[:, None], across] == 255).all()


def test_padding_larger_than_the_network_s_size_shows_the_image_at_times():
    image = np.full((40, 20, 3), 255, np.uint8)
    seen = variants(Augment(Preprocessing(32, 16), padding=40), image, 100)
    assert {bool(variant.any()) for variant in seen} == {False, True}
