"""A run carried on from its last snapshot, or from the start, to its end."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from data.records import RunEval
from deploy.files import DiskError
from params.reader import Loaded
from params.schema import Params
from trainer import build, ranks
from trainer.fit import Fit
from trainer.heap import keep_freed_memory
from trainer.ledger import Ledger
from trainer.predict import run_network
from trainer.record import Recorder
from trainer.run import RunDirectory
from trainer.scoring import scored_by_first
from trainer.sentinel import TrainingError, first_line
from trainer.snapshot import load_snapshot
from trainer.splits import Splits, predict_splits
from trainer.stop import Stopped, StopSignal
from trainer.training import Training
from trainer.versions import device_name
from trainer.weights import initial_weights

log = logging.getLogger("kiln")


def carry_on(run: RunDirectory, loaded: Loaded, run_eval: RunEval | None, wants_logits: bool) -> None:
    """Train `run` to its end in this process; its status says at all times how that goes.

    Raises Stopped after a snapshot when asked to stop, RunError when another process has the run, and what
    went wrong otherwise; the last good snapshot is then in place.
    """
    with owned(run), StopSignal() as stop:
        train_run(run, loaded, run_eval, wants_logits, stop)


@contextmanager
def owned(run: RunDirectory) -> Iterator[None]:
    """While entered, the run is this process's, and what is raised becomes its state."""
    run.own()
    with log_to(run.log):
        try:
            run.update_status(state="starting", error=None)
            yield
        except Stopped:
            run.update_status(state="stopped", error=None)
            raise
        except BaseException as error:
            with suppress(DiskError):
                run.update_status(state="failed", error=first_line(error))
            if hasattr(error, "exit_code") or not isinstance(error, Exception):
                raise  # its own line says it all
            log.exception("training failed")
            raise TrainingError(f"{run.path}: {first_line(error)}") from error
        finally:
            run.release()


def train_run(
    run: RunDirectory, loaded: Loaded, run_eval: RunEval | None, wants_logits: bool, stop: StopSignal,
) -> None:
    """Train to the end in this process or, of several, as one rank of which the first writes."""
    keep_freed_memory()
    params, splits = loaded.params, Splits(loaded.params.batches_dir)
    training = Training(params, loaded.resolved, splits.archive("train"), build.device(params))
    _initialise(training, run)
    written = ranks.only_first(lambda: run)
    written.write_params(loaded.resolved)
    written.update_status(device=device_name(training.device))
    ledger = ranks.only_first(lambda: _ledger(run, params))
    recorder = ranks.only_first(lambda: Recorder(
        run, epoch=training.epoch, step=training.step, epochs=params.epoch, steps=training.steps))
    deployed = run_network(training.deployed, logits=wants_logits, device=training.device)

    def between() -> None:
        stop.check()
        recorder.heartbeat(training.epoch, training.step)

    predict = predict_splits(splits, params, deployed, between)
    evaluate = None if run_eval is None else scored_by_first(partial(run_eval, loaded.resolved))
    fit = Fit(training, written, recorder, ledger, evaluate, predict, stop.check)
    try:
        fit.fit()
        written.update_status(
            state="finished", epoch=training.epoch, step=training.step, eta_seconds=0, best=ledger.best)
    except Stopped as stopped:
        written.update_status(state="stopping", epoch=training.epoch, step=training.step)
        fit.snapshot()
        log.info("stopped by %s at epoch %d step %d; resume with --operation resume_train", stopped,
                 training.epoch, training.step)
        raise
    finally:
        training.loader.close()
        recorder.close()


def _ledger(run: RunDirectory, params: Params) -> Ledger:
    evaluation = params.evaluation_params
    return Ledger(run.snapshots, monitor=evaluation.monitor if evaluation else None,
                  mode=evaluation.mode if evaluation else "max")


def _initialise(training: Training, run: RunDirectory) -> None:
    """The last snapshot's state where there is one, else the pretrained weights that the params name."""
    if run.last.is_file():
        training.restore(load_snapshot(run.last))
        log.info("resumed at epoch %d step %d", training.epoch, training.step)
        return
    for line in initial_weights(training.network, training.params):
        log.info("%s", line)
    if training.averaged is not None:
        training.averaged.module.load_state_dict(training.network.state_dict())


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Also append what the logger "kiln" says to a file, with the time."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
