"""Train, resume, watch, evaluate and check runs: python train.py --operation OPERATION --config_path params.json."""

import argparse
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from params.errors import Mistake, ParamsError
from trainer import service
from trainer.command_line import named_run, parsed, run_of, working_dir
from trainer.run import RunDirectory, RunError, all_runs, run_directory

if TYPE_CHECKING:
    from params.reader import Loaded

SCRIPT = Path(__file__).resolve()


def check(arguments: argparse.Namespace) -> None:
    """Print every effective value, the data, the steps, the learning rate, the size; write nothing."""
    loaded, splits, weights = _checked(arguments.config_path, arguments.set)
    from trainer.check import report

    print(*report(loaded, splits.archive("train")), *weights, sep="\n")


def start_train(arguments: argparse.Namespace) -> None:
    """Start a run in the background; return when it has taken its first step, or say why it has not."""
    _detached(_created(arguments), [])


def train(arguments: argparse.Namespace) -> None:
    """Train in the foreground."""
    run = _created(arguments)
    _foreground(run, _load(run.params, []), [])


def resume_train(arguments: argparse.Namespace) -> None:
    """Carry a stopped, failed or dead run on from its last snapshot, by the run's own params.json."""
    from trainer.ranks import launched
    from trainer.resume import same_run

    run = run_of(arguments)
    if launched():
        _rank(run, _load(run.params, arguments.set))
        return
    if run.read_status()["state"] == "finished" and not arguments.set:
        raise RunError(f"{run.path}: finished, nothing to resume; --set epoch=N trains on to epoch N")
    if run.owner() is not None:
        raise RunError(f"{run.path}: already running as process {run.owner()}; stop it with --operation stop_train")
    loaded, *_ = _checked(run.params, arguments.set, weights=not run.last.is_file())
    same_run(_load(run.params, []).resolved, loaded.resolved)
    if arguments.detach:
        _detached(run, arguments.set)
    else:
        _foreground(run, loaded, arguments.set)


def stop_train(arguments: argparse.Namespace) -> None:
    """Ask a run to take a snapshot and end; wait until it has."""
    run = run_of(arguments)
    print(service.one_line(run, service.stop(run)))


def status(arguments: argparse.Namespace) -> None:
    """Tell how a run is."""
    run = run_of(arguments)
    facts = run.read_status()
    print(json.dumps(facts) if arguments.json else service.one_line(run, facts))


def list_runs(arguments: argparse.Namespace) -> None:
    """Tell how every run of the working directory is."""
    runs = [(run, run.read_status()) for run in all_runs(working_dir(arguments))]
    lines = "\n".join(service.one_line(run, facts) for run, facts in runs) or "no runs"
    print(json.dumps({run.name: facts for run, facts in runs}) if arguments.json else lines)


def evaluate(arguments: argparse.Namespace) -> None:
    """Evaluate a run's snapshot again, print the metrics and draw the rank lists that are asked for."""
    from evaluate.protocol import search_of
    from evaluate.rank_lists import NO_LISTS, write_rank_lists
    from trainer.sentinel import finite_metrics
    from trainer.splits import Splits

    run = run_of(arguments)
    loaded = _load(run.params, arguments.set)
    run_eval, _ = _evaluator(loaded)
    no_lists = ParamsError(run.params.name, [Mistake(("evaluation_params", "type"), NO_LISTS)])
    if arguments.rank_lists and run_eval is not None and search_of(run_eval) is None:
        raise no_lists
    found = _scored(run, arguments.snapshot or "best", loaded)
    if arguments.rank_lists and found.ranked_by not in found.values:  # it scores no query by which to choose them
        raise no_lists
    metrics = finite_metrics(found.metrics)
    if arguments.rank_lists:
        folder, images = run.path / "rank_lists", Splits(loaded.params.batches_dir).image
        write_rank_lists(folder, found.seen, found.values[found.ranked_by], images, arguments.rank_lists)
        print(f"rank lists: {folder}", file=sys.stderr)
    print(json.dumps(metrics) if arguments.json else "\n".join(f"{k:<24}{v:.4f}" for k, v in metrics.items()))


def report(arguments: argparse.Namespace) -> None:
    """Write a run's report.html, of its best snapshot so far."""
    run = run_of(arguments)
    print(_report(run, _load(run.params, arguments.set)))


