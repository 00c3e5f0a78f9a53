"""From images to embeddings through an exported ONNX file."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .cores import usable_cores
from .preprocess import ImageError, ImageSource, Preprocessing
from .session import CPU, ModelError, open_session, read_metadata


class Outputs(NamedTuple):
    """What the network says of N images; None for what this model does not have."""

    embeddings: np.ndarray  # (N, D) float32, unit length
    logits: np.ndarray | None = None  # (N, K) float32
    margins: np.ndarray | None = None  # (N,) float32, of norm-aware networks
    norms: np.ndarray | None = None  # (N,) float32, likewise: length of the vectors that have them


# The positions of images, and their pixels to come or why they cannot be used: as text, since an error would keep all
# that it passed on its way, the image among it, for as long as it is kept.
Batch = list[tuple[int, Future[np.ndarray | str]]]


def refuse(position: int, error: ImageError) -> None:
    """Stop at the first bad image, naming its position."""
    raise ImageError(f"image {position}: {error}")


class FeatureExtractor:
    """An exported model: images, as paths, encoded bytes or RGB arrays, to embeddings of unit length.

    `providers` are onnxruntime's, in order of preference; "auto" takes CUDA where it loads and else the CPU,
    and says so on the logger "kiln.deploy". `threads` decode, and compute on the CPU; None = one a core.
    Raises ModelError for a file that Kiln did not export, and for a provider that is not there.
    """

    def __init__(self, path: str | Path, *, providers: str | Sequence[str] = "auto",
                 batch_size: int = 32, threads: int | None = None) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: at least 1 expected, got {batch_size}")
        self.path = Path(path)
        self.batch_size = batch_size
        self._threads = threads or usable_cores()
        self._session = open_session(self.path, providers, self._threads)
        self.providers = tuple(self._session.get_providers())
        # A CPU runs any batch size at the same cost per image, where padding would be lost work. The others
        # search convolutions, or compile, again for each size that they meet: padding keeps those few.
        self.pads = self.providers[0] != CPU
        self.metadata = read_metadata(self._session, self.path)
        self.dim: int = self.metadata["embedding_dim"]
        try:
            self.preprocessing = Preprocessing.from_dict(self.metadata["preprocessing"])
        except ValueError as error:
            raise ModelError(f"{self.path}: {error}; use the Kiln that exported it") from None
        self.height, self.width = self.preprocessing.height, self.preprocessing.width
        (images,) = self._session.get_inputs()
        self.input_shape = tuple(images.shape[1:])
        self.input_type = np.dtype(np.uint8 if images.type == "tensor(uint8)" else np.float32)
        self.output_shapes = {output.name: tuple(output.shape[1:]) for output in self._session.get_outputs()}

    def extract(self, images: Iterable[ImageSource]) -> np.ndarray:
        """Embeddings (N, D) float32 of unit length; ImageError names the first bad image."""
        return self.outputs(images).embeddings

    def outputs(self, images: Iterable[ImageSource]) -> Outputs:
        """Embeddings with the logits, margins and norms that the model has; ImageError names the first bad image."""
        return self.join(self.stream(images))

    def stream(self, images: Iterable[ImageSource | Callable[[], bytes]], *,
               bad: Callable[[int, ImageError], None] = refuse) -> Iterator[Outputs]:
        """Outputs batch by batch; images are read as they are needed, by the function where one is given.

        The next batch is read and decoded while the network runs: two are in memory at a time. `bad` is told the
        position of each image that cannot be used; where it returns, the image is left out. What `images` raises
        comes after the batches that were full before.
        """
        _refuse_one(images)
        waiting = enumerate(images)
        pool = ThreadPoolExecutor(self._threads)

        def read() -> Batch:
            return [(position, pool.submit(self._see, image)) for position, image in islice(waiting, self.batch_size)]

        try:
            batch, failure = read(), None
            while batch:
                try:
                    following = read()  # decoded while the session runs this batch
                except Exception as error:  # the source's own, whatever it is
                    following, failure = [], error
                pixels = _usable(batch, bad)
                if pixels:
                    yield self.run(np.stack(pixels))
                if failure:
                    raise failure
                batch = following
        finally:  # also when the caller wants no more
            pool.shutdown(cancel_futures=True)

    def run(self, pixels: np.ndarray) -> Outputs:
        """Outputs of one batch at network size: (B, height, width, 3) uint8 RGB."""
        return self.infer(self.tensor(pixels))

    def tensor(self, pixels: np.ndarray) -> np.ndarray:
        """Images at network size as the graph takes them: as they are, or (B, 3, height, width) float32."""
        if self.input_type == np.uint8:
            return pixels
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)

    def infer(self, tensor: np.ndarray) -> Outputs:
        """Outputs of one batch of what the graph takes, see `tensor`."""
        count = len(tensor)
        if self.pads:
            tensor = np.resize(tensor, (bucket(count, self.batch_size), *tensor.shape[1:]))  # repeats rows
        values = self._session.run(list(self.output_shapes), {"images": tensor})
        return Outputs(**{name: value[:count] for name, value in zip(self.output_shapes, values, strict=True)})

    def join(self, batches: Iterable[Outputs]) -> Outputs:
        """Batches as one; of no batch, arrays of no row."""
        none = Outputs(**{name: np.empty((0, *shape), np.float32) for name, shape in self.output_shapes.items()})
        columns = dict(zip(Outputs._fields, zip(none, *batches, strict=True), strict=True))
        return Outputs(**{name: np.concatenate(columns[name]) for name in self.output_shapes})

    def _see(self, image: ImageSource | Callable[[], bytes]) -> np.ndarray | str:
        try:
            return self.preprocessing(image() if callable(image) else image)
        except ImageError as error:
            return str(error)


def _refuse_one(images: object) -> None:
    """TypeError for one image; an array of paths or of bytes is several."""
    if isinstance(images, np.ndarray):
        one = images.ndim < 4 and images.dtype.kind not in "USO"
    else:
        one = isinstance(images, str | bytes | Path)
    if one:
        raise TypeError("one image was given where several are expected; write [image]")


def _usable(batch: Batch, bad: Callable[[int, ImageError], None]) -> list[np.ndarray]:
    """The pixels of the images that can be used, in order, once they are decoded; `bad` is told of the others."""
    pixels = []
    for position, future in batch:
        seen = future.result()
        if isinstance(seen, str):
            bad(position, ImageError(seen))
        else:
            pixels.append(seen)
    return pixels


def bucket(count: int, batch_size: int) -> int:
    """The size to which so many rows are padded: a power of two up to `batch_size`; beyond that, as they are."""
    return min(1 << (count - 1).bit_length(), max(count, batch_size))
