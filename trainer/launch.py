"""Several processes training one run: the one that starts them and owns the run, and each of them."""

import ctypes
import json
import logging
import os
import signal
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from data.records import RunEval
from params.reader import Loaded
from trainer import build, ranks
from trainer.run import RunDirectory
from trainer.service import PATIENCE, RunFailed
from trainer.sentinel import TrainingError, first_line
from trainer.session import log_to, owned, train_run
from trainer.stop import Stopped, StopSignal

log = logging.getLogger("kiln")
RESTARTS = 3  # of all processes, each after one was killed
DIE_WITH_PARENT = 1  # Linux's PR_SET_PDEATHSIG


def launch(run: RunDirectory, command: Sequence[str], processes: int) -> None:
    """Own `run` while as many processes train it to its end, each by `command`, which is to call take_part.

    When one is killed, all are started again from the last snapshot. Raises as session.carry_on does.
    """
    with owned(run), _signals_put_back():
        try:
            for left in reversed(range(RESTARTS + 1)):
                failures = _run_all(command, processes)
                if not failures:
                    return
                killed = _killed(failures)
                if killed is None:
                    raise _what_went_wrong(run, failures)
                line = f"rank {killed.local_rank} was killed by {killed.signal_name()}"
                if not left:
                    raise RunFailed(f"{run.path}: {line}, after {RESTARTS} new starts; where memory ran out, lower "
                                    "batch_size or num_preprocess_workers", TrainingError.exit_code)
                log.warning("%s; all start again from the last snapshot, %d more times at most", line, left - 1)
        except SignalException as asked:  # torch has passed it on to the ranks, and waited for them
            if run.read_status()["state"] != "finished":
                raise Stopped(asked.sigval) from None


def take_part(run: RunDirectory, loaded: Loaded, run_eval: RunEval | None, wants_logits: bool) -> None:
    """Train `run` to its end as one of the processes that `launch` started, and not longer than that one lives."""
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    run.join()
    try:
        with ranks.together(build.devices(loaded.params)), StopSignal() as stop, _only_first_is_heard(run):
            train_run(run, loaded, run_eval, wants_logits, stop)
    except Exception as error:
        if not isinstance(error, Stopped):
            _tell(error)
        os._exit(getattr(error, "exit_code", 1))  # torch's threads would abort an orderly end without the other ranks


def _run_all(command: Sequence[str], processes: int) -> dict[int, ProcessFailure]:
    """Start the processes and wait for their end; how those ended that did not end well, by rank."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # one warning a rank of what a network may leave unused
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what is worth a line is in train_log
    with TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id="kiln", local_addr="localhost",
            rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0, logs_specs=DefaultLogsSpecs(folder),
            signals_to_handle="SIGTERM,SIGINT", shutdown_timeout=int(PATIENCE))
        try:
            elastic_launch(config, command[0])(*command[1:])
        except ChildFailedError as error:
            return error.failures
    return {}


def _killed(failures: Mapping[int, ProcessFailure]) -> ProcessFailure | None:
    """A rank that was killed, unless another one failed in a way that it would again."""
    if any("exit_code" in failure.error_file_data for failure in failures.values()):
        return None
    killed = (failure for failure in failures.values() if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM)
    return next(killed, None)


def _what_went_wrong(run: RunDirectory, failures: Mapping[int, ProcessFailure]) -> Exception:
    """The first failure: the others follow from it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        if any(failure.exitcode == 128 + number for failure in failures.values()):
            return Stopped(number)
    told = [failure.error_file_data for failure in failures.values() if "at" in failure.error_file_data]
    if not told:
        rank, failure = next(iter(failures.items()))
        return RunFailed(f"{run.path}: rank {rank} ended with exit code {failure.exitcode}", TrainingError.exit_code)
    first = min(told, key=lambda data: ("exit_code" not in data, data["at"]))
    if "exit_code" in first:
        return RunFailed(first["message"], first["exit_code"])
    log.error("training failed\n%s", first["traceback"])
    return RunFailed(f"{run.path}: {first['message']}", TrainingError.exit_code)


def _tell(error: Exception) -> None:
    """Leave word where the launcher looks for it."""
    known = {"message": str(error), "exit_code": error.exit_code} if hasattr(error, "exit_code") else {
        "message": first_line(error), "traceback": traceback.format_exc()}
    word = {**known, "timestamp": int(time.time()), "at": time.time_ns()}
    Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps(word))


@contextmanager
def _only_first_is_heard(run: RunDirectory) -> Iterator[None]:
    if ranks.is_first():
        with log_to(run.log):
            yield
    else:
        log.setLevel(logging.CRITICAL)
        yield


@contextmanager
def _signals_put_back() -> Iterator[None]:
    """Undo, at the end, the signal handlers that torch's launcher leaves behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
