"""Turn a run's snapshot into an ONNX file proven equal to it: python export.py --run_dir runs/exp1."""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import ValidationError

from data.dataset import drawn
from data.records import Predict, RunEval
from deploy import FeatureExtractor, ModelError, Preprocessing, __version__
from deploy.selftest import golden_vectors
from evaluate import EVALUATORS
from evaluate.pairs import LEVELS, pairs_of, thresholds
from evaluate.protocol import search_of, wants_logits
from params.describe import mistakes_of
from params.errors import Mistake, ParamsError
from params.schema import Params
from trainer import build
from trainer.evaluation import restored_network, snapshot_of
from trainer.model import Embedder
from trainer.onnx_writer import InputFormat, describe, write_onnx
from trainer.predict import Run, Said, run_network
from trainer.proof import LEAST_COSINE, Agreement, ProofError, prove
from trainer.run import RunDirectory
from trainer.sentinel import finite_metrics
from trainer.snapshot import State
from trainer.splits import Splits, predict_splits

MOST_APART = 1e-3  # by which the evaluator's metric may differ between snapshot and file
PROVEN_ON = ("query", "val", "test")  # of these splits, images of the first that there is; else of train
IMAGES, GOLDEN = 16, 4  # that the proof is made with, and of these, that go with the file


@dataclass(frozen=True)
class Trained:
    """A snapshot with what belongs to it."""

    state: State
    params: Params
    network: Embedder  # with the weights that are evaluated, in evaluation mode, on the CPU
    preprocessing: Preprocessing
    splits: Splits
    run_eval: RunEval | None

    @property
    def logits(self) -> bool:
        """Whether logits ship: where the evaluator scores them; those over identities serve no one."""
        return self.run_eval is not None and wants_logits(self.run_eval)

    def evaluate(self, predict: Predict) -> dict[str, float]:
        """The evaluator's metrics; without an evaluator, none."""
        return finite_metrics(self.run_eval(self.state["params"], predict)) if self.run_eval else {}

    def thresholds(self, predict: Predict) -> dict[str, Any] | None:
        """Cosines from which on two images are taken for one identity; None where the evaluator searches nothing."""
        search = search_of(self.run_eval) if self.run_eval else None
        if search is None:
            return None
        found = search(self.state["params"], predict)
        return thresholds(found, pairs_of(found))


class Seen(NamedTuple):
    """An image, and what the network sees of it."""

    encoded: bytes
    pixels: np.ndarray  # (H, W, 3) uint8


@dataclass(frozen=True)
class Proof:
    """What snapshot and file were found to have in common, and what was measured on the file alone."""

    agreements: Sequence[Agreement]
    metric: str | None  # that chose the best snapshot; None without an evaluator
    of_snapshot: Mapping[str, float]
    of_file: Mapping[str, float]
    thresholds: Mapping[str, Any] | None


def trained(run: RunDirectory, which: str) -> Trained:
    """A run's "best" or "last" snapshot; RunError when there is none, ParamsError when its params fail here."""
    state = snapshot_of(run, which)
    try:
        params = Params.model_validate(state["params"])
        preprocessing = build.preprocessing(params)
        section = params.evaluation_params
        run_eval = EVALUATORS.load(section.type) if section else None
    except ValueError as error:
        raise ParamsError(f"{run.path}: {which} snapshot", [_mistake(error, state)]) from error
    network = restored_network(params, state)
    return Trained(state, params, network, preprocessing, Splits(params.batches_dir), run_eval)


def _mistake(error: ValueError, state: State) -> Mistake:
    """Why a snapshot's params, which held where it was trained, fail here."""
    if not isinstance(error, ValidationError):
        return Mistake((), str(error))
    path, message = mistakes_of(error, state["params"], Params)[0]
    return Mistake(path, f"{message}; export it with the Kiln that trained it")


