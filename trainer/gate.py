"""Whether an exported file may ship: held against its network on images, and against the snapshot by the evaluator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from data.dataset import drawn
from data.records import Predict
from deploy.preprocess import Preprocessing
from params.schema import Params
from trainer.latency import latencies
from trainer.ledger import monitored
from trainer.model import Embedder
from trainer.onnx_writer import ExportError
from trainer.precision import Lower, Lowered, Sensitivity
from trainer.predict import Infer, run_network
from trainer.proof import TOLERANCES, Agreement, ProofError, prove
from trainer.sentinel import finite_metrics
from trainer.snapshot import State
from trainer.splits import Splits, predict_splits

MOST_APART = 1e-3  # by which the evaluator's metric may differ between snapshot and float32 file
PROVEN_ON = ("query", "val", "test", "train")  # images of the first of these splits that there is
IMAGES = 16  # that the proof is made with
CALIBRATED = 128  # training images from which a lower precision takes the ranges of activations
NAMED = 4  # layers in a message

Precision = Literal["fp32"] | Lower


class Evaluated(NamedTuple):
    """What the evaluator says."""

    metrics: dict[str, float]  # all finite
    seen: Any = None  # what it searched or classified, of a type that evaluators know


@dataclass(frozen=True)
class Trained:
    """A snapshot with what belongs to it."""

    state: State
    params: Params
    network: Embedder  # with the weights that are evaluated, in evaluation mode, on the CPU
    preprocessing: Preprocessing
    splits: Splits
    score: Callable[[Mapping[str, Any], Predict], Any] | None  # its `metrics` and what was `seen`
    logits: bool  # whether they ship: where the evaluator scores them; those over identities serve no one

    def evaluate(self, predict: Predict) -> Evaluated:
        """The evaluator's metrics; without an evaluator, none. TrainingError: not finite."""
        if self.score is None:
            return Evaluated({})
        scored = self.score(self.state["params"], predict)
        return Evaluated(finite_metrics(scored.metrics), scored.seen)

    def predict(self, infer: Infer) -> Predict:
        """split name -> Predictions of what `infer` gives; each split is predicted once."""
        return cache(predict_splits(self.splits, self.params, infer))


class Sample(NamedTuple):
    """An image of the run."""

    encoded: bytes
    pixels: np.ndarray  # (H, W, 3) uint8, as the network sees it


class Opened(NamedTuple):
    """A file, run by the code that its users run."""

    infer: Infer
    tensor: Callable[[np.ndarray], np.ndarray]  # (B, H, W, 3) uint8 -> what the graph takes


class Proof(NamedTuple):
    """What network and file have in common, and the file itself."""

    agreements: Sequence[Agreement]
    evaluated: Evaluated  # the file
    opened: Opened

    @property
    def metrics(self) -> dict[str, float]:
        """The file's."""
        return self.evaluated.metrics


class Cost(NamedTuple):
    """What a lower precision gives and takes: pairs are of the float32 file and of the file that ships."""

    exact: Proof
    sizes: tuple[int, int]  # bytes
    seconds: Mapping[int, tuple[float, ...]]  # by batch size
    kept: Sequence[Sensitivity]  # layers left in float32
    layers: int


@dataclass(frozen=True)
class Gate:
    """Lets files of one snapshot through, or raises ProofError: one line with the figures."""

    model: Trained
    metrics: Mapping[str, float]  # the snapshot's
    open_file: Callable[[Path], Opened]  # ValueError where it cannot be used

    @cached_property
    def images(self) -> list[Sample]:
        """Images of the run, evenly spaced over one split; DataError names one that cannot be used."""
        there = (split for split in PROVEN_ON if self.model.splits.has(split))
        return self._spaced(next(there, "train"), IMAGES)

    @property
    def metric(self) -> str | None:
        """The metric that chose the best snapshot; None without an evaluator."""
        section = self.model.params.evaluation_params
        return monitored(self.metrics, section.monitor) if section else None

    def proven(self, path: Path) -> Proof:
        """A float32 file that says what its network says."""
        proof = self._compared(path, "fp32")
        if self.metric and not abs(self._drop(proof)) <= MOST_APART:  # also where it is NaN
            raise ProofError(f"{self._said(proof)}, at most {MOST_APART} apart expected; has the data changed since "
                             "training?")
        return proof

    def lowered(self, exact: Path, path: Path, precision: Lower, most_drop: float) -> tuple[Proof, Cost]:
        """Write a float32 file at a lower precision, with as many layers left as they are as the metric asks for.

        Besides ProofError raises ExportError without an evaluator, and DiskError.
        """
        if self.metric is None:
            raise ExportError(f"{precision}: the run has no evaluator, so that nothing says what it would cost; export "
                              "fp32, or train with evaluation_params")
        by_exact = self.proven(exact)
        calibration = by_exact.opened.tensor(np.stack([image.pixels for image in self._spaced("train", CALIBRATED)]))
        lowered = Lowered(exact, precision, calibration)
        proof, kept = self._first_within(lowered, path, most_drop)
        seconds = latencies([image.pixels for image in self.images], by_exact.opened.infer, proof.opened.infer)
        sizes = exact.stat().st_size, path.stat().st_size
        return proof, Cost(by_exact, sizes, seconds, kept, len(lowered.layers))

    def _first_within(self, lowered: Lowered, path: Path, most_drop: float) -> tuple[Proof, Sequence[Sensitivity]]:
        """The first choice of layers to keep that passes, written; ProofError says why the last one does not."""
        for kept in lowered.choices():
            lowered.write(path, [layer.name for layer in kept])
            try:
                return self._within(path, lowered.precision, most_drop), kept
            except ProofError as error:
                refusal = ProofError(f"{lowered.precision}: {error}, even with {len(kept)} of {len(lowered.layers)} "
                                     f"layers left in float32{_named(kept)}")
        raise refusal

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
        agreements = prove(by_network, opened.infer, pixels, TOLERANCES[precision])
        return Proof(agreements, self.model.evaluate(self.model.predict(opened.infer)), opened)

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

    def _spaced(self, split: str, count: int) -> list[Sample]:
        archive = self.model.splits.archive(split)
        rows = np.linspace(0, len(archive) - 1, min(count, len(archive))).astype(int).tolist()
        return [Sample(archive.read(i), drawn(archive, i, self.model.preprocessing)) for i in rows]


def _named(kept: Sequence[Sensitivity]) -> str:
    """The worst of these layers, for a message."""
    if not kept:
        return ""
    more = f" and {len(kept) - NAMED} more" if len(kept) > NAMED else ""
    return f" ({', '.join(f'{layer.name} {layer.likeness:.6f}' for layer in kept[:NAMED])}{more})"
