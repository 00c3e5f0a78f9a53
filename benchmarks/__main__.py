"""Run the benchmarks, each in a process of its own, and write RESULTS.md.   python -m benchmarks [NAME ...]"""

import argparse
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SCRIPTS = ("scoring", "reranking", "retrieval", "pixels", "opening", "loop_cost", "losses", "features",
           "gallery_search", "service", "precision", "startup")
RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("numpy", "torch", "torchvision", "onnxruntime-gpu", "pillow", "simplejpeg", "lmdb", "scikit-learn",
            "pytorch-metric-learning", "faiss-cpu")
MARK = "<!-- benchmarks."  # begins each script's section


def main() -> int:
    """Replace the sections of the scripts that are named, or all; 1 where one failed, whose old section stays."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCRIPTS)}; default: all")
    names = parser.parse_args().names or list(SCRIPTS)
    if unknown := set(names) - set(SCRIPTS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
    failed = []
    for name in names:
        print(f"{name} ...", flush=True)
        ended = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, text=True)
        if ended.returncode:
            failed.append(name)
            continue
        print(ended.stdout, flush=True)
        _write({**_sections(), name: _section(name, ended.stdout)})
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _sections() -> dict[str, str]:
    """The sections that RESULTS.md has, by script."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    parts = (part.partition(" -->\n") for part in text.split(MARK)[1:])
    return {name: body.strip() for name, _, body in parts}


def _section(name: str, printed: str) -> str:
    title = (import_module(f"benchmarks.{name}").__doc__ or name).splitlines()[0].rstrip(".")
    return f"## {title}\n\n`python -m benchmarks.{name}`, {_machine()}\n\n{printed.strip()}"


def _write(sections: dict[str, str]) -> None:
    head = ("# Measured\n\nWritten by `make bench`. Every ratio is of one run, in which both sides took turns on the\n"
            "same inputs and gave the same results; times are medians, the spread is that of the rounds' ratios.")
    body = [f"{MARK}{name} -->\n{sections[name]}" for name in SCRIPTS if name in sections]
    RESULTS.write_text("\n\n".join([head, *body]) + "\n", encoding="utf-8")


def _machine() -> str:
    """The day, the processor and the versions, in one line."""
    return ", ".join([f"{datetime.now(UTC):%Y-%m-%d}", f"{_processor()} x {len(os.sched_getaffinity(0))} cores",
                      f"Python {platform.python_version()}", *_versions()])


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _versions() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