def metrics_of(model: Trained, which: str) -> dict[str, float]:
    """The snapshot's metrics; measured for "last", whose recorded ones can be of an earlier epoch."""
    if which == "best":
        recorded: dict[str, float] = model.state["metrics"]
        return recorded
    run = run_network(model.network, logits=model.logits)
    return model.evaluate(predict_splits(model.splits, model.params, run))


def export(model: Trained, metrics: Mapping[str, float], output: Path, input_format: InputFormat) -> Proof:
    """Write the file, prove it, describe it, and only then put it in its place; an error leaves nothing of it."""
    images = real_images(model)
    by_network = run_network(model.network, logits=model.logits)
    beside = output.with_name(f".{output.name}.{os.getpid()}.unproven")
    try:
        write_onnx(model.network, beside, model.preprocessing, input_format=input_format, logits=model.logits)
        proof = proven(model, metrics, by_network, run_file(beside), images)
        describe(beside, metadata(model, proof, images, by_network))
        os.replace(beside, output)
    finally:
        beside.unlink(missing_ok=True)
    return proof


def proven(model: Trained, metrics: Mapping[str, float], by_network: Run, by_file: Run,
           images: Sequence[Seen]) -> Proof:
    """Embeddings, logits and margins of images, then the evaluator's metric, compared; ProofError."""
    agreements = prove(by_network, by_file, np.stack([image.pixels for image in images]))
    predict = cache(predict_splits(model.splits, model.params, by_file))  # metric and thresholds are of the same
    found = model.evaluate(predict)
    section = model.params.evaluation_params
    metric = (section.monitor or next(iter(found))) if section else None
    if metric and not abs(metrics[metric] - found[metric]) <= MOST_APART:  # also where it is NaN
        raise ProofError(f"{metric}: {found[metric]:.4f} of the file, {metrics[metric]:.4f} of the snapshot, "
                         f"at most {MOST_APART} apart expected; has the data changed since training?")
    return Proof(agreements, metric, metrics, found, model.thresholds(predict))


def real_images(model: Trained) -> list[Seen]:
    """Images of the run, evenly spaced over one split; DataError names one that cannot be used."""
    there = [split for split in PROVEN_ON if model.splits.has(split)]
    archive = model.splits.archive(there[0] if there else "train")
    places = np.linspace(0, len(archive) - 1, min(IMAGES, len(archive))).astype(int)
    return [Seen(archive.read(i), drawn(archive, i, model.preprocessing)) for i in places.tolist()]


def run_file(path: Path) -> Run:
    """An ONNX file as the proof wants it, through the code that its users run; ProofError if it does not open."""
    try:
        extractor = FeatureExtractor(path, providers=["CPUExecutionProvider"])
    except ModelError as error:
        raise ProofError(f"the file cannot be used: {error}") from error

    def run(pixels: np.ndarray) -> Said:
        outputs = extractor.run(np.ascontiguousarray(pixels))
        return {name: value for name, value in outputs._asdict().items() if value is not None}

    return run


def metadata(model: Trained, proof: Proof, images: Sequence[Seen], by_network: Run) -> dict[str, Any]:
    """What the file says of itself, besides what its writer knows."""
    golden = sorted(images, key=lambda image: len(image.encoded))[:GOLDEN]  # the smallest, since they travel
    embeddings = by_network(np.stack([image.pixels for image in golden]))["embeddings"]
    resolved = json.dumps(model.state["params"], sort_keys=True)
    return {
        "kiln_version": __version__,
        "epoch": model.state["epoch"],
        "step": model.state["step"],
        "metrics": dict(proof.of_snapshot),
        "precision": "fp32",
        "params_digest": hashlib.sha256(resolved.encode()).hexdigest(),
        "fingerprint": fingerprint(model.network),
        "golden": golden_vectors([image.encoded for image in golden], embeddings, model.preprocessing, LEAST_COSINE),
        **({"class_names": model.state["class_names"]} if model.logits else {}),
        **({"thresholds": proof.thresholds} if proof.thresholds else {}),
    }


