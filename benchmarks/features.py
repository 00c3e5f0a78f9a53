"""Features: encoded images to embeddings, FeatureExtractor against torch eager.

python -m benchmarks.features [--rounds 5] [--small]

JPEG bytes of 128 x 64 become embeddings of 512, float32, two threads, on the CPU. The file is exported in the run
from a fresh network. The peer is the loop that is usually written: Pillow decodes and resizes image by image, then the
same network in evaluation mode and inference mode, in the default memory format and in channels_last. Beside it, the
multiply-adds of the network done as bare matrix products. Then: odd batch sizes, decoding beside inference on one
thread each, and a fresh process until its first embedding.
"""

import copy
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import NO_BAR, Comparison, Limit, agreed, arguments, at_least, at_most, in_turns, table
from data.figures import write_figures
from deploy import FeatureExtractor, Preprocessing
from params.schema import ModelParams
from trainer.model import Embedder, build_embedder
from trainer.onnx_writer import write_onnx

THREADS = 2
SIZE = Preprocessing(256, 128)
SIDE = 1024  # of the matrices that are multiplied
NEIGHBOURS = {3: 4, 7: 8, 17: 16, 33: 32}  # odd batch sizes, and the power of two next to each
PHOTO = (2000, 3000)  # 6 megapixels: as long to decode as resnet18 takes for it, about
COLD = """
import sys
from deploy import FeatureExtractor
FeatureExtractor(sys.argv[1]).extract([sys.argv[2]])
assert "torch" not in sys.modules
"""


