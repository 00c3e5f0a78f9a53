"""What the service refuses, for whom, and how it ends."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

from deploy.server.middleware import unless, within

ROOT = Path(__file__).parents[3]
PATIENT = 10**9  # milliseconds: a batch waits until it is full
STOPPING = """
import sys, threading
from deploy import FeatureExtractor
from deploy.server import app, limits, process, service

process.GRACE = 0.2
served = service.Service(FeatureExtractor(sys.argv[1], threads=1), name="small", threads=1, limits=limits.Limits())
served._pool.submit(threading.Event().wait)  # an image that is decoded for ever
process.serve(app.build(served), served, process.listen("127.0.0.1", 0))
print("no longer serving", flush=True)
served.close()
"""


@pytest.fixture(scope="module")
def strict(serve, shipped, tmp_path_factory):
    """A service with small limits, which waits for full batches and asks for a token."""
    token = tmp_path_factory.mktemp("secret") / "token"
    token.write_text("open sesame\n")
    options = {"max_images": 2, "max_body_mb": 1, "max_pixels": 5000, "max_delay_ms": PATIENT, "batch_size": 2,
               "token_file": token}
    return serve(shipped, *(text for name, value in options.items() for text in (f"--{name}", value)))


@pytest.fixture(scope="module")
def known(strict):
    """A client of that service who knows the token."""
    with httpx.Client(base_url=strict.url, headers={"Authorization": "Bearer open sesame"}, timeout=60) as client:
        yield client


def said(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def test_without_the_token_only_health_and_page_are_open(strict, known, files, encoded):
    for headers in ({}, {"Authorization": "Bearer open"}, {"Authorization": "Basic open sesame"},
                    {"Authorization": b"Bearer \xff"}):
        with httpx.Client(base_url=strict.url, headers=headers) as stranger:
            for path in ("/v1/model", "/metrics", "/openapi.json", "/v2", "/v1/gallery/images/0.jpg", "/nothing"):
                answer = stranger.get(path)
                assert said(answer, 401).startswith("token: ") and answer.headers["WWW-Authenticate"] == "Bearer"
            assert said(stranger.post("/v1/embeddings", files=files(encoded)), 401).startswith("token: ")
            for path in ("/v2/health/live", "/v2/health/ready", "/", "/page.js", "/page.css", "/icon.svg"):
                assert stranger.get(path).status_code == 200
    assert known.get("/v1/model").status_code == 200
    described = known.get("/openapi.json").json()
    assert described["security"] == [{"token": []}] and described["components"]["securitySchemes"].keys() == {"token"}
    assert described["paths"]["/v2/health/ready"]["get"]["security"] == []


def test_a_token_of_the_environment_is_asked_for_too(serve, shipped):
    service = serve(shipped, KILN_TOKEN="from outside")
    assert httpx.get(f"{service.url}/v2").status_code == 401
    assert httpx.get(f"{service.url}/v2", headers={"Authorization": "Bearer from outside"}).status_code == 200


def test_a_request_has_to_be_small(known, files, encoded, png):
    assert said(known.post("/v1/embeddings", files=files(encoded[:3])), 400).startswith("Too many files")
    assert said(known.post("/v1/embeddings", json={"images": ["AAAA"] * 3}), 400).startswith("images: at most 2 in a")
    assert said(known.post("/v1/embeddings", files=files([png(50, 100), png(51, 100)])), 400) \
        == "images[1]: 51 x 100 pixels; the limit is 5000 pixels"
    as_json = {"Content-Type": "application/json"}
    for content in (bytes(2**20 + 1), (bytes(2**10) for _ in range(1025))):  # announced, and streamed
        answer = known.post("/v1/embeddings", content=content, headers=as_json)
        assert said(answer, 413).startswith("body: at most 1048576 bytes")
    assert known.post("/v1/embeddings", files=files(encoded[:2])).status_code == 200


def test_a_request_that_waits_too_long_is_told_so(serve, shipped, files, encoded):
    service = serve(shipped, "--timeout_s", 1, "--max_delay_ms", PATIENT)
    answer = httpx.post(f"{service.url}/v1/embeddings", files=files(encoded[:1]), timeout=60)
    assert said(answer, 504) == "no answer within 1 s; send fewer images, or again later"
    assert service.metric("kiln_queue_images") == 0


def test_a_timeout_of_the_work_s_own_is_no_fault_of_the_client():
    async def late():
        raise TimeoutError("a disk that does not answer")

    for wait in partial(within, 60), partial(unless, asyncio.Event().wait):
        with pytest.raises(TimeoutError, match="^a disk that does not answer$"):
            asyncio.run(wait(late()))


def test_what_nobody_waits_for_any_more_is_not_computed(known, extractor, files, encoded):
    computed = "kiln_batch_images_sum"
    before = metrics(known, computed)
    body = {"inputs": [{"name": "images", "shape": [1, 24, 16, 3], "datatype": "UINT8", "data": [0] * 1152}],
            "parameters": {"timeout": 1000}}
    assert said(known.post("/v2/models/small/infer", json=body), 504).startswith("no answer within 0.001 s")
    assert metrics(known, "kiln_queue_images") == 0
    answer = known.post("/v1/embeddings", files=files(encoded[1:3]))  # they fill the batch by themselves
    np.testing.assert_allclose(answer.json()["embeddings"], extractor.extract(encoded[1:3]), atol=1e-6)
    assert metrics(known, computed) == before + 2


def metrics(client, name):
    return next(float(line.split()[-1]) for line in client.get("/metrics").text.splitlines() if line.startswith(name))


def test_a_full_queue_refuses_more_until_there_is_room(serve, shipped, extractor, encoded, files):
    service = serve(shipped, "--batch_size", 4, "--max_images", 4, "--max_queue", 4, "--max_delay_ms", PATIENT)

    def post(images):
        return httpx.post(f"{service.url}/v1/embeddings", files=files(images), timeout=60)

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(post, [image]) for image in encoded[:3]]
        service.wait_for("kiln_queue_images", 3)
        refused = post(encoded[3:5])
        assert said(refused, 429).startswith("too many requests at once") and refused.headers["Retry-After"] == "1"
        waiting.append(pool.submit(post, [encoded[3]]))  # fills the batch, which sets all four off
        answers = [future.result() for future in waiting]
    np.testing.assert_allclose([answer.json()["embeddings"][0] for answer in answers], extractor.extract(encoded[:4]),
                               atol=1e-6)
    assert post(encoded[:4]).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_service_once_what_it_has_begun_is_done(serve, shipped, extractor, encoded, files, number):
    service = serve(shipped, "--max_delay_ms", PATIENT)
    request = httpx.Request("POST", f"{service.url}/v1/embeddings", files=files([encoded[5]]))
    body = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection(("127.0.0.1", service.port)) as half, ThreadPoolExecutor() as pool:
        half.sendall(f"POST /v1/embeddings HTTP/1.1\r\n{head}\r\n".encode() + body[:100])
        service.wait_for("kiln_queue_bytes", 100)
        waiting = pool.submit(httpx.post, f"{service.url}/v1/embeddings", files=files([encoded[2]]), timeout=60)
        service.wait_for("kiln_queue_images", 1)
        service.process.send_signal(number)
        service.wait_until(lambda: httpx.get(f"{service.url}/v2/health/ready").status_code == 503)
        assert httpx.get(f"{service.url}/v2/health/live").status_code == 200
        refused = httpx.post(f"{service.url}/v1/embeddings", files=files(encoded[:1]))
        assert said(refused, 503) == "the service is stopping; ask another"
        half.sendall(body[100:])
        answered = b"".join(iter(lambda: half.recv(65536), b""))
        also = waiting.result()
    assert answered.startswith(b"HTTP/1.1 200 ")
    found = [json.loads(answered.partition(b"\r\n\r\n")[2]), also.json()]
    np.testing.assert_allclose([each["embeddings"][0] for each in found], extractor.extract([encoded[5], encoded[2]]),
                               atol=1e-6)
    assert service.process.wait(60) == 0


def test_nothing_keeps_a_service_from_its_end_when_it_is_told_twice(shipped):
    command = [sys.executable, "-c", STOPPING, str(shipped)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = int(process.stdout.readline().rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as half:
                half.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
                             b"Content-Type: application/json\r\n\r\n{")
                process.send_signal(signal.SIGTERM)
                assert process.stdout.readline() == "no longer serving\n"  # the half body does not come
            process.send_signal(signal.SIGINT)  # nor does the image
            assert process.wait(60) == -signal.SIGINT
        finally:
            process.kill()


def test_an_error_of_ours_has_a_number_and_its_story_stays_in_the_log(serve, with_metadata, files, encoded):
    def mistaken(facts):
        facts["preprocessing"] = json.dumps(json.loads(facts["preprocessing"]) | {"height": 30})
        del facts["golden"]

    service = serve(with_metadata("mistaken.onnx", mistaken))
    for _ in range(2):
        error = said(httpx.post(f"{service.url}/v1/embeddings", files=files(encoded[:1])), 500)
        text, _, number = error.rpartition(" ")
        assert text == "error of the service; its log has it as"
        assert f"error {number}\nTraceback" in service.log.read_text()
    assert httpx.get(f"{service.url}/v2/health/ready").status_code == 200
