"""One model, and a gallery of its embeddings where there is one, for many requests at once."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..extractor import FeatureExtractor, Outputs
from ..gallery import Gallery, Hit
from ..preprocess import SUFFIXES, ImageError
from .batching import Batcher
from .images import seen
from .limits import Limits, Refused, Room
from .metrics import Metrics

T = TypeVar("T")


class Found(NamedTuple):
    """The nearest gallery entries of each query, and from which similarity on they are accepted."""

    hits: list[list[Hit]]
    threshold: float | None


class Service:
    """What the routes share. Its methods are called on the event loop, and compute on threads.

    `images` is the folder with the gallery's images, by their names. `threads` decode.
    """

    def __init__(self, extractor: FeatureExtractor, *, name: str, threads: int, limits: Limits,
                 gallery: Gallery | None = None, images: Path | None = None) -> None:
        self.extractor, self.name, self.limits, self.gallery = extractor, name, limits, gallery
        self.folder = images and images.resolve()
        self.room = Room(limits)
        self.metrics = Metrics(self.room)
        self.facts = self._facts()  # now: of a large gallery they take a while
        self.stopping = False
        self._pool = ThreadPoolExecutor(threads, "decode")
        self._batcher = Batcher(self._run, batch_size=extractor.batch_size, max_delay=limits.max_delay_ms / 1000)

    async def embed(self, encoded: Sequence[bytes]) -> Outputs:
        """The outputs of encoded images; Refused names the first bad one by its place."""
        looks = [partial(seen, image, self.extractor.preprocessing, self.limits.max_pixels) for image in encoded]
        found = await asyncio.gather(*map(self.threaded, looks))
        for place, bad in enumerate(found):
            if isinstance(bad, ImageError):
                raise Refused(400, f"images[{place}]: {str(bad).removeprefix('image bytes: ')}")
        pixels = np.stack([image for image in found if not isinstance(image, ImageError)])
        return await self.infer(self.extractor.tensor(pixels))

    async def infer(self, tensor: np.ndarray) -> Outputs:
        """The outputs of what the graph takes, at most as long as `max_images`."""
        step = self.extractor.batch_size
        jobs = [self._batcher.submit(tensor[start:start + step]) for start in range(0, len(tensor), step)]
        return self.extractor.join(await asyncio.gather(*map(asyncio.wrap_future, jobs)))

    async def search(self, encoded: Sequence[bytes], k: int, threshold: float | str | None, *,
                     cameras: list[int] | None, tags: list[str] | None) -> Found:
        """The k entries nearest to each image, also those below the threshold; SearchError where it is no such."""
        if self.gallery is None:
            raise Refused(404, "search: this service has no gallery; start it with --gallery")
        least = self.gallery.threshold_of(threshold)
        outputs = await self.embed(encoded)
        find = partial(self.gallery.search, outputs.embeddings, k, cameras=cameras, tags=tags)
        return Found(await self.threaded(find), least)

    async def threaded(self, function: Callable[[], T]) -> T:
        """Call a function on one of the threads that decode."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def image(self, name: str) -> Path | None:
        """Where the image of a gallery entry is; None where there is none in the folder of images."""
        if self.folder is None or self.gallery is None or name not in self.gallery:
            return None
        path = (self.folder / name).resolve()  # symbolic links followed: none leads out of the folder
        inside = path.is_relative_to(self.folder) and path.suffix.lower() in SUFFIXES
        return path if inside and path.is_file() else None

    def stop(self) -> None:
        """Let nobody wait for requests that will not come."""
        self._batcher.hurry()

    def close(self) -> None:
        """Finish what waits, and end all threads."""
        self._pool.shutdown()
        self._batcher.close()

    def _run(self, tensor: np.ndarray) -> Outputs:
        began = perf_counter()
        outputs = self.extractor.infer(tensor)
        self.metrics.batch_rows.observe(len(tensor))
        self.metrics.batch_seconds.observe(perf_counter() - began)
        return outputs

    def _facts(self) -> dict[str, Any]:
        """What the model and the gallery say of themselves; None for what this file does not say."""
        said = {key: self.extractor.metadata.get(key)
                for key in ("precision", "epoch", "metrics", "thresholds", "fingerprint", "kiln_version")}
        gallery = None if self.gallery is None else {
            "count": len(self.gallery),
            "cameras": sorted({*self.gallery.cameras.tolist()} - {-1}),
            "tags": sorted({*self.gallery.tags} - {""})}
        return said | {"name": self.name, "dim": self.extractor.dim, "height": self.extractor.height,
                       "width": self.extractor.width, "gallery": gallery, "images": self.folder is not None}