def fingerprint(network: torch.nn.Module) -> str:
    """sha256 over the names and values of all weights."""
    digest = hashlib.sha256()
    for name, weight in sorted(network.state_dict().items()):
        digest.update(name.encode() + weight.contiguous().numpy().tobytes())
    return digest.hexdigest()


def table(proof: Proof) -> Iterator[str]:
    """What was compared, for people."""
    yield f"{'batch size':<12}{'cosine':>12}{'largest difference':>22}"
    for agreement in proof.agreements:
        yield f"{agreement.batch_size:<12}{agreement.cosine:>12.7f}{agreement.max_abs:>22.1e}"
    if proof.metric is None:
        yield "no metric: the run has no evaluator"
        return
    yield f"{'metric':<12}{'snapshot':>12}{'file':>22}"
    yield f"{proof.metric:<12}{proof.of_snapshot[proof.metric]:>12.6f}{proof.of_file[proof.metric]:>22.6f}"
    if proof.thresholds:
        yield from threshold_table(proof.thresholds)


def threshold_table(said: Mapping[str, Any]) -> Iterator[str]:
    """Thresholds, what they accept, and on how many pairs that rests, for people."""
    yield f"{'level':<12}{'threshold':>12}{'FAR (95 % interval)':>32}{'TAR (95 % interval)':>32}"
    for name in LEVELS:
        level = said[name]
        if "threshold" not in level:
            yield f"{name:<12}needs {level['needs']} impostors, has {level['has']}"
            continue
        far, tar = (f"{level[rate]:.4g} ({', '.join(f'{end:.4g}' for end in level[f'{rate}_interval'])})"
                    for rate in ("far", "tar"))
        yield f"{name:<12}{level['threshold']:>12.6f}{far:>32}{tar:>32}"
    yield f"pairs: {said['genuine']} genuine, {said['impostors']} impostors, {said['split']}"


def main(argv: Sequence[str] | None = None) -> int:
    """Export one snapshot; the exit code."""
    arguments = _parsed(argv)
    output = arguments.output or arguments.run_dir / "model.onnx"
    try:
        run = RunDirectory(arguments.run_dir)
        model = trained(run, arguments.snapshot)
        proof = export(model, metrics_of(model, arguments.snapshot), output, arguments.input_format)
        run.append_metrics({"epoch": model.state["epoch"], "step": model.state["step"],
                            "export": output.name, "metrics": dict(proof.of_file)})
    except Exception as error:
        if not hasattr(error, "exit_code"):  # not a user's mistake: the traceback is wanted
            raise
        print(error, file=sys.stderr)
        return int(error.exit_code)
    logits = f", logits {len(model.state['class_names'])}" if model.logits else ""
    print(f"{output}: {arguments.snapshot} snapshot of epoch {model.state['epoch']}")
    print(f"outputs: embeddings {model.network.embedding_dim}{logits}", *table(proof), sep="\n")
    return 0


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Turn a run's snapshot into an ONNX file that is proven equal to it.",
        epilog="exit codes: 0 done, 2 usage, 3 data, 4 no such snapshot, 5 the proof failed")
    parser.add_argument("--run_dir", type=Path, required=True, help="the run's folder")
    parser.add_argument("--snapshot", choices=("best", "last"), default="best", help="default: best")
    parser.add_argument("--output", type=Path, help="default: model.onnx in the run's folder")
    parser.add_argument("--input_format", choices=("uint8_nhwc", "float_nchw"), default="uint8_nhwc",
                        help="uint8 (B, H, W, 3) or float32 (B, 3, H, W) in 0..255; default: uint8_nhwc")
    parser.add_argument("--precision", choices=("fp32",), default="fp32", help="arithmetic of the file")
    arguments = parser.parse_args(argv)
    if not arguments.run_dir.is_dir():
        parser.error(f"--run_dir {arguments.run_dir}: no such folder")
    if arguments.output and not arguments.output.parent.is_dir():
        parser.error(f"--output {arguments.output}: no such folder {arguments.output.parent}")
    if arguments.output and arguments.output.is_dir():
        parser.error(f"--output {arguments.output}: a file expected, this is a folder")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
