"""The section "Serving" of the deployment page, run as it stands."""

import json
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from deploy.server.limits import Limits

PAGE = Path(__file__).parents[3] / "docs" / "deployment.md"
SECTION = PAGE.read_text(encoding="utf-8").partition("## Serving\n")[2].partition("\n## ")[0]


@pytest.fixture
def example(service, encoded, shipped, tmp_path, monkeypatch):
    """The one example in a language, for the running service and with the files that it expects."""
    for name, image in zip(("a.jpg", "b.jpg"), encoded, strict=False):
        (tmp_path / name).write_bytes(image)
    shutil.copy(shipped, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)

    def read(language):
        (text,) = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
        return text.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
    return read


def test_curl_gets_what_the_section_promises(example, extractor, encoded, levels):
    if not shutil.which("curl"):
        pytest.skip("no curl here")
    ended = [subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
             for line in example("bash").splitlines()]
    embedded, filtered, tagged, facts = [json.loads(each.stdout) for each in ended]
    np.testing.assert_allclose(embedded["embeddings"], extractor.extract(encoded[:2]), atol=1e-6)
    assert filtered["threshold"] == levels["far=1e-2"]["threshold"]
    assert filtered["results"][0][0] == {"name": "0.jpg", "similarity": pytest.approx(1), "camera": 0, "tag": "a",
                                         "accepted": True}
    assert {hit["camera"] for hit in filtered["results"][0]} == {0}
    assert [hit["tag"] for hit in tagged["results"][0]] == ["a"] * 4
    assert facts["name"] == "small"


def test_the_public_client_of_the_section_gets_the_embeddings(example, extractor, encoded):
    pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    seen = {}
    exec(example("python").replace('infer("model"', 'infer("small"'), seen)
    np.testing.assert_allclose(seen["embeddings"], extractor.extract(encoded[:2]), atol=1e-6)


def test_the_limits_of_the_section_are_those_of_the_code():
    told = re.findall(r"^\| `--(\w+)` \| (\d+) \|", SECTION, re.MULTILINE)
    assert {name: int(value) for name, value in told} == asdict(Limits())


def test_the_metrics_of_the_section_are_there(client):
    there = client.get("/metrics").text
    names = re.findall(r"^\| (`.*?) \|", SECTION.partition("**Monitoring.**")[2], re.MULTILINE)
    told = [name for row in names for name in re.findall(r"`(\w+)", row)]
    assert len(told) == 8 and all(f"\n{name}" in there for name in told)
