"""The Open Inference Protocol v2, by a client that none of us wrote and by hand."""

import json

import httpx
import numpy as np
import pytest

HEADER = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def triton():
    """The public client."""
    return pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")


@pytest.fixture(scope="module")
def pixels(extractor, encoded):
    """The images as the network sees them: (7, 24, 16, 3) uint8."""
    return np.stack([extractor.preprocessing(image) for image in encoded])


def asked(triton, array, datatype, **how):
    given = triton.InferInput("images", array.shape, datatype)
    given.set_data_from_numpy(array, **how)
    return [given]


def test_the_public_client_sees_server_and_model(triton, service):
    with triton.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("small") and client.is_model_ready("small", "1")
        assert not client.is_model_ready("other") and not client.is_model_ready("small", "2")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        assert client.get_model_metadata("small") == {
            "name": "small", "versions": ["1"], "platform": "onnxruntime_onnx",
            "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 24, 16, 3]}],
            "outputs": [{"name": "embeddings", "datatype": "FP32", "shape": [-1, 6]},
                        {"name": "logits", "datatype": "FP32", "shape": [-1, 3]},
                        {"name": "margins", "datatype": "FP32", "shape": [-1]},
                        {"name": "norms", "datatype": "FP32", "shape": [-1]}]}


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_the_public_client_gets_all_outputs_of_a_batch(triton, service, extractor, encoded, pixels, binary):
    expected = extractor.outputs(encoded)
    with triton.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
        answer = client.infer("small", asked(triton, pixels, "UINT8", binary_data=binary), request_id="seven")
        assert answer.get_response()["id"] == "seven"
        for name, array in expected._asdict().items():
            np.testing.assert_allclose(answer.as_numpy(name), array, atol=1e-5)
        wanted = [triton.InferRequestedOutput("logits", binary_data=binary),
                  triton.InferRequestedOutput("embeddings", binary_data=not binary)]
        some = client.infer("small", asked(triton, pixels[:1], "UINT8", binary_data=binary), outputs=wanted)
        assert [output["name"] for output in some.get_response()["outputs"]] == ["logits", "embeddings"]
        np.testing.assert_allclose(some.as_numpy("embeddings"), expected.embeddings[:1], atol=1e-6)
        np.testing.assert_allclose(some.as_numpy("logits"), expected.logits[:1], atol=1e-5)


def test_a_batch_longer_than_the_model_computes_at_once_comes_back_whole(triton, service, extractor, encoded, pixels):
    with triton.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
        answer = client.infer("small", asked(triton, np.tile(pixels, (9, 1, 1, 1)), "UINT8"))
    np.testing.assert_allclose(answer.as_numpy("embeddings"), np.tile(extractor.extract(encoded), (9, 1)), atol=1e-6)


def test_the_public_client_is_told_its_mistakes(triton, service, pixels):
    with triton.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
        wrong = {
            "FP32 of another type": asked(triton, pixels.astype(np.float32), "FP32"),
            "another shape": asked(triton, pixels[:, :20], "UINT8"),
            "too many": asked(triton, np.zeros((65, 24, 16, 3), np.uint8), "UINT8"),
        }
        for inputs in wrong.values():
            with pytest.raises(triton.InferenceServerException) as error:
                client.infer("small", inputs)
            assert error.value.status() == "400"
        with pytest.raises(triton.InferenceServerException, match="no such key"):
            client.infer("small", asked(triton, pixels, "UINT8"), priority=1)
        with pytest.raises(triton.InferenceServerException, match="model: small, version 1, expected, got other"):
            client.infer("other", asked(triton, pixels, "UINT8"))


def test_a_model_of_float_planes_takes_them(triton, serve, models, extractor, encoded, pixels, files):
    service = serve(models["float_nchw"], "--name", "planes")
    planes = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    with triton.InferenceServerClient(f"127.0.0.1:{service.port}") as client:
        answer = client.infer("planes", asked(triton, planes, "FP32"))
        np.testing.assert_allclose(answer.as_numpy("embeddings"), extractor.extract(encoded), atol=1e-5)
        answer = client.infer("planes", asked(triton, planes, "FP32", binary_data=False))
        np.testing.assert_allclose(answer.as_numpy("embeddings"), extractor.extract(encoded), atol=1e-5)
        with pytest.raises(triton.InferenceServerException, match="finite numbers expected"):
            client.infer("planes", asked(triton, np.full_like(planes, np.nan), "FP32"))
    for number, said in {10**400: "a list of numbers expected", 1e300: "finite numbers expected"}.items():
        mistaken = of([number] * 1152, shape=[1, 3, 24, 16], datatype="FP32")
        answer = httpx.post(f"{service.url}/v2/models/planes/infer", json=mistaken)
        assert answer.status_code == 400 and said in answer.json()["error"]
    answer = httpx.post(f"{service.url}/v1/embeddings", files=files(encoded)).json()  # images go the same way
    np.testing.assert_allclose(answer["embeddings"], extractor.extract(encoded), atol=1e-5)


def posted(client, head, behind=b"", **headers):
    text = json.dumps(head).encode()
    return client.post("/v2/models/small/infer", content=text + behind,
                       headers={HEADER: str(len(text))} | headers if behind or headers else {})


def of(data=None, shape=(1, 24, 16, 3), size=None, **more):
    tensor = {"name": "images", "datatype": "UINT8", "shape": shape}
    if data is not None:
        tensor["data"] = data
    if size is not None:
        tensor["parameters"] = {"binary_data_size": size}
    return {"inputs": [tensor | more]}


