"""What every request passes through: who may ask, how much, how long; and what no answer gives away."""

import asyncio
import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import TypeVar
from uuid import uuid4

from fastapi import Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
LONGEST = 300  # letters of an error, which may repeat what came
OURS = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?", re.IGNORECASE)


class Middleware:
    """The outermost layer: token, host, room, time, headers, counts, and errors that nothing else has caught.

    `local` says that nobody but this machine can connect: without a token, the names in OURS are then the only ones
    that it may be called by. A page of a stranger's, in a browser here, has its own, wherever that name leads.
    """

    def __init__(self, app: ASGIApp, service: Service, *, token: str | None, local: bool, open_paths: frozenset[str],
                 routes: Sequence[BaseRoute]) -> None:
        self._app, self._service, self._open, self._routes = app, service, open_paths, routes
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._only_ours = local and token is None

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
            route = self._route(scope)
            self._service.metrics.requests.labels(route, status).inc()
            self._service.metrics.seconds.labels(route).observe(perf_counter() - began)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._require_host(scope)
        if scope["path"] not in self._open:
            self._require_token(scope)
        if scope["method"] != "POST":  # all that costs much is posted
            return await self._app(scope, receive, send)
        if self._service.stopping:
            raise Refused(503, "the service is stopping; ask another", {"Connection": "close"})
        with self._service.room.share() as share:
            scope.setdefault("state", {})["share"] = share
            body = Body(receive, share)
            work = unless(body.gone, self._app(scope, body.receive, send))
            await within(self._service.limits.timeout_s, work)

    def _route(self, scope: Scope) -> str:
        """The path of the route, not of the request: strangers must not make up new series."""
        matching = (route for route in self._routes if route.matches(scope)[0] != Match.NONE)
        return getattr(scope.get("route") or next(matching, None), "path", "other")

    def _require_host(self, scope: Scope) -> None:
        host = dict(scope["headers"]).get(b"host", b"localhost")
        if self._only_ours and not OURS.fullmatch(host):
            raise Refused(421, f"Host: localhost, 127.0.0.1 or [::1] expected of a service without a token, "
                               f"got {host.decode('latin-1')}")

    def _require_token(self, scope: Scope) -> None:
        if self._expected is None:
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not hmac.compare_digest(given, self._expected):
            raise Refused(401, "token: the service's own expected, as Authorization: Bearer TOKEN",
                          {"WWW-Authenticate": "Bearer"})


ENCODED = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Body:
    """The body of a request as it comes, refused once it is more than there is room for."""

    def __init__(self, receive: Receive, share: Share) -> None:
        self._receive, self._share = receive, share
        self._whole = asyncio.Event()

    async def receive(self) -> Message:
        """The next part of it."""
        message = await self._receive()
        self._share.receive(len(message.get("body", b"")))
        if not message.get("more_body"):
            self._whole.set()
        return message

    async def gone(self) -> None:
        """Wait until the client, whose body came whole, does not wait for the answer any more."""
        await self._whole.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def unless(event: Callable[[], Awaitable[None]], work: Awaitable[T]) -> T:
    """Wait for some work; ClientDisconnect, and the work cancelled, where the event comes first."""
    async def watch() -> None:
        await event()
        scope.reschedule(0)  # its time is over

    try:
        async with asyncio.timeout(None) as scope:
            watching = asyncio.create_task(watch())
            try:
                return await work
            finally:
                watching.cancel()
    except TimeoutError:
        if not scope.expired():  # the work's own
            raise
        raise ClientDisconnect from None


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Wait for some work so long; Refused with 504, and the work cancelled, where it takes longer."""
    try:
        async with asyncio.timeout(seconds) as scope:
            return await work
    except TimeoutError:
        if not scope.expired():  # the work's own
            raise
        raise Refused(504, f"no answer within {seconds:g} s; send fewer images, or again later") from None


def refusal(error: Exception) -> Response:
    """An error as the client reads it: one line, and never more than it may know."""
    if isinstance(error, Refused):
        return _said(error.status, error.message, error.headers)
    if isinstance(error, HTTPException):
        return _said(error.status_code, error.detail, error.headers)
    number = uuid4().hex[:12]
    log.error("error %s", number, exc_info=error)
    return _said(500, f"error of the service; its log has it as {number}")


async def refused(_request: Request, error: Exception) -> Response:
    """`refusal` as FastAPI calls it."""
    return refusal(error)


def _said(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    line = " ".join(message[:LONGEST + 1].split())
    return JSONResponse({"error": line if len(message) <= LONGEST else f"{line} ..."}, status, headers)
