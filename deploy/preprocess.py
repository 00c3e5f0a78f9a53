"""Which pixels the network sees: the one decoder and the one resize, in training and in deployment."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from . import jpeg

PIXEL_LIMIT = 80_000_000  # below the 89 million at which Pillow itself begins to warn
RESIZE_LIMIT = 4096
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")  # of image files
# Not all that Pillow reads: some of its readers are seldom used and seldom checked, and one runs other programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

ImageSource = bytes | str | Path | np.ndarray
Mode = Literal["stretch", "centre_crop"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class ImageError(ValueError):
    """An image cannot be used: one line that names it and says why."""


def opened(image: ImageSource, pixel_limit: int = PIXEL_LIMIT) -> Image.Image:
    """An image file of one of FORMATS, its bytes or an array -> upright 8-bit RGB, as a Pillow image of its own.

    EXIF orientation is applied, the first frame is taken, transparency is laid over white, and of 16 bits the
    high 8 are kept. An array is uint8, (H, W, 3) RGB or (H, W) grey. Raises ImageError for all else, and for
    a file of more than `pixel_limit` pixels before any of them is decoded.
    """
    read = _read(image, pixel_limit)
    return Image.fromarray(read) if isinstance(read, np.ndarray) else read


def decoded(image: ImageSource) -> np.ndarray:
    """The pixels of `opened` as an array of its own: (H, W, 3) uint8 RGB."""
    return np.require(_read(image, PIXEL_LIMIT), np.uint8, "W")


def turned(encoded: bytes) -> bool:
    """Whether `opened` turns or mirrors an image file, whose EXIF orientation says that it is stored so."""
    return jpeg.turned(Image.open(io.BytesIO(encoded), formats=FORMATS))


def _read(image: ImageSource, pixel_limit: int) -> np.ndarray | Image.Image:
    if isinstance(image, np.ndarray):
        return _of_array(image)
    name = "image bytes" if isinstance(image, bytes) else str(image)
    try:
        encoded = image if isinstance(image, bytes) else Path(image).read_bytes()
        pixels = jpeg.decoded(encoded, pixel_limit)
        return _of_bytes(encoded, pixel_limit) if pixels is None else pixels
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image; one of {', '.join(FORMATS)} expected") from None
    # Pillow's readers let SyntaxError, struct.error, EOFError, KeyError... through on damaged files.
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"{name}: {reason}") from error


def _of_array(array: np.ndarray) -> Image.Image:
    grey_or_rgb = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not grey_or_rgb or array.size == 0:
        raise ImageError(
            f"image array: uint8, (H, W, 3) RGB or (H, W) grey expected, got {array.dtype} {array.shape}")
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def _of_bytes(encoded: bytes, pixel_limit: int) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    if image.width * image.height > pixel_limit:
        raise ImageError(f"{image.width} x {image.height} pixels; the limit is {pixel_limit} pixels")
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise ImageError("32-bit float pixels have no known range; save the image with 8 or 16 bits")
    if image.mode.startswith("I"):
        return _of_16_bits(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _of_16_bits(grey: np.ndarray) -> Image.Image:
    if grey.min() < 0 or grey.max() > 0xFFFF:
        raise ImageError("32-bit pixels have no known range; save the image with 8 or 16 bits")
    # Pillow's own conversion clips at 255, which turns most 16-bit images white.
    return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")


@dataclass(frozen=True)
class Preprocessing:
    """From an image of any size to the network's (height, width, 3) uint8 RGB.

    The image is first brought to `resize`, one number for both sides or (height, width); None is the network's
    size. "stretch" ignores the aspect ratio, "centre_crop" keeps it and just covers that size, so that a number
    is the short side. The centre is then cut out: torchvision's Resize and CenterCrop.
    `mean` and `std` are fractions of 255 per channel; the network applies them, not this class.
    """

    height: int
    width: int
    _: KW_ONLY
    mode: Annotated[Mode, "stretch, or keep the aspect ratio and cut out the centre"] = "stretch"
    resize: Annotated[int | Sequence[int] | None, "size before the centre is cut out: a number for both sides (with "
                      "centre_crop the short one), or [height, width]; null = the network's"] = None
    interpolation: Annotated[Interpolation, "of the resize, which is antialiased"] = "bilinear"
    mean: Annotated[Sequence[float], "of each channel in 0..1; ImageNet's"] = (0.485, 0.456, 0.406)
    std: Annotated[Sequence[float], "of each channel in 0..1; ImageNet's"] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        for channels in ("mean", "std"):  # JSON has lists only; tuples keep the frozen object hashable
            object.__setattr__(self, channels, tuple(map(float, getattr(self, channels))))
        if isinstance(self.resize, Sequence):
            object.__setattr__(self, "resize", tuple(self.resize))
        for wrong in self._mistakes():
            raise ValueError(f"preprocess.{wrong}")

    def __call__(self, image: ImageSource, *, pixel_limit: int = PIXEL_LIMIT) -> np.ndarray:
        """The pixels that the network sees of an image, see `opened`: (height, width, 3) uint8 RGB."""
        upright = opened(image, pixel_limit)
        resized = self.scaled(upright, *self.size_before_crop(upright.width, upright.height, pixel_limit))
        # Half-way cases go to the even neighbour, as in torchvision's CenterCrop.
        left = round((resized.width - self.width) / 2)
        top = round((resized.height - self.height) / 2)
        return np.array(resized.crop((left, top, left + self.width, top + self.height)))

    def size_before_crop(self, width: int, height: int, pixel_limit: int = PIXEL_LIMIT) -> tuple[int, int]:
        """(width, height) to which an image of that size is brought before the network's is cut out.

        Raises ImageError where that takes more than `pixel_limit` pixels, and than it takes for any image.
        """
        size = self._covering(width, height)
        most = max(pixel_limit, math.prod(self._sides()))
        if math.prod(size) > most:  # a thread-like image, scaled until its short side fits
            raise ImageError(f"image of {width} x {height}: too thin for mode {self.mode}, "
                             f"which needs it at {size[0]} x {size[1]}; the limit is {most} pixels")
        return size

    def scaled(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """The image at another size: Pillow's resize, antialiased except for "nearest"."""
        return image.resize((width, height), Image.Resampling[self.interpolation.upper()])

    def to_dict(self) -> dict[str, Any]:
        """All that is needed to see the same pixels elsewhere, as plain JSON types."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in chosen.items()}
        return self._facts() | plain

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; ValueError where the dict asks for what this code does not do."""
        known = {field.name for field in fields(cls)} & described.keys()
        try:
            preprocessing = cls(**{key: described[key] for key in known})
        except TypeError as error:
            raise ValueError(f"preprocess: {error}") from None
        done = preprocessing.to_dict()
        for key, asked in described.items():
            if key not in done:
                raise ValueError(f"preprocess.{key}: no such key; it must be one of {', '.join(done)}")
            if asked != done[key]:
                raise ValueError(f"preprocess.{key}: {done[key]!r} expected, got {asked!r}")
        return preprocessing

    def _facts(self) -> dict[str, Any]:
        return {"decoder": "pillow", "colour": "rgb", "antialias": self.interpolation != "nearest"}

    def _sides(self) -> Sequence[int]:
        """(height, width) that the image is stretched to, or has to cover."""
        if self.resize is None:
            return self.height, self.width
        return (self.resize, self.resize) if isinstance(self.resize, int) else self.resize

    def _covering(self, width: int, height: int) -> tuple[int, int]:
        least_height, least_width = self._sides()
        if self.mode == "stretch":
            return least_width, least_height
        if height * least_width >= width * least_height:
            return least_width, height * least_width // width
        return width * least_height // height, least_height

    def _mistakes(self) -> list[str]:
        least, sides = (self.height, self.width), self._sides()
        rules = {
            f"height, width: at least 1 expected, got {self.height} x {self.width}":
                min(self.height, self.width) >= 1,
            f"mode: one of {get_args(Mode)} expected, got {self.mode!r}":
                self.mode in get_args(Mode),
            f"interpolation: one of {get_args(Interpolation)} expected, got {self.interpolation!r}":
                self.interpolation in get_args(Interpolation),
            f"resize: a number or [height, width], at least {self.height} x {self.width}, the network's, and at most "
            f"{RESIZE_LIMIT} expected, got {self.resize}":
                len(sides) == 2 and all(low <= side <= RESIZE_LIMIT for low, side in zip(least, sides, strict=True)),
            f"mean: three numbers from 0 to 1 expected, got {list(self.mean)}":
                len(self.mean) == 3 and all(0 <= level <= 1 for level in self.mean),
            f"std: three numbers above 0 expected, got {list(self.std)}":
                len(self.std) == 3 and all(level > 0 for level in self.std),
        }
        return [mistake for mistake, kept in rules.items() if not kept]
