"""Turn a run's snapshot into an ONNX file proven equal to it: python export.py --run_dir runs/exp1."""

import argparse
import hashlib
import json
import math
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from deploy import FeatureExtractor, __version__
from deploy.files import explained, sync_directory
from deploy.selftest import golden_vectors
from evaluate import EVALUATORS
from evaluate.pairs import pairs_of, thresholds
from evaluate.protocol import Search, scored_of, wants_logits
from params.describe import mistakes_of
from params.errors import Mistake, ParamsError
from params.schema import Params
from trainer.run import RunDirectory

if TYPE_CHECKING:  # imported where they are needed: torch takes seconds, which --help and a mistake need not wait for
    from trainer.gate import Cost, Gate, Opened, Precision, Proof, Trained
    from trainer.predict import Outputs
    from trainer.snapshot import State

GOLDEN = 4  # images that go with the file
MAX_DROP = 0.005  # of the metric, at a lower precision
MODEL_NAME = "[A-Za-z0-9_-][A-Za-z0-9_.-]*"  # for Triton: a folder, and a component of URLs


class Exported(NamedTuple):
    """A file that may ship, and what was found of it."""

    path: Path
    gate: "Gate"
    proof: "Proof"
    cost: "Cost | None"  # of a lower precision
    thresholds: Mapping[str, Any] | None  # cosines from which on two images are taken for one identity


def trained(run: RunDirectory, which: str) -> "Trained":
    """A run's "best" or "last" snapshot; RunError when there is none, ParamsError when its params fail here."""
    from trainer import build
    from trainer.evaluation import restored_network, snapshot_of
    from trainer.gate import Trained
    from trainer.splits import Splits

    state = snapshot_of(run, which)
    try:
        params = Params.model_validate(state["params"])
        preprocessing = build.preprocessing(params)
        section = params.evaluation_params
        run_eval = EVALUATORS.load(section.type) if section else None
    except ValueError as error:
        raise ParamsError(f"{run.path}: {which} snapshot", [_mistake(error, state)]) from error
    return Trained(state, params, restored_network(params, state), preprocessing, Splits(params.batches_dir),
                   scored_of(run_eval) if run_eval else None, logits=run_eval is not None and wants_logits(run_eval))


def _mistake(error: ValueError, state: "State") -> Mistake:
    """Why a snapshot's params, which held where it was trained, fail here."""
    if not isinstance(error, ValidationError):
        return Mistake((), str(error))
    path, message = mistakes_of(error, state["params"], Params)[0]
    return Mistake(path, f"{message}; export it with the Kiln that trained it")


def export(run: RunDirectory, model: "Trained", arguments: argparse.Namespace) -> Exported:
    """Write the file, prove it, describe it, record it, and only then put it in its place.

    An error leaves nothing; but where the last step fails, to let the file be seen, its line of metrics.jsonl stays.
    """
    from trainer.gate import Gate
    from trainer.onnx_writer import describe, write_onnx

    gate = Gate(model, metrics_of(model, arguments.snapshot), open_file)
    with explained(arguments.output):
        scratch = tempfile.TemporaryDirectory(dir=arguments.output.parent, prefix=".unproven-")
    with scratch:
        path, cost = Path(scratch.name, "exact.onnx"), None
        write_onnx(model.network, path, model.preprocessing, input_format=arguments.input_format, logits=model.logits)
        if arguments.precision == "fp32":
            proof = gate.proven(path)
        else:
            path, exact = Path(scratch.name, "lower.onnx"), path
            proof, cost = gate.lowered(exact, path, arguments.precision, arguments.max_metric_drop)
        seen = proof.evaluated.seen
        found = thresholds(seen, pairs_of(seen)) if isinstance(seen, Search) else None
        describe(path, metadata(gate, proof, path, arguments.precision)
                 | ({"thresholds": found} if found else {}) | ({"kept": _kept(cost)} if cost else {}))
        line = {"epoch": model.state["epoch"], "step": model.state["step"], "precision": arguments.precision,
                "metrics": proof.metrics, "cosine": min(agreement.cosine for agreement in proof.agreements),
                **({"cost": _recorded(cost)} if cost else {})}
        root = arguments.triton_repository or arguments.output.parent
        placed = _placed(path, arguments, lambda target: run.append_metrics(
            {**line, "export": target.relative_to(root).as_posix()}))
    return Exported(placed, gate, proof, cost, found)


def _placed(file: Path, arguments: argparse.Namespace, before: Callable[[Path], object]) -> Path:
    """Let the file be seen, after a call of `before` with the path that it then has; that path."""
    if arguments.triton_repository:
        from trainer import triton

        return triton.place(file, arguments.triton_repository, arguments.model_name, before)
    output: Path = arguments.output
    before(output)
    with explained(output):
        os.replace(file, output)
        sync_directory(output.parent)
    return output


def _kept(cost: "Cost") -> dict[str, float]:
    """Layer left in float32 -> how much like float32 the file is with this layer alone lowered."""
    return {layer.name: layer.likeness for layer in cost.kept}


def _recorded(cost: "Cost") -> dict[str, Any]:
    """Of float32 file and shipped file: their bytes and, by batch size, seconds; of how many layers some were kept."""
    return {"bytes": cost.sizes, "seconds": cost.seconds, "layers": cost.layers, "kept": _kept(cost)}


def metrics_of(model: "Trained", which: str) -> dict[str, float]:
    """The snapshot's metrics; measured for "last", whose recorded ones can be of an earlier epoch."""
    from trainer.predict import run_network

    if which == "best":
        recorded: dict[str, float] = model.state["metrics"]
        return recorded
    return model.evaluate(model.predict(run_network(model.network, logits=model.logits))).metrics


