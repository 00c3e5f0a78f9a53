"""All routes of the service as one application."""

from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from .. import __version__
from ..search import SearchError
from . import v1, v2
from .limits import Refused
from .middleware import Middleware, refused
from .service import Service

PAGE = {f"/{path.name}": path for path in Path(__file__).with_name("page").iterdir()}
PAGE["/"] = PAGE.pop("/index.html")


class Error(BaseModel):
    """Why a request was not answered, in one line."""

    error: str


def build(service: Service, *, token: str | None = None) -> FastAPI:
    """The application of a service; with a token, only health and the page are open to those who do not send it."""
    app = FastAPI(title="Kiln", version=__version__, description=(__doc__ or "").strip(), docs_url=None,
                  redoc_url=None, responses={status: {"model": Error} for status in (400, 401, 413, 429, 503, 504)})
    app.state.service = service
    for kind in (Refused, HTTPException, RequestValidationError, SearchError):
        app.add_exception_handler(kind, refused)
    for router in (v1.router, v2.router):
        app.include_router(router)
    app.add_api_route("/metrics", metrics, response_class=Response)
    for path in PAGE:
        app.add_api_route(path, page, include_in_schema=False)
    app.add_middleware(Middleware, service=service, token=token, open_paths=frozenset({*PAGE, *v2.HEALTH}))
    return app


async def metrics(request: Request) -> Response:
    """Counts and times for Prometheus."""
    return Response(request.app.state.service.metrics.exposed(), media_type=CONTENT_TYPE_LATEST)


async def page(request: Request) -> FileResponse:
    """A file of the page."""
    return FileResponse(PAGE[request.url.path], headers={"Cache-Control": "no-cache"})
