"""One model, and a gallery of its embeddings where there is one, for many requests at once."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np
from starlette.requests import Request

from ..extractor import FeatureExtractor, Outputs
from ..gallery import Gallery, Hit
from ..preprocess import SUFFIXES
from ..search import SearchError
from .batching import Batcher
from .images import seen
from .limits import Limits, Refused, Room
from .metrics import Metrics

T = TypeVar("T")


class Found(NamedTuple):
    """The nearest gallery entries of each query, and from which similarity on they are accepted."""

    hits: list[list[Hit]]
    threshold: float | None


class Overflow(ArithmeticError):
    """The network gave what is no number."""


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
        self._no_query = np.empty((0, extractor.dim), np.float32)
        self._index()
        self._pool = ThreadPoolExecutor(threads, "decode")
        self._batcher = Batcher(self._run, batch_size=extractor.batch_size, max_delay=limits.max_delay_ms / 1000)

    async def embed(self, encoded: Sequence[bytes]) -> Outputs:
        """The outputs of encoded images; Refused names the first bad one by its place."""
        looks = [partial(seen, image, self.extractor.preprocessing, self.limits.max_pixels) for image in encoded]
        pixels = []
        for place, found in enumerate(await asyncio.gather(*map(self.threaded, looks))):
            if isinstance(found, str):
                raise Refused(400, f"images[{place}]: {found}")
            pixels.append(found)
        return await self._infer(self.extractor.tensor(np.stack(pixels)))

    async def infer(self, tensor: np.ndarray) -> Outputs:
        """The outputs of what the graph takes, at most as long as `max_images`; Refused where they are no numbers."""
        try:
            return await self._infer(tensor)
        except Overflow:
            if tensor.dtype.kind != "f":  # pixels: no fault of theirs
                raise
            raise Refused(400, "inputs[0]: numbers expected that the network can compute with") from None

    async def search(self, encoded: Sequence[bytes], k: int, threshold: float | str | None, *,
                     cameras: list[int] | None, tags: list[str] | None) -> Found:
        """The k entries nearest to each image, also below the threshold; Refused where the query does not fit."""
        if self.gallery is None:
            raise Refused(404, "search: this service has no gallery; start it with --gallery")
        find = partial(self.gallery.search, k=k, cameras=cameras, tags=tags)
        try:  # with no image yet, so that all that can be wrong is what was asked
            least = self.gallery.threshold_of(threshold)
            await self.threaded(partial(find, self._no_query))
        except SearchError as error:
            raise Refused(400, str(error)) from None
        outputs = await self.embed(encoded)
        return Found(await self.threaded(partial(find, outputs.embeddings)), least)

    async def threaded(self, function: Callable[[], T]) -> T:
        """Call a function on one of the threads that decode."""
        held = [function]  # a pool keeps what is cancelled until a thread comes to it; what the function has goes now
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: held.pop()())
        finally:
            held.clear()

    async def image(self, name: str) -> Path | None:
        """Where the image of a gallery entry is; None where there is none in the folder of images."""
        return await self.threaded(partial(self._image, name))

    def stop(self) -> None:
        """Run waiting batches at once."""
        self._batcher.hurry()

    def close(self) -> None:
        """End all threads: what is computed is finished, and no image is decoded any more."""
        self._pool.shutdown(cancel_futures=True)
        self._batcher.close()

    async def _infer(self, tensor: np.ndarray) -> Outputs:
        step = self.extractor.batch_size
        jobs = [self._batcher.submit(tensor[start:start + step]) for start in range(0, len(tensor), step)]
        outputs = self.extractor.join(await asyncio.gather(*map(asyncio.wrap_future, jobs)))
        for name, values in outputs._asdict().items():
            if values is not None and not np.isfinite(values).all():
                raise Overflow(f"{self.extractor.path}: its {name} are not finite")
        return outputs

    def _image(self, name: str) -> Path | None:
        if self.folder is None or self.gallery is None or name not in self.gallery:
            return None
        path = (self.folder / name).resolve()  # symbolic links followed: none leads out of the folder
        inside = path.is_relative_to(self.folder) and path.suffix.lower() in SUFFIXES
        return path if inside and path.is_file() else None

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

    def _index(self) -> None:
        """Have the gallery build now what it would build while the first request waits for it."""
        if self.gallery is not None:
            self.gallery.search(self._no_query, tags=[""])
            if self.folder is not None:
                self._image("")


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    service: Service = request.app.state.service
    return service
