"""Images in, embeddings and gallery entries out."""

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import getitem

import httpx
import numpy as np
import pytest

NOT_AN_IMAGE = "not an image; one of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP expected"


def base64_of(images):
    return [base64.b64encode(image).decode() for image in images]


def post(client, path, **given):
    """The answer of a post that is answered well."""
    answer = client.post(path, **given)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer, status):
    """The one line that a refusal says."""
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert said.keys() == {"error"} and "\n" not in said["error"]
    return said["error"]


def test_embeddings_are_those_of_the_extractor_by_form_and_by_json(client, extractor, encoded, files):
    expected = extractor.extract(encoded)
    for given in {"files": files(encoded)}, {"json": {"images": base64_of(encoded)}}:
        answer = post(client, "/v1/embeddings", **given)
        assert (answer["model"], answer["fingerprint"], answer["dim"]) == ("small", "5" * 64, 6)
        np.testing.assert_allclose(answer["embeddings"], expected, atol=1e-6)


def test_each_of_many_requests_at_once_gets_its_own_embedding(service, client, extractor, encoded, files):
    wanted = np.tile(np.arange(7), 12)
    before = service.metric("kiln_batch_images_sum")
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: post(client, "/v1/embeddings", files=files([encoded[i]])), wanted))
    np.testing.assert_allclose([answer["embeddings"][0] for answer in found], extractor.extract(encoded)[wanted],
                               atol=1e-6)
    assert service.metric("kiln_batch_images_sum") - before == len(wanted)
    assert service.metric("kiln_queue_images") == 0


def test_a_search_returns_the_nearest_entries_and_says_which_are_accepted(client, extractor, encoded, files, levels):
    similarities = extractor.extract([encoded[3]])[0] @ extractor.extract(encoded).T
    answer = post(client, "/v1/search", files=files([encoded[3]]), data={"k": 5, "threshold": "far=1e-2"})
    (hits,) = answer["results"]
    assert answer["threshold"] == levels["far=1e-2"]["threshold"]
    assert hits[0]["name"] == "more/3 é.jpg" and (hits[0]["camera"], hits[0]["tag"]) == (1, "a")
    np.testing.assert_allclose([hit["similarity"] for hit in hits], np.sort(similarities)[::-1][:5], atol=1e-6)
    assert [hit["accepted"] for hit in hits] == [hit["similarity"] >= answer["threshold"] for hit in hits]


def test_a_name_that_is_no_unicode_is_found_too(client, encoded, files):
    (hits,) = post(client, "/v1/search", files=files([encoded[5]]))["results"]
    assert hits[0]["name"] == "more/5\udcff.jpg"


def test_form_and_json_ask_for_the_same(client, encoded, files):
    asked = {"k": 3, "threshold": 0.5, "cameras": [0], "tags": ["a", "b"]}
    by_form = post(client, "/v1/search", files=files(encoded[:2]), data=asked)
    assert by_form["threshold"] == 0.5
    assert by_form == post(client, "/v1/search", json=asked | {"images": base64_of(encoded[:2])})
    assert {hit["camera"] for hits in by_form["results"] for hit in hits} == {0}
    assert [len(hits) for hits in by_form["results"]] == [3, 3]


def test_without_a_threshold_nothing_is_accepted_or_not(client, encoded, files):
    answer = post(client, "/v1/search", files=files(encoded[:1]))
    assert answer["threshold"] is None and {hit["accepted"] for hit in answer["results"][0]} == {None}


def test_the_model_and_the_gallery_say_what_they_are(client, levels):
    assert client.get("/v1/model").json() == {
        "name": "small", "precision": "fp32", "dim": 6, "height": 24, "width": 16, "epoch": 3,
        "metrics": {"mAP": 0.75}, "thresholds": levels, "fingerprint": "5" * 64, "kiln_version": "0.1.0",
        "gallery": {"count": 7, "cameras": [0, 1], "tags": ["a", "b"]}, "images": True}


def test_the_images_of_the_gallery_are_there_and_no_other_file_is(client, encoded):
    answer = client.get("/v1/gallery/images/more/3 é.jpg")
    assert (answer.content, answer.headers["content-type"]) == (encoded[3], "image/jpeg")
    for name in ("../secret.jpg", "%2e%2e/secret.jpg", "more/7.jpg", "more", "/etc/hostname"):
        refused(client.get(f"/v1/gallery/images/{name}"), 404)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/search"])
