"""What the service is started with, and why it may not start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.serve import main

ROOT = Path(__file__).parents[3]


def complaint(capsys, *arguments):
    """The exit code of a service that cannot start, and the last line that it says."""
    try:
        code = main([*map(str, arguments)])
    except SystemExit as ended:
        code = ended.code
    return code, capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("options", "said"), [
    (["--batch_size", 0], "--batch_size: a whole number from 1 expected, got 0"),
    (["--max_queue", 0], "--max_queue: a whole number from 1 expected, got 0"),
    (["--max_queue", 63], "--max_queue 63: at least --max_images 64 expected"),
    (["--max_delay_ms", -1], "--max_delay_ms: a whole number from 0 expected, got -1"),
    (["--max_pixels", 80_000_001], "--max_pixels: a whole number from 1 to 80000000 expected, got 80000001"),
    (["--port", 99999], "--port: a whole number from 0 to 65535 expected, got 99999"),
    (["--port", -1], "--port: a whole number from 0 to 65535 expected, got -1"),
    (["--images", "nowhere", "--gallery", "nowhere"], "--images nowhere: no such folder"),
    (["--images", "."], "--images: they are those of a gallery; give --gallery too"),
    (["--gallery", "nowhere"], "nowhere: no gallery there"),
    (["--name", "a/b"], "--name a/b: no / expected"),
    (["--token_file", "nowhere"], "No such file or directory: 'nowhere'"),
    (["--token_file", "/dev/null"], "/dev/null: a token of printable ASCII characters expected"),
    (["--providers", "NoSuchProvider"], "provider NoSuchProvider: "),
])
def test_a_service_that_cannot_start_says_why_in_one_line(shipped, capsys, options, said):
    code, line = complaint(capsys, shipped, "--port", 0, *options)
    assert code == 2 and said in line


def test_a_token_that_is_not_ascii_is_refused(shipped, capsys, tmp_path):
    (tmp_path / "token").write_text("geheím", encoding="utf-8")
    code, line = complaint(capsys, shipped, "--port", 0, "--token_file", tmp_path / "token")
    assert code == 2 and line.endswith("token: a token of printable ASCII characters expected")


def test_a_port_that_is_taken_is_said(service, shipped, capsys):
    code, line = complaint(capsys, shipped, "--port", service.port)
    assert code == 2 and "Address already in use" in line


def test_a_gallery_of_another_model_is_refused(with_metadata, gallery, capsys):
    other = with_metadata("other.onnx", lambda facts: facts.update(fingerprint=json.dumps("6" * 64)))
    code, line = complaint(capsys, other, "--gallery", gallery / "entries")
    assert code == 2 and "the gallery was built with a model of 555555555555" in line


def test_a_model_that_says_other_than_where_it_was_exported_is_not_served(with_metadata, capsys):
    def changed(facts):
        golden = json.loads(facts["golden"])
        golden["embeddings"][0] = golden["embeddings"][0][::-1]
        facts["golden"] = json.dumps(golden)

    code, line = complaint(capsys, with_metadata("changed.onnx", changed))
    assert code == 1 and line.endswith("see deploy.selftest")


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "python_multipart", "prometheus_client"])
def test_what_is_not_installed_is_said_with_the_remedy(shipped, capsys, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    code, line = complaint(capsys, shipped)
    assert code == 2 and line.startswith(f"deploy.serve needs {name}: pip install -e .[serve] where Kiln")


def test_deploy_alone_needs_nothing_of_the_service():
    code = "import sys, deploy, deploy.serve; print({'fastapi', 'uvicorn', 'pydantic'} & {*sys.modules})"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == "set()\n", ended.stderr
