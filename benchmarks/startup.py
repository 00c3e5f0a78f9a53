"""How long Kiln's commands take to answer.

python -m benchmarks.startup [--rounds 5] [--small]

Each command is a process of its own, from its start to its end, and its peers are `python -c pass`, below which none
can be, and `python -c "import torch"`, which is what a command costs that needs torch. All take turns. That those
which have no need of torch do not import it is seen in the modules that they import.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import NO_BAR, Comparison, Limit, arguments, in_turns, table
from trainer.run import RunDirectory

ROOT = Path(__file__).resolve().parent.parent
SMALL = 3  # commands
SOUND = {
    "batches_dir": "packed", "losses": [{"type": "softmax", "label_smoothing": 0.1}, {"type": "triplet"}],
    "model_params": {"backbone": "resnet50", "last_stride": 1, "neck": "bnneck"}, "optimizer": "adam",
    "batch_sampling_params": {"class_balanced": True, "P": 16, "K": 4}, "lr": {"decay_step": [40, 70]},
    "evaluation_params": {"type": "market_evaluate"}, "data_augmentation": {"mirror": True, "padding": 10},
}


class Command(NamedTuple):
    """A command line with what is expected of it."""

    what: str
    arguments: list[str]
    code: int = 0
    torch: bool = False  # whether it needs it

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end, with options for Python itself; SystemExit where it ends with another code."""
        ended = subprocess.run([sys.executable, *options, *self.arguments], cwd=ROOT, capture_output=True, text=True)
        if ended.returncode != self.code:
            raise SystemExit(f"{self.what}: exit code {ended.returncode} instead of {self.code}: {ended.stderr}")
        return ended

    def check(self) -> None:
        """SystemExit unless it imports torch where it needs it, and nowhere else."""
        modules = {line.rpartition("|")[2].strip() for line in self.run("-X", "importtime").stderr.splitlines()}
        if ("torch" in modules) != self.torch:
            raise SystemExit(f"{self.what}: torch was {'not ' if self.torch else ''}imported")


def main() -> None:
    """Print the table of commands."""
    options = arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        ours = commands(Path(folder))[:SMALL if options.small else None]
        bare, torch = Command("pass", ["-c", "pass"]), Command("import torch", ["-c", "import torch"], torch=True)
        for command in (*ours, bare, torch):
            command.check()
        *seconds, floor, ceiling = in_turns(options.rounds, *(partial(c.run) for c in (*ours, bare, torch)))
    lines: list[Comparison | Limit] = []
    for command, column in zip(ours, seconds, strict=True):
        lines.append(Comparison(command.what, column, "import torch", ceiling))
        ratio = statistics.median(own / least for own, least in zip(column, floor, strict=True))
        lines.append(Limit("the same, times `python -c pass`", ratio, "", NO_BAR))
    print(f"{table(lines)}\n\n`python -c pass`: {1000 * statistics.median(floor):.0f} ms. Seen to import torch: "
          f"{', '.join(command.what for command in ours if command.torch) or 'none'}.")


def commands(folder: Path) -> list[Command]:
    """Every command that answers without training, with the files that it needs in the folder."""
    written = {"sound": json.dumps(SOUND), "unknown": json.dumps(SOUND | {"epock": 3}), "syntax": '{"epoch": }'}
    written["plug-in"] = json.dumps(SOUND | {"epock": 3, "losses": [{"type": "softmax", "label": 0.1}]})
    files = {name: folder / f"{name}.json" for name in written}
    for name, text in written.items():
        files[name].write_text(text)
    run = RunDirectory(folder / "runs" / "exp1")
    run.create({})
    run.update_status(state="stopped")

    def train(operation: str, file: str) -> list[str]:
        return ["train.py", "--operation", operation, "--config_path", str(files[file])]

    return [
        Command("`train.py --help`", ["train.py", "--help"]),
        Command("`status`", train("status", "sound")),
        Command("`check`, an unknown key", train("check", "unknown"), 2),
        Command("`list`", train("list", "sound")),
        Command("`stop_train` of a stopped run", train("stop_train", "sound"), 4),
        Command("`check`, a syntax error", train("check", "syntax"), 2),
        Command("`start_train`, an unknown key", train("start_train", "unknown"), 2),
        Command("`check`, an unknown key and a plug-in's", train("check", "plug-in"), 2, torch=True),
        Command("`python -m data.pack --help`", ["-m", "data.pack", "--help"]),
        Command("`python -m data.doctor --help`", ["-m", "data.doctor", "--help"]),
        Command("`python -m deploy.extract --help`", ["-m", "deploy.extract", "--help"]),
        Command("`export.py --help`", ["export.py", "--help"]),
    ]


if __name__ == "__main__":
    main()
