"""A run's directory: its files, its owner and its state."""

import fcntl
import json
import os
import re
import socket
import struct
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from deploy.files import explained, write_whole
from params.errors import Mistake, ParamsError

ALIVE = ("starting", "running", "stopping")
FLOCK = "hhqqi4x"  # Linux's struct flock: type, whence, start, length, pid
SILENCE = 300.0  # seconds without a heartbeat after which a run on another host counts as dead


class RunError(RuntimeError):
    """The state of a run forbids what was asked: one line with the run and the remedy."""

    exit_code = 4


class RunDirectory:
    """`<working_dir>/<sub_working_dir>` and its files: params.json, metrics.jsonl, status.json, snapshots/, ..."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.params = path / "params.json"
        self.log = path / "train_log"
        self.metrics = path / "metrics.jsonl"
        self.report = path / "report.html"
        self.snapshots = path / "snapshots"
        self.last = self.snapshots / "last.pth"
        self.best = self.snapshots / "best.pth"
        self._status = path / "status.json"
        self._lock_path = path / "lock"
        self._lock: IO[bytes] | None = None
        self._pid = os.getpid()

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
            self.snapshots.mkdir(parents=True)
        except OSError as error:
            mistake = Mistake(("working_dir",), f"{self.path} cannot be made: {error.strerror}")
            raise ParamsError("params.json", [mistake]) from None
        self.write_params(resolved)
        self.update_status(state="starting", epoch=0, step=0, steps=None, images_per_second=None, eta_seconds=None,
                           best=None, error=None)

    def write_params(self, resolved: dict[str, Any]) -> None:
        """Write params.json, every key as it is in force."""
        text = json.dumps(resolved, indent=2) + "\n"
        write_whole(self.params, lambda file: file.write(text.encode()))

    def own(self) -> None:
        """Take the run for this process until it ends, however it ends; RunError names another owner.

        A POSIX record lock: it dies with the process and is not inherited by its workers.
        """
        with explained(self._lock_path):
            lock = self._lock_path.open("ab")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise RunError(f"{self.path}: already running as process {self.owner()}; stop it with "
                           "--operation stop_train") from None
        self._lock = lock

    def release(self) -> None:
        """Give the run up; without it the run is given up when the process ends."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def join(self) -> None:
        """Write for this process's parent, which owns the run; RunError where it does not."""
        self._pid = os.getppid()
        if self.owner() != self._pid:
            raise RunError(f"{self.path}: not the run of process {self._pid}, which started this one; use --operation "
                           "train or resume_train")

    def owner(self) -> int | None:
        """The process of this host that holds the run, or None; the lock is asked, never taken.

        Not for the owner itself: a process that closes a file loses its record locks on it.
        """
        question = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        try:
            with self._lock_path.open("rb") as lock:
                kind, _, _, _, pid = struct.unpack(FLOCK, fcntl.fcntl(lock, fcntl.F_GETLK, question))
        except OSError:
            return None
        return None if kind == fcntl.F_UNLCK else int(pid)

    def update_status(self, **facts: Any) -> None:
        """Write status.json: what was last said of the run, with these facts."""
        facts = {**self._said(), **facts, "pid": self._pid, "host": socket.gethostname(), "heartbeat": time.time()}
        text = json.dumps(facts) + "\n"
        write_whole(self._status, lambda file: file.write(text.encode()), durable=False)

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one object to metrics.jsonl; `epoch` and `step` say where the run then stood."""
        with explained(self.metrics), self.metrics.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # a crash or a full disk cut the last line short
                    file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Every line of metrics.jsonl but those that a crash, a full disk or a writer at work has cut short."""
        found = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.is_file() else []:
            with suppress(ValueError):
                found.append(json.loads(line))
        return found

    def read_status(self) -> dict[str, Any]:
        """status.json as it is, with state "dead" where its process is gone; RunError when there is no run."""
        if not self._status.is_file():
            raise RunError(f"{self.path}: no such run; --operation list shows the runs there are")
        status = self._said()
        if status["state"] in ALIVE and not self._alive(status):
            status["state"] = "dead"
        return status

    def _said(self) -> dict[str, Any]:
        """What status.json says; of a damaged one, that the run is dead."""
        try:
            said: dict[str, Any] = json.loads(self._status.read_text())
        except (OSError, ValueError):
            return {"state": "dead"}
        return said

    def _alive(self, status: dict[str, Any]) -> bool:
        if status["host"] != socket.gethostname():
            return time.time() - float(status["heartbeat"]) < SILENCE
        launching = status["state"] == "starting" and _process_exists(status["pid"])
        return status["pid"] == os.getpid() or launching or self.owner() is not None


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
