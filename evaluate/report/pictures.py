"""Images small enough to lie within a page."""

import base64
import io
from typing import Protocol

from PIL import Image

SIDE = 128  # pixels at most; what is shown is smaller, and screens are fine
QUALITY = 78  # of the JPEGs
BUDGET = 4_000_000  # characters of all images together, of a page's 5 MB


class Packed(Protocol):
    """A set's images and the names of its classes, by split."""

    def image(self, split: str, row: int) -> Image.Image:
        """One image of a split, upright and RGB."""

    def class_names(self, split: str) -> list[str]:
        """What the labels of a split stand for."""


class Pictures:
    """Thumbnails of packed images, as long as there is room for them."""

    def __init__(self, packed: Packed, budget: int = BUDGET) -> None:
        self._packed = packed
        self._left = budget

    def uri(self, split: str, row: int) -> str | None:
        """An image as a data URI; None when the page has no room for it."""
        image = self._packed.image(split, row)
        image.thumbnail((SIDE, SIDE))
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=QUALITY)
        uri = f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"
        if len(uri) > self._left:
            return None
        self._left -= len(uri)
        return uri

    def name(self, split: str, label: int) -> str:
        """What a label stands for; a network may know more classes than a split names."""
        names = self._packed.class_names(split)
        return names[label] if 0 <= label < len(names) else "junk" if label < 0 else f"class {label}"
