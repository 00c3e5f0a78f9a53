"""Small images and archives for the tests of data."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.archive import Meta, Record, write_archive
from data.sources import SOURCES
from params.plugin import Choice


def encoded_image(seed: int, size: tuple[int, int] = (16, 24), kind: str = "JPEG") -> bytes:
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, kind)
    return encoded.getvalue()


@pytest.fixture(name="encoded_image")
def encoded_image_fixture():
    """(seed, (width, height), format) -> the bytes of an image of noise."""
    return encoded_image


@pytest.fixture
def make_archive(tmp_path):
    """(labels, cameras, split) -> the path of an archive with one noise image for each label."""

    def make(labels, cameras=None, split="train", folder="packed") -> Path:
        path = tmp_path / folder / f"{split}.lmdb"
        path.parent.mkdir(exist_ok=True)
        cameras = [-1] * len(labels) if cameras is None else cameras
        records = (Record(encoded_image(i), label, camera, -1, f"{split}/{i}.jpg")
                   for i, (label, camera) in enumerate(zip(labels, cameras, strict=True)))
        write_archive(path, records, Meta("folder", split, [f"c{k}" for k in range(max(labels) + 1)]))
        return path

    return make


@pytest.fixture
def read():
    """(source, root, **options) -> its splits."""
    return lambda name, root, **options: SOURCES.build(Choice(name, options), root=root)


@pytest.fixture
def touch():
    """(root, *paths) -> the root, with an empty file at each path."""

    def make(root: Path, *paths: str) -> Path:
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        return root

    return make