def main() -> None:
    """Print the table, and what the ratios rest on."""
    options = arguments(__doc__)
    torch.set_num_threads(THREADS)
    many, few, sizes = (4, 2, {3: 4}) if options.small else (64, 16, NEIGHBOURS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_figures(folder / "figures", identities=4)
        images = [path.read_bytes() for path in sorted((folder / "figures").rglob("*.jpg"))]
        small = Exported("resnet18", folder)
        large = small if options.small else Exported("resnet50", folder)
        lines = [*against_torch(large, images[:many], 32, options.rounds),
                 *against_torch(large, images[:few], 1, options.rounds),
                 *odd_sizes(small, sizes, options.rounds),
                 *overlap(small, images[:few], options.rounds),
                 *cold_start(small, images[0], folder, options.rounds)]
    print("\n" + table(lines))
    print("\nBoth sides do the same multiply-adds. Where ours does them as fast as bare matrix products, only fewer\n"
          "or narrower ones would be faster. No batch is padded on the CPU, where a size costs what its images cost;\n"
          "on other providers batches are padded to powers of two, which is not measured here.")


class Exported:
    """A network with fresh weights, and its file."""

    def __init__(self, backbone: str, folder: Path, size: Preprocessing = SIZE) -> None:
        torch.manual_seed(0)
        self.backbone, self.size = backbone, size
        self.network: Embedder = build_embedder(
            ModelParams(backbone=backbone, feature_dim=512), classifier=None, num_classes=1,
            height=size.height, width=size.width, mean=size.mean, std=size.std).eval()
        self.path = folder / f"{backbone}.onnx"
        write_onnx(self.network, self.path, size, input_format="uint8_nhwc", logits=False)

    def open(self, batch_size: int, threads: int = THREADS) -> FeatureExtractor:
        """The extractor that is measured."""
        return FeatureExtractor(self.path, providers="CPUExecutionProvider", batch_size=batch_size, threads=threads)

    def flop(self) -> int:
        """Floating point operations of an image: two a multiply-add."""
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            self.network(torch.zeros(1, 3, self.size.height, self.size.width, dtype=torch.uint8))
        return int(counter.get_total_flops())


def plain(network: Embedder, images: Sequence[bytes], layout: torch.memory_format) -> np.ndarray:
    """One batch as it is usually written: encoded images -> (B, D)."""
    sides = SIZE.width, SIZE.height
    pixels = [np.asarray(Image.open(io.BytesIO(image)).convert("RGB").resize(sides, Image.Resampling.BILINEAR))
              for image in images]
    batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    with torch.inference_mode():
        return F.normalize(network(batch).embedding).numpy()


def against_torch(model: Exported, images: Sequence[bytes], size: int, rounds: int) -> list[Comparison]:
    """All images in batches of a size: the extractor, both peers, and the matrix products alone."""
    extractor = model.open(size)
    batches = [images[start:start + size] for start in range(0, len(images), size)]
    turned = convert_conv2d_weight_memory_format(copy.deepcopy(model.network), torch.channels_last)

    def ours() -> np.ndarray:
        # At batch 1 the next image comes when the one before is answered.
        return extractor.extract(images) if size > 1 else np.concatenate([extractor.extract(b) for b in batches])

    def eager() -> np.ndarray:
        return np.concatenate([plain(model.network, batch, torch.contiguous_format) for batch in batches])

    def channels_last() -> np.ndarray:
        return np.concatenate([plain(turned, batch, torch.channels_last) for batch in batches])

    least = float((ours() * eager()).sum(1).min())
    agreed(f"embeddings of {model.backbone} at batch {size}, 1 - cosine", 1 - least, 1e-4)
    flop = model.flop() * len(images)
    products = partial(multiply, round(flop / (2 * SIDE**3)), torch.ones(SIDE, SIDE))
    columns = in_turns(rounds, ours, eager, channels_last, products)
    ours_does, eager_does, _, most = (flop / statistics.median(column) / 1e9 for column in columns)
    print(f"\nBatch {size}: {flop / len(images) / 1e9:.1f} GFLOP an image; ours does {ours_does:.0f} GFLOP/s, torch "
          f"eager {eager_does:.0f}, matrix products {most:.0f}. Twice torch eager is {2 * eager_does:.0f}.")
    what = f"{model.backbone}, {SIZE.height} x {SIZE.width}, batch {size}, images"
    peers = [("torch eager with Pillow", at_least(2)), ("the same in channels_last", NO_BAR),
             ("as many multiply-adds as matrix products", NO_BAR)]
    return [Comparison(what, columns[0], name, column, bar, len(images))
            for (name, bar), column in zip(peers, columns[1:], strict=True)]


def multiply(times: int, matrix: torch.Tensor) -> None:
    """The square of a matrix, so many times."""
    for _ in range(times):
        torch.mm(matrix, matrix)


def odd_sizes(model: Exported, sizes: dict[int, int], rounds: int) -> list[Comparison]:
    """What the first batch of an odd size costs, and what its images cost beside those of an even size."""
    pixels = np.random.default_rng(0).integers(0, 256, (max(sizes) + 1, SIZE.height, SIZE.width, 3), dtype=np.uint8)
    columns: list[list[float]] = [[], [], []]
    for _ in range(rounds):
        extractor = model.open(32)
        run_for(extractor, pixels, len(pixels))  # the memory that all sizes share
        turns = [(run_for(extractor, pixels, odd), run_for(extractor, pixels, odd),
                  run_for(extractor, pixels, even) * odd / even) for odd, even in sizes.items()]
        for column, seconds in zip(columns, zip(*turns, strict=True), strict=True):
            column.append(sum(seconds))
    first, later, even = columns
    what = f"{model.backbone}, batches of {', '.join(map(str, sizes))}"
    neighbours = f"batches of {', '.join(map(str, sizes.values()))}"
    return [Comparison(f"{what}, each the first of its size, images", first, "the next of that size", later,
                       at_most(1.1), sum(sizes)),
            Comparison(f"{what}, images", later, neighbours, even, at_most(1.1), sum(sizes))]


def run_for(extractor: FeatureExtractor, pixels: np.ndarray, size: int) -> float:
    """Seconds of one batch."""
    began = time.perf_counter()
    extractor.run(pixels[:size])
    return time.perf_counter() - began


def overlap(model: Exported, images: Sequence[bytes], rounds: int) -> list[Comparison]:
    """Large photographs on one thread that decodes and one that computes: the stream, and each of both alone."""
    photos = [enlarged(image) for image in images] * 2
    extractor = model.open(batch_size=2, threads=1)
    pixels = np.stack([extractor.preprocessing(photo) for photo in photos])

    def inference() -> None:
        for start in range(0, len(pixels), extractor.batch_size):
            extractor.run(pixels[start:start + extractor.batch_size])

    stream, decode, infer = in_turns(
        rounds, lambda: extractor.extract(photos), lambda: list(map(extractor.preprocessing, photos)), inference)
    slower = [max(pair) for pair in zip(decode, infer, strict=True)]
    both = [sum(pair) for pair in zip(decode, infer, strict=True)]
    what = f"overlap: {PHOTO[0]} x {PHOTO[1]} JPEG to {model.backbone}, one thread each, images"
    return [Comparison(what, stream, "one after the other", both, at_least(1.2), len(photos)),
            Comparison(what, stream, "the slower of both alone", slower, count=len(photos))]


def enlarged(image: bytes) -> bytes:
    """A JPEG of the size of a photograph."""
    encoded = io.BytesIO()
    Image.open(io.BytesIO(image)).resize(PHOTO).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def cold_start(model: Exported, image: bytes, folder: Path, rounds: int) -> list[Comparison | Limit]:
    """Seconds of a fresh process until its first embedding has come, and of one that only imports torch."""
    path = folder / "image.jpg"
    path.write_bytes(image)
    ours, peer = in_turns(rounds, partial(fresh, COLD, str(model.path), str(path)), partial(fresh, "import torch"))
    what = f"cold start: a process from its start to the first embedding of {model.backbone}"
    return [Limit(what, statistics.median(ours), "s", at_most(1.5)),
            Comparison(what, ours, "a process that imports torch", peer)]


def fresh(code: str, *given: str) -> None:
    """Run Python code in a process of its own."""
    subprocess.run([sys.executable, "-c", code, *given], check=True, capture_output=True)


if __name__ == "__main__":
    main()
