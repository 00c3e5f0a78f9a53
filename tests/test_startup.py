"""What answers without torch, whose import takes seconds: real processes, and the modules that they imported."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.run import RunDirectory

ROOT = Path(__file__).parent.parent


@pytest.fixture
def answer():
    """Run a command line of the project: its exit code, what it printed, and the modules that it imported."""
    def run(*arguments):
        command = [sys.executable, "-X", "importtime", *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        lines = done.stderr.splitlines()
        imports = [line for line in lines if line.startswith("import time:")]
        printed = done.stdout + "\n".join(line for line in lines if line not in imports)
        return done.returncode, printed, {line.rpartition("|")[2].strip() for line in imports}
    return run


@pytest.fixture
def run_that_waits(tmp_path):
    """The params.json of a run that has been made and never started."""
    path = tmp_path / "params.json"
    path.write_text(json.dumps({"batches_dir": "packed"}))
    run = RunDirectory(tmp_path / "runs" / "exp1")
    run.create({})
    run.update_status(state="stopped")
    return path


@pytest.mark.parametrize(("operation", "code", "said"), [
    ("status", 0, "exp1 +stopped"), ("list", 0, "exp1 +stopped"), ("stop_train", 4, "not running"),
])
def test_what_asks_for_a_run_s_state_does_without_torch(answer, run_that_waits, operation, code, said):
    ended, printed, modules = answer("train.py", "--operation", operation, "--config_path", run_that_waits)
    assert (ended, re.search(said, printed) is not None) == (code, True), printed
    assert not {"torch", "numpy"} & modules


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (["train.py", "--help"], 0, "usage"), (["train.py", "--operation", "trian"], 2, "invalid choice"),
    (["-m", "data.pack", "--help"], 0, "market1501"), (["-m", "data.pack", "market"], 2, "invalid choice"),
    (["-m", "data.doctor", "--help"], 0, "usage"), (["-m", "deploy.extract", "--help"], 0, "usage"),
    (["export.py", "--help"], 0, "usage"), (["export.py", "--run_dir", "absent"], 2, "no such folder"),
    (["-m", "deploy.gallery", "--help"], 0, "usage"),
])
def test_help_and_usage_do_without_torch(answer, arguments, code, said):
    ended, printed, modules = answer(*arguments)
    assert (ended, said in printed, "torch" in modules) == (code, True, False), printed


def test_the_doctor_does_without_torch(answer, figures):
    ended, _, modules = answer("-m", "data.doctor", figures)
    assert (ended, "torch" in modules) == (0, False)


@pytest.mark.parametrize(("keys", "lines"), [
    ({"epock": 3}, ['epock: no such key; did you mean "epoch"?']),
    ({"epoch": 0, "img_h": "64"}, ["epoch: expected a number >= 1, found 0",
                                   'img_h: expected a whole number, found "64"']),
    (None, ["line 1 column 2: not JSON: Expecting property name enclosed in double quotes"]),
])
@pytest.mark.parametrize("operation", ["check", "train", "start_train"])
def test_a_mistake_outside_of_plugins_is_told_without_torch(answer, params, operation, keys, lines):
    path = params(**(keys or {}))
    if keys is None:
        path.write_text("{")
    ended, printed, modules = answer("train.py", "--operation", operation, "--config_path", path)
    assert (ended, printed.splitlines()) == (2, [f"params.json: {line}" for line in lines])
    assert "torch" not in modules


def test_a_mistake_in_a_plugin_s_key_is_told_beside_an_unknown_key(answer, params):
    path = params(epock=3, losses=[{"type": "triplet", "marginn": 0.3}])
    ended, printed, modules = answer("train.py", "--operation", "check", "--config_path", path)
    assert (ended, printed.splitlines()) == (2, [
        'params.json: epock: no such key; did you mean "epoch"?',
        'params.json: losses[0].marginn: no such key for "triplet"; did you mean "margin"?'])
    assert "torch" in modules  # so the tests above would see it
