"""A float32 ONNX file at a lower precision: float16, or int8 by calibration, both by onnxruntime's converters."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from onnx_ir.passes import InPlacePass, Sequential, common
from onnxruntime.quantization import (
    CalibrationDataReader, QuantType, create_calibrator, quant_pre_process, quantize_static)
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from deploy.files import explained, write_whole
from trainer.proof import LEAST_SCALE, cosines

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
    likeness: float  # of all outputs to the exact ones


def likeness(exact: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> float:
    """The mean cosine of rows, or what is like it of one number an image, in the output that is farthest off.

    1 = the same; -1 also where something is not finite.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        alike = [cosines(value, found[name]).mean() if value.ndim > 1 else _alike(value, found[name])
                 for name, value in exact.items()]
    return float(np.nan_to_num(alike, nan=-1).clip(-1, 1).min())


class Lowered:
    """A float32 file, to be written at a lower precision with none or some of its layers left as they are.

    `tensors` are calibration images as the graph takes them. Intermediate files stay in the exact file's folder.
    What writes raises DiskError.
    """

    def __init__(self, exact: Path, precision: Lower, tensors: np.ndarray) -> None:
        self.precision = precision
        self._exact, self._tensors, self._folder = exact, tensors, exact.parent
        self._prepared = self._folder / "prepared.onnx"
        with _written(self._prepared):
            # Symbolic inference is for transformers without shapes, which ours have, and knows no Expand of them.
            quant_pre_process(exact, self._prepared, skip_symbolic_shape=True)
            # Where a network sees an image twice, that has given each layer weights for either time.
            once = _passed(onnx.load(self._prepared), common.DeduplicateHashedInitializersPass())
            onnx.save(once, self._prepared)
        self._nodes = _layers(once.graph)
        self._ranges = self._folder / "ranges.json"
        self._ranges.unlink(missing_ok=True)  # those of other images
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
        exact = _outputs(onnx.load(self._exact), images)
        found = []
        for layer in self.layers:
            alone = self._model([other for other in self.layers if other != layer])
            found.append(Sensitivity(layer, likeness(exact, _outputs(alone, images))))
        return sorted(found, key=lambda layer: layer.likeness)

    def _model(self, kept: Collection[str]) -> ModelProto:
        with _written(self._prepared):
            model = self._convert([node for layer in kept for node in self._nodes[layer]])
        # In order, without what nothing reads, and without the operator sets that onnxruntime names for no node.
        return _passed(model, common.TopologicalSortPass(), common.RemoveUnusedNodesPass(),
                       common.RemoveUnusedOpsetsPass())

    def _as_int8(self, kept: Sequence[str]) -> ModelProto:
        """Activations uint8, weights int8 by channel, calibrated once: what CPUs multiply fastest."""
        path = self._folder / "int8.onnx"
        quantize_static(
            self._prepared, path, _Batches(self._tensors), op_types_to_quantize=[*LAYERS, *FOLLOWING],
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            nodes_to_exclude=list(kept), calibration_cache_path=self._ranges)
        model: ModelProto = onnx.load(path)
        _keep_apart(model.graph, kept)
        return model

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


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """DiskError where files beside `path` cannot be written, which onnx may notice only when it reads them again."""
    try:
        yield
    except DecodeError as error:
        failed = OSError(f"a file beside it came out damaged: {error}")
    except OSError as error:  # and no other: onnxruntime's own, of what it cannot convert, are RuntimeErrors too
        failed = error
    else:
        return
    with explained(path):
        raise failed


def _layers(graph: GraphProto) -> dict[str, list[str]]:
    """Layer -> its nodes: those that share weights are one, named after them."""
    layers: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type in LAYERS:
            _, of_network, weights = node.input[1].partition("network.")
            name = weights.partition(".weight")[0] if of_network else node.name
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


def _keep_apart(graph: GraphProto, kept: Collection[str]) -> None:
    """A Clip without bounds before each kept layer.

    Without one, onnxruntime from 1.21 on (its pull request 22969) quantises weights between int8 tensors itself when it
    opens a file, and not by channel.
    """
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.name in kept:
            apart = f"{node.name}_input"
            graph.node.append(onnx.helper.make_node("Clip", [node.input[0]], [apart], name=f"{node.name}_apart"))
            node.input[0] = apart
        graph.node.append(node)


def _without_round_trips(graph: GraphProto, ours: Collection[str]) -> None:
    """From float32 to float16 and back: the converter's casts between two nodes that both stay in float32."""
    nodes = {node.output[0]: node for node in graph.node}  # the converter adds the same cast for each reader
    narrowed = {name: node.input[0] for name, node in nodes.items() if _is_cast(node, TensorProto.FLOAT16, ours)}
    wide = {name: narrowed[node.input[0]] for name, node in nodes.items()
            if _is_cast(node, TensorProto.FLOAT, ours) and node.input[0] in narrowed}
    for name in wide.keys() & {output.name for output in graph.output}:
        nodes[name] = onnx.helper.make_node("Identity", [wide[name]], [name], name=name)
    for node in nodes.values():
        node.input[:] = [wide.get(name, name) for name in node.input]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes.values())


def _is_cast(node: NodeProto, to: int, ours: Collection[str]) -> bool:
    return node.op_type == "Cast" and node.name not in ours and node.attribute[0].i == to


def _passed(model: ModelProto, *passes: InPlacePass) -> ModelProto:
    passed: ModelProto = onnx_ir.to_proto(Sequential(*passes)(onnx_ir.from_proto(model)).model)
    return passed


def _outputs(model: ModelProto, tensors: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": tensors}), strict=True))


def _alike(a: np.ndarray, b: np.ndarray) -> float:
    """1 less half the squared relative difference of (N,) and (N,), which cosines of vectors are."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return 1 - float(np.square(a - b).mean() / max(np.square(a).mean(), LEAST_SCALE ** 2)) / 2
