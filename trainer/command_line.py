"""The command line of train.py: its options, which operation has a use for which, and the runs that they name."""

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from deploy.command_line import count
from trainer.run import RunDirectory, RunError, all_runs, run_directory

BELONGS = {
    # "check" has no use for it, but lets a command be checked by changing one word of it.
    "sub_working_dir": ("check", "start_train", "train", "resume_train", "stop_train", "status", "evaluate", "report"),
    "snapshot": ("evaluate", "compare"), "rank_lists": ("evaluate",), "runs": ("compare",),
    "detach": ("resume_train",), "json": ("status", "list", "evaluate", "compare"),
}


def parsed(argv: Sequence[str] | None, operations: Iterable[str]) -> argparse.Namespace:
    """The command line; an option that the operation has no use for is a mistake."""
    parser = _parser(operations)
    arguments = parser.parse_args(argv)
    for option, having in BELONGS.items():
        if getattr(arguments, option) and arguments.operation not in having:
            parser.error(f"--{option} belongs to {', '.join(having)}, not to {arguments.operation}")
    if arguments.operation == "compare" and not arguments.runs:
        parser.error("compare needs --runs A B, two runs' names or folders")
    return arguments


def working_dir(arguments: argparse.Namespace) -> Path:
    """The folder in which the params.json has its runs made."""
    from params.reader import load  # with pydantic, which --help need not wait for

    return Path(load(arguments.config_path, None, overrides=arguments.set).params.working_dir)


def run_of(arguments: argparse.Namespace) -> RunDirectory:
    """The run that --sub_working_dir names, by name or path, or the only one there is."""
    if arguments.sub_working_dir is not None:
        return named_run(arguments, arguments.sub_working_dir)
    folder = working_dir(arguments)
    runs = all_runs(folder)
    if len(runs) != 1:
        raise RunError(f"{folder}: holds {len(runs)} runs; name one with --sub_working_dir")
    return runs[0]


def named_run(arguments: argparse.Namespace, name: str) -> RunDirectory:
    """A run by its folder's name in the working directory, or by its folder's path; RunError when there is none."""
    run = RunDirectory(Path(name).absolute()) if os.sep in name else run_directory(working_dir(arguments), name)
    run.read_status()
    return run


def _parser(operations: Iterable[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train embedding models from one JSON file.",
        epilog="exit codes: 0 done, 2 params or usage, 3 data, 4 the run's state forbids it, 5 training failed, "
               "130 / 143 snapshot taken on SIGINT / SIGTERM")
    parser.add_argument("--operation", required=True, choices=operations)
    parser.add_argument("--config_path", type=Path, default=Path("params.json"), help="default: params.json")
    parser.add_argument("--sub_working_dir", metavar="NAME",
                        help="a run's folder, or the path of one that exists; default: the time, or the only run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key; repeatable")
    parser.add_argument("--snapshot", choices=("best", "last"), help="evaluate, compare: which one; default: best")
    parser.add_argument("--rank_lists", type=count, metavar="N",
                        help="evaluate: also draw the N worst, median and best queries into the run's rank_lists/")
    parser.add_argument("--runs", nargs=2, metavar=("A", "B"), help="compare: two runs, by name or folder")
    parser.add_argument("--detach", action="store_true", help="resume_train: go on in the background")
    parser.add_argument("--json", action="store_true", help="status, list, evaluate, compare: machine-readable")
    return parser
