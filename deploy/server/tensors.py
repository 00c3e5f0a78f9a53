"""Tensors by the Open Inference Protocol v2, as JSON and as bytes behind it.

https://github.com/open-inference/open-inference-protocol and Triton's binary tensor data extension.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field
from pydantic_core import to_json

from ..extractor import FeatureExtractor, Outputs
from .bodies import Strict, checked
from .limits import Refused

HEADER = "Inference-Header-Content-Length"  # bytes of JSON before the tensors' own
TYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
MICROSECONDS = 1_000_000


class InputParameters(Strict):
    binary_data_size: int | None = Field(default=None, ge=0)


class InputTensor(Strict):
    name: str
    shape: list[int]
    datatype: str
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None


class OutputParameters(Strict):
    binary_data: bool | None = None


class RequestedOutput(Strict):
    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(Strict):
    binary_data_output: bool = False
    timeout: int = Field(default=0, ge=0, description="microseconds; 0 = the service's own")


class InferenceRequest(Strict):
    """Tensors for a model, as JSON; those of a binary_data_size follow it as bytes."""

    id: str = ""
    parameters: RequestParameters = RequestParameters()
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] | None = None


@dataclass(frozen=True)
class Signature:
    """Names, types and shapes of a graph's input and outputs, without the batch."""

    datatype: str
    shape: tuple[int, ...]
    outputs: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, extractor: FeatureExtractor) -> "Signature":
        """Of an exported file."""
        height, width = extractor.height, extractor.width
        if extractor.metadata["input_format"] == "uint8_nhwc":
            return cls("UINT8", (height, width, 3), extractor.output_shapes)
        return cls("FP32", (3, height, width), extractor.output_shapes)

    def described(self) -> dict[str, Any]:
        """The inputs and outputs of the protocol's model metadata."""
        return {"inputs": [{"name": "images", "datatype": self.datatype, "shape": [-1, *self.shape]}],
                "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, *shape]}
                            for name, shape in self.outputs.items()]}


def parsed(body: bytes, header: str | None, signature: Signature) -> tuple[InferenceRequest, np.ndarray]:
    """A request, and its images as the graph takes them; Refused with the first mistake."""
    length = len(body) if header is None else _length(header, len(body))
    request = checked(InferenceRequest, body[:length])
    (images,) = request.inputs
    if images.name != "images":
        raise Refused(400, f"inputs[0].name: images expected, got {images.name}")
    if images.datatype != signature.datatype:
        raise Refused(400, f"inputs[0].datatype: {signature.datatype} expected, got {images.datatype}")
    if tuple(images.shape[1:]) != signature.shape or images.shape[0] < 1:
        raise Refused(400, f"inputs[0].shape: [B, {', '.join(map(str, signature.shape))}] expected, "
                           f"got {images.shape}")
    for i, output in enumerate(request.outputs or []):
        if output.name not in signature.outputs:
            raise Refused(400, f"outputs[{i}].name: one of {', '.join(signature.outputs)} expected, "
                               f"got {output.name}")
    return request, _array(images, body[length:])


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
    head = {"model_name": model, "model_version": "1"} | ({"id": request.id} if request.id else {})
    text = to_json(head | {"outputs": said})
    if not behind:
        return text, {"Content-Type": "application/json"}
    return b"".join([text, *behind]), {"Content-Type": "application/octet-stream", HEADER: str(len(text))}


def _length(header: str, most: int) -> int:
    if not (header.isdecimal() and len(header) < 12 and int(header) <= most):
        raise Refused(400, f"{HEADER}: 0 to {most} expected, got {header:.20}")
    return int(header)


def _array(images: InputTensor, behind: bytes) -> np.ndarray:
    """The tensor, from JSON or from the bytes behind it."""
    dtype, count, size = TYPES[images.datatype], math.prod(images.shape), images.parameters.binary_data_size
    if (size is None) == (images.data is None):
        raise Refused(400, "inputs[0]: either data or binary_data_size expected")
    _expect("bytes behind the JSON", size or 0, len(behind))
    if size is None:
        array = _of_json(images.data or [], dtype)
        _expect(f"values for shape {images.shape}", count, array.size)
    else:
        _expect(f"bytes for shape {images.shape}", count * dtype.itemsize, size)
        array = np.frombuffer(behind, dtype)
    if not np.isfinite(array).all():
        raise Refused(400, "inputs[0]: finite numbers expected")
    return array.reshape(images.shape)


def _expect(what: str, expected: int, came: int) -> None:
    if came != expected:
        raise Refused(400, f"inputs[0]: {expected} {what} expected, got {came}")


def _of_json(data: list[Any], dtype: np.dtype[Any]) -> np.ndarray:
    """The numbers of a flat or nested list, where the type can hold them."""
    try:
        given = np.array(data)
    except (ValueError, OverflowError):  # lists of different lengths, or beyond numpy's numbers
        raise Refused(400, "inputs[0].data: a list of numbers expected") from None
    if dtype.kind == "u":
        if given.dtype.kind not in "iu" or given.min(initial=0) < 0 or given.max(initial=0) > 255:
            raise Refused(400, "inputs[0].data: whole numbers from 0 to 255 expected")
    elif given.dtype.kind not in "iuf":
        raise Refused(400, "inputs[0].data: a list of numbers expected")
    with np.errstate(over="ignore"):  # told as not finite
        return given.astype(dtype)
