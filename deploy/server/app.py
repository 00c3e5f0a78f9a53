"""All routes of the service as one application."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from .. import __version__
from . import v1, v2
from .limits import Refused
from .middleware import Middleware, refused
from .service import Service, service_of

FOLDER = Path(__file__).with_name("page")
PAGE = {"/": FOLDER / "index.html"} | {f"/{name}": FOLDER / name for name in ("page.css", "page.js", "icon.svg")}


class Error(BaseModel):
    """Why a request was not answered, in one line."""

    error: str


def build(service: Service, *, token: str | None = None, local: bool = False) -> FastAPI:
    """The application of a service; with a token, only health and the page are open to those who do not send it.

    `local`: nobody but this machine can connect, see Middleware.
    """
    app = FastAPI(title="Kiln", version=__version__, description=(__doc__ or "").strip(), docs_url=None,
                  redoc_url=None, redirect_slashes=False, responses={"4XX": {"model": Error}, "5XX": {"model": Error}})
    app.state.service = service
    for kind in (Refused, HTTPException):
        app.add_exception_handler(kind, refused)
    for router in (v1.router, v2.router):
        app.include_router(router)
    app.add_api_route("/metrics", metrics, response_class=Response)
    for path in PAGE:
        app.add_api_route(path, page, methods=["GET", "HEAD"], include_in_schema=False)
    _complete(app.openapi(), token=token is not None)
    routes = [*v1.router.routes, *v2.router.routes, *app.routes]  # what the app wraps a router in has no path
    app.add_middleware(Middleware, service=service, token=token, local=local,
                       open_paths=frozenset({*PAGE, *v2.HEALTH}), routes=routes)
    return app


async def metrics(request: Request) -> Response:
    """Counts and times for Prometheus."""
    return Response(service_of(request).metrics.exposed(), media_type=CONTENT_TYPE_LATEST)


async def page(request: Request) -> FileResponse:
    """A file of the page."""
    return FileResponse(PAGE[request.url.path], headers={"Cache-Control": "no-cache"})


def _complete(described: dict[str, Any], *, token: bool) -> None:
    """Add to FastAPI's description of the interface what it cannot see: what bodies refer to, and the token."""
    described["components"]["schemas"] |= v2.DEFINITIONS
    if token:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"token": []}]
        for path in v2.HEALTH:
            described["paths"][path]["get"]["security"] = []
