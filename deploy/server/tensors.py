"""Tensors by the Open Inference Protocol v2, as JSON and as bytes behind it.

https://github.com/open-inference/open-inference-protocol and Triton's binary tensor data extension.
"""

import math
from itertools import chain
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from pydantic_core import to_json

from ..extractor import FeatureExtractor, Outputs
from .bodies import JSON, Many, Name, Strict, parsed_json
from .limits import Refused

HEADER = "Inference-Header-Content-Length"  # bytes of JSON before the tensors' own
VERSION = "1"  # of every model: a service has one
DATATYPES = {np.dtype(np.uint8): "UINT8", np.dtype(np.float32): "FP32"}

Whole = Annotated[int, Field(ge=0, lt=2**63)]  # Python refuses to print the longest that JSON can hold


class InputParameters(Strict):
    """How a tensor is sent: of so many bytes behind the JSON, or as `data` in it."""

    binary_data_size: Whole | None = None


class InputTensor(Strict):
    """The images, as the graph takes them."""

    name: Name
    shape: Annotated[Many[Whole], Field(max_length=8)]
    datatype: Name
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = Field(None, description="numbers, flat or nested")


class OutputParameters(Strict):
    """How an output comes back; as the request says for all, unless it is said here."""

    binary_data: bool | None = None


class RequestedOutput(Strict):
    """An output that is asked for."""

    name: Name
    parameters: OutputParameters = OutputParameters()


class RequestParameters(Strict):
    """How all outputs come back, and how soon."""

    binary_data_output: bool = False
    timeout: Whole = Field(default=0, description="microseconds; 0 = the service's own")


class InferenceRequest(Strict):
    """Tensors for a model, as JSON; those of a binary_data_size follow it as bytes."""

    id: str = ""
    parameters: RequestParameters = RequestParameters()
    inputs: Many[InputTensor] = Field(min_length=1, max_length=1)
    outputs: Many[RequestedOutput] | None = Field(None, description="default: all of the model's")


def described(extractor: FeatureExtractor) -> dict[str, Any]:
    """The inputs and outputs of the protocol's model metadata; -1 is the batch."""
    return {"inputs": [{"name": "images", "datatype": DATATYPES[extractor.input_type],
                        "shape": [-1, *extractor.input_shape]}],
            "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, *shape]}
                        for name, shape in extractor.output_shapes.items()]}


def parsed(body: bytes, header: str | None, extractor: FeatureExtractor) -> tuple[InferenceRequest, np.ndarray]:
    """A request, and its images as the graph takes them; Refused with the first mistake."""
    length = len(body) if header is None else _length(header, len(body))
    request = parsed_json(InferenceRequest, body[:length])
    (images,) = request.inputs
    datatype = DATATYPES[extractor.input_type]
    if images.name != "images":
        raise Refused(400, f"inputs[0].name: images expected, got {images.name}")
    if images.datatype != datatype:
        raise Refused(400, f"inputs[0].datatype: {datatype} expected, got {images.datatype}")
    if tuple(images.shape[1:]) != extractor.input_shape or images.shape[0] < 1:
        raise Refused(400, f"inputs[0].shape: [B, {', '.join(map(str, extractor.input_shape))}] expected, "
                           f"got {images.shape}")
    _check_names([output.name for output in request.outputs or []], [*extractor.output_shapes])
    return request, _array(images, body[length:], extractor.input_type)


def answered(request: InferenceRequest, model: str, outputs: Outputs) -> tuple[bytes, dict[str, str]]:
    """The body of the answer, and its headers."""
    arrays = {name: array for name, array in outputs._asdict().items() if array is not None}
    default = request.parameters.binary_data_output
    asked = request.outputs or [RequestedOutput(name=name) for name in arrays]
    said, behind = [], []
    for output in asked:
        array, binary = arrays[output.name], output.parameters.binary_data
        entry = {"name": output.name, "datatype": "FP32", "shape": array.shape}
        if default if binary is None else binary:
            behind.append(array.astype("<f4").tobytes())
            said.append(entry | {"parameters": {"binary_data_size": len(behind[-1])}})
        else:
            said.append(entry | {"data": array.ravel().tolist()})
    head = {"model_name": model, "model_version": VERSION} | ({"id": request.id} if request.id else {})
    text = to_json(head | {"outputs": said})
    if not behind:
        return text, {"Content-Type": JSON}
    return b"".join([text, *behind]), {"Content-Type": "application/octet-stream", HEADER: str(len(text))}


def _length(header: str, most: int) -> int:
    if not (header.isdecimal() and len(header) < 12 and int(header) <= most):
        raise Refused(400, f"{HEADER}: 0 to {most} expected, got {header:.20}")
    return int(header)


def _check_names(asked: list[str], there: list[str]) -> None:
    """Refuse what the model does not have, and what is asked for again: an answer has an end."""
    for i, name in enumerate(asked):
        if name not in there:
            raise Refused(400, f"outputs[{i}].name: one of {', '.join(there)} expected, got {name}")
        if name in asked[:i]:
            raise Refused(400, f"outputs[{i}].name: {name} is asked for twice")


def _array(images: InputTensor, behind: bytes, dtype: np.dtype[Any]) -> np.ndarray:
    """The tensor, from JSON or from the bytes behind it."""
    count, size = math.prod(images.shape), images.parameters.binary_data_size
    if (size is None) == (images.data is None):
        raise Refused(400, "inputs[0]: either data or binary_data_size expected")
    _expect("bytes behind the JSON", size or 0, len(behind))
    if size is None:
        array = _of_json(images.data or [], dtype)
        _expect(f"values for shape {images.shape}", count, array.size)
    else:
        _expect(f"bytes for shape {images.shape}", count * dtype.itemsize, size)
        array = np.frombuffer(behind, dtype.newbyteorder("<"))
    if not np.isfinite(array).all():
        raise Refused(400, "inputs[0]: finite numbers expected")
    return array.reshape(images.shape)


def _expect(what: str, expected: int, came: int) -> None:
    if came != expected:
        raise Refused(400, f"inputs[0]: {expected} {what} expected, got {came}")


def _of_json(data: list[Any], dtype: np.dtype[Any]) -> np.ndarray:
    """The numbers of a flat or nested list, where the type can hold them.

    They are looked at before numpy sees them: of texts it would make rows as long as the longest.
    """
    while (kinds := {*map(type, data)}) == {list}:
        if len({*map(len, data)}) > 1:
            raise Refused(400, "inputs[0].data: nested lists of one length expected")
        data = [*chain.from_iterable(data)]
    numbers, told = ({int}, "whole numbers from 0 to 255") if dtype.kind == "u" else ({int, float}, "a list of numbers")
    try:
        if kinds <= numbers:
            with np.errstate(over="ignore"):  # told as not finite
                return np.array(data, dtype)
    except OverflowError:  # of whole numbers that the type cannot hold
        pass
    raise Refused(400, f"inputs[0].data: {told} expected")
