"""The service within this process, where its clients can be told what to do when."""

import asyncio
import gc
import shutil
import sys
import threading
import tracemalloc
from contextlib import asynccontextmanager
from functools import partial

import httpx
import numpy as np
import onnx
import pytest

from deploy import FeatureExtractor, Gallery
from deploy.server import app as apps
from deploy.server.limits import Limits, Refused
from deploy.server.service import Service

PATIENT = 10**9  # milliseconds: a batch waits until it is full


@pytest.fixture
def opened(extractor):
    """Make a service: (limits, what Service and its application take) -> Service and a client; closed in the end."""
    @asynccontextmanager
    async def open_service(*, of=extractor, token=None, local=False, gallery=None, images=None, **limits):
        served = Service(of, name="small", threads=1, limits=Limits(**limits), gallery=gallery, images=images)
        served.app = apps.build(served, token=token, local=local)
        try:
            transport = httpx.ASGITransport(served.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                async with asyncio.timeout(60):
                    yield served, client
        finally:
            served.close()
    return open_service


def counted(served, route, status):
    """How many requests were answered so."""
    line = f'kiln_requests_total{{route="{route}",status="{status}"}} '
    return sum(float(row.removeprefix(line)) for row in served.metrics.exposed().decode().splitlines()
               if row.startswith(line))


def posted(path, **given):
    """A body, and what the application is told of it before it comes."""
    request = httpx.Request("POST", f"http://localhost{path}", **given)
    headers = [(name.lower(), value) for name, value in request.headers.raw]
    return request.read(), {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}


async def until(condition):
    """Give others their turn until something is so; the service's own minute ends it."""
    while not condition():
        await asyncio.sleep(0)


def said(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def test_a_body_that_does_not_come_takes_no_room_of_others(opened, encoded, files):
    async def run():
        async with opened(max_queue=1, max_images=1) as (served, client):
            rest = asyncio.Event()

            async def halting():
                yield b'{"images"'
                await rest.wait()
                yield b': []}'

            halves = [asyncio.create_task(client.post("/v1/embeddings", content=halting(),
                                                      headers={"Content-Type": "application/json"})) for _ in range(3)]
            await until(lambda: served.room.bytes == 3 * len(b'{"images"'))
            assert (await client.post("/v1/embeddings", files=files(encoded[:1]))).status_code == 200
            rest.set()
            assert {said(await half, 400) for half in halves} == {"images: List should have at least 1 item after "
                                                                  "validation, not 0"}
            assert (served.room.requests, served.room.images, served.room.bytes) == (0, 0, 0)
    asyncio.run(run())


def test_for_a_client_that_went_away_nothing_is_computed(opened, encoded, files):
    body, scope = posted("/v1/embeddings", files=files(encoded[:3]))

    async def run():
        async with opened(max_delay_ms=PATIENT) as (served, _):
            messages = asyncio.Queue()
            messages.put_nowait({"type": "http.request", "body": body})
            answering = asyncio.create_task(served.app(scope, messages.get, None))
            await until(lambda: served.room.images == 3)
            messages.put_nowait({"type": "http.disconnect"})
            await answering
            assert counted(served, "/v1/embeddings", 499) == 1 and served.room.images == 0
        assert b"kiln_batch_images_count 0.0" in served.metrics.exposed()
    asyncio.run(run())


@pytest.mark.parametrize("kind", ["form", "json", "tensors"])
def test_nothing_stays_of_a_body_that_waited_for_a_thread_when_its_client_went_away(opened, files, kind):
    size = 2**20
    path, given = {"form": ("/v1/embeddings", {"files": files([bytes(size)])}),
                   "json": ("/v1/embeddings", {"json": {"images": ["A" * size]}}),
                   "tensors": ("/v2/models/small/infer", {"json": {"inputs": "A" * size}})}[kind]
    body, scope = posted(path, **given)

    async def run():
        async with opened() as (served, _):
            go, messages = threading.Event(), asyncio.Queue()
            ahead = asyncio.create_task(served.threaded(partial(go.wait, 60)))
            tracemalloc.start()
            messages.put_nowait({"type": "http.request", "body": bytes(bytearray(body))})
            answering = asyncio.create_task(served.app(scope, messages.get, None))
            await until(lambda: served._pool._work_queue.qsize() == 1)
            assert tracemalloc.get_traced_memory()[0] > size
            messages.put_nowait({"type": "http.disconnect"})
            await answering
            assert served._pool._work_queue.qsize() == 1 and tracemalloc.get_traced_memory()[0] < size / 2
            go.set()
            assert await ahead
    try:
        asyncio.run(run())
    finally:
        tracemalloc.stop()


def test_what_is_refused_before_its_route_is_counted_as_its_own(opened, encoded, files):
    async def run():
        async with opened(max_queue=1, max_images=1, max_delay_ms=PATIENT, token="open sesame") as (served, client):
            post = partial(client.post, "/v1/embeddings", files=files(encoded[:1]))
            assert (await post()).status_code == (await client.get("/v1/nothing")).status_code == 401
            post = partial(post, headers={"Authorization": "Bearer open sesame"})
            waiting = asyncio.create_task(post())
            await until(lambda: served.room.images == 1)
            assert (await post()).status_code == 429
            served.stopping = True
            assert (await post()).status_code == 503
            served.stop()
            assert (await waiting).status_code == 200
            assert [counted(served, "/v1/embeddings", status) for status in (200, 401, 429, 503)] == [1, 1, 1, 1]
            assert counted(served, "other", 401) == 1
    asyncio.run(run())


def test_what_is_posted_where_nothing_is_is_answered_without_its_body(opened):
    async def never():
        await asyncio.Event().wait()
        yield b""

    async def run():
        async with opened() as (served, client):
            assert said(await client.post("/v1/nothing", content=never()), 404) == "Not Found"
            assert counted(served, "other", 404) == 1 and served.room.requests == 0
    asyncio.run(run())


def test_to_this_machine_alone_a_service_answers_by_its_names_alone(opened, service):
    ours = "localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"
    others = "rebound.example", "rebound.example:80", "localhost.rebound.example", "127.0.0.1.rebound.example"

    async def answers(**options):
        async with opened(**options) as (_, client):
            return [await client.get("/v2/health/live", headers={"Host": host}) for host in ours + others]

    answered = asyncio.run(answers(local=True))
    assert [answer.status_code for answer in answered] == [200] * 4 + [421] * 4
    for host, answer in zip(others, answered[4:], strict=True):
        assert said(answer, 421).endswith(f"expected of a service without a token, got {host}")
    for options in {}, {"local": True, "token": "open sesame"}:
        assert {answer.status_code for answer in asyncio.run(answers(**options))} == {200}
    assert httpx.get(f"{service.url}/v1/model", headers={"Host": "rebound.example"}).status_code == 421


def test_errors_do_not_repeat_all_that_came(opened):
    async def run():
        async with opened() as (_, client):
            error = said(await client.get(f"/v2/models/{'x' * 1000}"), 404)
            assert error.startswith("model: small, version 1, expected, got xxx") and len(error) < 310
    asyncio.run(run())


@pytest.fixture(scope="module")
def broken(models, tmp_path_factory):
    """Extractors, of pixels and of planes, whose network gives no numbers for any image."""
    def make(name):
        graph = onnx.load(models[name])
        weight = next(each for each in graph.graph.initializer if each.name.endswith("classifier.bias"))
        weight.CopyFrom(onnx.numpy_helper.from_array(np.full(3, np.nan, np.float32), weight.name))
        path = tmp_path_factory.mktemp("broken") / "small.onnx"
        onnx.save(graph, path)
        return FeatureExtractor(path, threads=1)
    return {name: make(name) for name in models}


def test_a_network_that_gives_no_numbers_is_no_fault_of_the_image(opened, broken, encoded, files):
    pixels = {"inputs": [{"name": "images", "shape": [1, 24, 16, 3], "datatype": "UINT8", "data": [0] * 1152}]}

    async def run():
        for extractor in broken.values():
            async with opened(of=extractor) as (_, client):
                said(await client.post("/v1/embeddings", files=files(encoded[:1])), 500)
        async with opened(of=broken["uint8_nhwc"]) as (_, client):
            said(await client.post("/v2/models/small/infer", json=pixels), 500)
    asyncio.run(run())


def test_tensors_that_a_network_overflows_on_are_refused(opened, models):
    planes = {"inputs": [{"name": "images", "shape": [1, 3, 24, 16], "datatype": "FP32", "data": [3e38] * 1152}]}

    async def run():
        async with opened(of=FeatureExtractor(models["float_nchw"], threads=1)) as (_, client):
            assert said(await client.post("/v2/models/small/infer", json=planes), 400).startswith("inputs[0]: ")
    asyncio.run(run())


def test_a_damaged_gallery_is_no_fault_of_the_query(opened, gallery, tmp_path, encoded, files, caplog):
    folder = shutil.copytree(gallery / "entries", tmp_path / "damaged")
    (embeddings,) = folder.glob("*/embeddings.npy")
    with embeddings.open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\xff" * 8)

    async def run():
        async with opened(gallery=Gallery.load(folder)) as (_, client):
            search = partial(client.post, "/v1/search", files=files(encoded[:1]))
            assert said(await search(), 500).startswith("error of the service")
            assert "gallery row 6" in caplog.text
            assert said(await search(data={"threshold": "far=1"}), 400).startswith("threshold: ")
    asyncio.run(run())


def test_what_a_gallery_builds_once_is_there_before_the_first_request(opened, gallery):
    async def run():
        folder = gallery / "images"
        async with opened(gallery=Gallery.load(gallery / "entries"), images=folder) as (served, client):
            (part,) = served.gallery._parts
            assert {"rows", "places"} <= vars(part.entries).keys()
            go = threading.Event()
            decoding = asyncio.create_task(served.threaded(partial(go.wait, 60)))
            shown = asyncio.create_task(client.get("/v1/gallery/images/0.jpg"))
            assert (await client.get("/v2/health/live")).status_code == 200 and not shown.done()
            go.set()
            assert await decoding and (await shown).status_code == 200
    asyncio.run(run())


def test_nothing_stays_of_a_request_with_a_bad_image(opened, encoded):
    images = bytes(bytearray(encoded[0])), b"no image" * 9

    async def run():
        async with opened() as (served, _):
            for _ in range(2):
                with pytest.raises(Refused, match="not an image"):
                    await served.embed(images)

    before = [*map(sys.getrefcount, images)]
    gc.disable()
    try:
        asyncio.run(run())
        assert [*map(sys.getrefcount, images)] == before
    finally:
        gc.enable()


def test_after_the_end_no_image_is_decoded(extractor):
    served = Service(extractor, name="small", threads=1, limits=Limits())
    begun, go, decoded = threading.Event(), threading.Event(), []

    async def run():
        def hold():
            begun.set()
            assert go.wait(60)
        work = [asyncio.create_task(served.threaded(each)) for each in (hold, partial(decoded.append, 1))]
        await asyncio.to_thread(begun.wait, 60)
        ending = asyncio.create_task(asyncio.to_thread(served.close))
        await asyncio.wait([work[1]])  # cancelled, not done
        go.set()
        await asyncio.gather(ending, *work, return_exceptions=True)
    asyncio.run(run())
    assert not decoded
