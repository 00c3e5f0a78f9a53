"""Whether an exported file may ship: held against its network on images, and against the snapshot by the evaluator."""

import hashlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from torch import nn

from data.dataset import drawn
from data.records import Predict, RunEval
from deploy.preprocess import Preprocessing
from params.schema import Params
from trainer.model import Embedder
from trainer.onnx_writer import ExportError
from trainer.precision import Lower, Lowered, Sensitivity
from trainer.predict import Run, run_network
from trainer.proof import LEVELS, Agreement, ProofError, prove
from trainer.sentinel import finite_metrics
from trainer.snapshot import State
from trainer.splits import Splits, predict_splits

MOST_APART = 1e-3  # by which the evaluator's metric may differ between snapshot and float32 file
PROVEN_ON = ("query", "val", "test")  # of these splits, images of the first that there is; else of train
IMAGES = 16  # that the proof is made with
CALIBRATED = 128  # training images from which a lower precision takes the ranges of activations
TIMED, ROUNDS = (1, 32), 7  # batch sizes, and turns of each file

Precision = Literal["fp32"] | Lower


@dataclass(frozen=True)
class Trained:
    """A snapshot with what belongs to it."""

    state: State
    params: Params
    network: Embedder  # with the weights that are evaluated, in evaluation mode, on the CPU
    preprocessing: Preprocessing
    splits: Splits
    run_eval: RunEval | None
    logits: bool  # whether they ship: where the evaluator scores them; those over identities serve no one

    def evaluate(self, predict: Predict) -> dict[str, float]:
        """The evaluator's metrics; without an evaluator, none."""
        return finite_metrics(self.run_eval(self.state["params"], predict)) if self.run_eval else {}

    def predict(self, run: Run) -> Predict:
        """split name -> Predictions of what is run; each split is predicted once."""
        return cache(predict_splits(self.splits, self.params, run))


class Seen(NamedTuple):
    """An image, and what the network sees of it."""

    encoded: bytes
    pixels: np.ndarray  # (H, W, 3) uint8


class Opened(NamedTuple):
    """A file, run by the code that its users run."""

    run: Run
    tensor: Callable[[np.ndarray], np.ndarray]  # (B, H, W, 3) uint8 -> what the graph takes


class Proof(NamedTuple):
    """What network and file have in common, and the file itself."""

    agreements: Sequence[Agreement]
    metrics: Mapping[str, float]  # the file's
    opened: Opened
    predict: Predict  # by the file


class Cost(NamedTuple):
    """What a lower precision gives and takes: pairs are of the float32 file and of the file that ships."""

    exact: Proof
    sizes: tuple[int, int]  # bytes
    seconds: Mapping[int, tuple[float, float]]  # by batch size; medians, the files taking turns
    kept: Sequence[Sensitivity]  # layers left in float32
    layers: int


