import copy
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from deploy.preprocess import Preprocessing
from trainer.onnx_writer import ExportError, describe, write_onnx
from trainer.output import Output
from trainer.vision import torchvision

pytestmark = pytest.mark.usefixtures("one_registry")
SIZE = Preprocessing(32, 16)


class Scaled(nn.Module):
    """uint8 images -> Output: mean and std as buffers, then a body that gives one vector per image."""

    def __init__(self, body, width, *, classifiers=0, margins=False):
        super().__init__()
        self.register_buffer("mean", torch.tensor([123.0, 116.0, 103.0]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([58.0, 57.0, 57.5]).view(1, 3, 1, 1))
        self.body = body
        self.neck = nn.BatchNorm1d(width)
        self.classifiers = nn.ModuleList(nn.Linear(width, 5) for _ in range(classifiers))
        self.margins = margins

    def forward(self, images):
        features = self.body((images.float() - self.mean) / self.std)
        embedding = self.neck(features)
        logits = [classifier(embedding) for classifier in self.classifiers] or None
        lengths = features.norm(dim=1) if self.margins else None
        return Output(features, embedding, logits, lengths, norms=lengths)


class Attention(nn.Module):
    """Patches, a class token, position embeddings and one transformer layer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 9, 16))
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)

    def forward(self, images):
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(images.shape[0], -1, -1), patches], dim=1)
        return self.layer(tokens + self.positions)[:, 0]


class Stripes(nn.Module):
    """The feature map in two stripes of rows, each averaged: PCB."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, images):
        stripes = self.convolution(images).chunk(2, dim=2)
        return torch.cat([stripe.mean(dim=(2, 3)) for stripe in stripes], dim=1)


def torchvision_body(name, head):
    body = getattr(torchvision.models, name)()
    setattr(body, head, nn.Identity())
    return body


NETWORKS = {
    "resnet18": lambda: Scaled(torchvision_body("resnet18", "fc"), 512),
    "mobilenet": lambda: Scaled(torchvision_body("mobilenet_v3_small", "classifier"), 576, classifiers=1),
    "attention": lambda: Scaled(Attention(), 16, margins=True),
    "stripes": lambda: Scaled(Stripes(), 8, classifiers=2),
}


@pytest.fixture
def network():
    """A small trained-looking network with two classifiers."""
    return made("stripes")


def made(name):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.running_mean, -1, 1)
    return network.eval()


def pixels(count):
    return np.random.default_rng(count).integers(0, 256, (count, 32, 16, 3), dtype=np.uint8)


