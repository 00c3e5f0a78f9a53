"""Model repositories, read by Triton's own schema."""

import onnx
import pytest
from onnx import TensorProto, helper

from trainer.onnx_writer import ExportError
from trainer.triton import place

TYPES = {TensorProto.UINT8: "TYPE_UINT8", TensorProto.FLOAT: "TYPE_FP32"}
EMBEDDINGS, NORMS = ("embeddings", ["batch", 8]), ("norms", ["batch"])
TUNED = """# output [ { name: "logits" data_type: TYPE_FP32 dims: [5] } ]
version_policy: { latest { num_versions: 2 } }
parameters { key: "input" value: { string_value: "output [ {" } }
optimization { cuda { graph_spec [ { batch_size: 1, input { key: 'images' value { dim: [64, 32, 3] } } } ] } }
model_warmup [ { name: "first"; inputs { key: "images" value: { data_type: TYPE_UINT8 dims: [64, 32, 3] } } } ]
"""


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
    place(write(EMBEDDINGS, NORMS), repository, "reid")
    config = repository / "reid" / "config.pbtxt"
    tuned = config.read_text().replace("2000", "500").replace("input [ { name:", "input: [\n  {\n    name:") + TUNED
    config.write_text(tuned)
    (repository / "reid" / "7").mkdir()
    (repository / "reid" / "notes").mkdir()
    assert place(write(EMBEDDINGS, NORMS), repository, "reid") == repository / "reid" / "8" / "model.onnx"
    assert config_of(config.parent).dynamic_batching.max_queue_delay_microseconds == 500
    assert config.read_text() == tuned
    assert sorted(entry.name for entry in config.parent.iterdir()) == ["1", "7", "8", "config.pbtxt", "notes"]


@pytest.mark.parametrize("theirs", [
    'input { name: "images" data_type: TYPE_UINT8 dims: 0x40 dims: 040 dims: 3 }',
    'input: [ < name: "images"; data_type: TYPE_UINT8; dims: [64, 32, 3] > ]',
], ids=["numbers of base 16 and 8", "angle brackets"])
def test_a_configuration_in_the_other_ways_of_protobuf_is_read(write, repository, theirs):
    ours = 'input [ { name: "images" data_type: TYPE_UINT8 dims: [64, 32, 3] } ]'
    config = place(write(EMBEDDINGS), repository, "reid").parents[1] / "config.pbtxt"
    before = config_of(config.parent)
    config.write_text(config.read_text().replace(ours, theirs))
    assert theirs in config.read_text() and config_of(config.parent) == before
    assert place(write(EMBEDDINGS), repository, "reid").parent.name == "2"


@pytest.mark.parametrize(("before", "after", "said"), [
    ([EMBEDDINGS], [("embeddings", ["batch", 16])], "lacks output embeddings TYPE_FP32 [16], which this file has, and "
     "has output embeddings TYPE_FP32 [8], which this file lacks; give it another --model_name, or remove "),
    ([EMBEDDINGS, NORMS], [EMBEDDINGS], "has output norms TYPE_FP32 [], which this file lacks; "),
    ([EMBEDDINGS], [EMBEDDINGS, NORMS], "lacks output norms TYPE_FP32 [], which this file has; "),
])
def test_a_file_of_other_tensors_is_refused_and_nothing_changes(write, repository, before, after, said):
    place(write(*before), repository, "reid")
    with pytest.raises(ExportError) as refused:
        place(write(*after), repository, "reid", pytest.fail)
    assert str(refused.value).startswith(f"{repository / 'reid' / 'config.pbtxt'}: {said}")
    assert "\n" not in str(refused.value)
    assert sorted(entry.name for entry in (repository / "reid").iterdir()) == ["1", "config.pbtxt"]


@pytest.mark.parametrize(("change", "said"), [
    (lambda text: "".join(f"# {line}" for line in text.splitlines(keepends=True)), "lacks input images TYPE_UINT8 "),
    (lambda text: text.replace("UINT8", "FP32"), "lacks input images TYPE_UINT8 [64, 32, 3], which this "),
    (lambda text: text.replace("data_type: TYPE_FP32", ""), "lacks output embeddings TYPE_FP32 [8], which this file"),
    (lambda text: text + "input [ {", "not a configuration that Triton reads: "),
    (lambda text: text + "parameters [", "not a configuration that Triton reads: 11:13 : '': it ends too early"),
], ids=["commented out", "another type", "no type", "cut short", "cut within a list"])
def test_a_configuration_that_does_not_say_what_the_file_says_is_refused(write, repository, change, said):
    config = place(write(EMBEDDINGS), repository, "reid").parents[1] / "config.pbtxt"
    config.write_text(change(config.read_text()))
    with pytest.raises(ExportError) as refused:
        place(write(EMBEDDINGS), repository, "reid")
    assert str(refused.value).startswith(f"{config}: {said}") and "\n" not in str(refused.value)


def test_a_file_in_the_way_is_told_before_anything_is_written(write, repository):
    (repository / "reid").write_text("no folder")
    with pytest.raises(ExportError, match=r"^\S*/reid: a folder expected, this is a file; give another --model_name"):
        place(write(EMBEDDINGS), repository, "reid", pytest.fail)
    assert [entry.name for entry in repository.iterdir()] == ["reid"]


@pytest.mark.parametrize("first", [True, False])
def test_what_triton_may_poll_at_any_moment_is_no_model_before_it_is_whole(write, repository, first):
    if not first:
        place(write(EMBEDDINGS), repository, "reid")
    before = sorted(repository.rglob("[!.]*"))

    def polled(path):
        models = {str(found.relative_to(repository)) for found in repository.rglob("*.onnx")}
        seen.update(models - {"reid/1/model.onnx"})
        configs = [found for found in repository.rglob("config.pbtxt") if found.parent.name.endswith(".part")]
        assert len(configs) == first and all(config_of(found.parent).name != found.parent.name for found in configs)
        raise KeyboardInterrupt

    seen = set()
    with pytest.raises(KeyboardInterrupt):
        place(write(EMBEDDINGS), repository, "reid", polled)
    assert len(seen) == 1 and seen.pop().startswith(".reid." if first else "reid/.reid.")
    assert sorted(repository.rglob("*")) == before
