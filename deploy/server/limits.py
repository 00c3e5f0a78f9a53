"""What one request may cost, and the room that there is for all of them together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from ..preprocess import PIXEL_LIMIT

MIB = 2**20
BODIES = 8  # of the largest size that are held at once


class Refused(Exception):
    """A request that is not answered: an HTTP status, and one line that says why."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.status, self.message, self.headers = status, message, headers


@dataclass(frozen=True)
class Limits:
    """Numbers that no request can get around; each is an option of the command line."""

    max_images: Annotated[int, "images of a request"] = 64
    max_body_mb: Annotated[int, "MiB of a request's body"] = 32
    max_pixels: Annotated[int, "pixels of an image, told by its header before it is decoded"] = PIXEL_LIMIT
    max_queue: Annotated[int, "images of all requests that wait or are computed; beyond it: 429"] = 256
    max_delay_ms: Annotated[int, "milliseconds that an image waits for others to share its batch"] = 2
    timeout_s: Annotated[int, "seconds that a request may take; beyond it: 504"] = 30

    @property
    def max_body(self) -> int:
        """Bytes of a request's body."""
        return self.max_body_mb * MIB


class Room:
    """Counts the images and the bytes of all requests in hand, and refuses what would be too many."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.images = 0
        self.bytes = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """Room for one request of one image, given back after the block; `Share.grow` asks for more."""
        share = Share(self, self._limits)
        try:
            share.grow(images=1)
            yield share
        finally:
            self.images -= share.images
            self.bytes -= share.bytes


class Share:
    """What one request holds of the room."""

    def __init__(self, room: Room, limits: Limits) -> None:
        self._room, self._limits = room, limits
        self.images = 0
        self.bytes = 0

    def hold(self, images: int) -> None:
        """Say how many images the request turns out to have; Refused where that is too many for it, or for now."""
        if images > self._limits.max_images:
            raise Refused(400,
                          f"images: at most {self._limits.max_images} in a request, got {images}")
        self.grow(images=images - self.images)

    def grow(self, *, images: int = 0, size: int = 0) -> None:
        """Take more images or bytes; Refused with 413 where the request is too large, 429 where the room is full."""
        if self.bytes + size > self._limits.max_body:
            raise Refused(413,
                          f"body: at most {self._limits.max_body} bytes, more came; send fewer images at a time")
        full = self._room.images + images > self._limits.max_queue
        if full or self._room.bytes + size > BODIES * self._limits.max_body:
            raise Refused(429, "too many requests at once; try again in a second",
                          {"Retry-After": "1"})
        for counts in (self, self._room):
            counts.images += images
            counts.bytes += size
