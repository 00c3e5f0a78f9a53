"""Fixtures that several packages' tests share."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # the tests run one per core; read when torch is first imported


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
def train():
    """Run train.py as a real process: (operation, params.json, further arguments) -> the finished process."""
    def run(operation, path, *arguments):
        return subprocess.run(command_line(operation, path, *arguments), cwd=ROOT, capture_output=True, text=True,
                              env=ENVIRONMENT)
    run.environment = ENVIRONMENT
    return run


@pytest.fixture
def train_until():
    """Run train.py until a line of its output holds a text, then send a signal; its exit code and later output."""
    def run(text, signal, operation, path, *arguments):
        with subprocess.Popen(command_line(operation, path, *arguments), cwd=ROOT, text=True, env=ENVIRONMENT,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            seen = []
            for line in process.stdout:
                seen.append(line)
                if text in line:
                    process.send_signal(signal)
                    break
            else:
                pytest.fail(f"{text!r} never came: {''.join(seen)}")
            rest = process.stdout.read()
        return process.returncode, rest
    return run


ENVIRONMENT = {**os.environ, "PYTHONUNBUFFERED": "1"}


def command_line(operation, path, *arguments):
    """The command for one operation on a params.json."""
    return [sys.executable, "train.py", "--operation", operation, "--config_path", str(path), *map(str, arguments)]
