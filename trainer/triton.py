"""A proven file as a version of a model in a repository of NVIDIA's Triton Inference Server."""

import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from google.protobuf.text_format import ParseError, ParseInteger, Tokenizer
from onnx import TensorProto, ValueInfoProto

from deploy.files import explained, sync_directory, write_whole
from trainer.onnx_writer import ExportError

MAX_BATCH, PREFERRED = 64, (8, 16, 32)
QUEUE_DELAY = 2000  # microseconds for which a request may wait for others
TYPES: dict[int, str] = {TensorProto.UINT8: "TYPE_UINT8", TensorProto.FLOAT: "TYPE_FP32"}


class Tensor(NamedTuple):
    """An input or output, as Triton and clients see it."""

    role: str
    name: str
    type: str
    shape: tuple[int, ...]  # without the batch, which is Triton's own

    def __str__(self) -> str:
        return f"{self.role} {self.name} {self.type} {list(self.shape)}"


def place(file: Path, repository: Path, name: str, before: Callable[[Path], object] = lambda path: None) -> Path:
    """Copy a file to repository/name/<version>/model.onnx, whole or not at all, as version 1 or the next; the new path.

    Triton serves the highest version. A config.pbtxt that is there stays as it is, with whatever was tuned in it;
    ExportError where its inputs and outputs are not this file's, or where the model's folder would be is a file.
    `before` is called with the new path when all is written and nothing shows yet. Raises DiskError.
    """
    graph = onnx.load(file).graph
    model = repository / name
    is_new = not os.path.lexists(model)
    if not is_new and not model.is_dir():
        raise ExportError(f"{model}: a folder expected, this is a file; give another --model_name, or remove it")
    if not is_new:
        _require(model / "config.pbtxt", graph)
    path = model / str(max(_versions(model), default=0) + 1) / "model.onnx"
    # Of a folder that is no number within a model, and of one whose config has another name, Triton loads nothing.
    staged = (repository if is_new else model) / f".{name}.{os.getpid()}.part"
    version = staged / path.parent.name
    with explained(path):
        try:
            version.mkdir(parents=True)
            if is_new:
                write_whole(staged / "config.pbtxt", lambda out: out.write(config(graph, name).encode()))
            with file.open("rb") as content:
                write_whole(version / path.name, lambda out: shutil.copyfileobj(content, out))
            before(path)
            ready, shown = (staged, model) if is_new else (version, path.parent)
            ready.rename(shown)
            sync_directory(shown.parent)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return path


def config(graph: onnx.GraphProto, name: str) -> str:
    """The config.pbtxt of a graph with a free batch: requests are put together, on a GPU where Triton has one."""
    tensors = "".join(_written(tensor) for tensor in _tensors(graph))
    return (f'name: {json.dumps(name)}\nbackend: "onnxruntime"\nmax_batch_size: {MAX_BATCH}\n{tensors}'
            f"dynamic_batching {{\n  preferred_batch_size: {list(PREFERRED)}\n"
            f"  max_queue_delay_microseconds: {QUEUE_DELAY}\n}}\n"
            "instance_group [ { kind: KIND_AUTO count: 1 } ]\n")


def _written(tensor: Tensor) -> str:
    # Triton knows no tensor of a number alone for each image.
    shape = f"dims: {list(tensor.shape)}" if tensor.shape else "dims: [1] reshape { shape: [] }"
    return f'{tensor.role} [ {{ name: "{tensor.name}" data_type: {tensor.type} {shape} }} ]\n'


def _tensors(graph: onnx.GraphProto) -> list[Tensor]:
    return [_tensor(role, value) for role, values in (("input", graph.input), ("output", graph.output))
            for value in values]


def _tensor(role: str, value: ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    return Tensor(role, value.name, TYPES[kind.elem_type], tuple(dim.dim_value for dim in kind.shape.dim)[1:])


def _configured(path: Path) -> list[Tensor]:
    """The tensors of a config.pbtxt; none where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        said = _message(Tokenizer(lines))
        return [Tensor(role, "".join(tensor["name"]), "".join(tensor["data_type"]),
                       tuple(map(_integer, tensor["reshape"][0]["shape"] if tensor["reshape"] else tensor["dims"])))
                for role in ("input", "output") for tensor in said[role]]
    except (ParseError, ValueError, TypeError) as error:
        raise ExportError(f"{path}: not a configuration that Triton reads: {error}") from error


def _message(tokens: Tokenizer, end: str = "") -> dict[str, list[Any]]:
    """Protobuf's text format without a schema: field -> its values, texts or messages."""
    fields: dict[str, list[Any]] = defaultdict(list)
    while not (tokens.TryConsume(end) if end else tokens.AtEnd()):
        name = tokens.ConsumeIdentifier()
        tokens.TryConsume(":")
        if tokens.TryConsume("["):
            while not tokens.TryConsume("]"):
                fields[name].append(_value(tokens))
                tokens.TryConsume(",")
        else:
            fields[name].append(_value(tokens))
        tokens.TryConsume(",") or tokens.TryConsume(";")
    return fields


def _value(tokens: Tokenizer) -> Any:
    for begin, end in ("{}", "<>"):
        if tokens.TryConsume(begin):
            return _message(tokens, end)
    if tokens.token.startswith(('"', "'")):
        return tokens.ConsumeString()
    value = tokens.token
    if not value:
        raise tokens.ParseError("it ends too early")
    tokens.NextToken()
    return value


def _integer(text: str) -> int:
    number: int = ParseInteger(text, is_signed=True, is_long=True)  # also 0x40 and 0100
    return number


def _versions(model: Path) -> list[int]:
    return [int(entry.name) for entry in model.glob("*") if re.fullmatch("[1-9][0-9]*", entry.name)]


def _require(path: Path, graph: onnx.GraphProto) -> None:
    """ExportError unless a config.pbtxt has the graph's tensors and no others."""
    here, there = _tensors(graph), _configured(path)
    wrong = [f"lacks {tensor}, which this file has" for tensor in here if tensor not in there]
    wrong += [f"has {tensor}, which this file lacks" for tensor in there if tensor not in here]
    if wrong:
        raise ExportError(f"{path}: {', and '.join(wrong)}; give it another --model_name, or remove {path.parent}")
