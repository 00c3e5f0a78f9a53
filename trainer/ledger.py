"""Which epoch is the best, and proof that best.pth is that epoch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.files import write_whole
from trainer.snapshot import SnapshotError, State, digest, load_snapshot, save_snapshot


def monitored(metrics: Mapping[str, float], monitor: str | None) -> str:
    """The metric by which the best is chosen: the one asked for, else the first."""
    return monitor or next(iter(metrics))


class Ledger:
    """Every evaluation's metrics by epoch, and the best of them by one metric.

    A snapshot must be strictly better to replace the best one. best.pth is written before the ledger; where a
    crash came between the two, opening the ledger takes the newer epoch from best.pth itself.
    """

    def __init__(self, folder: Path, *, monitor: str | None, mode: str) -> None:
        self.best_path = folder / "best.pth"
        self._last_path = folder / "last.pth"
        self._path = folder / "ledger.json"
        self._monitor = monitor
        self._sign = 1.0 if mode == "max" else -1.0
        self._mode = mode
        self._entries: dict[int, dict[str, float]] = {}
        self._best_epoch: int | None = None
        self._digest = ""
        if self._path.is_file() or self.best_path.is_file():
            self._read()

    @property
    def best(self) -> dict[str, Any] | None:
        """{metric, value, epoch} of the best snapshot so far; None before the first evaluation."""
        if self._best_epoch is None:
            return None
        metric = self._metric()
        return {"metric": metric, "value": self._entries[self._best_epoch][metric], "epoch": self._best_epoch}

    def keep_last(self, state: State) -> None:
        """Write last.pth."""
        save_snapshot(self._last_path, state)

    def record(self, epoch: int, state: State) -> bool:
        """Enter an epoch's metrics, state["metrics"]; keep its snapshot and answer True when it is the best."""
        metrics: dict[str, float] = state["metrics"]
        better = self._better(metrics)
        if better or epoch != self._best_epoch:  # a repeated best epoch keeps the values of the weights on disk
            self._entries[epoch] = dict(metrics)
        if better:
            self._best_epoch = epoch
            save_snapshot(self.best_path, state)
            self._digest = digest(self.best_path)
        self._write()
        return better

    def _better(self, metrics: dict[str, float]) -> bool:
        if self._best_epoch is None:
            return True
        metric = self._metric()
        return self._sign * metrics[metric] > self._sign * self._entries[self._best_epoch][metric]

    def _metric(self) -> str:
        return monitored(next(iter(self._entries.values())), self._monitor)

    def _write(self) -> None:
        entries = [{"epoch": epoch, "metrics": metrics} for epoch, metrics in sorted(self._entries.items())]
        best = {**(self.best or {}), "mode": self._mode, "sha256": self._digest}
        text = json.dumps({"best": best, "entries": entries}, indent=1)
        write_whole(self._path, lambda file: file.write(text.encode()))

    def _read(self) -> None:
        if not self.best_path.is_file():
            raise SnapshotError(f"{self.best_path}: missing, but the ledger beside it names it; put it back")
        ledger = json.loads(self._path.read_text()) if self._path.is_file() else {"entries": [], "best": {}}
        self._entries = {entry["epoch"]: entry["metrics"] for entry in ledger["entries"]}
        self._best_epoch = ledger["best"].get("epoch")
        self._digest = digest(self.best_path)
        if self._digest != ledger["best"].get("sha256"):
            state = load_snapshot(self.best_path)
            self._best_epoch = state["epoch"]
            self._entries[state["epoch"]] = state["metrics"]
