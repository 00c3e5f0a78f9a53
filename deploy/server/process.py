"""The process: it says where it listens once it does, and stops when what it has begun is done."""

import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from .service import Service

GRACE = 5  # seconds that answers may take to be read, once all are given


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; OSError where it is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


def serve(app: FastAPI, service: Service, bound: socket.socket) -> None:
    """Answer requests until SIGTERM or SIGINT; a second one does not wait for those in hand."""
    # uvicorn repeats the signal for the handlers before its own once it has stopped: the process is to end well.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="off", ws="none",
                            timeout_graceful_shutdown=GRACE)
    Server(config, service).run([bound])
    service.close()


class Server(uvicorn.Server):
    """uvicorn's, which goes on to listen while requests are in hand, so that others can see that it stops."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        (bound,) = sockets or []
        host, port = bound.getsockname()[:2]
        print(f"serving {self._service.name} on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuse new work from now on."""
        self.force_exit = self._service.stopping
        self._service.stopping = True
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop now: asked ten times a second."""
        asked = await super().on_tick(counter)
        if asked:
            self._service.stop()
        return asked and (self.force_exit or not self._service.room.images)
