"""Precision: files in int8 and fp16 against fp32, in size, speed and what they say.

python -m benchmarks.precision [--run RUN ...] [--rounds 9] [--threads 1] [--small]

Every RUN, a finished run's folder, is exported in all precisions by `export.py`, without a limit to what a lower one
may cost, and so scored by its own evaluator; its metrics.jsonl says so, too. Without any, small networks are trained
on drawn figures (data.figures) first: one with plain convolutions, one with depthwise ones and gates, which hardly
learns in so few epochs: read its speed and size. What int8 is worth is better told by runs with networks and images
of the size that ships. Then the files run the same images in
turns. A CPU's fp16 saves memory, not time: onnxruntime computes in float32 there. int8 is fast where a CPU has dot
products of bytes (VNNI on x86).
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

import export
from benchmarks.measure import NO_BAR, Comparison, Limit, arguments, at_least, at_most, in_turns, table
from deploy import FeatureExtractor
from trainer.gate import PROVEN_ON, Trained
from trainer.ledger import monitored
from trainer.run import RunDirectory

ROOT = Path(__file__).resolve().parent.parent
BACKBONES = ("resnet18", "mobilenet_v3_small")
PARAMS = {
    "img_h": 128, "img_w": 64, "epoch": 12, "batch_size": 32, "num_preprocess_workers": 0,
    "losses": [{"type": "softmax", "label_smoothing": 0.1}, {"type": "triplet", "margin": 0.3}],
    "batch_sampling_params": {"class_balanced": True, "P": 8, "K": 4},
    "optimizer": "adam", "lr": {"base_lr": 1e-3, "schedule": "cosine"},
    "evaluation_params": {"type": "market_evaluate", "every": 100},
}
LOWER = {"int8": 0.3, "fp16": 0.52}  # precision -> most of the size of fp32
WITHOUT_LIMIT = 10.0  # no metric of ours falls by so much


def main() -> None:
    """Print the table, and the metric of every file."""
    options = arguments(__doc__, rounds=9, threads={"type": int, "default": 1, "help": "of onnxruntime; default: 1"},
                        run={"type": Path, "nargs": "*", "default": [], "help": "folders of finished runs"})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = options.run or trained(folder, BACKBONES[:1] if options.small else BACKBONES, small=options.small)
        lines: list[Comparison | Limit] = []
        for run in runs:
            lines += compared(run, exported(run, folder), options.rounds, options.threads)
    print("\n" + table(lines))


def trained(folder: Path, backbones: Sequence[str], *, small: bool) -> list[Path]:
    """Runs on one set of figures."""
    command("-m", "data.figures", folder / "images", "--identities", 16 if small else 60)
    command("-m", "data.pack", "market1501", folder / "images", folder / "packed")
    places = {"batches_dir": str(folder / "packed"), "working_dir": str(folder)}
    for backbone in backbones:
        params = {**PARAMS, **places, "model_params": {"backbone": backbone, "neck": "bnneck"},
                  **({"epoch": 1, "img_h": 64, "img_w": 32} if small else {})}
        (folder / "params.json").write_text(json.dumps(params))
        command("train.py", "--operation", "train", "--config_path", folder / "params.json", "--sub_working_dir",
                backbone)
    return [folder / backbone for backbone in backbones]


def exported(run: Path, folder: Path) -> dict[str, Path]:
    """Precision -> the run's file."""
    files = {precision: folder / f"{run.name}.{precision}.onnx" for precision in ("fp32", *LOWER)}
    for precision, path in files.items():
        limit = [] if precision == "fp32" else ["--max_metric_drop", WITHOUT_LIMIT]
        command("export.py", "--run_dir", run.resolve(), "--output", path, "--precision", precision, *limit)
    return files


def compared(run: Path, files: dict[str, Path], rounds: int, threads: int) -> list[Comparison | Limit]:
    """The lines of one run."""
    extractors = {precision: FeatureExtractor(path, providers=["CPUExecutionProvider"], threads=threads)
                  for precision, path in files.items()}
    exact = extractors["fp32"]
    model = export.trained(RunDirectory(run), "best")
    pixels = images_of(model)
    images = np.resize(pixels, (32, *pixels.shape[1:]))
    lines: list[Comparison | Limit] = []
    for size in (1, 32):
        runs = [partial(extractor.run, images[:size]) for extractor in extractors.values()]
        for call in runs:
            call()  # onnxruntime plans the memory of a new size
        peer, *ours = in_turns(rounds, *runs)
        lines += [Comparison(f"{run.name}, {precision}, batch of {size}", seconds, "fp32", peer,
                             at_least(1.5) if precision == "int8" else NO_BAR)
                  for precision, seconds in zip(LOWER, ours, strict=True)]
    expected = exact.run(pixels).embeddings
    for precision, most in LOWER.items():
        lower = extractors[precision]
        cosines = (lower.run(pixels).embeddings * expected).sum(axis=1)
        metric, before, worse = worsened(model, exact.metadata["file_metrics"], lower.metadata["file_metrics"])
        ratio = files[precision].stat().st_size / files["fp32"].stat().st_size
        what = f"{run.name}, {precision}"
        lines += [Limit(f"{what}: size", ratio, "of fp32's", at_most(most)),
                  Limit(f"{what}: smallest cosine to fp32", float(cosines.min()), "", NO_BAR),
                  Limit(f"{what}: {metric}, {before:.4f} in fp32, worse by", worse, "", at_most(0.005))]
    return lines


def images_of(model: Trained) -> np.ndarray:
    """Up to 128 images of the split that the proof is made on, as the network sees them."""
    archive = model.splits.archive(next(split for split in PROVEN_ON if model.splits.has(split)))
    return np.stack([model.preprocessing(archive.read(i)) for i in range(min(128, len(archive)))])


def worsened(model: Trained, before: Mapping[str, float], after: Mapping[str, float]) -> tuple[str, float, float]:
    """The metric that chose the snapshot, what it was, and by how much it is worse."""
    section = model.params.evaluation_params
    assert section  # without an evaluator nothing is exported at a lower precision
    metric = monitored(before, section.monitor)
    return metric, before[metric], (before[metric] - after[metric]) * (1 if section.mode == "max" else -1)


def command(*arguments: object) -> None:
    """Run a command of the project; SystemExit where it fails."""
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}: {done.stderr}")


if __name__ == "__main__":
    main()
