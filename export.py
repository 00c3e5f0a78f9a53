"""Turn a run's snapshot into an ONNX file proven equal to it: python export.py --run_dir runs/exp1."""

import argparse
import hashlib
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from deploy.files import explained
from deploy import FeatureExtractor, __version__
from deploy.selftest import golden_vectors
from evaluate import EVALUATORS
from evaluate.pairs import LEVELS, pairs_of, thresholds
from evaluate.protocol import search_of, wants_logits
from params.describe import mistakes_of
from params.errors import Mistake, ParamsError
from params.schema import Params
from trainer.run import RunDirectory

if TYPE_CHECKING:  # imported where they are needed: torch takes seconds, which --help and a mistake need not wait for
    from trainer.gate import Cost, Gate, Opened, Precision, Proof, Trained
    from trainer.predict import Said
    from trainer.snapshot import State

GOLDEN = 4  # images that go with the file
MAX_DROP = 0.005  # of the metric, at a lower precision
MODEL_NAME = r"[\w-][\w.-]*"  # for Triton: a folder, and a component of URLs


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
    return Trained(state, params, restored_network(params, state), preprocessing, Splits(params.batches_dir), run_eval,
                   logits=run_eval is not None and wants_logits(run_eval))


def _mistake(error: ValueError, state: "State") -> Mistake:
    """Why a snapshot's params, which held where it was trained, fail here."""
    if not isinstance(error, ValidationError):
        return Mistake((), str(error))
    path, message = mistakes_of(error, state["params"], Params)[0]
    return Mistake(path, f"{message}; export it with the Kiln that trained it")


def export(model: "Trained", arguments: argparse.Namespace) -> Exported:
    """Write the file, prove it, describe it, and only then put it in its place; an error leaves nothing of it."""
    from trainer import triton
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
        found = _thresholds(model, proof)
        describe(path, metadata(gate, proof, arguments.precision) | ({"thresholds": found} if found else {}))
        placed = arguments.output
        if arguments.triton_repository:
            placed = triton.place(path, arguments.triton_repository, arguments.model_name)
        else:
            os.replace(path, placed)
    return Exported(placed, gate, proof, cost, found)


def metrics_of(model: "Trained", which: str) -> dict[str, float]:
    """The snapshot's metrics; measured for "last", whose recorded ones can be of an earlier epoch."""
    from trainer.predict import run_network

    if which == "best":
        recorded: dict[str, float] = model.state["metrics"]
        return recorded
    return model.evaluate(model.predict(run_network(model.network, logits=model.logits)))


def open_file(path: Path) -> "Opened":
    """An ONNX file through the code that its users run; ModelError, a ValueError, if it does not open."""
    from trainer.gate import Opened

    extractor = FeatureExtractor(path, providers=["CPUExecutionProvider"])

    def run(pixels: np.ndarray) -> "Said":
        outputs = extractor.run(np.ascontiguousarray(pixels))
        return {name: value for name, value in outputs._asdict().items() if value is not None}

    return Opened(run, extractor.tensor)


def _thresholds(model: "Trained", proof: "Proof") -> dict[str, Any] | None:
    """What the file's own embeddings say; None where the evaluator searches nothing."""
    search = search_of(model.run_eval) if model.run_eval else None
    if search is None:
        return None
    found = search(model.state["params"], proof.predict)
    return thresholds(found, pairs_of(found))


def metadata(gate: "Gate", proof: "Proof", precision: "Precision") -> dict[str, Any]:
    """What the file says of itself, besides what its writer knows."""
    from trainer.gate import fingerprint
    from trainer.proof import LEVELS as NEAR

    model = gate.model
    golden = sorted(gate.images, key=lambda image: len(image.encoded))[:GOLDEN]  # the smallest, since they travel
    embeddings = proof.opened.run(np.stack([image.pixels for image in golden]))["embeddings"]
    resolved = json.dumps(model.state["params"], sort_keys=True)
    return {
        "kiln_version": __version__,
        "epoch": model.state["epoch"],
        "step": model.state["step"],
        "metrics": dict(gate.metrics),  # the snapshot's
        "file_metrics": dict(proof.metrics),
        "precision": precision,
        "params_digest": hashlib.sha256(resolved.encode()).hexdigest(),
        "fingerprint": fingerprint(model.network, precision),
        "golden": golden_vectors([image.encoded for image in golden], embeddings, model.preprocessing,
                                 NEAR[precision].replayed),
        **({"class_names": model.state["class_names"]} if model.logits else {}),
    }


