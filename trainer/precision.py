"""A float32 ONNX file at a lower precision: float16, or int8 by calibration, both by onnxruntime's converters."""

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from onnx_ir.passes import Sequential, common
from onnxruntime.quantization import (
    CalibrationDataReader, QuantType, create_calibrator, quant_pre_process, quantize_static)
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from data.files import write_whole

Lower = Literal["fp16", "int8"]

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # nearly all of a network's time and weights
# These are int8 for nothing where what they read is int8. Normalisations, softmax, gates and sums of branches stay in
# float32, as they are no faster in int8: with them, a vision transformer was four times as far from its network.
FOLLOWING = ("Relu", "Clip", "MaxPool", "Reshape", "Transpose", "Flatten")
# Sums of many terms, and powers, leave float16's range or lose its few digits.
WIDE = ("ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "GlobalAveragePool",
        "AveragePool", "LpNormalization", "Pow", "Softmax")
LARGEST = float(np.finfo(np.float16).max) / 4  # other images may give four times what those of the calibration gave

BATCH = 16  # calibration images at a time
SENSED = 16  # images by which a layer's sensitivity is measured


class Sensitivity(NamedTuple):
    """What a layer alone costs at the lower precision."""

    name: str
    cosine: float  # of the embeddings to the exact ones, mean over images


