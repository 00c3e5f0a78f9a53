"""Services as users start them, a gallery for them, and what they should answer."""

import io
import os
import re
import subprocess
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import numpy as np
import pytest

from deploy import FeatureExtractor, Gallery

pytest.importorskip("fastapi", reason="the service needs fastapi, uvicorn, python-multipart and prometheus-client")
httpx = pytest.importorskip("httpx", reason="the tests of the service need httpx")

ROOT = Path(__file__).parents[3]
FINGERPRINT = "5" * 64
# One is not UTF-8 on the disk.
NAMES = ["0.jpg", "1.jpg", "more/2.jpg", "more/3 é.jpg", "more/4.jpg", "more/5\udcff.jpg", "more/6.jpg"]


class Served(NamedTuple):
    """A running service."""

    process: subprocess.Popen
    url: str
    log: Path

    @property
    def port(self):
        return int(self.url.rpartition(":")[2])

    def metric(self, name):
        """A number of /metrics."""
        text = httpx.get(f"{self.url}/metrics").text
        return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])

    def wait_for(self, name, value):
        """Ask until a metric has a value."""
        self.wait_until(lambda: self.metric(name) == value)

    def wait_until(self, condition):
        """Ask until something is so; fail where the service ends before that, or it takes a minute."""
        deadline = monotonic() + 60
        while not condition():
            assert self.process.poll() is None and monotonic() < deadline

    def memory(self):
        """KiB that the process holds."""
        return self._kib("VmRSS")

    @contextmanager
    def grows_by_at_most(self, mib):
        """Fail where the process holds more than that beyond what it held before, at any moment of the block."""
        before = self.memory()
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # the peak is what it holds now
        yield
        assert self._kib("VmHWM") - before < mib * 1024

    def _kib(self, name):
        return int(re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1])


@pytest.fixture(scope="session")
def serve(tmp_path_factory):
    """Start a service: (model, options) -> Served, once it says that it listens; all are stopped in the end."""
    started = []

    def start(model, *options, **environment):
        log = tmp_path_factory.mktemp("service") / "log"
        command = [sys.executable, "-m", "deploy.serve", str(model), "--port", "0", *map(str, options)]
        with log.open("w") as file:
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=file, text=True,
                                       env=os.environ | {"OMP_NUM_THREADS": "1"} | environment)
        started.append(process)
        line = process.stdout.readline()
        assert " on http://127.0.0.1:" in line, log.read_text()
        return Served(process, line.split()[-1], log)

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def levels(expected):
    """Thresholds that a model may have: one that about half of the images reach, and one that was not measured."""
    similarities = expected["embeddings"] @ expected["embeddings"].T
    half = float(np.median(similarities[np.triu_indices(7, 1)]))
    measured = {"threshold": half, "far": 0.01, "far_interval": [0.0, 0.02], "tar": 0.5, "tar_interval": [0.4, 0.6]}
    return {"far=1e-2": measured, "far=1e-4": {"needs": 300000, "has": 21}, "genuine": 7, "impostors": 21,
            "split": "query against gallery"}


@pytest.fixture(scope="session")
def shipped(with_metadata, levels):
    """The model with what export.py says of it."""
    import json

    said = {"fingerprint": FINGERPRINT, "thresholds": levels, "precision": "fp32", "metrics": {"mAP": 0.75},
            "kiln_version": "0.1.0"}
    return with_metadata("small.onnx", lambda facts: facts.update({k: json.dumps(v) for k, v in said.items()}))


@pytest.fixture(scope="session")
def extractor(shipped):
    """What the service must agree with."""
    return FeatureExtractor(shipped, threads=1)


@pytest.fixture(scope="session")
def gallery(tmp_path_factory, extractor, encoded):
    """Folders of a gallery of the seven images, and of the images: cameras 0, 1, 0, 1 ..., tags a and b."""
    folder = tmp_path_factory.mktemp("gallery")
    gallery = Gallery.of(extractor)
    gallery.add(extractor.extract(encoded), NAMES, cameras=[i % 2 for i in range(7)],
                tags=["a" if i < 4 else "b" for i in range(7)])
    gallery.save(folder / "entries")
    for name, image in zip(NAMES, encoded, strict=True):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    (folder / "secret.jpg").write_bytes(encoded[0])
    return folder


@pytest.fixture(scope="session")
def service(serve, shipped, gallery):
    """A service with all it can have, and its usual limits."""
    return serve(shipped, "--gallery", gallery / "entries", "--images", gallery / "images")


@pytest.fixture(scope="session")
def client(service):
    """A client of that service."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def files():
    """Images as the files of a form: (encoded images) -> httpx's files."""
    return lambda images: [("images", (f"{i}.jpg", image)) for i, image in enumerate(images)]


@pytest.fixture(scope="session")
def huge():
    """A PNG of a few bytes that says how large it is: (side) -> bytes."""
    def chunk(kind, data):
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    def make(side):
        header = chunk(b"IHDR", side.to_bytes(4) * 2 + b"\x08\x02\x00\x00\x00")
        return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b""))
    return make


@pytest.fixture(scope="session")
def png():
    """A PNG of a size: (width, height) -> bytes."""
    def make(width, height):
        from PIL import Image

        encoded = io.BytesIO()
        Image.new("RGB", (width, height), "teal").save(encoded, "PNG")
        return encoded.getvalue()
    return make