def tables(exported: Exported) -> Iterator[str]:
    """What was compared and measured, for people."""
    metric = exported.gate.metric
    yield f"{'batch size':<12}{'cosine':>12}{'largest difference':>22}"
    for agreement in exported.proof.agreements:
        yield f"{agreement.batch_size:<12}{agreement.cosine:>12.7f}{agreement.max_abs:>22.1e}"
    if metric is None:
        yield "no metric: the run has no evaluator"
        return
    yield f"{'metric':<12}{'snapshot':>12}{'file':>22}"
    yield f"{metric:<12}{exported.gate.metrics[metric]:>12.6f}{exported.proof.metrics[metric]:>22.6f}"
    if exported.cost:
        yield from cost_table(exported.cost)
    if exported.thresholds:
        yield from threshold_table(exported.thresholds)


def cost_table(cost: "Cost") -> Iterator[str]:
    """What the lower precision is worth beside float32, on this machine, for people."""
    yield f"{'':<12}{'fp32':>12}{'file':>22}{'ratio':>10}"
    rows = {"megabytes": tuple(size / 1e6 for size in cost.sizes)}
    rows |= {f"ms, batch {size}": (1e3 * exact, 1e3 * lower) for size, (exact, lower) in cost.seconds.items()}
    for what, (exact, lower) in rows.items():
        yield f"{what:<12}{exact:>12.2f}{lower:>22.2f}{lower / exact:>10.2f}"
    yield f"layers left in float32: {len(cost.kept)} of {cost.layers}"
    for layer in cost.kept:
        yield f"  {layer.name} (cosine {layer.cosine:.6f} with this layer alone at the lower precision)"


def threshold_table(said: Mapping[str, Any]) -> Iterator[str]:
    """Thresholds, what they accept, and on how many pairs that rests, for people."""
    yield f"{'level':<12}{'threshold':>12}{'FAR (95 % interval)':>36}{'TAR (95 % interval)':>36}"
    for name in LEVELS:
        level = said[name]
        if "threshold" not in level:
            yield f"{name:<12}needs {level['needs']} impostors, has {level['has']}"
            continue
        far, tar = (f"{level[rate]:.4g} ({', '.join(f'{end:.4g}' for end in level[f'{rate}_interval'])})"
                    for rate in ("far", "tar"))
        yield f"{name:<12}{level['threshold']:>12.6f}{far:>36}{tar:>36}"
    yield f"pairs: {said['genuine']} genuine, {said['impostors']} impostors, {said['split']}"


def main(argv: Sequence[str] | None = None) -> int:
    """Export one snapshot; the exit code."""
    arguments = _parsed(argv)
    try:
        run = RunDirectory(arguments.run_dir)
        model = trained(run, arguments.snapshot)
        exported = export(model, arguments)
        run.append_metrics({"epoch": model.state["epoch"], "step": model.state["step"], "export": exported.path.name,
                            "precision": arguments.precision, "metrics": dict(exported.proof.metrics)})
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
        epilog="exit codes: 0 done, 2 usage, 3 data, 4 no such snapshot, 5 the proof failed")
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
    output, repository, drop = given.output, given.triton_repository, given.max_metric_drop
    name = given.model_name or given.run_dir.resolve().name
    wrong = {
        f"--run_dir {given.run_dir}: no such folder": not given.run_dir.is_dir(),
        f"--output {output}: no such folder {output and output.parent}": output and not output.parent.is_dir(),
        f"--output {output}: a file expected, this is a folder": output and output.is_dir(),
        f"--triton_repository {repository}: no such folder": repository and not repository.is_dir(),
        "--model_name: goes with --triton_repository": given.model_name and not repository,
        f"--model_name {name}: letters, digits, -, _ and . expected, and no . first":
            repository and not re.fullmatch(MODEL_NAME, name),
        f"--max_metric_drop {drop}: a number from 0 expected": drop is not None and not 0 <= drop < math.inf,
        "--max_metric_drop: goes with --precision fp16 or int8; fp32 keeps the metric":
            drop is not None and given.precision == "fp32",
    }
    return (complaint for complaint, is_so in wrong.items() if is_so)


if __name__ == "__main__":
    sys.exit(main())