class Lowered:
    """A float32 file, to be written at a lower precision with none or some of its layers left as they are.

    `tensors` are calibration images as the graph takes them. What is made on the way is left beside the exact file.
    """

    def __init__(self, exact: Path, precision: Lower, tensors: np.ndarray) -> None:
        self._exact, self._tensors, self._folder = exact, tensors, exact.parent
        self._prepared = self._folder / "prepared.onnx"
        # Symbolic inference is for transformers without shapes, which ours have, and knows no Expand of them.
        quant_pre_process(exact, self._prepared, skip_symbolic_shape=True)
        self._nodes = _layers(onnx.load(self._prepared).graph)
        self.layers = tuple(self._nodes)
        self._convert = self._as_fp16 if precision == "fp16" else self._as_int8

    def write(self, path: Path, kept: Collection[str] = ()) -> None:
        """Write the file with the layers `kept` in float32, and the exact file's metadata."""
        exact, model = onnx.load(self._exact), self._model(kept)
        del model.metadata_props[:]
        model.metadata_props.extend(exact.metadata_props)
        model.ir_version = exact.ir_version
        onnx.checker.check_model(model, full_check=True)
        write_whole(path, lambda file: file.write(model.SerializeToString()), durable=False)

    def choices(self) -> Iterator[Sequence[Sensitivity]]:
        """Layers to leave in float32: none, then the most sensitive 1, 2, 4, 8 ... and at most half of all."""
        yield []
        most = len(self.layers) // 2
        ranked = self.sensitivities() if most else []
        count = 1
        while count <= most:
            yield ranked[:count]
            count *= 2

    def sensitivities(self) -> list[Sensitivity]:
        """What each layer costs, the most sensitive first."""
        images = self._tensors[::-(-len(self._tensors) // SENSED)]
        exact = _embeddings(onnx.load(self._exact), images)
        found = []
        for layer in self.layers:
            alone = self._model([other for other in self.layers if other != layer])
            cosines = (exact * _embeddings(alone, images)).sum(axis=1)
            found.append(Sensitivity(layer, float(cosines.mean(dtype=np.float64))))
        return sorted(found, key=lambda sensitivity: sensitivity.cosine)

    def _model(self, kept: Collection[str]) -> ModelProto:
        return _tidy(self._convert([node for layer in kept for node in self._nodes[layer]]))

    def _as_int8(self, kept: Sequence[str]) -> ModelProto:
        """Activations uint8, weights int8 by channel, calibrated once: what CPUs multiply fastest."""
        path = self._folder / "int8.onnx"
        quantize_static(
            self._prepared, path, _Batches(self._tensors), op_types_to_quantize=[*LAYERS, *FOLLOWING],
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            nodes_to_exclude=list(kept), calibration_cache_path=self._folder / "ranges.json")
        return onnx.load(path)

    def _as_fp16(self, kept: Sequence[str]) -> ModelProto:
        """Weights and what is between layers in float16; input and outputs, and what is best not, in float32."""
        model: ModelProto = onnx.load(self._prepared)
        del model.graph.value_info[:]  # the converter infers them anew, without those of weights, which mislead it
        ours = {node.name for node in model.graph.node}
        model = convert_float_to_float16(
            model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *WIDE],
            node_block_list=[*kept, *self._islands])
        _without_round_trips(model.graph, ours)
        return model

    @cached_property
    def _islands(self) -> list[str]:
        """Nodes for float32 whose kind does not say it."""
        graph = onnx.load(self._prepared).graph
        calibrator = create_calibrator(self._prepared, augmented_model_path=str(self._folder / "ranges.onnx"))
        calibrator.collect_data(_Batches(self._tensors))
        ranges = calibrator.compute_data().items()
        large = {name for name, found in ranges if np.abs(found.range_value).max() > LARGEST}
        # onnxruntime 1.31 dies of a float16 Transpose before a MatMul when it opens the file on a CPU.
        fatal = {name for node in graph.node if node.op_type == "MatMul" for name in node.input}
        between = _between(graph)
        return [node.name for node in graph.node
                if node.name not in between or large & {*node.input, *node.output}
                or node.op_type == "Transpose" and fatal & {*node.output}]


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Images as onnxruntime's calibration asks for them."""

    def __init__(self, tensors: np.ndarray) -> None:
        self._left = iter(np.split(tensors, range(BATCH, len(tensors), BATCH)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._left, None)
        return None if batch is None else {"images": batch}


def _layers(graph: GraphProto) -> dict[str, list[str]]:
    """Layer -> its nodes: those that share weights are one, named after them."""
    layers: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type in LAYERS:
            weights = node.input[1]
            named = weights.startswith("network.")
            name = weights.removeprefix("network.").removesuffix(".weight") if named else node.name
            layers.setdefault(name, []).append(node.name)
    return layers


def _between(graph: GraphProto) -> set[str]:
    """Layers, and nodes with layers before and after them: not how pixels are scaled, nor how vectors are."""
    fed: set[str] = set()
    for node in graph.node:
        if node.op_type in LAYERS or fed & {*node.input}:
            fed.update(node.output)
    read: set[str] = set()
    for node in reversed(graph.node):
        if node.op_type in LAYERS or read & {*node.output}:
            read.update(node.input)
    return {node.name for node in graph.node
            if node.op_type in LAYERS or fed & {*node.input} and read & {*node.output}}


def _without_round_trips(graph: GraphProto, ours: Collection[str]) -> None:
    """From float32 to float16 and back: the converter's casts between two nodes that both stay in float32."""
    nodes = list({node.output[0]: node for node in graph.node}.values())  # it adds a cast once for each reader
    narrowed = {node.output[0]: node.input[0] for node in nodes if _is_cast(node, TensorProto.FLOAT16, ours)}
    for node in nodes:
        if _is_cast(node, TensorProto.FLOAT, ours) and node.input[0] in narrowed:
            wide = onnx.helper.make_node("Identity", [narrowed[node.input[0]]], node.output, name=node.name)
            node.CopyFrom(wide)
    del graph.value_info[:]
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _is_cast(node: NodeProto, to: int, ours: Collection[str]) -> bool:
    return node.op_type == "Cast" and node.name not in ours and node.attribute[0].i == to


def _tidy(model: ModelProto) -> ModelProto:
    """In order, without what nothing reads, and without operator sets that onnxruntime names for no node."""
    tidied = Sequential(common.TopologicalSortPass(), common.IdentityEliminationPass(), common.RemoveUnusedNodesPass(),
                        common.RemoveUnusedOpsetsPass())(onnx_ir.from_proto(model))
    proto: ModelProto = onnx_ir.to_proto(tidied.model)
    return proto


def _embeddings(model: ModelProto, tensors: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["embeddings"], {"images": tensors})[0]
    return found
