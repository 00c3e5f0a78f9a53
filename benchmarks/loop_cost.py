"""What the training loop costs: images/s of a run against a bare loop on one batch in memory.

python -m benchmarks.loop_cost [--rounds 5] [--steps 10] [--workers 1] [--small]

Both train resnet18 at 128 x 64, batch 64, in this process. The run has everything a run has: archive, worker,
augmentation, schedule, log, metrics, checks. The bare loop has forward, loss, backward and step.
"""

import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.measure import NO_BAR, Comparison, agreed, arguments, at_least, table
from data.archive import Meta, Record, open_archive, write_archive
from evaluate import EVALUATORS
from params.reader import load
from trainer.build import tables
from trainer.fit import Fit
from trainer.heap import keep_freed_memory
from trainer.ledger import Ledger
from trainer.record import Recorder
from trainer.run import RunDirectory
from trainer.training import Training

CLASSES, HEIGHT, WIDTH = 16, 128, 64
PARAMS = {
    "batches_dir": ".", "img_h": HEIGHT, "img_w": WIDTH, "epoch": 1,
    "model_params": {"backbone": "resnet18"}, "losses": [{"type": "softmax"}, {"type": "triplet"}],
    "data_augmentation": {"mirror": True, "padding": 8}, "optimizer": "adam", "lr": {"base_lr": 1e-4},
}


class Timed(NamedTuple):
    """How long some steps took, and the loss of the one before them, the first."""

    seconds: float
    first_loss: float


def main() -> None:
    """Print images/s of both, on one thread and on two, and that both began with the same loss."""
    options = arguments(__doc__, steps={"type": int, "default": 10}, workers={"type": int, "default": 1})
    batch, steps = (8, 2) if options.small else (64, options.steps)
    keep_freed_memory()  # as a run does
    apart, lines = 0.0, []
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder), batch, steps + 2, options.workers)
        for threads, bar in (1, at_least(0.97)), (2, NO_BAR):
            torch.set_num_threads(threads)
            turns = [(run(Path(folder)), bare(Path(folder), steps)) for _ in range(options.rounds)]
            ours, peer = ([timed.seconds for timed in column] for column in zip(*turns, strict=True))
            what = f"images of a run, threads: {threads}, workers: {options.workers}"
            lines.append(Comparison(what, ours, "bare loop", peer, bar, count=batch * steps))
            apart = max(apart, *(abs(one.first_loss - other.first_loss) for one, other in turns))
    print(table(lines))
    agreed("the first loss of both", apart, 1e-5)
    print(f"\nImages per second on {len(os.sched_getaffinity(0))} cores: on one thread, torch leaves the worker a core "
          "of its own; on two of two, it shares them with it.")


def write_set(folder: Path, batch: int, steps: int, workers: int) -> None:
    """params.json and an archive of JPEG images that make so many steps."""
    own = {"batch_size": batch, "num_preprocess_workers": workers}
    (folder / "params.json").write_text(json.dumps({**PARAMS, **own}))
    draw = np.random.default_rng(0)
    records = (Record(_jpeg(draw), i % CLASSES, 0, 0, f"{i}.jpg") for i in range(batch * steps))
    write_archive(folder / "train.lmdb", records, Meta("noise", "train", [str(i) for i in range(CLASSES)]))


def run(folder: Path) -> Timed:
    """A real run: its steps but the first, which starts the worker, and the last."""
    training = _training(folder)
    began: list[float] = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        directory = RunDirectory(Path(place) / "run")
        directory.create({})
        recorder = Recorder(directory, epoch=0, step=0, epochs=1, steps=training.steps)
        ledger = Ledger(directory.snapshots, monitor=None, mode="max")
        Fit(training, directory, recorder, ledger, None, _no_split, lambda: began.append(time.perf_counter())).fit()
        training.loader.close()
        recorder.close()
        first = json.loads(directory.metrics.read_text().splitlines()[0])
    return Timed(began[-1] - began[1], first["loss"])


def bare(folder: Path, steps: int) -> Timed:
    """The same network, losses and optimiser on one batch in memory, after a first step."""
    training = _training(folder)
    batch = next(training.loader.epoch(0))
    training.loader.close()
    training.set_rates()

    def step() -> float:
        training.optimizer.zero_grad()
        loss, _ = training.criterion(training.network(batch.images), batch)
        loss.backward()
        training.optimizer.step()
        return float(loss.detach())

    first = step()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return Timed(time.perf_counter() - began, first)


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
