"""What Kiln's training loop costs: images/s of a run against a bare loop on tensors in memory.

python -m benchmarks.loop_cost [--steps 10] [--rounds 5] [--workers 1]

Both train resnet18 at 128 x 64, batch 64, in this process and take turns, so that a change of the machine's
speed meets both. The run has everything a run has: archive, worker, augmentation, schedule, log, metrics, checks.
The bare loop has forward, loss, backward and step on one batch in memory.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.archive import Meta, Record, open_archive, write_archive
from evaluate import EVALUATORS
from params.reader import load
from trainer.build import tables
from trainer.fit import Fit
from trainer.ledger import Ledger
from trainer.record import Recorder
from trainer.run import RunDirectory
from trainer.training import Training

BATCH, CLASSES, HEIGHT, WIDTH = 64, 16, 128, 64
PARAMS = {
    "batches_dir": ".", "img_h": HEIGHT, "img_w": WIDTH, "batch_size": BATCH, "epoch": 1,
    "model_params": {"backbone": "resnet18"}, "losses": [{"type": "softmax"}, {"type": "triplet"}],
    "data_augmentation": {"mirror": True, "padding": 8}, "optimizer": "adam", "lr": {"base_lr": 1e-4},
}


def main() -> None:
    """Print images/s of both, round by round, and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder), arguments.steps + 1, arguments.workers)
        speeds = [(run_speed(Path(folder), number), bare_speed(Path(folder), arguments.steps))
                  for number in range(arguments.rounds)]
    for run, bare in speeds:
        print(f"run {run:7.1f} images/s   bare loop {bare:7.1f} images/s   ratio {run / bare:.3f}")
    run, bare = (statistics.median(column) for column in zip(*speeds, strict=True))
    print(f"median: run {run:.1f}, bare loop {bare:.1f}, ratio {run / bare:.3f} "
          f"({arguments.workers} workers, {torch.get_num_threads()} threads, torch {torch.__version__})")


def write_set(folder: Path, steps: int, workers: int) -> None:
    """params.json and an archive of JPEG images that make so many steps."""
    (folder / "params.json").write_text(json.dumps({**PARAMS, "num_preprocess_workers": workers}))
    draw = np.random.default_rng(0)
    records = (Record(_jpeg(draw), i % CLASSES, 0, 0, f"{i}.jpg") for i in range(BATCH * steps))
    write_archive(folder / "train.lmdb", records, Meta("noise", "train", [str(i) for i in range(CLASSES)]))


def run_speed(folder: Path, number: int) -> float:
    """Images per second of a real run, from its second step on."""
    training = _training(folder)
    run = RunDirectory(folder / f"run{number}")
    run.create({})
    recorder = Recorder(run, epoch=0, step=0, epochs=1, steps=training.steps)
    ledger = Ledger(run.snapshots, monitor=None, mode="max")
    began: list[float] = []
    fit = Fit(training, run, recorder, ledger, None, _no_split, lambda: began.append(time.perf_counter()))
    fit.fit()
    training.loader.close()
    recorder.close()
    return BATCH * (len(began) - 2) / (began[-1] - began[1])


def bare_speed(folder: Path, steps: int) -> float:
    """Images per second of the same network, losses and optimiser on one batch in memory."""
    training = _training(folder)
    batch = next(training.loader.epoch(0))
    training.loader.close()
    began = 0.0
    for step in range(steps + 1):
        if step == 1:
            began = time.perf_counter()
        training.optimizer.zero_grad()
        loss, _ = training.criterion(training.network(batch.images), batch)
        loss.backward()
        training.optimizer.step()
    return BATCH * steps / (time.perf_counter() - began)


def _training(folder: Path) -> Training:
    loaded = load(folder / "params.json", tables(EVALUATORS))
    return Training(loaded.params, loaded.resolved, open_archive(folder / "train.lmdb"), torch.device("cpu"))


def _no_split(split: str) -> Any:
    raise AssertionError(f"nothing is evaluated here, {split} was asked")


def _jpeg(draw: np.random.Generator) -> bytes:
    blobs = Image.fromarray(draw.integers(0, 256, (8, 4, 3), dtype=np.uint8))
    blobs = blobs.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    encoded = io.BytesIO()
    blobs.save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


if __name__ == "__main__":
    main()
