"""A small exported model with all that a model can have, and images to show it."""

import io
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from deploy.preprocess import Preprocessing
from deploy.selftest import golden_vectors
from trainer.onnx_writer import deployed, describe, write_onnx
from trainer.output import Output

PREPROCESSING = Preprocessing(24, 16)
THRESHOLDS = {
    "far=1e-2": {"threshold": 0.9, "far": 0.009, "far_interval": [0.007, 0.01], "tar": 0.7, "tar_interval": [0.6, 0.8]},
    "far=1e-3": {"threshold": 0.99, "far": 0.001, "far_interval": [0.0, 0.002], "tar": 0.5, "tar_interval": [0.4, 0.6]},
    "far=1e-4": {"needs": 300000, "has": 120000},
    "genuine": 900, "impostors": 120000, "split": "query against gallery",
}


class Small(nn.Module):
    """uint8 images -> Output with 6-dimensional embeddings, three classes and margins."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 6, 5, 3)
        self.classifier = nn.Linear(6, 3)

    def forward(self, images):
        features = self.convolution(images.float() / 255).square().mean(dim=(2, 3)) - 0.3
        lengths = features.norm(dim=1)
        return Output(features, features, [self.classifier(features)], lengths, norms=lengths)


def jpeg(seed):
    """A photograph of nothing: smooth colours, 60 x 40, as JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(coarse).resize((40, 60), Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def by_torch(images):
    """What the network behind the model says of encoded images: name -> array."""
    pixels = np.stack([PREPROCESSING(image) for image in images])
    with torch.no_grad():
        output = Small()(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    return {name: value.numpy() for name, value in deployed(output, logits=True).items()}


@pytest.fixture(scope="session")
def encoded():
    """Seven JPEG images."""
    return [jpeg(seed) for seed in range(7)]


@pytest.fixture(scope="session")
def expected(encoded):
    """What torch says of the seven images: name -> array."""
    return by_torch(encoded)


@pytest.fixture
def photos(tmp_path, encoded):
    """A folder with the seven images: 0.jpg, 1.jpg and five in more/."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for i, image in enumerate(encoded):
        (folder / (f"{i}.jpg" if i < 2 else f"more/{i}.JPG")).write_bytes(image)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def folder(tmp_path):
    """Gallery number 1, saved."""
    galleries = runpy.run_path(Path(__file__).with_name("numbered_galleries.py"))
    galleries["numbered"](1).save(tmp_path / "people")
    return tmp_path / "people"


@pytest.fixture(scope="session")
def models(tmp_path_factory, encoded, expected, one_registry):
    """The model in each input format, with golden vectors of four images: format -> path."""
    folder = tmp_path_factory.mktemp("models")
    golden = golden_vectors(encoded[:4], expected["embeddings"][:4], PREPROCESSING, 0.9999)
    paths = {name: folder / f"{name}.onnx" for name in ("uint8_nhwc", "float_nchw")}
    for input_format, path in paths.items():
        write_onnx(Small(), path, PREPROCESSING, input_format=input_format, logits=True)
        describe(path, {"golden": golden, "epoch": 3, "fingerprint": "5eed" * 16, "thresholds": THRESHOLDS})
    return paths


@pytest.fixture(scope="session")
def model(models):
    """The model that takes uint8 pixels."""
    return models["uint8_nhwc"]


@pytest.fixture(scope="session")
def with_metadata(tmp_path_factory, model):
    """Make a copy of the model with other metadata: (name, edit of the dict of JSON strings) -> path."""
    import onnx

    def copy(name, edit):
        changed = onnx.load(model)
        properties = {entry.key: entry.value for entry in changed.metadata_props}
        edit(properties)
        onnx.helper.set_model_props(changed, properties)
        path = tmp_path_factory.mktemp("edited") / name
        onnx.save(changed, path)
        return path

    return copy