def open_file(path: Path) -> "Opened":
    """An ONNX file through the code that its users run; ModelError, a ValueError, if it does not open."""
    from trainer.gate import Opened

    extractor = FeatureExtractor(path, providers=["CPUExecutionProvider"])

    def infer(pixels: np.ndarray) -> "Outputs":
        outputs = extractor.run(np.ascontiguousarray(pixels))
        return {name: value for name, value in outputs._asdict().items() if value is not None}

    return Opened(infer, extractor.tensor)


def metadata(gate: "Gate", proof: "Proof", path: Path, precision: "Precision") -> dict[str, Any]:
    """What the file says of itself, besides what its writer knows."""
    from trainer.onnx_writer import fingerprint
    from trainer.proof import TOLERANCES

    model = gate.model
    golden = sorted(gate.images, key=lambda image: len(image.encoded))[:GOLDEN]  # the smallest, since they travel
    embeddings = proof.opened.infer(np.stack([image.pixels for image in golden]))["embeddings"]
    resolved = json.dumps(model.state["params"], sort_keys=True)
    return {
        "kiln_version": __version__,
        "epoch": model.state["epoch"],
        "step": model.state["step"],
        "metrics": dict(gate.metrics),  # the snapshot's
        "file_metrics": proof.metrics,
        "precision": precision,
        "params_digest": hashlib.sha256(resolved.encode()).hexdigest(),
        "fingerprint": fingerprint(model.network, path, precision),
        "golden": golden_vectors([image.encoded for image in golden], embeddings, model.preprocessing,
                                 TOLERANCES[precision].replayed),
        **({"class_names": model.state["class_names"]} if model.logits else {}),
    }


def tables(exported: Exported) -> Iterator[str]:
    """What was compared and measured, for people."""
    from trainer.export_table import cost_table, proof_table, threshold_table

    yield from proof_table(exported.gate, exported.proof)
    if exported.cost:
        yield from cost_table(exported.cost)
    if exported.thresholds:
        yield from threshold_table(exported.thresholds)


def main(argv: Sequence[str] | None = None) -> int:
    """Export one snapshot; the exit code."""
    arguments = _parsed(argv)
    try:
        run = RunDirectory(arguments.run_dir)
        model = trained(run, arguments.snapshot)
        exported = export(run, model, arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not hasattr(error, "exit_code"):  # not a user's mistake: the traceback is wanted
            raise
        print(error, file=sys.stderr)
        return int(error.exit_code)
    logits = f", logits {len(model.state['class_names'])}" if model.logits else ""
    print(f"{exported.path}: {arguments.snapshot} snapshot of epoch {model.state['epoch']}, {arguments.precision}")
    print(f"outputs: embeddings {model.network.embedding_dim}{logits}", *tables(exported), sep="\n")
    return 0


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Turn a run's snapshot into an ONNX file that is proven equal to it.",
        epilog="exit codes: 0 done, 2 params or usage, 3 data, 4 no such snapshot, 5 not proven or not written, "
               "130 / 143 stopped by SIGINT / SIGTERM")
    parser.add_argument("--run_dir", type=Path, required=True, help="the run's folder")
    parser.add_argument("--snapshot", choices=("best", "last"), default="best", help="default: best")
    parser.add_argument("--input_format", choices=("uint8_nhwc", "float_nchw"), default="uint8_nhwc",
                        help="uint8 (B, H, W, 3) or float32 (B, 3, H, W) in 0..255; default: uint8_nhwc")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32",
                        help="of weights and layers: fp16 halves the file, int8 quarters it; default: fp32")
    parser.add_argument("--max_metric_drop", type=float, metavar="DROP",
                        help=f"by which fp16 or int8 may be worse than the snapshot; default: {MAX_DROP}")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--output", type=Path, help="default: model.onnx in the run's folder")
    place.add_argument("--triton_repository", type=Path, metavar="DIR",
                       help="instead: the next version of a model in this repository of NVIDIA Triton")
    parser.add_argument("--model_name", metavar="NAME", help="in the repository; default: the name of the run's folder")
    arguments = parser.parse_args(argv)
    for complaint in _complaints(arguments):
        parser.error(complaint)
    arguments.output = arguments.output or arguments.run_dir / "model.onnx"
    arguments.model_name = arguments.model_name or arguments.run_dir.resolve().name
    if arguments.max_metric_drop is None:
        arguments.max_metric_drop = MAX_DROP
    return arguments


def _complaints(given: argparse.Namespace) -> Iterator[str]:
    """What is wrong with the arguments."""
    drop = given.max_metric_drop
    if not given.run_dir.is_dir():
        yield f"--run_dir {given.run_dir}: no such folder"
    yield from _wrong_places(given.output, given.triton_repository)
    if given.model_name and not given.triton_repository:
        yield "--model_name: goes with --triton_repository"
    name = given.model_name or given.run_dir.resolve().name
    if given.triton_repository and not re.fullmatch(MODEL_NAME, name):
        yield f"--model_name {name}: letters from a to z, digits, -, _ and . expected, and no . first"
    if drop is not None and not 0 <= drop < math.inf:
        yield f"--max_metric_drop {drop}: a number from 0 expected"
    if drop is not None and given.precision == "fp32":
        yield "--max_metric_drop: goes with --precision fp16 or int8; fp32 keeps the metric"


def _wrong_places(output: Path | None, repository: Path | None) -> Iterator[str]:
    if output and not output.parent.is_dir():
        yield f"--output {output}: no such folder {output.parent}"
    if output and output.is_dir():
        yield f"--output {output}: a file expected, this is a folder"
    if repository and not repository.is_dir():
        yield f"--triton_repository {repository}: no such folder"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is not proven yet goes
    sys.exit(main())
