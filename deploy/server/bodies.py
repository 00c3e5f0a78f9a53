"""What a request asks for: its JSON or its form, checked, and each mistake in one line."""

import base64
from functools import partial
from itertools import islice
from typing import Annotated, Any, TypeVar

from fastapi import Request
from pydantic import (BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema,
                      model_validator)
from pydantic_core import from_json
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile

from .limits import Refused
from .service import service_of

MULTIPART, JSON = "multipart/form-data", "application/json"
SEVERAL = ("images", "cameras", "tags")  # of a form, where all else is given once
FIELDS = 10_000  # of a form that are no images
REASONS = {"extra_forbidden": "no such key", "model_type": "an object expected", "bytes_type": "base64 expected"}


def _decoded(image: bytes | str) -> bytes:
    """An image of a form as it is, one of JSON from base64."""
    if isinstance(image, str):
        try:
            return base64.b64decode(image, validate=True)
        except ValueError:
            raise ValueError("base64 expected") from None
    return image


L = TypeVar("L")
Many = Annotated[list[L], Field(fail_fast=True)]  # the first mistake is told: no error is made of each other one
Name = Annotated[str, Field(max_length=100)]
Image = Annotated[bytes, BeforeValidator(_decoded), WithJsonSchema({"type": "string", "contentEncoding": "base64"})]


class Strict(BaseModel):
    """What is known by name, and nothing else."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def one_unknown(cls, given: Any) -> Any:
        """At most one key that is unknown: pydantic makes an error of each."""
        if not isinstance(given, dict):
            return given
        unknown = islice((key for key in given if key not in cls.model_fields), 1)
        return {key: given[key] for key in (*cls.model_fields, *unknown) if key in given}


class EmbeddingsRequest(Strict):
    """Images to embed."""

    images: Many[Image] = Field(min_length=1, description="encoded images: files of a form, base64 in JSON")


class SearchRequest(EmbeddingsRequest):
    """Images to find in the gallery."""

    k: int = Field(10, ge=1, le=1000, description="how many of the nearest entries are returned")
    threshold: float | Name | None = Field(
        None, description="cosine, or a level of the model's such as far=1e-3, from which on an entry is accepted")
    cameras: Many[int] | None = Field(None, description="only entries of these cameras count")
    tags: Many[str] | None = Field(None, description="only entries with one of these tags count")


M = TypeVar("M", bound=Strict)
E = TypeVar("E", bound=EmbeddingsRequest)


async def read_body(request: Request, kind: type[E]) -> E:
    """What a request asks for, by JSON or a form, once there is room for its images; Refused with the first mistake."""
    service = service_of(request)
    given, options = parse_options_header(request.headers.get("content-type", "nothing"))
    content = given.decode("latin-1")
    if options.get(b"charset", b"utf-8").lower() != b"utf-8":  # Python knows some that take minutes, or none
        raise Refused(415, "Content-Type: no charset, or utf-8, expected")
    if content == JSON:
        asked = await service.threaded(partial(parsed_json, kind, await request.body()))
    elif content == MULTIPART:
        async with request.form(max_files=service.limits.max_images, max_fields=FIELDS) as form:
            asked = _checked(kind, await _fields(form))
    else:
        raise Refused(415, f"Content-Type: {MULTIPART} or {JSON} expected, got {content}")
    request.state.share.hold(len(asked.images))
    return asked


def parsed_json(kind: type[M], body: bytes) -> M:
    """JSON as a model, each value of the type that it is to have; Refused with the first mistake."""
    try:
        given = from_json(body)
    except ValueError as error:
        raise Refused(400, f"body: Invalid JSON: {error}") from None
    return _checked(kind, given, strict=True)


def _checked(kind: type[M], given: Any, *, strict: bool = False) -> M:
    """What was read as a model; where it is not strict, texts may stand for numbers, since forms have texts only."""
    try:
        return kind.model_validate(given, strict=strict)
    except ValidationError as error:
        raise Refused(400, _one_line(error.errors(include_url=False, include_input=False)[0])) from None


def _one_line(mistake: Any) -> str:
    """A mistake as pydantic tells it: where, and what was expected."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part:.60}" for part in mistake["loc"])
    reason = REASONS.get(mistake["type"], mistake["msg"].removeprefix("Value error, "))
    return f"{path.lstrip('.') or 'body'}: {reason}"


async def _fields(form: FormData) -> dict[str, Any]:
    fields: dict[str, list[bytes | str]] = {}
    for key, value in form.multi_items():
        read = await value.read() if isinstance(value, UploadFile) else value
        fields.setdefault(key, []).append(read)
    for key, values in fields.items():
        if key not in SEVERAL and len(values) > 1:
            raise Refused(400, f"{key}: given {len(values)} times; give it once")
    return {key: values if key in SEVERAL else values[0] for key, values in fields.items()}
