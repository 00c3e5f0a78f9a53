"""Files of lower precision: real onnxruntime, on small networks of every kind."""

import resource

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from deploy.files import DiskError
from deploy.preprocess import Preprocessing
from trainer.onnx_writer import describe, fingerprint, write_onnx
from trainer.output import Output
from trainer.precision import Lowered, likeness
from trainer.predict import run_network
from trainer.proof import TOLERANCES, prove

pytestmark = pytest.mark.usefixtures("one_registry")
SIZE = Preprocessing(64, 32)


@pytest.fixture(scope="module")
def pixels():
    """Smooth images of noise, (24, 64, 32, 3) uint8."""
    coarse = np.random.default_rng(0).uniform(0, 255, (24, 8, 4, 3))
    return np.kron(coarse, np.ones((1, 8, 8, 1))).astype(np.uint8)


class Small(nn.Module):
    """Five layers; `convolution.2` and `classifier` have weights for a channel that is always 0, as large as asked."""

    def __init__(self, outlier=1.0, scale=1.0, deciding=None):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Sequential(
            nn.Conv2d(3, 16, 5, 4), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU())
        self.neck = nn.Linear(24, 8)
        self.classifier = nn.Linear(8, 5)
        with torch.no_grad():
            self.convolution[0].weight[0] = 0
            self.convolution[0].bias[0] = -1
            self.convolution[2].weight[:, 0] = outlier
            self.convolution[2].weight *= scale
            self.convolution[4].weight /= scale
            if deciding:
                self.neck.weight[0] = self.neck.bias[0] = 0
                self.classifier.weight[:, 0] = deciding

    def forward(self, images):
        features = self.convolution((images.float() - 120) / 60).mean(dim=(2, 3))
        embedding = self.neck(features)
        lengths = embedding.norm(dim=1)
        return Output(features, embedding, [self.classifier(embedding)], 2 * lengths, norms=lengths)


