"""Random variants of a training image, each drawn from the one generator that is given with it."""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Annotated, Literal, TypeVar

import numpy as np
from PIL import Image, ImageEnhance
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from data.resize import Resize, resized
from deploy.preprocess import ImageSource, Preprocessing, decoded

TRIES = 10  # to draw a rectangle that fits; as many as torchvision


def _rising(pair: Sequence[float]) -> Sequence[float]:
    low, high = pair
    if low > high:
        raise ValueError(f"[low, high] expected, got [{low}, {high}]")
    return pair


_Pair = (Field(min_length=2, max_length=2), AfterValidator(_rising))
Fractions = Annotated[Sequence[Annotated[float, Field(gt=0, le=1)]], *_Pair]
Ratios = Annotated[Sequence[Annotated[float, Field(ge=0.01, le=100)]], *_Pair]


class _Option(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Option = TypeVar("Option", bound=_Option)


class RandomResizedCrop(_Option):
    """A random part of the image becomes the whole; Szegedy et al., Going Deeper with Convolutions, 2015."""

    scale: Annotated[Fractions, Field(description="part's area / image's area, uniform")] = (0.08, 1.0)
    ratio: Annotated[Ratios, Field(description="part's width / height in the image, log-uniform")] = (3 / 4, 4 / 3)

    def box(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the part; where none fits, the centre with the nearest ratio."""
        for _ in range(TRIES):
            across, down = _random_sides(width * height, self.scale, self.ratio, rng)
            if 0 < across <= width and 0 < down <= height:
                left, top = int(rng.integers(width - across + 1)), int(rng.integers(height - down + 1))
                return left, top, left + across, top + down
        across = min(width, max(1, round(height * self.ratio[1])))
        down = min(height, max(1, round(width / self.ratio[0])))
        left, top = (width - across) // 2, (height - down) // 2
        return left, top, left + across, top + down


class ColourJitter(_Option):
    """Random factors within 1 +- strength, hue within +- strength of a full turn, in random order."""

    brightness: Annotated[float, Field(ge=0)] = 0.1
    contrast: Annotated[float, Field(ge=0)] = 0.1
    saturation: Annotated[float, Field(ge=0)] = 0.1
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """The image in other colours."""
        enhancers = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast,
                     "saturation": ImageEnhance.Color}
        strengths = {name: strength for name, strength in self if strength}
        for name in rng.permutation(list(strengths)):
            if name == "hue":
                image = _hue_turned(image, rng.uniform(-self.hue, self.hue))
            else:
                factor = rng.uniform(max(0, 1 - strengths[name]), 1 + strengths[name])
                image = enhancers[name](image).enhance(factor)
        return image


class RandomErasing(_Option):
    """A random rectangle is filled; Zhong et al., Random Erasing Data Augmentation, 2017."""

    p: Annotated[float, Field(ge=0, le=1)] = 0.5
    area: Fractions = (0.02, 0.4)  # rectangle's / image's, uniform
    ratio: Ratios = (0.3, 3.33)  # height / width, log-uniform
    value: Literal["mean", "random"] = "mean"  # 0, or standard normal noise, once the network has normalised

    def __call__(self, pixels: np.ndarray, preprocessing: Preprocessing, rng: np.random.Generator) -> None:
        """Erase, with probability p, a rectangle of these pixels themselves: (H, W, 3) uint8."""
        height, width, _ = pixels.shape
        if rng.random() >= self.p:
            return
        for _ in range(TRIES):
            down, across = _random_sides(height * width, self.area, self.ratio, rng)
            if 0 < down < height and 0 < across < width:
                top, left = rng.integers(height - down + 1), rng.integers(width - across + 1)
                pixels[top:top + down, left:left + across] = self._fill(down, across, preprocessing, rng)
                return

    def _fill(self, down: int, across: int, to: Preprocessing, rng: np.random.Generator) -> np.ndarray:
        if self.value == "mean":
            return _colour(to.mean)
        return _grey_levels(255 * (np.array(to.mean) + to.std * rng.standard_normal((down, across, 3))))


class Augment:
    """From an encoded image to one random (height, width, 3) uint8 variant of it at the network's size.

    In this order: a random part (resized crop; else the resize, zero padding and a random crop of the whole
    resized image), mirror, rotation, colours, noise, erasing. With all of it off, where the resize leaves
    nothing to cut, it is the preprocessing itself.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        *,
        mirror: Annotated[bool, "flip every other image left to right"] = False,
        padding: Annotated[int, Field(ge=0, le=4096), "pixels of black on each side before a random crop"] = 0,
        rotation: Annotated[float, Field(ge=0, le=180), "degrees either way; corners become black"] = 0.0,
        random_resized_crop: Annotated[
            bool | RandomResizedCrop, "a random part becomes the whole: true, or {scale, ratio}"] = False,
        colour_jitter: Annotated[
            bool | ColourJitter, "true, or {brightness, contrast, saturation, hue} as largest changes"] = False,
        random_erasing: Annotated[
            bool | RandomErasing, "fill a random rectangle: true, or {p, area, ratio, value}"] = False,
        gaussian_noise: Annotated[float, Field(ge=0, le=255), "standard deviation, grey levels of 255"] = 0.0,
    ) -> None:
        if padding and random_resized_crop is not False:
            raise ValueError("data_augmentation.padding: random_resized_crop leaves nothing to pad; drop one")
        self.preprocessing = preprocessing
        self._mirror, self._padding, self._rotation = mirror, padding, rotation
        self._part = _chosen(RandomResizedCrop, random_resized_crop)
        self._jitter = _chosen(ColourJitter, colour_jitter)
        self._erasing = _chosen(RandomErasing, random_erasing)
        self._noise = gaussian_noise

    def __call__(self, image: ImageSource, rng: np.random.Generator) -> np.ndarray:
        """One variant, a function of the image and the state of `rng` alone: (height, width, 3) uint8."""
        variant = np.empty((1, self.preprocessing.height, self.preprocessing.width, 3), np.uint8)
        self.draw([self.part(image, rng)], [rng], variant)
        first: np.ndarray = variant[0]
        return first

    def part(self, image: ImageSource, rng: np.random.Generator) -> Resize:
        """The first step: what of an image a variant is made of, and the size that this is brought to."""
        pixels = decoded(image)
        height, width, _ = pixels.shape
        if self._part:
            left, top, right, bottom = self._part.box(width, height, rng)
            return Resize(pixels[top:bottom, left:right], self.preprocessing.height, self.preprocessing.width)
        width, height = self.preprocessing.size_before_crop(width, height)
        return Resize(pixels, height, width)

    def draw(self, parts: Iterable[Resize], rngs: Iterable[np.random.Generator], variants: np.ndarray) -> None:
        """The other steps, with the same generators: write a variant of each part into (B, height, width, 3) uint8."""
        for pixels, rng, variant in zip(resized(parts, self.preprocessing), rngs, variants, strict=True):
            self._cut(pixels, rng, variant)
            if self._rotation or self._jitter:
                variant[:] = self._turned_and_recoloured(Image.fromarray(variant), rng)
            if self._noise:
                variant[:] = _grey_levels(variant + self._noise * rng.standard_normal(variant.shape, np.float32))
            if self._erasing:
                self._erasing(variant, self.preprocessing, rng)

    def _cut(self, pixels: np.ndarray, rng: np.random.Generator, variant: np.ndarray) -> None:
        height, width, _ = variant.shape
        left = int(rng.integers(-self._padding, pixels.shape[1] + self._padding - width + 1))
        top = int(rng.integers(-self._padding, pixels.shape[0] + self._padding - height + 1))
        mirrored = self._mirror and rng.random() < 0.5
        _write_window(pixels, left, top, variant[:, ::-1] if mirrored else variant)

    def _turned_and_recoloured(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        if self._rotation:
            image = image.rotate(rng.uniform(-self._rotation, self._rotation), Image.Resampling.BILINEAR)
        return self._jitter(image, rng) if self._jitter else image


def _write_window(pixels: np.ndarray, left: int, top: int, window: np.ndarray) -> None:
    """Write what is seen of (H, W, 3) from (left, top) on, black beyond the image."""
    height, width, _ = window.shape
    # Padding may be larger than the window, which then can lie outside of the image altogether.
    inside = pixels[max(top, 0):max(top + height, 0), max(left, 0):max(left + width, 0)]
    if inside.shape != window.shape:
        window[:] = 0
    down, across = min(max(-top, 0), height), min(max(-left, 0), width)
    window[down:down + inside.shape[0], across:across + inside.shape[1]] = inside


def _chosen(option: type[Option], given: bool | Option) -> Option | None:
    """What a key holds: false = off, true = the defaults, an object = its keys."""
    if isinstance(given, bool):
        return option() if given else None
    return option.model_validate(given)


def _random_sides(
    area: int, scale: Sequence[float], ratio: Sequence[float], rng: np.random.Generator,
) -> tuple[int, int]:
    """Sides (a, b) with a * b / area uniform in `scale` and a / b log-uniform in `ratio`."""
    drawn = area * rng.uniform(scale[0], scale[1])
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    return round(math.sqrt(drawn * aspect)), round(math.sqrt(drawn / aspect))


@cache
def _colour(mean: Sequence[float]) -> np.ndarray:
    return _grey_levels(255 * np.array(mean))


def _hue_turned(image: Image.Image, turn: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    steps = round(256 * turn)  # 256 levels are one turn
    hue = hue.point([(level + steps) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _grey_levels(levels: np.ndarray) -> np.ndarray:
    """Rounded and clipped to uint8: a plain cast would wrap -1 round to 255."""
    in_range: np.ndarray = np.clip(np.rint(levels), 0, 255)
    return in_range.astype(np.uint8)