@pytest.mark.parametrize(("bad", "reason"), [
    (lambda good, huge: b"GET / HTTP/1.1", NOT_AN_IMAGE),
    (lambda good, huge: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NOT_AN_IMAGE),
    (lambda good, huge: good[:len(good) // 2], "truncated file read"),
    (lambda good, huge: b"", "0 bytes"),
    (lambda good, huge: huge(9000), "9000 x 9000 pixels; the limit is 80000000 pixels"),
    (lambda good, huge: huge(50_000), "Image size (2500000000 pixels) exceeds limit"),
], ids=["not an image", "a program", "truncated", "0 bytes", "huge", "far too huge"])
def test_a_bad_image_is_named_by_its_place(client, files, encoded, huge, path, bad, reason):
    image = bad(encoded[0], huge)
    said = refused(client.post(path, files=files([*encoded[:2], image])), 400)
    assert said.lower().startswith(f"images[2]: {reason.lower()}")
    assert refused(client.post(path, json={"images": base64_of([*encoded[:2], image])}), 400) == said


@pytest.mark.parametrize(("given", "status", "said"), [
    ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "body: Invalid JSON"),
    ({"json": []}, 400, "body: an object expected"),
    ({"json": {}}, 400, "images: Field required"),
    ({"json": {"images": []}}, 400, "images: List should have at least 1 item"),
    ({"json": {"images": ["*"]}}, 400, "images[0]: base64 expected"),
    ({"json": {"images": [7]}}, 400, "images[0]: base64 expected"),
    ({"json": {"images": ["AAAA"], "kk": 1}}, 400, "kk: no such key"),
    ({"json": {"images": ["AAAA"], "k": 0}}, 400, "k: Input should be greater than or equal to 1"),
    ({"json": {"images": ["AAAA"], "k": "5"}}, 400, "k: Input should be a valid integer"),
    ({"json": {"images": ["AAAA"], "threshold": True}}, 400, "threshold.float: Input should be a valid number"),
    ({"json": {"images": ["AAAA"], "threshold": 2}}, 400, "threshold: a cosine from -1 to 1"),
    ({"json": {"images": ["AAAA"], "threshold": "far=1"}}, 400, "threshold: the model has no level far=1"),
    ({"json": {"images": ["AAAA"], "threshold": "far=1e-4"}}, 400, "threshold far=1e-4: not measured, needs 300,000"),
    ({"json": {"images": ["AAAA"] * 65}}, 400, "images: at most 64 in a request, got 65"),
    ({"files": [("images", b"AAAA")] * 65}, 400, "Too many files. Maximum number of files is 64."),
    ({"files": [("photos", b"AAAA")]}, 400, "images: Field required"),
    ({"files": [("images", b"AAAA")], "data": {"k": [1, 2]}}, 400, "k: given 2 times"),
    ({"files": [("images", b"AAAA")], "data": {"k": "many"}}, 400, "k: Input should be a valid integer"),
    ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "Invalid multipart"),
    ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "Missing boundary"),
    ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b; charset=undefined"}}, 415,
     "Content-Type: no charset, or utf-8, expected"),
    ({"content": b"x", "headers": {"Content-Type": "image/jpeg"}}, 415, "Content-Type: multipart/form-data or"),
    ({"content": b"x"}, 415, "Content-Type: multipart/form-data or application/json expected, got nothing"),
])
def test_a_request_that_asks_wrongly_is_told_why(client, given, status, said):
    assert refused(client.post("/v1/search", **given), status).startswith(said)


def test_a_list_of_wrong_elements_cannot_take_much_memory(service, client):
    with service.grows_by_at_most(64):
        said = refused(client.post("/v1/embeddings", json={"images": [0] * 300_000}), 400)
    assert said.startswith("images[0]: ")


def test_unknown_paths_and_methods_are_refused_in_the_same_form(client):
    for path in ("/v1/nothing", "/v1/model/", "/page"):
        assert refused(client.get(path), 404) == "Not Found"
    assert refused(client.get("/v1/search"), 405) == "Method Not Allowed"
    assert client.head("/").status_code == 200


def test_without_a_gallery_embeddings_are_all_there_is(serve, model, encoded, files):
    service = serve(model)
    post(httpx, f"{service.url}/v1/embeddings", files=files(encoded))
    assert "start it with --gallery" in refused(httpx.post(f"{service.url}/v1/search", files=files(encoded)), 404)
    facts = httpx.get(f"{service.url}/v1/model").json()
    assert (facts["gallery"], facts["precision"], facts["images"]) == (None, None, False)
    refused(httpx.get(f"{service.url}/v1/gallery/images/0.jpg"), 404)


def test_the_description_of_the_interface_names_every_path_and_both_ways_to_send(client):
    described = client.get("/openapi.json").json()
    assert described["paths"].keys() >= {"/v1/embeddings", "/v1/search", "/v1/model", "/v2/models/{name}/infer"}
    assert all("422" not in method["responses"] for path in described["paths"].values() for method in path.values())
    for reference in re.findall(r'"\$ref": *"#/(.*?)"', json.dumps(described)):
        reduce(getitem, reference.split("/"), described)
    assert "security" not in described
    body = described["paths"]["/v1/search"]["post"]["requestBody"]["content"]
    assert {"images", "k", "threshold", "cameras", "tags"} == {*body["multipart/form-data"]["schema"]["properties"]}
    assert body["application/json"]["schema"]["required"] == ["images"]


def test_prometheus_reads_what_was_answered(service, client):
    name = 'kiln_requests_total{route="/v1/gallery/images/{name:path}",status="404"}'
    client.get("/v1/gallery/images/nobody.jpg")
    before = service.metric(name)
    client.get("/v1/gallery/images/nobody.jpg")
    assert service.metric(name) == before + 1
