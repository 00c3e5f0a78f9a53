"""Runs seen from outside: start one in the background, stop it, tell how it is. Nothing here imports torch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from trainer.run import ALIVE, RunDirectory, RunError

POLL = 0.1  # seconds
PATIENCE = 60.0  # seconds a stopping run may take for its snapshot


def launch(script: Path, run: RunDirectory, overrides: list[str]) -> subprocess.Popen[bytes]:
    """A process of its own session that carries the run on; it logs to train_log itself, its errors go there too."""
    command = [sys.executable, str(script), "--operation", "resume_train", "--config_path", str(run.params),
               "--sub_working_dir", run.name]
    for override in overrides:
        command += ["--set", override]
    with run.log.open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                                start_new_session=True)


def wait_for_first_step(run: RunDirectory, child: subprocess.Popen[bytes]) -> int:
    """Wait until the run has taken a step of its own, or ended; 0, or its exit code."""
    began = run.read_status().get("step", 0)
    while child.poll() is None:
        status = run.read_status()
        if status["pid"] == child.pid and status.get("step", 0) > began:
            return 0
        time.sleep(POLL)
    return child.returncode


def stop(run: RunDirectory) -> dict[str, Any]:
    """Ask a run to stop, and wait for its snapshot; its last status. RunError when it does not run here."""
    status = run.read_status()
    if status["state"] not in ALIVE:
        raise RunError(f"{run.path}: not running (it is {status['state']})")
    if status["host"] != os.uname().nodename:
        raise RunError(f"{run.path}: runs on {status['host']}; stop it there")
    os.kill(status["pid"], signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while (status := run.read_status())["state"] in ALIVE:
        if time.monotonic() > deadline:
            raise RunError(f"{run.path}: process {status['pid']} has not stopped within {PATIENCE:.0f} s")
        time.sleep(POLL)
    return status


def one_line(run: RunDirectory, status: dict[str, Any]) -> str:
    """A run's status as one line for people."""
    parts = [f"{run.name:<20}", f"{status['state']:<9}"]
    if "steps" in status:
        parts.append(f"epoch {status['epoch']}  step {status['step']}/{status['steps']}")
    if status.get("images_per_second") and status["state"] in ALIVE:
        parts.append(f"{status['images_per_second']:.0f} images/s  {status['eta_seconds']} s left")
    if status.get("best"):
        best = status["best"]
        parts.append(f"best {best['metric']} {best['value']:.4f} (epoch {best['epoch']})")
    if status.get("error"):
        parts.append(str(status["error"]))
    return "  ".join(parts)