class Attention(nn.Module):
    """Patches and a transformer layer whose attention takes the tokens first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, images):
        tokens = self.layer(self.patches((images.float() - 120) / 60).flatten(2).transpose(1, 2))
        return Output(tokens.mean(dim=1), tokens.mean(dim=1))


@pytest.fixture
def make_network(make_embedder, pixels):
    """A network by name; batch norms have the statistics of the images."""
    def make(name):
        if name in SIMPLE:
            return SIMPLE[name]().eval()
        network = make_embedder("mobilenet_v3_small", **GATED[name])
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            network.train()(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        return network.eval()
    return make


SIMPLE = {"small": Small, "attention": Attention, "outlier": lambda: Small(outlier=1e4),
          "large": lambda: Small(scale=1e6), "deciding": lambda: Small(deciding=1e5)}
GATED = {"mirrored": {"flip": True}, "parts": {"parts": 2, "margin": {"type": "nn"}}}
LAYERS = {"small": 5, "attention": 7, "mirrored": 53, "parts": 54}


@pytest.fixture(scope="module")
def exact_files():
    """(network's name, input format) -> bytes of its exact file, once it was needed."""
    return {}


@pytest.fixture
def lower(tmp_path, pixels, make_network, exact_files):
    """The exact file of a network, by name, ready to be lowered."""
    def lower(name, precision, input_format="uint8_nhwc"):
        path = tmp_path / "exact.onnx"
        if (name, input_format) not in exact_files:
            write_onnx(make_network(name), path, SIZE, input_format=input_format, logits=True)
            exact_files[name, input_format] = path.read_bytes()
        path.write_bytes(exact_files[name, input_format])
        images = pixels if input_format == "uint8_nhwc" else pixels.transpose(0, 3, 1, 2).astype(np.float32)
        return Lowered(path, precision, images)
    return lower


def by_file(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(pixels):
        if session.get_inputs()[0].type == "tensor(float)":
            pixels = pixels.transpose(0, 3, 1, 2).astype(np.float32)
        return dict(zip(names, session.run(None, {"images": pixels}), strict=True))
    return run


@pytest.mark.parametrize(("name", "precision"), [
    ("small", "fp16"), ("small", "int8"), ("attention", "fp16"), ("attention", "int8"), ("mirrored", "int8"),
    ("parts", "fp16")])
def test_every_kind_of_network_comes_near_to_itself(make_network, lower, pixels, tmp_path, capfd, name, precision):
    lowered, path = lower(name, precision), tmp_path / "lower.onnx"
    assert len(lowered.layers) == LAYERS[name]  # a mirrored image is seen by the same ones
    lowered.write(path)
    tolerance = TOLERANCES[precision]
    if name in GATED:  # what has many layers and random weights says next to nothing
        tolerance = tolerance._replace(cosine=0.8, relative=1)
    prove(run_network(make_network(name), logits=True), by_file(path), pixels, tolerance)
    exact, found = onnx.load(tmp_path / "exact.onnx"), onnx.load(path)
    for before, after in zip((*exact.graph.input, *exact.graph.output), (*found.graph.input, *found.graph.output),
                             strict=True):
        assert (after.name, after.type) == (before.name, before.type)
    assert [(opset.domain, opset.version) for opset in found.opset_import] == [("", 18)]
    assert (found.ir_version, found.metadata_props) == (exact.ir_version, exact.metadata_props)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_floats_as_input_give_what_bytes_give(lower, pixels, tmp_path, precision):
    said = []
    for input_format in ("uint8_nhwc", "float_nchw"):
        lower("small", precision, input_format).write(tmp_path / "lower.onnx")
        said.append(by_file(tmp_path / "lower.onnx")(pixels)["embeddings"])
    np.testing.assert_allclose(*said, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_same_file_gives_the_same_bytes(lower, tmp_path, precision):
    written = []
    for _ in range(2):
        lower("small", precision).write(tmp_path / "lower.onnx")
        written.append((tmp_path / "lower.onnx").read_bytes())
    assert written[0] == written[1]


def weights_of(path):
    """Shape -> type of what the file's layers multiply with."""
    tensors = onnx.load(path).graph.initializer
    return {tuple(tensor.dims): tensor.data_type for tensor in tensors if len(tensor.dims) > 1}


def test_weights_of_int8_are_scaled_by_channel(lower, tmp_path):
    lower("small", "int8").write(tmp_path / "lower.onnx", ["convolution.4"])
    assert weights_of(tmp_path / "lower.onnx") == {
        (16, 3, 5, 5): TensorProto.INT8, (16, 16, 3, 3): TensorProto.INT8, (24, 16, 3, 3): TensorProto.FLOAT,
        (8, 24): TensorProto.INT8, (5, 8): TensorProto.INT8}
    graph = onnx.load(tmp_path / "lower.onnx").graph
    scales = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    first = next(node for node in graph.node if node.op_type == "Conv").input[1]
    dequantised = next(node for node in graph.node if first in node.output)
    assert scales[dequantised.input[1]].shape == (16,)


def test_what_float16_cannot_hold_stays_in_float32(lower, make_network, tmp_path, pixels):
    lower("large", "fp16").write(tmp_path / "lower.onnx")
    assert weights_of(tmp_path / "lower.onnx") == {
        (16, 3, 5, 5): TensorProto.FLOAT16, (16, 16, 3, 3): TensorProto.FLOAT, (24, 16, 3, 3): TensorProto.FLOAT,
        (8, 24): TensorProto.FLOAT16, (5, 8): TensorProto.FLOAT16}
    by_network = run_network(make_network("large"), logits=True)
    prove(by_network, by_file(tmp_path / "lower.onnx"), pixels, TOLERANCES["fp16"])


def test_float16_scales_pixels_and_vectors_in_float32(lower, tmp_path, pixels):
    lower("small", "fp16").write(tmp_path / "lower.onnx")
    embeddings = by_file(tmp_path / "lower.onnx")(pixels)["embeddings"]
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "lower.onnx"))
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    wide = {node.op_type for node in model.graph.node if kinds[node.output[0]] == TensorProto.FLOAT}
    half = {node.op_type for node in model.graph.node if kinds[node.output[0]] == TensorProto.FLOAT16}
    assert wide >= {"Sub", "Div", "ReduceMean", "ReduceL2"} and half == {"Conv", "Relu", "Gemm", "Cast"}


def test_the_layer_that_was_made_sensitive_is_found_and_left_out_first(lower, make_network, tmp_path, pixels):
    lowered = lower("outlier", "int8")
    assert lowered.layers == ("convolution.0", "convolution.2", "convolution.4", "neck", "classifier")
    found = lowered.sensitivities()
    assert [layer.name for layer in found][0] == "convolution.2"
    assert found[0].likeness < 0.99 < 0.999 < found[1].likeness
    names = [[layer.name for layer in kept] for kept in lowered.choices()]
    assert names == [[], ["convolution.2"], [layer.name for layer in found[:2]]]
    expected = run_network(make_network("outlier"), logits=True)(pixels)["embeddings"]
    cosines = {}
    for kept in ([], ["convolution.2"]):
        lowered.write(tmp_path / "lower.onnx", kept)
        said = by_file(tmp_path / "lower.onnx")(pixels)["embeddings"]
        cosines[len(kept)] = (said * expected).sum(axis=1).min()
    assert cosines[0] < 0.99 < 0.999 < cosines[1]


def test_a_layer_that_only_spoils_logits_is_found_too(lower):
    found = lower("deciding", "int8").sensitivities()
    assert found[0].name == "classifier" and found[0].likeness < 0.5 < 0.99 < found[1].likeness


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("embeddings", [[0, 2], [3, 0]], 0.5), ("logits", [[1, 1], [1, 1]], 0.5 ** 0.5), ("margins", [1.2, 1.2], 0.98),
    ("margins", [np.nan, 1], -1), ("logits", [[np.inf, 0], [0, 1]], -1), ("margins", [1, 1], 1)])