def compare(arguments: argparse.Namespace) -> None:
    """Tell by how much one run is better than another on the same queries, and what differs in their params."""
    from evaluate.compare import as_json, compared, refuse_other_images, refuse_other_metrics, table
    from params.defaults import different
    from trainer.splits import Splits

    runs = [named_run(arguments, name) for name in arguments.runs]
    sides = [_load(run.params, arguments.set) for run in runs]
    params = different(*(side.resolved for side in sides))
    refuse_other_metrics(params)
    which = arguments.snapshot or "best"
    first = _scored(runs[0], which, sides[0])
    for split in first.asked:
        refuse_other_images(split, *(Splits(side.params.batches_dir).archive(split) for side in sides))
    found = compared(first, _scored(runs[1], which, sides[1]))
    print(as_json(arguments.runs, found, params) if arguments.json else "\n".join(table(arguments.runs, found, params)))


OPERATIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "start_train": start_train, "train": train, "resume_train": resume_train, "stop_train": stop_train,
    "status": status, "list": list_runs, "evaluate": evaluate, "report": report, "compare": compare, "check": check,
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


def _scored(run: RunDirectory, which: str, loaded: "Loaded") -> Any:
    """What the run's evaluator says of a snapshot."""
    from evaluate.protocol import scored_of
    from trainer.evaluation import predict_snapshot

    run_eval, logits = _evaluator(loaded)
    if run_eval is None:
        raise RunError(f"{run.params}: names no evaluator; add one with --set evaluation_params.type=market_evaluate")
    return scored_of(run_eval)(loaded.resolved, predict_snapshot(run, which, loaded.params, logits=logits))


def _report(run: RunDirectory, loaded: "Loaded") -> Path:
    """Write the run's report and return its path."""
    from evaluate import EVALUATORS
    from evaluate.report.doctor import findings
    from evaluate.report.page import Facts, write_report
    from params.defaults import changed
    from trainer import build
    from trainer.splits import Splits

    splits = Splits(loaded.params.batches_dir)
    facts = Facts(run.name, run.read_status(), run.read_metrics(), loaded.resolved,
                  changed(loaded, build.tables(EVALUATORS)), findings(splits.folders))
    write_report(run.report, facts, _best_or_why_not(run, loaded), splits)
    return run.report


def _best_or_why_not(run: RunDirectory, loaded: "Loaded") -> Any:
    """What the evaluator says of the run's best snapshot or why it cannot; None of one that gives metrics alone."""
    from data.records import DataError
    from evaluate.protocol import is_declared
    from trainer.snapshot import SnapshotError

    if not is_declared(_evaluator(loaded)[0]):  # metrics.jsonl says what there is to say
        return None
    try:
        return _scored(run, "best", loaded)
    except (DataError, RunError, SnapshotError) as error:  # of a run whose data or snapshot is gone or damaged
        return str(error)


def _report_at_end(run: RunDirectory, loaded: "Loaded") -> None:
    """The report of a finished run, which stays finished whatever goes wrong here."""
    from trainer.sentinel import first_line
    from trainer.session import log, log_to
    from trainer.stop import interrupting

    with ExitStack() as entered:
        try:
            entered.enter_context(interrupting())
            entered.enter_context(log_to(run.log))
            log.info("report: %s", _report(run, loaded))
        except (Exception, KeyboardInterrupt) as error:
            here, again = shlex.quote(os.getcwd()), shlex.join(service.command(SCRIPT, run, [], operation="report"))
            log.warning("warning: no report: %s; to write it: cd %s && %s", first_line(error), here, again)


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
    from deploy import __version__
    from trainer.versions import versions

    run = run_directory(Path(loaded.params.working_dir), arguments.sub_working_dir)
    run.create(loaded.resolved)
    run.update_status(versions={"kiln": __version__, **versions()})
    for notice in loaded.notices:
        print(f"note: {notice}", file=sys.stderr)
    return run


def _detached(run: RunDirectory, overrides: list[str]) -> None:
    print(service.one_line(run, service.start(service.command(SCRIPT, run, overrides), run)))
    print(f"log: {run.log}")


def _foreground(run: RunDirectory, loaded: "Loaded", overrides: list[str]) -> None:
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
    _report_at_end(run, loaded)


def _rank(run: RunDirectory, loaded: "Loaded") -> None:
    """Take part in training that another process has launched in several."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    from trainer.launch import take_part

    with logging_redirect_tqdm():
        take_part(run, loaded, *_evaluator(loaded))


def main(argv: list[str] | None = None) -> int:
    """Run one operation; the exit code."""
    arguments = parsed(argv, OPERATIONS)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        OPERATIONS[arguments.operation](arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not hasattr(error, "exit_code"):  # not a user's mistake: the traceback is wanted
            raise
        print(error, file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
