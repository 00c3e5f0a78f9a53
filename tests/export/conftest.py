"""Briefly trained runs, for export.py to turn into files."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from data.archive import Meta, Record, write_archive
from trainer.snapshot import load_snapshot, save_snapshot

PARAMS = {
    "img_h": 32, "img_w": 16, "epoch": 1, "batch_size": 8, "num_preprocess_workers": 0,
    "model_params": {"backbone": "resnet18", "feature_dim": 16},
    "evaluation_params": {"type": "market_evaluate"},
}


def drawn(identity, view):
    """An image of an identity: its own smooth colours, seen in other noise."""
    colours = np.random.default_rng(identity).integers(40, 216, (4, 2, 3)).astype(np.int16)
    noise = np.random.default_rng([identity, view]).integers(-40, 41, colours.shape)
    encoded = io.BytesIO()
    image = Image.fromarray((colours + noise).astype(np.uint8))
    image.resize((20, 40), Image.Resampling.BICUBIC).save(encoded, "JPEG")
    return encoded.getvalue()


@pytest.fixture(name="drawn")
def drawn_fixture():
    """(identity, view) -> an encoded image, of the identity's colours."""
    return drawn


@pytest.fixture(scope="session")
def archives(tmp_path_factory):
    """Six identities: train, query, gallery and val."""
    folder = tmp_path_factory.mktemp("archives")
    names = [f"person {i}" for i in range(6)]
    for split, views in {"train": range(4), "query": [4], "gallery": [5, 6], "val": [7, 8]}.items():
        records = [Record(drawn(identity, view), identity, view % 2, -1, f"{identity}/{view}.jpg")
                   for identity in range(6) for view in views]
        write_archive(folder / f"{split}.lmdb", records, Meta("folder", split, names))
    return folder


@pytest.fixture(scope="session")
def make_run(archives, tmp_path_factory):
    """Train a run: keys of params.json -> its folder."""
    def make(**keys):
        folder = tmp_path_factory.mktemp("run")
        (folder / "params.json").write_text(json.dumps(
            PARAMS | {"batches_dir": str(archives), "working_dir": str(folder)} | keys))
        code = train.main(["--operation", "train", "--config_path", str(folder / "params.json"),
                           "--sub_working_dir", "exp1"])
        assert code == 0
        return folder / "exp1"
    return make


@pytest.fixture(scope="session")
def reid_run(make_run):
    return make_run()


@pytest.fixture(scope="session")
def exported(reid_run):
    """The model.onnx of a re-identification run, made by a real process, and what was printed."""
    done = subprocess.run([sys.executable, "export.py", "--run_dir", reid_run],
                          capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr) == (0, "")
    return reid_run / "model.onnx", done.stdout


@pytest.fixture
def run(reid_run, tmp_path):
    """A copy of the run, which a test may spoil."""
    def copy(source, target):  # a snapshot is large, and is replaced, never changed
        (os.link if source.endswith(".pth") else shutil.copy)(source, target)
    return shutil.copytree(reid_run, tmp_path / "copy", ignore=shutil.ignore_patterns("model.onnx"), copy_function=copy)


@pytest.fixture
def edit(run):
    """Change the params that a snapshot of the run holds: edit(which, **keys)."""
    def edit(which, **keys):
        path = run / "snapshots" / f"{which}.pth"
        state = load_snapshot(path)
        state["params"] |= keys
        save_snapshot(path, state)
    return edit


@pytest.fixture
def own(edit, monkeypatch, tmp_path):
    """Let a snapshot of the run be scored by an evaluator of the user's: own(which, its text)."""
    def own(which, text):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / f"score_{tmp_path.name}.py").write_text(text)  # modules stay imported
        monkeypatch.syspath_prepend(tmp_path)
        edit(which, evaluation_params={"type": f"mine.score_{tmp_path.name}"})
    return own


@pytest.fixture
def files_of():
    """A run -> the names in its folder."""
    return lambda run: sorted(path.name for path in run.iterdir())