@pytest.mark.parametrize(("head", "behind", "said"), [
    ({}, b"", "inputs: Field required"),
    ({"inputs": []}, b"", "inputs: List should have at least 1 item"),
    (of([0] * 1152, name="pixels"), b"", "inputs[0].name: images expected, got pixels"),
    (of([0] * 1152, datatype="INT8"), b"", "inputs[0].datatype: UINT8 expected, got INT8"),
    (of([], shape=[0, 24, 16, 3]), b"", "inputs[0].shape: [B, 24, 16, 3] expected, got [0, 24, 16, 3]"),
    (of([], shape=[]), b"", "inputs[0].shape: [B, 24, 16, 3] expected, got []"),
    (of([0] * 1152, shape=[10**18, 24, 16, 3]), b"", "inputs[0]: 1152000000000000000000 values"),
    (of([0] * 1152, shape=[10**4000, 24, 16, 3]), b"", "inputs[0].shape[0]: Input should be less than 9223372036854"),
    (of([0] * 1152, shape=[-1, 24, 16, 3]), b"", "inputs[0].shape[0]: Input should be greater than or equal to 0"),
    (of([0] * 1152, shape=[1] * 1000), b"", "inputs[0].shape: List should have at most 8 items"),
    (of([0] * 1152, shape=[True, 24, 16, 3]), b"", "inputs[0].shape[0]: Input should be a valid integer"),
    (of([0] * 1152, name="x" * 1000), b"", "inputs[0].name: String should have at most 100 characters"),
    (of([0] * 1151), b"", "inputs[0]: 1152 values for shape [1, 24, 16, 3] expected, got 1151"),
    (of(), b"", "inputs[0]: either data or binary_data_size expected"),
    (of([]), b"", "inputs[0]: 1152 values for shape [1, 24, 16, 3] expected, got 0"),
    (of([256] * 1152), b"", "inputs[0].data: whole numbers from 0 to 255 expected"),
    (of([-1] * 1152), b"", "inputs[0].data: whole numbers from 0 to 255 expected"),
    (of([0.5] * 1152), b"", "inputs[0].data: whole numbers from 0 to 255 expected"),
    (of(["0"] * 1152), b"", "inputs[0].data: whole numbers from 0 to 255 expected"),
    (of([True] * 1152), b"", "inputs[0].data: whole numbers from 0 to 255 expected"),
    (of([10**4000] * 1152), b"", "inputs[0].data: whole numbers from 0 to 255 expected"),
    (of([[0], {}]), b"", "inputs[0].data: whole numbers from 0 to 255 expected"),
    (of([[0], [0, 0]]), b"", "inputs[0].data: nested lists of one length expected"),
    (of(size=1152), b"0" * 1151, "inputs[0]: 1152 bytes behind the JSON expected, got 1151"),
    (of(size=1151), b"0" * 1151, "inputs[0]: 1152 bytes for shape [1, 24, 16, 3] expected, got 1151"),
    (of([0] * 1152), b"0", "inputs[0]: 0 bytes behind the JSON expected, got 1"),
    (of([0] * 1152, size=1152), b"0" * 1152, "inputs[0]: either data or binary_data_size expected"),
    (of([0] * 1152, parameters={"shared_memory_region": "x"}), b"",
     "inputs[0].parameters.shared_memory_region: no such key"),
    (of([0] * 1152) | {"outputs": [{"name": "classes"}]}, b"", "outputs[0].name: one of embeddings, logits, margins"),
    (of([0] * 1152) | {"outputs": [{"name": "logits", "parameters": {"classification": 2}}]}, b"",
     "outputs[0].parameters.classification: no such key"),
    (of([0] * 1152) | {"outputs": [{"name": "logits"}, {"name": "logits"}]}, b"",
     "outputs[1].name: logits is asked for twice"),
    (of([0] * 1152) | {"parameters": {"sequence_id": 1}}, b"", "parameters.sequence_id: no such key"),
    (of([0] * 1152) | {"parameters": {"timeout": 10**400}}, b"", "parameters.timeout: Input should be less than"),
])
def test_a_wrong_tensor_is_refused_in_one_line(client, head, behind, said):
    answer = posted(client, head, behind)
    assert answer.status_code == 400 and answer.json()["error"].startswith(said), answer.text


def test_what_is_no_request_at_all_is_refused(client):
    for content in (b"", b"[" * 100_000, b"\xff"):
        answer = client.post("/v2/models/small/infer", content=content)
        assert answer.status_code == 400 and "Invalid JSON" in answer.json()["error"]
    for length in ("-1", "99999", "9" * 5000, "x"):
        answer = posted(client, of([0] * 1152), **{HEADER: length})
        assert answer.status_code == 400 and answer.json()["error"].startswith(HEADER), answer.text
    assert posted(client, of([0] * 1152), **{"Content-Encoding": "gzip"}).status_code == 415


@pytest.mark.parametrize("head", [
    of(["x" * 100_000, *[""] * 3000]),
    of([0] * 1152, shape=["x"] * 300_000),
    of([0] * 1152) | {"outputs": [{"name": "embeddings"}] * 20_000},
    of([0] * 1152) | dict.fromkeys(map(str, range(100_000))),
], ids=["texts", "wrong elements", "an output again and again", "unknown keys"])
def test_a_small_request_cannot_take_much_memory(service, client, head):
    with service.grows_by_at_most(64):
        answer = posted(client, head)
    assert answer.status_code == 400 and len(answer.content) < 200


def test_nested_numbers_are_as_good_as_flat_ones(client, pixels, extractor, encoded):
    answer = posted(client, of(pixels[:2].tolist(), shape=[2, 24, 16, 3]) | {"outputs": [{"name": "embeddings"}]})
    (output,) = answer.json()["outputs"]
    assert output["shape"] == [2, 6] and len(output["data"]) == 12
    np.testing.assert_allclose(np.reshape(output["data"], (2, 6)), extractor.extract(encoded[:2]), atol=1e-6)
