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
        self.requests = 0
        self.images = 0
        self.bytes = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """What one request holds, nothing at first, given back after the block; Refused where all images are taken."""
        share = Share(self, self._limits)
        share.require(images=1)
        self.requests += 1
        try:
            yield share
        finally:
            self.requests -= 1
            self.images -= share.images
            self.bytes -= share.bytes


class Share:
    """What one request holds of the room."""

    def __init__(self, room: Room, limits: Limits) -> None:
        self._room, self._limits = room, limits
        self.images = 0
        self.bytes = 0

    def hold(self, images: int) -> None:
        """Take room for the images of a body that came whole; Refused where they are too many for it, or for now."""
        if images > self._limits.max_images:
            raise Refused(400, f"images: at most {self._limits.max_images} in a request, got {images}")
        self.require(images=images)
        self.images += images
        self._room.images += images

    def receive(self, size: int) -> None:
        """Take room for bytes of the body; Refused with 413 where it becomes too large, 429 where there is none."""
        if self.bytes + size > self._limits.max_body:
            raise Refused(413, f"body: at most {self._limits.max_body} bytes, more came; send fewer images at a time")
        self.require(size=size)
        self.bytes += size
        self._room.bytes += size

    def require(self, *, images: int = 0, size: int = 0) -> None:
        """Refused with 429 unless there is room for that now."""
        full = self._room.images + images > self._limits.max_queue
        if full or self._room.bytes + size > BODIES * self._limits.max_body:
            raise Refused(429, "too many requests at once; try again in a second", {"Retry-After": "1"})
