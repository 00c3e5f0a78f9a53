"""Model repositories, read by Triton's own schema."""

import onnx
import pytest
from onnx import TensorProto, helper

from trainer.onnx_writer import ExportError
from trainer.triton import place

TYPES = {TensorProto.UINT8: "TYPE_UINT8", TensorProto.FLOAT: "TYPE_FP32"}
EMBEDDINGS = ("embeddings", ["batch", 8])


@pytest.fixture
def write(tmp_path):
    """A file with a graph of the given input and outputs, as Kiln exports them."""
    def write(*outputs, kind=TensorProto.UINT8, size=(64, 32, 3)):
        model = helper.make_model(helper.make_graph(
            [], "graph", [helper.make_tensor_value_info("images", kind, ["batch", *size])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs]))
        onnx.save(model, tmp_path / "proven.onnx")
        return tmp_path / "proven.onnx"
    return write


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "repository").mkdir()
    return tmp_path / "repository"


def config_of(path):
    """config.pbtxt as Triton reads it."""
    text_format = pytest.importorskip("google.protobuf.text_format", reason="Triton's schema: pip install '.[dev]'")
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="likewise")
    return text_format.Parse((path / "config.pbtxt").read_text(), schema.ModelConfig())


@pytest.mark.parametrize("file", [
    {}, {"kind": TensorProto.FLOAT, "size": (3, 64, 32)}], ids=["uint8_nhwc", "float_nchw"])
def test_the_configuration_says_what_the_file_says(write, repository, file):
    outputs = [EMBEDDINGS, ("logits", ["batch", 5]), ("margins", ["batch"]), ("norms", ["batch"])]
    path = place(write(*outputs, **file), repository, "reid")
    assert path == repository / "reid" / "1" / "model.onnx"
    config, graph = config_of(path.parents[1]), onnx.load(path).graph
    assert (config.name, config.backend, config.max_batch_size) == ("reid", "onnxruntime", 64)
    for found, values in ((config.input, graph.input), (config.output, graph.output)):
        assert [tensor.name for tensor in found] == [value.name for value in values]
        for tensor, value in zip(found, values, strict=True):
            kind = value.type.tensor_type
            shape = [dim.dim_value for dim in kind.shape.dim][1:]
            assert tensor.data_type == tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_name[
                TYPES[kind.elem_type]].number
            assert (list(tensor.reshape.shape) if tensor.HasField("reshape") else list(tensor.dims)) == shape
            assert len(tensor.dims) > 0  # which Triton asks for
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 16, 32]
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert [(group.kind, group.count) for group in config.instance_group] == [(0, 1)]  # KIND_AUTO


def test_versions_follow_one_another_and_a_tuned_configuration_stays(write, repository):
    place(write(EMBEDDINGS), repository, "reid")
    config = repository / "reid" / "config.pbtxt"
    config.write_text(config.read_text().replace("2000", "500"))
    (repository / "reid" / "7").mkdir()
    (repository / "reid" / "notes").mkdir()
    assert place(write(EMBEDDINGS), repository, "reid") == repository / "reid" / "8" / "model.onnx"
    assert config_of(config.parent).dynamic_batching.max_queue_delay_microseconds == 500
    assert sorted(entry.name for entry in config.parent.iterdir()) == ["1", "7", "8", "config.pbtxt", "notes"]


def test_a_file_of_another_shape_is_refused_and_nothing_changes(write, repository):
    place(write(EMBEDDINGS), repository, "reid")
    with pytest.raises(ExportError) as refused:
        place(write(("embeddings", ["batch", 16])), repository, "reid")
    assert str(refused.value).startswith(f"{repository / 'reid' / 'config.pbtxt'}: lacks output")
    assert "dims: [16]" in str(refused.value) and "\n" not in str(refused.value)
    assert sorted(entry.name for entry in (repository / "reid").iterdir()) == ["1", "config.pbtxt"]


def test_what_stands_in_the_way_leaves_nothing_behind(write, repository):
    (repository / "reid").write_text("no folder")
    with pytest.raises((ExportError, OSError)):
        place(write(EMBEDDINGS), repository, "reid")
    assert [entry.name for entry in repository.iterdir()] == ["reid"]