def opened(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def written(path, network, **options):
    options = {"input_format": "uint8_nhwc", "logits": False} | options
    write_onnx(network, path, SIZE, **options)
    return opened(path)


def by_torch(network, images):
    with torch.no_grad():
        return network(torch.from_numpy(images).permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_says_the_same_at_every_batch_size(name, tmp_path):
    network = made(name)
    session = written(tmp_path / "model.onnx", network, logits=True)
    for count in (1, 2, 3, 7, 16):
        output = by_torch(network, pixels(count))
        said = dict(zip([o.name for o in session.get_outputs()],
                        session.run(None, {"images": pixels(count)}), strict=True))
        expected = {"embeddings": output.embedding / output.embedding.norm(dim=1, keepdim=True)}
        if output.logits:
            expected["logits"] = sum(output.logits) / len(output.logits)
        if output.margins is not None:
            expected["margins"] = output.margins
            expected["norms"] = output.features.norm(dim=1)
        assert said.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(said[key], value.numpy(), rtol=1e-4, atol=2e-5)


def test_squeeze_and_excitation_is_written_so_that_every_runtime_reads_it(tmp_path):
    written(tmp_path / "model.onnx", made("mobilenet"))
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    assert not {"Gather", "Range"} & {node.op_type for node in nodes}
    gates = {node.output[0] for node in nodes if node.op_type == "HardSigmoid"}
    assert gates and {node.op_type for node in nodes if gates & set(node.input)} == {"Identity"}


def test_float_nchw_differs_only_in_how_the_images_are_given(network, folder, tmp_path):
    of_bytes = opened(folder / "model.onnx")
    of_floats = written(tmp_path / "floats.onnx", network, input_format="float_nchw")
    floats = pixels(3).transpose(0, 3, 1, 2).astype(np.float32)
    np.testing.assert_allclose(of_floats.run(None, {"images": floats})[0],
                               of_bytes.run(None, {"images": pixels(3)})[0], atol=1e-6)
    assert of_floats.get_inputs()[0].shape == ["batch", 3, 32, 16]
    assert of_bytes.get_inputs()[0].shape == ["batch", 32, 16, 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with model.onnx: two classifiers, logits not asked for."""
    folder = tmp_path_factory.mktemp("written")
    written(folder / "model.onnx", made("stripes"))
    return folder


def test_logits_are_in_the_graph_only_when_asked_for(folder):
    assert [output.name for output in opened(folder / "model.onnx").get_outputs()] == ["embeddings"]


def test_the_metadata_are_json_and_say_what_a_reader_must_know(folder):
    properties = opened(folder / "model.onnx").get_modelmeta().custom_metadata_map
    assert {key: json.loads(value) for key, value in properties.items()} == {
        "preprocessing": SIZE.to_dict(), "input_format": "uint8_nhwc", "embedding_dim": 8}


def test_what_is_added_to_the_metadata_changes_nothing_else(folder, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes((folder / "model.onnx").read_bytes())
    describe(path, {"epoch": 3, "class_names": ["a", "ü"]})
    before, after = onnx.load(folder / "model.onnx"), onnx.load(path)
    assert after.graph == before.graph
    said = {entry.key: json.loads(entry.value) for entry in after.metadata_props}
    assert said == {entry.key: json.loads(entry.value) for entry in before.metadata_props} | {
        "epoch": 3, "class_names": ["a", "ü"]}


def test_the_file_is_one_file_without_paths_of_this_machine(folder):
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    content = (folder / "model.onnx").read_bytes()
    assert b"stack_trace" not in content and b".py" not in content


def test_the_file_needs_no_newer_reader_than_onnx_1_13(folder):
    model = onnx.load(folder / "model.onnx")
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert model.ir_version == 8


def test_the_same_network_gives_the_same_file(folder, network, tmp_path):
    written(tmp_path / "again.onnx", network)
    assert (tmp_path / "again.onnx").read_bytes() == (folder / "model.onnx").read_bytes()


def test_a_dead_embedding_stays_zero_instead_of_nan(network, tmp_path):
    nn.init.zeros_(network.neck.weight)
    nn.init.zeros_(network.neck.bias)
    embeddings, = written(tmp_path / "model.onnx", network).run(None, {"images": pixels(2)})
    np.testing.assert_array_equal(embeddings, np.zeros((2, 8)))


def test_the_network_is_left_as_it_was(network, tmp_path):
    network.train()
    network.body.eval()
    network.body.convolution.weight.grad = torch.ones_like(network.body.convolution.weight)
    before = copy.deepcopy(network.state_dict())
    written(tmp_path / "model.onnx", network)
    assert network.training and not network.body.training
    assert network.body.convolution.weight.requires_grad
    assert network.body.convolution.weight.grad.sum() == network.body.convolution.weight.numel()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


class Counting(nn.Module):
    def forward(self, images):
        embedding = images.float().mean(dim=(2, 3)).reshape(len(images), 3)
        return Output(embedding, embedding)


def test_a_network_of_one_batch_size_is_refused(tmp_path):
    with pytest.raises(ExportError, match="Counting: its graph takes batches of 2 only"):
        written(tmp_path / "model.onnx", Counting())
    assert not list(tmp_path.iterdir())


def test_an_export_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ExportError):
        written(path, Counting())
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_metadata_that_are_no_json_leave_the_file_as_it_was(network, tmp_path):
    path = tmp_path / "model.onnx"
    written(path, network)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        describe(path, {"metrics": {"mAP": float("nan")}})
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_the_exporter_is_silent(network, tmp_path, capfd):
    written(tmp_path / "model.onnx", network)
    assert capfd.readouterr() == ("", "")
