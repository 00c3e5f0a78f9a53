"""A trained network as one ONNX file, which holds all that a reader must know of it."""

import copy
import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from torch import Tensor, nn

from deploy.files import write_whole
from deploy.preprocess import Preprocessing
from trainer.output import deployed

# The lowest opset that torch's exporter writes without converting, and the file format of its time:
# ONNX 1.13 and onnxruntime 1.14 read them.
OPSET, IR_VERSION = 18, 8

InputFormat = Literal["uint8_nhwc", "float_nchw"]


class ExportError(ValueError):
    """A network has no faithful ONNX form: one line that says why."""

    exit_code = 5


class Deployed(nn.Module):
    """The graph that ships: images -> embeddings of unit length, then logits, margins and norms where there are any.

    Images are uint8 (B, H, W, 3), or float32 (B, 3, H, W) in 0..255; both RGB. A network with several
    classifiers (PCB stripes) gives the mean of their logits.
    """

    def __init__(self, network: nn.Module, input_format: InputFormat, *, logits: bool) -> None:
        super().__init__()
        self.network = network
        self._channels_last = input_format == "uint8_nhwc"
        self._logits = logits

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        if self._channels_last:
            # (B, H, W, 3) -> (B, 3, H, W); where that is a view, torch writes the means of its maps as Gathers.
            images = images.permute(0, 3, 1, 2).contiguous()
        return deployed(self.network(images), logits=self._logits)


def write_onnx(network: nn.Module, path: str | Path, preprocessing: Preprocessing, *,
               input_format: InputFormat, logits: bool) -> None:
    """Write a network of uint8 images (B, 3, H, W) as one ONNX file with a free batch; whole or not at all.

    It says of itself `preprocessing`, `input_format` and `embedding_dim`; `describe` adds to that. The network
    is left as it is. Raises ExportError where the graph takes one batch size only, and DiskError.
    """
    images = _example(preprocessing, input_format)
    graph = Deployed(copy.deepcopy(network).cpu(), input_format, logits=logits).eval().requires_grad_(False)
    shipped = graph(images)
    model = _gated(_stripped(_exported(graph, images, list(shipped))))
    model.ir_version = IR_VERSION  # the newer ones are for the notes that were stripped
    onnx.checker.check_model(model, full_check=True)
    _write(model, Path(path), {"preprocessing": preprocessing.to_dict(), "input_format": input_format,
                               "embedding_dim": shipped["embeddings"].shape[1]})


def describe(path: str | Path, metadata: Mapping[str, Any]) -> None:
    """Add what a written file says of itself, as JSON strings; whole or not at all, and the graph as it was."""
    _write(onnx.load(path), Path(path), metadata)


def fingerprint(network: nn.Module, path: str | Path, precision: str) -> str:
    """sha256 over what embeddings depend on: all weights by name and, below fp32, precision and graph of the file."""
    digest = hashlib.sha256()
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode() + weight.contiguous().numpy().tobytes())
    if precision != "fp32":
        digest.update(precision.encode() + onnx.load(path).graph.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _write(model: onnx.ModelProto, path: Path, metadata: Mapping[str, Any]) -> None:
    properties = {entry.key: entry.value for entry in model.metadata_props}
    properties |= {key: json.dumps(value, allow_nan=False) for key, value in metadata.items()}
    onnx.helper.set_model_props(model, dict(sorted(properties.items())))
    write_whole(path, lambda file: file.write(model.SerializeToString()))


def _example(preprocessing: Preprocessing, input_format: InputFormat) -> Tensor:
    # Two images: torch.export takes a batch of one for a constant.
    height, width = preprocessing.height, preprocessing.width
    if input_format == "uint8_nhwc":
        return torch.zeros(2, height, width, 3, dtype=torch.uint8)
    return torch.zeros(2, 3, height, width)


def _exported(graph: Deployed, images: Tensor, names: list[str]) -> onnx.ModelProto:
    with warnings.catch_warnings():
        # torch.export and onnxscript use what torch has deprecated; nothing that our caller could change.
        for category in (FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", category)
        program = torch.onnx.export(
            graph, (images,), dynamo=True, verbose=False, external_data=False, opset_version=OPSET,
            input_names=["images"], output_names=names,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}})
    assert program is not None  # it is None only when torch writes the file
    model: onnx.ModelProto = program.model_proto
    # torch fixes the batch in silence when the network asks for it as a Python int.
    if not model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise ExportError(f"{type(graph.network).__name__}: its graph takes batches of {len(images)} only; "
                          "in forward, read the batch size as images.shape[0], not len(images)")
    return model


def _stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    # The exporter notes stack traces at every node, with the paths of this machine.
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    return model


def _gated(model: onnx.ModelProto) -> onnx.ModelProto:
    # OpenCV 5.0 takes HardSigmoid and Mul for HardSwish, whatever else is multiplied: squeeze-and-excitation comes
    # out wrong. An Identity between them, which every runtime removes, keeps them apart.
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.append(node)
        if node.op_type == "HardSigmoid":
            gate = node.output[0]
            model.graph.node[-1].output[0] = f"{gate}_alone"
            model.graph.node.append(onnx.helper.make_node("Identity", [f"{gate}_alone"], [gate]))
    return model
