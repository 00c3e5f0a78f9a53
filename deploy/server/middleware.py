"""What every request passes through: who may ask, how much, how long; and what no answer gives away."""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import TypeVar
from uuid import uuid4

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..search import SearchError
from .bodies import one_line
from .limits import Refused, Share
from .service import Service

T = TypeVar("T")

log = logging.getLogger("kiln.deploy")

# The page takes nothing from elsewhere, and no other page may frame it. Blobs are images that it was sent.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
                               "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
GONE = 499  # as nginx counts clients that did not wait for the answer


class Middleware:
    """The outermost layer: token, room, time, headers, counts, and errors that nothing else has caught."""

    def __init__(self, app: ASGIApp, service: Service, *, token: str | None, open_paths: frozenset[str]) -> None:
        self._app, self._service, self._open = app, service, open_paths
        self._expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status = perf_counter(), GONE

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *ENCODED]
            await send(message)

        try:
            await self._pass(scope, receive, answer)
        except ClientDisconnect:
            pass
        except Exception as error:
            if status != GONE:  # too late to say anything else
                raise
            await refusal(error)(scope, receive, answer)
        finally:
            # Named by the route, not by the path: strangers must not make up new series.
            route = getattr(scope.get("route"), "path", "other")
            self._service.metrics.requests.labels(route, status).inc()
            self._service.metrics.seconds.labels(route).observe(perf_counter() - began)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in self._open:
            self._require_token(scope)
        if scope["method"] != "POST":  # all that costs much is posted
            return await self._app(scope, receive, send)
        if self._service.stopping:
            raise Refused(503, "the service is stopping; ask another", {"Connection": "close"})
        with self._service.room.share() as share:
            scope.setdefault("state", {})["share"] = share
            await within(self._service.limits.timeout_s, self._app(scope, _metered(receive, share), send))

    def _require_token(self, scope: Scope) -> None:
        if self._expected is None:
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, self._expected):
            raise Refused(401, "token: the service's own expected, as Authorization: Bearer TOKEN",
                          {"WWW-Authenticate": "Bearer"})


ENCODED = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Wait for some work so long; Refused with 504, and the work cancelled, where it takes longer."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise Refused(504, f"no answer within {seconds:g} s; send fewer images, or again later") from None


def refusal(error: Exception) -> Response:
    """An error as the client reads it: one line, and never more than it may know."""
    if isinstance(error, Refused):
        return _said(error.status, error.message, error.headers)
    if isinstance(error, HTTPException):
        return _said(error.status_code, error.detail, error.headers)
    if isinstance(error, RequestValidationError):
        return _said(400, one_line(error.errors()[0]))
    if isinstance(error, SearchError):
        return _said(400, str(error))
    number = uuid4().hex[:12]
    log.error("error %s", number, exc_info=error)
    return _said(500, f"error of the service; its log has it as {number}")


async def refused(_request: Request, error: Exception) -> Response:
    """`refusal` as FastAPI calls it."""
    return refusal(error)


def _said(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": " ".join(message.split())}, status, headers)


def _metered(receive: Receive, share: Share) -> Callable[[], Awaitable[Message]]:
    """The body as it comes, refused once it is more than there is room for."""
    async def metered() -> Message:
        message = await receive()
        share.grow(size=len(message.get("body", b"")))
        return message
    return metered
