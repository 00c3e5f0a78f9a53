"""How the launcher takes the end of its processes; what they do is a line of Python here."""

import signal
import sys

import pytest

from trainer.launch import launch
from trainer.run import RunDirectory
from trainer.service import RunFailed
from trainer.stop import Stopped

KILLED = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture
def launched(tmp_path):
    """Run a line of Python, in which `rank` is known, in two processes; the run, what is raised, and the log."""
    def run(line):
        directory = RunDirectory(tmp_path / "exp1")
        directory.create({})
        begin = "import os, signal, sys; from pathlib import Path; rank = int(os.environ['RANK']); "
        raised = None
        try:
            launch(directory, [sys.executable, "-c", begin + line], 2)
        except (RunFailed, Stopped) as error:
            raised = error
        return directory, raised, directory.log.read_text()
    return run


def test_a_rank_that_is_killed_each_time_fails_the_run_after_three_new_starts(launched):
    run, raised, log = launched(KILLED)
    assert isinstance(raised, RunFailed) and raised.exit_code == 5
    assert str(raised).startswith(f"{run.path}: rank 0 was killed by SIGKILL, after 3 new starts; ")
    assert [line.split("; ")[1] for line in log.splitlines()] == [
        f"all start again from the last snapshot, {left} more times at most" for left in (2, 1, 0)]
    assert (run.read_status()["state"], run.read_status()["error"]) == ("failed", str(raised))
    assert run.owner() is None


def test_a_rank_that_is_killed_once_is_started_again(launched, tmp_path):
    mark = tmp_path / "killed once"
    _, raised, log = launched(
        f"mark = Path({str(mark)!r}); rank == 1 and not mark.exists() and (mark.touch(), {KILLED})")
    assert raised is None
    assert len(log.splitlines()) == 1


def test_a_rank_that_ends_with_an_exit_code_of_its_own_fails_the_run_at_once(launched):
    run, raised, log = launched("sys.exit(7 * rank)")
    assert (str(raised), raised.exit_code) == (f"{run.path}: rank 1 ended with exit code 7", 5)
    assert log == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ranks_that_were_stopped_stop_the_run(launched, number):
    run, raised, _ = launched(f"sys.exit(128 + {int(number)})")
    assert isinstance(raised, Stopped) and raised.exit_code == 128 + number
    assert run.read_status()["state"] == "stopped"


def test_a_signal_is_passed_on_and_the_handlers_are_put_back(launched):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    run, raised, _ = launched("os.kill(os.getppid(), signal.SIGTERM) if rank else None; signal.pause()")
    assert isinstance(raised, Stopped) and raised.exit_code == 143
    assert run.read_status()["state"] == "stopped"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
