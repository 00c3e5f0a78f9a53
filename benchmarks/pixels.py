"""Pixels: from stored JPEG to augmented batch, one worker, against the usual pipeline.

Ours: an archive, `TrainLoader` and `Augment`. The peer: image files, Pillow, torchvision's transforms (v1) and the
default DataLoader. Both have one persistent worker and batches of 64 that are drawn at random; the same JPEGs, made
here with a fixed seed. With all randomness off both give the same pixels, which is checked in the same run.
The peer hands over normalised float32, we hand over uint8, which our network normalises: its time is given too.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import NO_BAR, Bar, Comparison, Limit, agreed, arguments, at_least, in_turns, table
from data.archive import Archive, Meta, Record, open_archive, write_archive
from data.augment import Augment
from data.dataset import Key, TrainImages
from data.loader import TrainLoader
from data.records import Batch
from data.samplers.shuffled import Shuffled
from deploy.preprocess import Preprocessing
from trainer.vision import torchvision

T = torchvision.transforms
Transform = Callable[[Image.Image], torch.Tensor]
BATCH = 64
PADDING = 10
PEER = "Pillow, torchvision"


class Case(NamedTuple):
    """Images of one size and what is made of them."""

    what: str
    width: int
    height: int
    to: Preprocessing
    part: bool  # a random part becomes the whole; else pad, crop and erase
    images: int
    bar: Bar


CASES = (
    Case("128 x 64 -> 256 x 128: flip, pad-crop, erasing", 64, 128, Preprocessing(256, 128), False, 2048, at_least(5)),
    Case("300 x 140 -> 256 x 128: the same, made smaller", 140, 300, Preprocessing(256, 128), False, 768, NO_BAR),
    Case("500 x 375 -> 224 x 224: resized crop, flip", 500, 375, Preprocessing(224, 224), True, 384, at_least(1.8)),
)


class Files(Dataset[tuple[torch.Tensor, int]]):
    """Image files, opened by Pillow and transformed one by one."""

    def __init__(self, paths: Sequence[Path], transform: Transform) -> None:
        self._paths, self._transform = paths, transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        with Image.open(self._paths[number]) as image:
            return self._transform(image.convert("RGB")), 0


def photo(rng: np.random.Generator, width: int, height: int) -> bytes:
    """A JPEG of soft shapes, edges and grain, as large as a photograph of that size."""
    pixels = np.zeros((height, width, 3), np.float32)
    for cells, contrast in ((3, 1.0), (9, 0.5), (30, 0.25)):
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        pixels += contrast * (np.where(smooth > 200, 255, smooth) - 128)
    pixels += 128 + rng.normal(0, 4, pixels.shape)
    return bytes(simplejpeg.encode_jpeg(pixels.clip(0, 255).astype(np.uint8), 90, colorsubsampling="420"))


def stored(case: Case, count: int, folder: Path) -> tuple[list[bytes], list[Path], Archive]:
    """The case's images in memory, as files, and packed."""
    rng = np.random.default_rng(0)
    images = [photo(rng, case.width, case.height) for _ in range(count)]
    paths = [folder / f"{number:05}.jpg" for number in range(count)]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(image)
    records = [Record(image, 0, -1, -1, path.name) for path, image in zip(paths, images, strict=True)]
    write_archive(folder / "train.lmdb", records, Meta("folder", "train", ["one"]))
    return images, paths, open_archive(folder / "train.lmdb")


def usual(case: Case) -> Transform:
    """The peer's transforms."""
    size = case.to.height, case.to.width
    start = [T.RandomResizedCrop(size)] if case.part else [T.Resize(size)]
    crop = [] if case.part else [T.Pad(PADDING), T.RandomCrop(size)]
    erasing = [] if case.part else [T.RandomErasing(scale=(0.02, 0.4), ratio=(0.3, 3.33))]
    chosen: Transform = T.Compose([*start, T.RandomHorizontalFlip(), *crop, T.ToTensor(),
                                   T.Normalize(case.to.mean, case.to.std), *erasing])
    return chosen


def largest_difference(case: Case, archive: Archive, paths: list[Path]) -> float:
    """Of any pixel of any image, in grey levels, with all randomness off."""
    theirs = Files(paths, T.Compose([T.Resize((case.to.height, case.to.width)), T.ToTensor()]))
    ours = TrainImages(archive, Augment(case.to), 1)
    gap = 0.0
    for number in range(len(paths)):
        batch = ours.__getitems__([Key(0, number, number)])
        assert isinstance(batch, Batch)
        gap = max(gap, (batch.images[0] - 255 * theirs[number][0]).abs().max().item())
    return gap


def measured(case: Case, count: int, rounds: int, folder: Path) -> list[Comparison | Limit]:
    """The case's lines of the table."""
    images, paths, archive = stored(case, count, folder)
    agreed(f"{case.what}, nothing random, {count} images, in levels of 255",
           largest_difference(case, archive, paths), 1e-3)
    augment = Augment(case.to, mirror=True, random_resized_crop=case.part, random_erasing=not case.part,
                      padding=0 if case.part else PADDING)
    own = TrainLoader(archive, Shuffled(archive.labels, 1, BATCH), augment, seed=1, workers=1)
    peer = DataLoader(Files(paths, usual(case)), BATCH, shuffle=True, num_workers=1, persistent_workers=True)
    turns: list[Callable[[], object]] = [
        lambda: seen(own.epoch(0)), lambda: seen(peer), lambda: seen(map(simplejpeg.decode_jpeg, images)),
        partial(normalise, case.to, count)]
    in_turns(1, *turns)  # workers start, files come into the page cache
    ours, theirs, floor, normalised = in_turns(rounds, *turns)
    own.close()
    both = [a + b for a, b in zip(ours, normalised, strict=True)]
    share = statistics.median(low / high for low, high in zip(floor, ours, strict=True))
    return [Comparison(case.what, ours, PEER, theirs, case.bar, count),
            Comparison("... with the network's normalisation counted as ours", both, PEER, theirs, NO_BAR, count),
            Limit(f"... share of libjpeg-turbo's speed, which decodes {count / statistics.median(floor):,.0f}/s and "
                  "does no more", 100 * share, "%", NO_BAR)]


def seen(things: Iterable[object]) -> None:
    """Go through them."""
    for _ in things:
        continue


def normalise(to: Preprocessing, count: int) -> None:
    """What the network does with so many images on one core before its first layer."""
    mean, std = (255 * torch.tensor(channels).view(3, 1, 1) for channels in (to.mean, to.std))
    images = torch.zeros((BATCH, 3, to.height, to.width), dtype=torch.uint8)
    for _ in range(0, count, BATCH):
        (images.to(mean.dtype) - mean) / std


def main() -> None:
    """Measure every case in turns and print the table."""
    asked = arguments(__doc__, rounds=5)
    torch.set_num_threads(1)
    lines: list[Comparison | Limit] = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            lines += measured(case, 2 * BATCH if asked.small else case.images, asked.rounds, Path(folder))
    print(f"\n{table(lines)}")
    print("\nWhere sides are enlarged to a power of two times a divisor of theirs, the resize is torch's, with the\n"
          "bits of Pillow's; else it is Pillow's, on both sides of the comparison, and the largest part of our\n"
          "time. The rest beyond decoding is draws, cutting, and the shared memory in which a batch travels.")


if __name__ == "__main__":
    main()
