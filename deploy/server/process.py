"""The process: it says where it listens once it does, and stops when what it has begun is done."""

import signal
import socket
from time import monotonic
from types import FrameType

import uvicorn
from fastapi import FastAPI

from .service import Service

GRACE = 5  # seconds that bodies on their way have, and then answers to be read


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; OSError where it is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


def serve(app: FastAPI, service: Service, bound: socket.socket) -> None:
    """Answer requests until SIGTERM or SIGINT; a second one ends the process at once, also after this returned."""
    _end_at_once_on_signals()  # uvicorn brings this back where it returns
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="off", ws="none",
                            timeout_graceful_shutdown=GRACE)
    Server(config, service).run([bound])


class Server(uvicorn.Server):
    """uvicorn's, which goes on to listen while requests are in hand, so that others can see that it stops."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._ends = 0.0  # bodies on their way, once it is to stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        (bound,) = sockets or []
        host, port = bound.getsockname()[:2]
        print(f"serving {self._service.name} on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuse new work from now on; uvicorn's own would send the signal once more in the end."""
        _end_at_once_on_signals()
        self._service.stopping = self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop now: asked ten times a second."""
        if not await super().on_tick(counter):
            return False
        self._service.stop()
        self._ends = self._ends or monotonic() + GRACE
        room = self._service.room
        return not room.images and (not room.requests or monotonic() > self._ends)


def _end_at_once_on_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
