"""All systems on one image set: the same backbone from random weights, the same images seen, one table.

python -m benchmarks.systems DATASET [--images 40000] [--only NAME ...] [--set KEY=VALUE ...] [--runs FOLDER]

DATASET is a folder of archives: with query and gallery it is scored by market_evaluate, with test by
retrieval_evaluate. Every system trains on as many images as --images says, counting a positive and a negative
of each anchor too, and is scored after its last epoch; the first row is the network before its first step.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.archive import open_archive

ROOT = Path(__file__).parent.parent
SHOWN = {"market_evaluate": ("mAP", "rank1"), "retrieval_evaluate": ("recall@1", "map@r")}
COMMON: dict[str, Any] = {
    "img_h": 48, "img_w": 48, "optimizer": "adam", "precision": "bf16", "channels_last": True,
    "lr": {"base_lr": 1e-3, "schedule": "cosine", "unit": "epoch", "warmup": 1},
    "data_augmentation": {"padding": 4, "rotation": 15}, "num_preprocess_workers": 1,
}
SMOOTH = {"type": "softmax", "label_smoothing": 0.1}
SYSTEMS: dict[str, dict[str, Any]] = {
    "baseline: softmax + triplet, BNNeck": {
        "model_params": {"neck": "bnneck"}, "losses": [SMOOTH, {"type": "triplet", "margin": 0.3}]},
    "params.json trainer: softmax, linear + BN + dropout": {
        "model_params": {"neck": "linear+bn+dropout", "feature_dim": 512}, "losses": [{"type": "softmax"}]},
    "histogram loss": {
        "model_params": {"neck": {"type": "dropout+linear", "dropout": 0.0}, "feature_dim": 512},
        "losses": [{"type": "histogram"}], "batch_sampling_params": {"type": "identities"}},
    "norm-aware margins: uc-tri-n + softmax": {
        "model_params": {"neck": "none", "feature_bn": True, "margin": "nn"},
        "losses": [SMOOTH, {"type": "uc-tri-n"}, {"type": "norm_regulariser"}],
        "batch_sampling_params": {"type": "pk_prop", "P": 8, "K": 8},
        "parameter_rules": [{"match": "^margin", "weight_decay": 0.1}]},
    "norm-aware margins: uc-cls": {
        "model_params": {"neck": "bnneck", "margin": {"type": "nn", "on": "embedding"}},
        "losses": [{"type": "uc-cls"}, {"type": "norm_regulariser", "on": "embedding"}],
        "batch_sampling_params": {"type": "pk_prop", "P": 8, "K": 8},
        "parameter_rules": [{"match": "^margin", "weight_decay": 0.01}]},
    "HIST": {
        "model_params": {"pooling": "avg+max", "neck": "linear+ln", "feature_dim": 512}, "losses": [{"type": "hist"}],
        "parameter_rules": [{"match": "hist.(means|log_variances)", "lr": 0.1}, {"match": "hgnn", "lr_factor": 5.0}]},
    "identification + verification": {
        "model_params": {"neck": "linear+bn+dropout", "feature_dim": 512},
        "losses": [{"type": "softmax"}, {"type": "verification"}],
        "batch_sampling_params": {"type": "triplet_items", "anchors": 21},
        "lr": {**COMMON["lr"], "unit": "step", "warmup": 40}},  # an epoch is long: each anchor brings two more
}


def params(dataset: Path, system: Mapping[str, Any], images: int) -> dict[str, Any]:
    """The params.json of a system on a set."""
    evaluator = "market_evaluate" if (dataset / "query.lmdb").is_file() else "retrieval_evaluate"
    model = {"backbone": "resnet18", **system["model_params"]}
    triplets = system.get("batch_sampling_params", {}).get("type") == "triplet_items"
    seen = len(open_archive(dataset / "train.lmdb")) * (3 if triplets else 1)
    epochs = max(round(images / seen), 1)
    evaluation = {"type": evaluator, "every": epochs, "initial": True}
    return {**COMMON, **system, "batches_dir": str(dataset.resolve()), "model_params": model, "epoch": epochs,
            "evaluation_params": evaluation}


def trained(runs: Path, name: str, keys: Mapping[str, Any], overrides: list[str]) -> tuple[list[dict[str, Any]], float]:
    """Train one system as users do: its evaluations, the first before the first step, and seconds of CPU time."""
    run = "".join(letter if letter.isalnum() else "_" for letter in name)
    path = runs / f"{run}.json"
    path.write_text(json.dumps({**keys, "working_dir": str(runs)}, indent=1))
    command = [sys.executable, "train.py", "--operation", "train", "--config_path", str(path), "--sub_working_dir", run]
    began = _cpu_seconds()
    subprocess.run([*command, *(part for text in overrides for part in ("--set", text))], cwd=ROOT, check=True,
                   stdout=subprocess.DEVNULL)
    seconds = _cpu_seconds() - began
    lines = [json.loads(line) for line in (runs / run / "metrics.jsonl").read_text().splitlines()]
    return [line["evaluation"] for line in lines if "evaluation" in line], seconds


def _cpu_seconds() -> float:
    """Of all processes that were started from here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--images", type=int, default=40_000, help="that each system trains on")
    parser.add_argument("--only", nargs="*", help="systems whose names hold one of these words")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in train.py, for all")
    parser.add_argument("--runs", type=Path, help="where the runs are kept; default: nowhere")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = arguments.runs or Path(folder)
        runs.mkdir(parents=True, exist_ok=True)
        table(arguments, runs)


def table(arguments: argparse.Namespace, runs: Path) -> None:
    """Train and print system after system."""
    wanted = [name for name in SYSTEMS if not arguments.only or any(word in name for word in arguments.only)]
    for i, name in enumerate(wanted):
        keys = params(arguments.dataset, SYSTEMS[name], arguments.images)
        first, second = SHOWN[keys["evaluation_params"]["type"]]
        evaluations, seconds = trained(runs, name, keys, arguments.set)
        if i == 0:
            print(f"| system | {first} | {second} | epochs | CPU seconds |\n|---|---|---|---|---|")
            print(f"| untrained | {evaluations[0][first]:.3f} | {evaluations[0][second]:.3f} | 0 | |")
        last = evaluations[-1]
        print(f"| {name} | {last[first]:.3f} | {last[second]:.3f} | {keys['epoch']} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
