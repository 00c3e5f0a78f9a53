"""Requests sent to an address over so many connections at once: as little work for the client as can be."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import NamedTuple

LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


class Answer(NamedTuple):
    """What came back for a request."""

    status: int
    body: bytes
    seconds: float  # from its first byte sent to the last received


def sent(host: str, port: int, requests: Sequence[bytes], connections: int) -> list[Answer]:
    """The answers, in order; each connection sends the next request once its last one is answered."""
    return asyncio.run(_sent(host, port, requests, connections))


async def _sent(host: str, port: int, requests: Sequence[bytes], connections: int) -> list[Answer]:
    streams = [await asyncio.open_connection(host, port) for _ in range(connections)]
    answers: dict[int, Answer] = {}
    waiting = iter(enumerate(requests))
    await asyncio.gather(*(_work(*stream, waiting, answers) for stream in streams))
    for _, writer in streams:
        writer.close()
    return [answers[i] for i in range(len(requests))]


async def _work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, waiting: Iterator[tuple[int, bytes]],
                answers: dict[int, Answer]) -> None:
    for i, request in waiting:
        began = perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        assert length, head
        body = await reader.readexactly(int(length[1]))
        answers[i] = Answer(int(head[9:12]), body, perf_counter() - began)
