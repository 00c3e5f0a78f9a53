"""Runtimes that none of us wrote read the exported files, and agree with FeatureExtractor."""

import re
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from deploy import FeatureExtractor
from deploy.preprocess import Preprocessing
from params.schema import ModelParams
from trainer.model import build_embedder
from trainer.onnx_writer import write_onnx

SIZE = Preprocessing(64, 32)
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "deploy" / "examples" / "embed.cpp"
NETWORKS = {
    "resnet18": {"backbone": "resnet18", "neck": {"type": "bnneck"}},
    "stripes": {"backbone": "mobilenet_v3_small", "pcb_n_parts": 2, "neck": {"type": "linear+bn"}, "feature_dim": 64},
}


def network(keys, images):
    """A network with fresh weights, and the batch statistics of the images, so that it tells them apart."""
    torch.manual_seed(0)
    embedder = build_embedder(ModelParams.model_validate(keys), classifier=None, num_classes=5, height=SIZE.height,
                              width=SIZE.width, mean=SIZE.mean, std=SIZE.std)
    for module in embedder.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # of all batches alike
    with torch.no_grad():
        embedder.train()(torch.from_numpy(images).permute(0, 3, 1, 2))
    return embedder.eval()


MODELS = [("resnet18", "uint8_nhwc"), ("resnet18", "float_nchw"), ("stripes", "float_nchw")]


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def exported(request, tmp_path_factory, encoded, one_registry):
    """A network in one input format: its extractor, the tensor of seven photographs, and their embeddings."""
    name, input_format = request.param
    pixels = np.stack([SIZE(image) for image in encoded])
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    write_onnx(network(NETWORKS[name], pixels), path, SIZE, input_format=input_format, logits=False)
    extractor = FeatureExtractor(path, providers="CPUExecutionProvider", threads=1)
    return extractor, extractor.tensor(pixels), extractor.extract(encoded)


def assert_the_same(embeddings, expected):
    """Cosines of at least 0.9999, of vectors that differ from image to image."""
    assert embeddings.shape == expected.shape
    assert (expected @ expected.T).min() < 0.9
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-4)
    assert (embeddings * expected).sum(axis=1).min() >= 0.9999


def test_openvino_agrees(exported):
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO: pip install openvino")
    extractor, tensor, expected = exported
    # Where a CPU has bfloat16, that is what it would compute with.
    compiled = openvino.Core().compile_model(
        extractor.path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    assert_the_same(compiled(tensor)["embeddings"], expected)
    assert_the_same(np.concatenate([compiled(part)["embeddings"] for part in (tensor[:3], tensor[3:])]), expected)


def test_opencv_agrees(exported):
    cv2 = pytest.importorskip("cv2", "5.0", "needs OpenCV 5: pip install opencv-python-headless")
    extractor, tensor, expected = exported
    net = cv2.dnn.readNetFromONNX(str(extractor.path))
    net.setInput(tensor, "images")
    assert_the_same(net.forward("embeddings"), expected)


def test_the_examples_of_the_page_agree(exported, encoded, tmp_path, monkeypatch):
    extractor, _, expected = exported
    client, package, version = {"uint8_nhwc": ("OpenVINO", "openvino", None), "float_nchw": ("OpenCV", "cv2", "5.0")}[
        extractor.metadata["input_format"]]
    pytest.importorskip(package, version, f"needs {client}")
    (tmp_path / "model.onnx").symlink_to(extractor.path)
    (tmp_path / "query.jpg").write_bytes(encoded[0])
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    section = page.partition(f"## {client}\n")[2].partition("\n## ")[0]
    example, = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    seen = {}
    exec(example, seen)
    assert (seen["embedding"] * expected[:1]).sum() >= 0.9999


@pytest.fixture(scope="session")
def embed(tmp_path_factory):
    """The example in C++, compiled: its path."""
    folder = tmp_path_factory.mktemp("cpp")
    libraries = list((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    include = ["-I/usr/include/onnxruntime", "-I/usr/local/include/onnxruntime"]  # and CPLUS_INCLUDE_PATH
    compiler = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", *include]
    if not compiles([*compiler, "-E", "-x", "c++", "-"], "#include <onnxruntime_cxx_api.h>\n"):
        pytest.skip("needs g++ and onnxruntime_cxx_api.h: install libonnxruntime-dev, or set CPLUS_INCLUDE_PATH")
    if not libraries:
        pytest.skip("this onnxruntime brings no libonnxruntime.so")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(libraries[0])
    subprocess.run([*compiler, SOURCE, "-o", folder / "embed", f"-L{folder}", "-lonnxruntime", f"-Wl,-rpath,{folder}"],
                   check=True)
    return folder / "embed"


def compiles(command, source):
    try:
        return subprocess.run(command, input=source, text=True, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def test_cpp_agrees(exported, embed):
    extractor, tensor, expected = exported
    done = subprocess.run([embed, extractor.path], input=tensor.tobytes(), capture_output=True)
    if extractor.metadata["input_format"] == "float_nchw":
        assert (done.returncode, done.stdout) == (2, b"") and b"does not take uint8_nhwc" in done.stderr
    else:
        assert_the_same(np.array([line.split() for line in done.stdout.splitlines()], np.float32), expected)
        done = subprocess.run([embed, extractor.path], input=tensor.tobytes()[:100], capture_output=True)
        assert (done.returncode, done.stderr) == (2, b"expected a multiple of 6144 bytes, got 100\n")
