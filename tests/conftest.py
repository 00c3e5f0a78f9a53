"""Fixtures that several packages' tests share."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import lmdb
import pytest

from tests.forked import forked

os.environ["OMP_NUM_THREADS"] = "1"  # the tests run one per core; read when torch is first imported
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts in the background ignore it


@pytest.fixture(scope="session")
def one_registry():
    """torch reads its 500 ONNX operators from their sources at every export, a third of the time: here once."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="session")
def golden():
    """Numbers of the original codes: {case: {params, inputs, outputs}}."""
    return json.loads((Path(__file__).parent / "golden" / "losses.json").read_text())


ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def figures(tmp_path_factory):
    """A small re-identification set, drawn and packed: train, query and gallery archives."""
    folder = tmp_path_factory.mktemp("figures")
    run_module("data.figures", folder / "images", "--identities", 12)
    run_module("data.pack", "market1501", folder / "images", folder / "packed")
    return folder / "packed"


@pytest.fixture
def archives(figures, tmp_path):
    """A copy of the packed figures, to damage."""
    return shutil.copytree(figures, tmp_path / "packed")


@pytest.fixture
def damaged_archives(archives):
    """A copy of the packed figures in which one byte of training record 0 is flipped."""
    path = archives / "train.lmdb"
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as environment, environment.begin() as view:
        image = view.get(b"000000000")
    content = path.read_bytes()
    at = content.index(image) + len(image) // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1:])
    return archives


def run_module(module, *arguments):
    """Run a module of the project as users do."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


@pytest.fixture
def params(figures, tmp_path):
    """Write a params.json for a tiny run on the figures; keys may be added or replaced."""
    def write(**keys):
        path = tmp_path / "params.json"
        places = {"batches_dir": str(figures), "working_dir": str(tmp_path / "runs")}
        path.write_text(json.dumps({**TINY, **places, **keys}))
        return path
    return write


TINY = {
    "img_h": 64, "img_w": 32, "epoch": 2, "log_every": 1, "num_preprocess_workers": 0,
    "model_params": {"backbone": "mobilenet_v3_small", "neck": {"type": "linear+bn+dropout"}, "feature_dim": 32},
    "losses": [{"type": "softmax", "label_smoothing": 0.1}, {"type": "triplet", "margin": 0.3}],
    "batch_sampling_params": {"class_balanced": True, "P": 2, "K": 4},
    "data_augmentation": {"mirror": True, "padding": 4, "random_erasing": True},
    "optimizer": "adam", "lr": {"base_lr": 1e-3, "schedule": "cosine"},
    "evaluation_params": {"type": "market_evaluate"},
}


@pytest.fixture
def train(tmp_path_factory):
    """Run train.py as a real process: (operation, params.json, further arguments) -> the finished process."""
    errors = tmp_path_factory.mktemp("train") / "errors"

    def run(operation, path, *arguments):
        errors.write_text("")
        process, output = forked(command_line(operation, path, *arguments), run.environment, errors)
        with output:
            said = output.read()
        process.join()
        return subprocess.CompletedProcess(operation, process.exitcode, said, errors.read_text())
    run.environment = {}
    return run


@pytest.fixture
def disturbed(train):
    """Run train.py and do things to it, each once a line of its output holds a text; its exit code and output."""
    def run(operation, path, name, *acts):
        process, output = forked(command_line(operation, path, "--sub_working_dir", name), train.environment)
        said, left = "", list(acts)
        with output:
            for line in output:
                said += line
                if left and left[0][0] in line:
                    left.pop(0)[1](process)
        process.join()
        assert not left, said
        return process.exitcode, said
    return run


@pytest.fixture
def train_until(disturbed):
    """Run train.py until a line of its output holds a text, then send it a signal; its exit code and output."""
    def run(text, number, operation, path, name):
        return disturbed(operation, path, name, (text, lambda process: os.kill(process.pid, number)))
    return run


def command_line(operation, path, *arguments):
    """The command for one operation on a params.json."""
    return ["train.py", "--operation", operation, "--config_path", path, *arguments]
