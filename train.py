"""Train, resume, watch, evaluate and check runs: python train.py --operation OPERATION --config_path params.json."""

import argparse
import json
import logging
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from params.errors import Mistake, ParamsError
from trainer import service
from trainer.run import RunDirectory, RunError, all_runs, run_directory

if TYPE_CHECKING:
    from params.reader import Loaded

SCRIPT = Path(__file__).resolve()
OK = 0  # every error knows its own exit code


def check(arguments: argparse.Namespace) -> int:
    """Print every effective value, the data, the steps, the learning rate, the size; write nothing."""
    loaded, splits, weights = _checked(arguments.config_path, arguments.set)
    from trainer.check import report

    print(*report(loaded, splits.archive("train")), *weights, sep="\n")
    return OK


def start_train(arguments: argparse.Namespace) -> int:
    """Start a run in the background; return when it has taken its first step, or say why it has not."""
    run = _created(arguments)
    return _detached(run, [])


def train(arguments: argparse.Namespace) -> int:
    """Train in the foreground."""
    run = _created(arguments)
    return _foreground(run, _load(run.params, []), [])


def resume_train(arguments: argparse.Namespace) -> int:
    """Carry a stopped, failed or dead run on from its last snapshot, by the run's own params.json."""
    from trainer.ranks import launched
    from trainer.resume import same_run

    run = _run(arguments)
    if launched():
        return _rank(run, _load(run.params, arguments.set))
    if run.read_status()["state"] == "finished" and not arguments.set:
        raise RunError(f"{run.path}: finished, nothing to resume; --set epoch=N trains on to epoch N")
    if run.owner() is not None:
        raise RunError(f"{run.path}: already running as process {run.owner()}; stop it with --operation stop_train")
    loaded, *_ = _checked(run.params, arguments.set, weights=not run.last.is_file())
    same_run(_load(run.params, []).resolved, loaded.resolved)
    return _detached(run, arguments.set) if arguments.detach else _foreground(run, loaded, arguments.set)


def stop_train(arguments: argparse.Namespace) -> int:
    """Ask a run to take a snapshot and end; wait until it has."""
    run = _run(arguments)
    print(service.one_line(run, service.stop(run)))
    return OK


def status(arguments: argparse.Namespace) -> int:
    """Tell how a run is."""
    run = _run(arguments)
    facts = run.read_status()
    print(json.dumps(facts) if arguments.json else service.one_line(run, facts))
    return OK


def list_runs(arguments: argparse.Namespace) -> int:
    """Tell how every run of the working directory is."""
    runs = [(run, run.read_status()) for run in all_runs(_working_dir(arguments))]
    if arguments.json:
        print(json.dumps({run.name: facts for run, facts in runs}))
    else:
        print("\n".join(service.one_line(run, facts) for run, facts in runs) or "no runs")
    return OK


def evaluate(arguments: argparse.Namespace) -> int:
    """Evaluate a run's snapshot again, print the metrics and draw the rank lists that are asked for."""
    from trainer.evaluation import evaluate_snapshot

    run = _run(arguments)
    loaded = _load(run.params, arguments.set)
    run_eval, logits = _evaluator(loaded)
    if arguments.rank_lists and run_eval is not None:
        run_eval = _drawing(run_eval, run, loaded, arguments.rank_lists)
    metrics = evaluate_snapshot(run, arguments.snapshot or "best", loaded, run_eval, logits)
    print(json.dumps(metrics) if arguments.json else "\n".join(f"{k:<24}{v:.4f}" for k, v in metrics.items()))
    return OK


OPERATIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "start_train": start_train, "train": train, "resume_train": resume_train, "stop_train": stop_train,
    "status": status, "list": list_runs, "evaluate": evaluate, "check": check,
}


def _load(path: Path, overrides: list[str]) -> "Loaded":
    """A params.json, wholly checked; what can be told without torch is told before it is imported."""
    from params.early import refuse_early
    from params.reader import draft, whole

    drafted = draft(path, overrides)
    refuse_early(drafted)
    from evaluate import EVALUATORS
    from trainer.build import tables
    from trainer.rules import RULES

    return whole(drafted, tables(EVALUATORS), RULES)


def _evaluator(loaded: "Loaded") -> tuple[Any, bool]:
    """The run's evaluator, or None, and whether it reads logits."""
    from evaluate import EVALUATORS
    from evaluate.protocol import wants_logits

    if loaded.params.evaluation_params is None:
        return None, False
    run_eval = EVALUATORS.load(loaded.params.evaluation_params.type)
    return run_eval, wants_logits(run_eval)


def _drawing(run_eval: Any, run: RunDirectory, loaded: "Loaded", count: int) -> Any:
    """The evaluator, which now also draws its worst, median and best rank lists into the run's directory."""
    from deploy.preprocess import opened
    from evaluate.protocol import search_of
    from evaluate.rank_lists import write_rank_lists
    from trainer.splits import Splits

    search, splits = search_of(run_eval), Splits(loaded.params.batches_dir)
    if search is None:
        message = "this evaluator ranks no gallery that --rank_lists could draw; market_evaluate does"
        raise ParamsError(run.params.name, [Mistake(("evaluation_params", "type"), message)])

    def image(split: str, row: int) -> Any:
        return opened(splits.archive(split).read(row))

    def run_and_draw(config: Any, predict: Any) -> dict[str, float]:
        once = cache(predict)  # evaluator and pictures ask for the same splits
        metrics: dict[str, float] = run_eval(config, once)
        write_rank_lists(run.path / "rank_lists", search(config, once), image, count)
        print(f"rank lists: {run.path / 'rank_lists'}", file=sys.stderr)
        return metrics

    return run_and_draw


