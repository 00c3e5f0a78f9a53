"""What a run writes while it goes on: metrics.jsonl, event files, the log and status.json."""

import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar
from tqdm import tqdm

from deploy.files import explained, write_whole
from trainer.run import RunDirectory

log = logging.getLogger("kiln")
HEARTBEAT = 1.0  # seconds between two writings of status.json


class Recorder:
    """One line of metrics.jsonl and one point of every curve per logged step and per evaluation.

    What was recorded beyond the given epoch and step is dropped: the run will record it again.
    """

    def __init__(self, run: RunDirectory, *, epoch: int, step: int, epochs: int, steps: int) -> None:
        self._run = run
        self._steps = steps
        self._epochs = epochs
        self._started = (time.monotonic(), step)
        self._beat = 0.0
        self._speed: float | None = None
        _drop_after(run, epoch, step)
        self._events = _event_file(run, step)
        self._bar = tqdm(total=steps, initial=step, unit="step", disable=None)  # None: only on a terminal

    def step(self, epoch: int, step: int, scalars: Mapping[str, float]) -> None:
        """A logged step."""
        self._write({"epoch": epoch, "step": step, **scalars}, step, scalars)
        losses = "  ".join(f"{name} {value:.4g}" for name, value in scalars.items() if name.startswith("loss"))
        log.info("epoch %d/%d  step %d/%d  %s  %.0f images/s", epoch, self._epochs, step, self._steps, losses,
                 scalars["images_per_second"])
        self._speed = round(scalars["images_per_second"], 1)

    def evaluation(self, epoch: int, step: int, metrics: Mapping[str, float], seconds: float) -> None:
        """An evaluation after `epoch` epochs; epoch 0 is the network before its first step."""
        self._write({"epoch": epoch, "step": step, "evaluation": dict(metrics), "seconds": round(seconds, 3)},
                    step, {f"evaluation/{name}": value for name, value in metrics.items()})
        log.info("epoch %d/%d  %s", epoch, self._epochs, "  ".join(f"{k} {v:.4f}" for k, v in metrics.items()))

    def heartbeat(self, epoch: int, step: int) -> None:
        """Say in status.json how far the run is; at most once a second."""
        self._bar.update(step - self._bar.n)
        now = time.monotonic()
        if now - self._beat < HEARTBEAT:
            return
        self._beat = now
        elapsed, taken = now - self._started[0], step - self._started[1]
        eta = round(elapsed / taken * (self._steps - step)) if taken else None
        self._run.update_status(
            state="running" if taken else "starting", epoch=epoch, step=step, steps=self._steps,
            images_per_second=self._speed, eta_seconds=eta)

    def close(self) -> None:
        """Flush and close the files."""
        self._bar.close()
        self._events.close()

    def _write(self, line: dict[str, Any], step: int, curves: Mapping[str, float]) -> None:
        self._run.append_metrics(line)
        with explained(self._run.path / "events.out.tfevents"):
            for name, value in curves.items():
                summary = scalar(name.replace("@", "_"), value)  # TensorBoard's names know no @
                self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            self._events.flush()


def _event_file(run: RunDirectory, step: int) -> EventsWriter:
    """An event file that hides what earlier ones say beyond `step`.

    tensorboardX's SummaryWriter writes from a thread, which a full disk kills and then blocks the run: hence
    the synchronous writer beneath it.
    """
    events = EventsWriter(str(run.path / "events"), f".{step}.{os.getpid()}")
    if step:
        events.write_event(Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START)))
    return events


def _drop_after(run: RunDirectory, epoch: int, step: int) -> None:
    def stays(line: Mapping[str, Any]) -> bool:
        again = "evaluation" in line and line["epoch"] > epoch
        return 0 < step >= line["step"] and not again

    if run.metrics.is_file():
        kept = "".join(f"{json.dumps(line)}\n" for line in run.read_metrics() if stays(line))
        write_whole(run.metrics, lambda file: file.write(kept.encode()))
