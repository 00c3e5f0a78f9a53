"""Runs seen from outside: start one in the background, stop it, tell how it is. Nothing here imports torch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from deploy.files import explained
from trainer.run import ALIVE, RunDirectory, RunError

POLL = 0.1  # seconds
PATIENCE = 60.0  # seconds a stopping run may take for its snapshot


class RunFailed(Exception):
    """A process that carried a run on has failed: its line, and its exit code."""

    def __init__(self, line: str, exit_code: int) -> None:
        super().__init__(line, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])


def command(script: Path, run: RunDirectory, overrides: list[str], *, operation: str = "resume_train") -> list[str]:
    """The command line that carries the run on, or does another operation on it."""
    named = ["--operation", operation, "--sub_working_dir", str(run.path.absolute())]
    return [sys.executable, str(script), *named, *(word for override in overrides for word in ("--set", override))]


def launch(command: list[str], run: RunDirectory) -> subprocess.Popen[bytes]:
    """A process of its own session that carries the run on; it logs to train_log itself, its errors go there too."""
    run.update_status(state="starting", error=None)
    with explained(run.log), run.log.open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                                start_new_session=True)


def start(command: list[str], run: RunDirectory) -> dict[str, Any]:
    """Carry the run on in the background; its status after the first step, RunFailed when there was none."""
    child = launch(command, run)
    code = wait_for_first_step(run, child)
    facts = run.read_status()
    if code:
        said = facts.get("error") or "ended before its first step"
        raise RunFailed(f"{run.path}: {said}; see {run.log}", code)
    return facts


def wait_for_first_step(run: RunDirectory, child: subprocess.Popen[bytes]) -> int:
    """Wait until the run has taken a step of its own, or ended; 0, or the exit code (5 for a death by signal)."""
    while child.poll() is None:
        status = run.read_status()
        if status["pid"] == child.pid and status["state"] == "running":
            return 0
        time.sleep(POLL)
    return child.returncode if child.returncode >= 0 else 5


def stop(run: RunDirectory) -> dict[str, Any]:
    """Ask a run to stop, and wait for its snapshot; its last status. RunError when it does not run here."""
    status = run.read_status()
    if status["state"] not in ALIVE:
        raise RunError(f"{run.path}: not running (it is {status['state']})")
    if status["host"] != os.uname().nodename:
        raise RunError(f"{run.path}: runs on {status['host']}; stop it there")
    owner = run.owner()
    if owner is None:
        raise RunError(f"{run.path}: about to start; stop it in a moment")
    _terminate(run, owner)
    deadline = time.monotonic() + PATIENCE
    while run.owner() == owner:
        if time.monotonic() > deadline:
            raise RunError(f"{run.path}: process {owner} has not stopped within {PATIENCE:.0f} s")
        time.sleep(POLL)
    return run.read_status()


def _terminate(run: RunDirectory, pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return  # it has just ended by itself
    except PermissionError:
        raise RunError(f"{run.path}: process {pid} belongs to another user; ask them to stop it") from None


def one_line(run: RunDirectory, status: dict[str, Any]) -> str:
    """A run's status as one line for people."""
    parts = [f"{run.name:<20}", f"{status['state']:<9}"]
    if status.get("steps"):
        parts.append(f"epoch {status['epoch']}  step {status['step']}/{status['steps']}")
    if status.get("images_per_second") and status.get("eta_seconds") is not None and status["state"] in ALIVE:
        parts.append(f"{status['images_per_second']:.0f} images/s  {status['eta_seconds']} s left")
    if status.get("best"):
        best = status["best"]
        parts.append(f"best {best['metric']} {best['value']:.4f} (epoch {best['epoch']})")
    if status.get("error"):
        parts.append(str(status["error"]))
    return "  ".join(parts)
