"""Images in, embeddings or the nearest gallery entries out."""

import json
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel
from pydantic_core import to_json

from .bodies import JSON, MULTIPART, EmbeddingsRequest, SearchRequest, read_body
from .limits import Refused
from .service import Found, service_of

router = APIRouter(prefix="/v1")


class Embeddings(BaseModel):
    """An embedding of unit length for each image, and whose they are."""

    model: str
    fingerprint: str | None
    dim: int
    embeddings: list[list[float]]


class Entry(BaseModel):
    """A gallery entry that was found; `accepted` says whether it reaches the threshold, null where none was asked."""

    name: str
    similarity: float
    camera: int
    tag: str
    accepted: bool | None


class Results(BaseModel):
    """The nearest entries of each image, the best first, and the cosine from which on they are accepted."""

    results: list[list[Entry]]
    threshold: float | None


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    """A request's body for OpenAPI, which FastAPI cannot see: both ways to send the same."""
    described = kind.model_json_schema()
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form = described | {"properties": described["properties"] | {"images": files}}
    return {"requestBody": {"required": True, "content": {MULTIPART: {"schema": form}, JSON: {"schema": described}}}}


@router.post("/embeddings", response_model=Embeddings, openapi_extra=_body(EmbeddingsRequest))
async def embeddings(request: Request) -> Response:
    """Embeddings of images."""
    service = service_of(request)
    asked = await read_body(request, EmbeddingsRequest)
    outputs = await service.embed(asked.images)
    return Response(to_json({"model": service.name, "fingerprint": service.facts["fingerprint"],
                             "dim": service.extractor.dim, "embeddings": outputs.embeddings.tolist()}),
                    media_type=JSON)


@router.post("/search", response_model=Results, openapi_extra=_body(SearchRequest))
async def search(request: Request) -> Response:
    """The gallery entries nearest to each image."""
    service = service_of(request)
    asked = await read_body(request, SearchRequest)
    found = await service.search(asked.images, asked.k, asked.threshold, cameras=asked.cameras, tags=asked.tags)
    return await service.threaded(partial(_results, found))


@router.get("/model")
async def model(request: Request) -> Response:
    """What the model and the gallery say of themselves."""
    return _escaped(service_of(request).facts)


@router.get("/gallery/images/{name:path}", response_class=FileResponse)
async def image(request: Request, name: str) -> FileResponse:
    """The image of a gallery entry."""
    path = await service_of(request).image(name)
    if path is None:
        raise Refused(404, "no such image; those of the gallery are there, if the service has --images")
    return FileResponse(path)


def _results(found: Found) -> Response:
    least = found.threshold
    return _escaped({"threshold": least, "results": [
        [hit._asdict() | {"accepted": None if least is None else hit.similarity >= least} for hit in hits]
        for hits in found.hits]})


def _escaped(value: dict[str, Any]) -> Response:
    """JSON of names and tags: they need not be Unicode, so nothing but ASCII is sent."""
    return Response(json.dumps(value), media_type=JSON)