@dataclass(frozen=True)
class Gate:
    """Lets files of one snapshot through, or raises ProofError: one line with the figures."""

    model: Trained
    metrics: Mapping[str, float]  # the snapshot's
    open_file: Callable[[Path], Opened]  # ValueError where it cannot be used

    @cached_property
    def images(self) -> list[Seen]:
        """Images of the run, evenly spaced over one split; DataError names one that cannot be used."""
        there = [split for split in PROVEN_ON if self.model.splits.has(split)]
        return list(self._spaced(there[0] if there else "train", IMAGES))

    @property
    def metric(self) -> str | None:
        """The metric that chose the best snapshot; None without an evaluator."""
        section = self.model.params.evaluation_params
        return (section.monitor or next(iter(self.metrics))) if section else None

    def proven(self, path: Path) -> Proof:
        """A float32 file that says what its network says."""
        proof = self._compared(path, "fp32")
        if self.metric and not abs(self._drop(proof)) <= MOST_APART:  # also where it is NaN
            raise ProofError(f"{self._said(proof)}, at most {MOST_APART} apart expected; has the data changed since "
                             "training?")
        return proof

    def lowered(self, exact: Path, path: Path, precision: Lower, most_drop: float) -> tuple[Proof, Cost]:
        """Write a float32 file at a lower precision, with as many layers left as they are as the metric asks for.

        Besides ProofError raises ExportError without an evaluator.
        """
        if self.metric is None:
            raise ExportError(f"{precision}: the run has no evaluator, so that nothing says what it would cost; export "
                              "fp32, or train with evaluation_params")
        by_exact = self.proven(exact)
        calibration = by_exact.opened.tensor(np.stack([seen.pixels for seen in self._spaced("train", CALIBRATED)]))
        lowered = Lowered(exact, precision, calibration)
        for kept in lowered.choices():
            lowered.write(path, [layer.name for layer in kept])
            try:
                proof = self._within(path, precision, most_drop)
            except ProofError as error:
                refused = error
            else:
                return proof, Cost(by_exact, (exact.stat().st_size, path.stat().st_size),
                                   self._seconds(by_exact.opened.run, proof.opened.run), kept, len(lowered.layers))
        raise ProofError(f"{precision}: {refused}, even with {len(kept)} of {len(lowered.layers)} layers left in "
                         "float32") from refused

    def _within(self, path: Path, precision: Lower, most_drop: float) -> Proof:
        proof = self._compared(path, precision)
        if not self._drop(proof) <= most_drop:
            raise ProofError(f"{self._said(proof)}: a drop of {self._drop(proof):.4f}, at most {most_drop:g} allowed")
        return proof

    def _compared(self, path: Path, precision: Precision) -> Proof:
        try:
            opened = self.open_file(path)
        except ValueError as error:
            raise ProofError(f"the file cannot be used: {error}") from error
        by_network = run_network(self.model.network, logits=self.model.logits)
        pixels = np.stack([image.pixels for image in self.images])
        agreements = prove(by_network, opened.run, pixels, level=LEVELS[precision])
        predict = self.model.predict(opened.run)
        return Proof(agreements, self.model.evaluate(predict), opened, predict)

    def _drop(self, proof: Proof) -> float:
        """By how much the file is worse than the snapshot."""
        section = self.model.params.evaluation_params
        assert section and self.metric
        lost = self.metrics[self.metric] - proof.metrics[self.metric]
        return lost if section.mode == "max" else -lost

    def _said(self, proof: Proof) -> str:
        assert self.metric
        return (f"{self.metric}: {proof.metrics[self.metric]:.4f} of the file, {self.metrics[self.metric]:.4f} of the "
                "snapshot")

    def _spaced(self, split: str, count: int) -> Iterator[Seen]:
        archive = self.model.splits.archive(split)
        for i in np.linspace(0, len(archive) - 1, min(count, len(archive))).astype(int).tolist():
            yield Seen(archive.read(i), drawn(archive, i, self.model.preprocessing))

    def _seconds(self, *runs: Run) -> dict[int, tuple[float, float]]:
        found = {}
        for size in TIMED:
            pixels = np.stack([self.images[i % len(self.images)].pixels for i in range(size)])
            rounds = [[_timed(run, pixels) for run in runs] for _ in range(1 + ROUNDS)][1:]  # the first warms up
            exact, lower = (statistics.median(column) for column in zip(*rounds, strict=True))
            found[size] = exact, lower
        return found


def _timed(run: Run, pixels: np.ndarray) -> float:
    began = time.perf_counter()
    run(pixels)
    return time.perf_counter() - began


def fingerprint(network: nn.Module, precision: Precision) -> str:
    """sha256 over the names and values of all weights, and over a lower precision, which gives other embeddings."""
    digest = hashlib.sha256()
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode() + weight.contiguous().numpy().tobytes())
    if precision != "fp32":
        digest.update(precision.encode())
    return digest.hexdigest()