def _checked(path: Path, overrides: list[str], *, weights: bool = True) -> tuple["Loaded", Any, list[str]]:
    """The params, their archives and what loading initial weights says, when all that can go wrong early has not."""
    loaded = _load(path, overrides)
    from trainer.rehearsal import rehearse, sampler_can_be_built
    from trainer.splits import Splits
    from trainer.weights import weights_can_be_loaded

    splits = Splits(loaded.params.batches_dir)
    sampler_can_be_built(loaded.params, splits)
    classes = len(splits.archive("train").class_names)
    told = weights_can_be_loaded(loaded.params, classes) if weights else []
    run_eval, logits = _evaluator(loaded)
    if run_eval is not None:
        rehearse(run_eval, loaded.params, loaded.resolved, splits, logits=logits)
    return loaded, splits, told


def _created(arguments: argparse.Namespace) -> RunDirectory:
    """A new run's directory; nothing is written when anything is wrong with its params or data."""
    loaded, *_ = _checked(arguments.config_path, arguments.set)
    run = run_directory(Path(loaded.params.working_dir), arguments.sub_working_dir)
    run.create(loaded.resolved)
    for notice in loaded.notices:
        print(f"note: {notice}", file=sys.stderr)
    return run


def _detached(run: RunDirectory, overrides: list[str]) -> int:
    child = service.launch(service.command(SCRIPT, run, overrides), run)
    code = service.wait_for_first_step(run, child)
    facts = run.read_status()
    if code:
        said = facts.get("error") or "ended before its first step"
        raise service.RunFailed(f"{run.path}: {said}; see {run.log}", code)
    print(service.one_line(run, facts))
    print(f"log: {run.log}")
    return OK


def _foreground(run: RunDirectory, loaded: "Loaded", overrides: list[str]) -> int:
    """Train in this process, or in as many as parallels asks for."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    from trainer.launch import launch
    from trainer.session import carry_on

    if loaded.params.processes > 1:
        launch(run, service.command(SCRIPT, run, overrides), loaded.params.processes)
    else:
        with logging_redirect_tqdm():
            carry_on(run, loaded, *_evaluator(loaded))
    print(service.one_line(run, run.read_status()))
    return OK


def _rank(run: RunDirectory, loaded: "Loaded") -> int:
    """Take part in training that another process has launched in several."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    from trainer.launch import take_part

    with logging_redirect_tqdm():
        take_part(run, loaded, *_evaluator(loaded))
    return OK


def _working_dir(arguments: argparse.Namespace) -> Path:
    from params.reader import load

    loaded = load(arguments.config_path, None, overrides=arguments.set)
    return Path(loaded.params.working_dir)


def _run(arguments: argparse.Namespace) -> RunDirectory:
    """The run that the command line names, or the only one there is."""
    working_dir = _working_dir(arguments)
    if arguments.sub_working_dir is None:
        runs = all_runs(working_dir)
        if len(runs) != 1:
            raise RunError(f"{working_dir}: holds {len(runs)} runs; name one with --sub_working_dir")
        return runs[0]
    run = run_directory(working_dir, arguments.sub_working_dir)
    run.read_status()
    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train embedding models from one JSON file.",
        epilog="exit codes: 0 done, 2 params or usage, 3 data, 4 the run's state forbids it, 5 training failed, "
               "130 / 143 snapshot taken on SIGINT / SIGTERM")
    parser.add_argument("--operation", required=True, choices=OPERATIONS)
    parser.add_argument("--config_path", type=Path, default=Path("params.json"), help="default: params.json")
    parser.add_argument("--sub_working_dir", metavar="NAME",
                        help="the run's folder; default: the time, or the only run there is")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key; repeatable")
    parser.add_argument("--snapshot", choices=("best", "last"), help="evaluate: which one; default: best")
    parser.add_argument("--rank_lists", type=_positive, metavar="N",
                        help="evaluate: also draw the N worst, median and best queries into the run's rank_lists/")
    parser.add_argument("--detach", action="store_true", help="resume_train: go on in the background")
    parser.add_argument("--json", action="store_true", help="status, list, evaluate: machine-readable")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, found {text}")
    return int(text)


BELONGS = {"snapshot": ("evaluate",), "rank_lists": ("evaluate",), "detach": ("resume_train",),
           "json": ("status", "list", "evaluate")}


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line; an option that the operation has no use for is a mistake."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    for option, operations in BELONGS.items():
        if getattr(arguments, option) and arguments.operation not in operations:
            parser.error(f"--{option} belongs to {', '.join(operations)}, not to {arguments.operation}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run one operation; the exit code."""
    arguments = _arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        return OPERATIONS[arguments.operation](arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not hasattr(error, "exit_code"):  # not a user's mistake: the traceback is wanted
            raise
        print(error, file=sys.stderr)
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
