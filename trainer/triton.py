"""A proven file as a version of a model in a repository of NVIDIA's Triton Inference Server."""

import json
import os
import re
import shutil
from pathlib import Path

import onnx
from onnx import TensorProto, ValueInfoProto

from deploy.files import explained, sync_directory, write_whole
from trainer.onnx_writer import ExportError

MAX_BATCH, PREFERRED = 64, (8, 16, 32)
QUEUE_DELAY = 2000  # microseconds for which a request may wait for others
TYPES: dict[int, str] = {TensorProto.UINT8: "TYPE_UINT8", TensorProto.FLOAT: "TYPE_FP32"}


def place(file: Path, repository: Path, name: str) -> Path:
    """Move a file to repository/name/<version>/model.onnx, whole or not at all, as version 1 or the next; the new path.

    Triton serves the highest version. A config.pbtxt that is there stays as it is, with whatever was tuned in it;
    ExportError where its inputs and outputs are not this file's. Raises DiskError.
    """
    graph = onnx.load(file).graph
    model = repository / name
    versions = _versions(model)
    if model.exists():
        _require(model / "config.pbtxt", _tensors(graph))
    path = model / str(max(versions, default=0) + 1) / "model.onnx"
    # Of a folder that is no number within a model, and of one whose config has another name, Triton loads nothing.
    staged = (model if model.exists() else repository) / f".{name}.{os.getpid()}.part"
    version = staged / path.parent.name
    with explained(path):
        try:
            version.mkdir(parents=True)
            shutil.move(file, version / path.name)  # perhaps to another disk
            if model.exists():
                version.rename(path.parent)
                sync_directory(model)
            else:
                write_whole(staged / "config.pbtxt", lambda out: out.write(config(graph, name).encode()))
                staged.rename(model)
                sync_directory(repository)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return path


def config(graph: onnx.GraphProto, name: str) -> str:
    """The config.pbtxt of a graph with a free batch: requests are put together, on a GPU where Triton has one."""
    return (f'name: {json.dumps(name)}\nbackend: "onnxruntime"\nmax_batch_size: {MAX_BATCH}\n{_tensors(graph)}'
            f"dynamic_batching {{\n  preferred_batch_size: {list(PREFERRED)}\n"
            f"  max_queue_delay_microseconds: {QUEUE_DELAY}\n}}\n"
            "instance_group [ { kind: KIND_AUTO count: 1 } ]\n")


def _tensors(graph: onnx.GraphProto) -> str:
    return "".join(f"{section} [ {{ {_tensor(value)} }} ]\n" for section, values in
                   (("input", graph.input), ("output", graph.output)) for value in values)


def _tensor(value: ValueInfoProto) -> str:
    kind = value.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim][1:]  # the batch is Triton's own
    # Triton knows no tensor of a number alone for each image.
    shape = f"dims: {dims}" if dims else "dims: [1] reshape { shape: [] }"
    return f'name: "{value.name}" data_type: {TYPES[kind.elem_type]} {shape}'


def _versions(model: Path) -> list[int]:
    return [int(entry.name) for entry in model.glob("*") if re.fullmatch("[1-9][0-9]*", entry.name)]


def _require(path: Path, tensors: str) -> None:
    there = path.read_text(encoding="utf-8") if path.is_file() else ""
    lacking = [line for line in tensors.splitlines() if line not in there]
    if lacking:
        raise ExportError(f"{path}: lacks {lacking[0]}, which this file has; give it another --model_name, or remove "
                          f"{path.parent}")
