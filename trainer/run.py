"""A run's directory: its files, its owner and its state."""

import fcntl
import json
import os
import re
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from data.files import explained, write_whole
from params.errors import Mistake, ParamsError

ALIVE = ("starting", "running", "stopping")
SILENCE = 300.0  # seconds without a heartbeat after which a run on another host counts as dead


class RunError(RuntimeError):
    """The state of a run forbids what was asked: one line with the run and the remedy."""

    exit_code = 4


class RunDirectory:
    """`<working_dir>/<sub_working_dir>`: params.json, train_log, metrics.jsonl, status.json, snapshots/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.params = path / "params.json"
        self.log = path / "train_log"
        self.metrics = path / "metrics.jsonl"
        self.snapshots = path / "snapshots"
        self.last = self.snapshots / "last.pth"
        self.best = self.snapshots / "best.pth"
        self._status = path / "status.json"
        self._lock: IO[bytes] | None = None
        self._facts: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return self.path.name

    def create(self, resolved: dict[str, Any]) -> None:
        """Make the directory with its params.json; RunError when it exists already."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                raise RunError(f"{self.path}: exists already; resume it with --operation resume_train, or choose "
                               "another --sub_working_dir")
            self.path.mkdir()
        except OSError as error:
            mistake = Mistake(("working_dir",), f"{self.path} cannot be made: {error.strerror}")
            raise ParamsError("params.json", [mistake]) from None
        self.snapshots.mkdir()
        self.write_params(resolved)
        self.update_status(state="starting")

    def write_params(self, resolved: dict[str, Any]) -> None:
        """Write params.json, every key as it is in force."""
        text = json.dumps(resolved, indent=2) + "\n"
        write_whole(self.params, lambda file: file.write(text.encode()))

    def own(self) -> None:
        """Take the run for this process until it ends, however it ends; RunError names another owner.

        A POSIX record lock: it dies with the process and is not inherited by its workers. It also goes when the
        process closes the file by another handle, so an owner never asks `owned`.
        """
        lock = (self.path / "lock").open("ab")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise RunError(f"{self.path}: already running as process {self.read_status().get('pid')}; stop it with "
                           "--operation stop_train") from None
        self._lock = lock
        with suppress(OSError, ValueError):  # a run whose status is missing or damaged begins a new one
            self._facts = json.loads(self._status.read_text())

    def release(self) -> None:
        """Give the run up; without it the run is given up when the process ends."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def owned(self) -> bool:
        """Whether some other process holds the run now."""
        try:
            with (self.path / "lock").open("r+b") as lock:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def update_status(self, **facts: Any) -> None:
        """Write status.json: what this process has said of the run so far, with these facts."""
        self._facts.update(facts, pid=os.getpid(), host=socket.gethostname(), heartbeat=time.time())
        text = json.dumps(self._facts) + "\n"
        write_whole(self._status, lambda file: file.write(text.encode()), durable=False)

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one object to metrics.jsonl; `epoch` and `step` say where the run then stood."""
        with explained(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read_status(self) -> dict[str, Any]:
        """status.json as it is, with state "dead" where its process is gone; RunError when there is no run."""
        try:
            status: dict[str, Any] = json.loads(self._status.read_text())
        except FileNotFoundError:
            raise RunError(f"{self.path}: no such run; --operation list shows the runs there are") from None
        except ValueError:
            raise RunError(f"{self._status}: damaged; resume the run to write it anew") from None
        if status["state"] in ALIVE and not self._alive(status):
            status["state"] = "dead"
        return status

    def _alive(self, status: dict[str, Any]) -> bool:
        if status["host"] != socket.gethostname():
            return time.time() - float(status["heartbeat"]) < SILENCE
        launching = status["state"] == "starting" and _process_exists(status["pid"])
        return status["pid"] == os.getpid() or launching or self.owned()


def run_directory(working_dir: Path, name: str | None) -> RunDirectory:
    """The run of that name (default: the time, UTC); ParamsError unless the name is one path component."""
    name = name or datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    if not re.fullmatch(r"[^/\\\0]+", name) or name in (".", ".."):
        raise ParamsError("--sub_working_dir", [Mistake((), f'expected one folder name, found "{name}"')])
    return RunDirectory(working_dir / name)


def all_runs(working_dir: Path) -> list[RunDirectory]:
    """Every run below a working directory, by name."""
    return [RunDirectory(status.parent) for status in sorted(working_dir.glob("*/status.json"))]


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
