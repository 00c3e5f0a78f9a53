"""The Open Inference Protocol v2: health, metadata, and tensors in and out."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from .. import __version__
from .bodies import JSON
from .limits import Refused
from .middleware import within
from .service import Service, service_of
from .tensors import HEADER, VERSION, InferenceRequest, answered, described, parsed

router = APIRouter(prefix="/v2")
MICROSECONDS = 1_000_000
HEALTH = ("/v2/health/live", "/v2/health/ready")
SCHEMA = InferenceRequest.model_json_schema(ref_template="#/components/schemas/{model}")
DEFINITIONS = SCHEMA.pop("$defs")  # what it refers to, for OpenAPI's components
BODY = {"requestBody": {"required": True, "content": {
    JSON: {"schema": SCHEMA}, "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}}


@router.get("")
async def server() -> dict[str, Any]:
    """What this server is."""
    return {"name": "kiln", "version": __version__, "extensions": ["binary_tensor_data"]}


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """Whether the process answers."""
    return {"live": True}


@router.get("/health/ready")
async def ready(request: Request) -> dict[str, bool]:
    """Whether requests are welcome; 503 once the service is stopping."""
    if service_of(request).stopping:
        raise Refused(503, "the service is stopping")
    return {"ready": True}


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def metadata(request: Request, name: str, version: str = VERSION) -> dict[str, Any]:
    """What the model takes and gives."""
    service = _require(request, name, version)
    return {"name": name, "versions": [VERSION], "platform": "onnxruntime_onnx",
            **described(service.extractor)}


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: str, version: str = VERSION) -> dict[str, Any]:
    """Whether requests for this model are welcome."""
    _require(request, name, version)
    return {"name": name, **await ready(request)}


@router.post("/models/{name}/infer", openapi_extra=BODY)
@router.post("/models/{name}/versions/{version}/infer", openapi_extra=BODY)
async def infer(request: Request, name: str, version: str = VERSION) -> Response:
    """Outputs of a batch of tensors."""
    service = _require(request, name, version)
    if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
        raise Refused(415, f"Content-Encoding: none expected, got {encoding}")
    parse = partial(parsed, await request.body(), request.headers.get(HEADER), service.extractor)
    asked, tensor = await service.threaded(parse)
    request.state.share.hold(len(tensor))
    allowed = asked.parameters.timeout / MICROSECONDS or service.limits.timeout_s
    outputs = await within(allowed, service.infer(tensor))
    body, headers = await service.threaded(partial(answered, asked, name, outputs))
    return Response(body, headers=headers)


def _require(request: Request, name: str, version: str) -> Service:
    service = service_of(request)
    if (name, version) != (service.name, VERSION):
        raise Refused(404, f"model: {service.name}, version {VERSION}, expected, got {name}, version {version}")
    return service
