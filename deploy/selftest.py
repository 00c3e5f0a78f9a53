"""Does a model say here what it said where it was exported?   python -m deploy.selftest MODEL"""

import argparse
import hashlib
import sys
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .command_line import DONE, FAILED, USAGE, add_providers
from .extractor import FeatureExtractor
from .preprocess import ImageError, Preprocessing
from .session import ModelError

DIGITS = 8  # a float32 of a unit vector, to its last bit or nearly


@dataclass(frozen=True)
class Replay:
    """Golden vectors against what a model says of the same images here."""

    images: int
    same_pixels: int  # images whose preprocessed pixels equal the recorded ones to the last bit
    cosine: float  # the smallest
    max_abs: float  # the largest difference of a component
    least_cosine: float  # asked for by the model

    @property
    def passed(self) -> bool:
        """Whether every embedding is the recorded one, to the accuracy that the model asks for."""
        return self.cosine >= self.least_cosine


def golden_vectors(images: Sequence[bytes], embeddings: np.ndarray, preprocessing: Preprocessing,
                   least_cosine: float) -> dict[str, Any]:
    """What a model keeps under "golden": encoded images and their embeddings (N, D) of unit length."""
    return {
        "images": [b64encode(image).decode() for image in images],
        "pixels": [_digest(preprocessing(image)) for image in images],
        "embeddings": [[round(float(x), DIGITS) for x in embedding] for embedding in embeddings],
        "least_cosine": least_cosine,
    }


def replay(extractor: FeatureExtractor) -> Replay:
    """Send a model's golden images through decoder, preprocessing and session; ModelError without any."""
    if "golden" not in extractor.metadata:
        raise ModelError(f"{extractor.path}: no golden vectors; export it again")
    golden = extractor.metadata["golden"]
    images = [b64decode(image) for image in golden["images"]]
    expected = np.array(golden["embeddings"])
    found = extractor.extract(images).astype(np.float64)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    digests = [_digest(extractor.preprocessing(image)) for image in images]
    return Replay(
        images=len(images),
        same_pixels=sum(here == there for here, there in zip(digests, golden["pixels"], strict=True)),
        cosine=float(((found * expected).sum(1) / np.maximum(lengths, 1e-12)).min()),
        max_abs=float(np.abs(found - expected).max()),
        least_cosine=golden["least_cosine"])


def _digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; 0 where the model passes, 1 where it does not, 2 where it cannot be used."""
    parser = argparse.ArgumentParser("python -m deploy.selftest", description="Replay golden vectors here.")
    parser.add_argument("model", help="a file that export.py wrote")
    add_providers(parser)
    options = parser.parse_args(arguments)
    try:
        extractor = FeatureExtractor(options.model, providers=options.providers)
        result = replay(extractor)
    except (ModelError, ImageError) as error:
        print(error, file=sys.stderr)
        return USAGE
    print(f"{'passed' if result.passed else 'FAILED'}: {options.model} on {extractor.providers[0]}")
    print(f"  equal pixels       {result.same_pixels} of {result.images} images")
    print(f"  smallest cosine    {result.cosine:.7f}, at least {result.least_cosine} expected")
    print(f"  largest difference {result.max_abs:.1e}")
    return DONE if result.passed else FAILED


if __name__ == "__main__":
    sys.exit(main())
