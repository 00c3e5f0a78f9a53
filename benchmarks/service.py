"""The service: requests over HTTP against FeatureExtractor alone, and ten thousand of them.

python -m benchmarks.service [--rounds 5] [--small]

resnet18 at 128 x 64, exported in the run from a fresh network, on two threads. Each request is a form with one JPEG;
32 connections of one client process each send the next when the last is answered. The client shares the two cores
with the service, and so does what it needs to read the answers; FeatureExtractor has them for itself. Then requests
of which one in ten is malformed: every good one must be answered right, every bad one with 400, and the memory of
the service is read as it goes.
"""

import io
import json
import multiprocessing
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.features import Exported
from benchmarks.load import Answer, sent
from benchmarks.measure import NO_BAR, Comparison, Limit, agreed, arguments, at_least, at_most, in_turns, table
from data.figures import write_figures
from deploy import FeatureExtractor, Preprocessing

ROOT = Path(__file__).resolve().parent.parent
SIZE = Preprocessing(128, 64)
THREADS, BATCH, CONNECTIONS = 2, 32, 32
BAD = 10  # one in so many
PARTS = 10  # of the long load, after each of which memory is read
PATIENT = ("--timeout_s", "600")  # whatever else the machine does meanwhile


def main() -> None:
    """Print the table, and how memory went."""
    options = arguments(__doc__)
    many, long = (64, 700) if options.small else (320, 10_000)  # each part has every kind of bad one
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_figures(folder / "figures", identities=4)
        images = [path.read_bytes() for path in sorted((folder / "figures").rglob("*.jpg"))]
        model = Exported("resnet18", folder, SIZE)
        with served(model.path) as service:
            extractor = model.open(BATCH, THREADS)
            lines = [*against_extractor(service, extractor, images, many, options.rounds),
                     *mixed(service, extractor, images, long)]
    print("\n" + table(lines))
    print("\nThe time of a request is the wait for the batch before its own, for its own, and for the client to read.\n"
          "Half of the connections gather while the other half is computed.")


class Service(NamedTuple):
    """A running service, and the process that sends to it."""

    process: subprocess.Popen[str]
    port: int
    client: ProcessPoolExecutor

    def send(self, requests: Sequence[bytes]) -> list[Answer]:
        """The answers, in order."""
        return self.client.submit(sent, "127.0.0.1", self.port, requests, CONNECTIONS).result()

    def mib(self) -> float:
        """Memory that the service holds now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


@contextmanager
def served(model: Path) -> Iterator[Service]:
    """A service of a model as users start it; SystemExit where it does not end well."""
    command = [sys.executable, "-m", "deploy.serve", str(model), "--port", "0", "--threads", str(THREADS), *PATIENT]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ) as process, \
            ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as client:
        try:
            assert process.stdout
            if not (line := process.stdout.readline()):
                raise SystemExit(f"the service did not start, as it says above: it ended with {process.wait()}")
            yield Service(process, int(line.rpartition(":")[2]), client)
        finally:
            process.terminate()
    if process.returncode:
        raise SystemExit(f"the service ended with {process.returncode}")


def against_extractor(service: Service, extractor: FeatureExtractor, images: Sequence[bytes], count: int,
                      rounds: int) -> list[Comparison | Limit]:
    """The same images as requests and in one call."""
    chosen = list(islice(cycle(images), count))
    requests = [form(image) for image in chosen]
    expected = extractor.extract(chosen)
    agreed("embeddings over HTTP, component", worst(service.send(requests), expected), 1e-5)
    seconds: list[float] = []

    def ours() -> None:
        seconds.extend(answer.seconds for answer in service.send(requests))

    columns = in_turns(rounds, ours, lambda: extractor.extract(chosen))
    middle, slow = 1000 * np.quantile(seconds, (0.5, 0.99))
    return [Comparison(f"resnet18, 128 x 64, {CONNECTIONS} connections, requests", columns[0],
                       f"FeatureExtractor alone, batches of {BATCH}", columns[1], at_least(0.8), count),
            Limit("time of a request, p50", middle, "ms", NO_BAR), Limit("time of a request, p99", slow, "ms", NO_BAR)]


def mixed(service: Service, extractor: FeatureExtractor, images: Sequence[bytes], count: int) -> list[Limit]:
    """Good requests and bad ones; SystemExit where one is answered wrongly."""
    chosen = list(islice(cycle(images), count // PARTS))
    expected = extractor.extract(chosen)
    requests = [form(image) for image in chosen]
    wrong = cycle(malformed(images[0]).values())
    bad = range(0, len(requests), BAD)
    good = np.setdiff1d(np.arange(len(requests)), bad)
    memory, statuses, largest = [], set[int](), 0.0
    for _ in range(PARTS):
        answers = service.send([next(wrong) if i in bad else request for i, request in enumerate(requests)])
        statuses |= {answers[i].status for i in bad}
        largest = max(largest, worst([answers[i] for i in good], expected[good]))
        memory.append(service.mib())
    agreed(f"{PARTS * len(good):,} good requests among {PARTS * len(bad):,} bad ones, component", largest, 1e-5)
    if statuses != {400}:
        raise SystemExit(f"malformed requests were answered with {sorted(statuses)}, where 400 is expected")
    print(f"\nMalformed requests were answered with 400. Memory of the service in "
          f"MiB after each {len(requests):,} requests:\n{', '.join(f'{mib:.0f}' for mib in memory)}.")
    return [Limit(f"memory of the service after {len(requests):,} requests", memory[0], "MiB", NO_BAR),
            Limit(f"what it grew by in the {len(requests) * (PARTS - 1):,} after them", memory[-1] - memory[0], "MiB",
                  at_most(16))]


def worst(answers: Sequence[Answer], expected: np.ndarray) -> float:
    """The largest difference of a component; SystemExit where a request was refused."""
    for answer in answers:
        if answer.status != 200:
            raise SystemExit(f"a good request was answered with {answer.status}: {answer.body!r}")
    found = [json.loads(answer.body)["embeddings"][0] for answer in answers]
    return float(np.abs(np.array(found) - expected).max())


def form(image: bytes) -> bytes:
    """A request for the embedding of an image, as curl -F sends it."""
    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n' + image + b"\r\n--b--\r\n"
    return posted("/v1/embeddings", "multipart/form-data; boundary=b", part)


def posted(path: str, content_type: str, body: bytes) -> bytes:
    """A request as it travels."""
    head = {"Host": "localhost", "Content-Type": content_type, "Content-Length": len(body)}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def malformed(image: bytes) -> dict[str, bytes]:
    """Requests that must be refused, each in another way."""
    def tensor(datatype: str, shape: list[int]) -> bytes:
        inputs = [{"name": "images", "datatype": datatype, "shape": shape, "data": [0] * 12}]
        return posted("/v2/models/resnet18/infer", "application/json", json.dumps({"inputs": inputs}).encode())

    large = noise(1200)
    return {"not an image": form(b"GET / HTTP/1.1"), "truncated": form(image[:len(image) // 2]), "0 bytes": form(b""),
            "large and truncated": form(large[:len(large) * 9 // 10]),
            "huge": form(png_header(50_000)), "wrong dtype": tensor("INT64", [1, 128, 64, 3]),
            "wrong shape": tensor("UINT8", [1, 2, 2, 3])}


def noise(side: int) -> bytes:
    """A JPEG of noise, which takes about a byte a pixel."""
    encoded = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def png_header(side: int) -> bytes:
    """A PNG of a few bytes that says how large it is."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


if __name__ == "__main__":
    main()