def test_what_is_alike_is_told_by_the_worst_output(name, value, expected):
    exact = {"embeddings": np.array([[0, 1], [0, 1]]), "logits": np.eye(2), "margins": np.ones(2)}
    assert likeness(exact, {**exact, name: np.array(value)}) == pytest.approx(expected)


def test_files_of_a_lower_precision_have_fingerprints_of_their_own(lower, tmp_path):
    lowered, path = lower("small", "int8"), tmp_path / "lower.onnx"
    exact = fingerprint(Small(), tmp_path / "exact.onnx", "fp32")
    assert exact != fingerprint(Small(outlier=2), tmp_path / "exact.onnx", "fp32")
    found = {exact}
    for kept in ([], ["neck"]):
        lowered.write(path, kept)
        found |= {fingerprint(Small(), path, "int8"), fingerprint(Small(outlier=2), path, "int8")}
    found.add(fingerprint(Small(), path, "fp16"))
    assert len(found) == 6
    describe(path, {"epoch": 3})
    assert fingerprint(Small(), path, "int8") in found


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_disk_that_takes_no_more_is_told_in_one_line(lower, tmp_path, precision):
    lowered = lower("small", precision)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, limits[1]))
    try:
        with pytest.raises(DiskError, match=r"^[^\n]*prepared\.onnx: cannot be written: [^\n]+$"):
            lowered.write(tmp_path / "lower.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_onnxruntime_itself_refuses_is_no_matter_of_the_disk(lower, tmp_path, pixels):
    lower("small", "int8")
    lowered = Lowered(tmp_path / "exact.onnx", "int8", pixels.astype(np.complex128))
    with pytest.raises(RuntimeError, match="^Numpy_type "):
        lowered.write(tmp_path / "lower.onnx")
