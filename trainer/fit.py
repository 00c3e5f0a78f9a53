"""The training loop: a page to read from top to bottom."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from data.records import Batch, Predict
from trainer import ranks
from trainer.clock import Clock
from trainer.ledger import Ledger
from trainer.output import Output
from trainer.record import Recorder
from trainer.run import RunDirectory
from trainer.scoring import Evaluate
from trainer.sentinel import Collapse, NonFinite, embedding_spread, finite_metrics, finite_weights
from trainer.snapshot import State
from trainer.training import Training


@dataclass
class Fit:
    """One run being trained: what is trained, how it is measured, and where it is written."""

    training: Training
    run: RunDirectory
    recorder: Recorder
    ledger: Ledger
    evaluate: Evaluate | None
    predict: Predict
    between: Callable[[], None]  # raises Stopped when the run was asked to stop
    non_finite: NonFinite = field(default_factory=NonFinite)
    collapse: Collapse = field(default_factory=Collapse)

    def fit(self) -> None:
        """Train from where the training stands to its last epoch.

        Whatever is raised, the last good snapshot is in place; Stopped leaves one of the step it came after.
        """
        training = self.training
        if training.step == 0 and self._initial():
            self._measure(epoch=0)
        while training.epoch < training.params.epoch:
            self._train_epoch()
            metrics = self._measure(epoch=training.epoch + 1) if self._due() else None
            training.epoch, training.batch = training.epoch + 1, 0
            if metrics is not None:
                training.metrics = metrics
                if training.stages.at(training.epoch - 1).best:
                    self.ledger.record(training.epoch, self._good_state())
                self.run.update_status(best=self.ledger.best)
            self.snapshot()

    def snapshot(self) -> None:
        """Write last.pth."""
        self.ledger.keep_last(self._good_state())

    def _good_state(self) -> State:
        """The training's state; TrainingError when there is anything in it that is not finite."""
        self.non_finite.settle()
        state = self.training.state()
        finite_weights(state, self.training.epoch, self.training.step)
        return state

    def _train_epoch(self) -> None:
        """One pass over the training images, from the batch where the training stands."""
        training, params = self.training, self.training.params
        training.begin_epoch()
        clock = Clock()
        for batches in clock.waiting(training.groups()):
            self.between()
            training.set_rates()
            scalars, output = take_step(training, batches)
            training.batch += len(batches)
            training.step += 1
            losses = {name: value for name, value in scalars.items() if name.startswith("loss")}
            self.non_finite.watch(training.epoch + 1, training.step, losses)
            clock.images += sum(len(batch.labels) for batch in batches)
            if training.step % params.log_every == 0 or training.step == 1:
                self._log(scalars, output, clock)
            self.recorder.heartbeat(training.epoch, training.step)
            if params.snapshot_every and training.step % params.snapshot_every == 0:
                self.snapshot()
        self.non_finite.settle()

    def _log(self, scalars: Mapping[str, Tensor], output: Output, clock: Clock) -> None:
        training = self.training
        spread = float(embedding_spread(output.embedding))
        values = {name: float(value) for name, value in scalars.items()}
        rates = {f"lr/{group['name']}": group["lr"] for group in training.optimizer.param_groups}
        self.recorder.step(training.epoch + 1, training.step, {
            **values, **rates, "embedding_spread": spread, **clock.lap()})
        self.collapse.watch(training.epoch + 1, training.step, spread)

    def _initial(self) -> bool:
        evaluation = self.training.params.evaluation_params
        return evaluation is not None and evaluation.initial

    def _due(self) -> bool:
        params = self.training.params
        if self.evaluate is None or params.evaluation_params is None:
            return False
        done = self.training.epoch + 1
        return done % params.evaluation_params.every == 0 or done == params.epoch

    def _measure(self, epoch: int) -> dict[str, float]:
        assert self.evaluate is not None
        began = time.monotonic()
        ranks.take_buffers_of_first(self.training.deployed)
        metrics = finite_metrics(self.evaluate(self.predict))
        self.recorder.evaluation(epoch, self.training.step, metrics, time.monotonic() - began)
        return metrics


def take_step(training: Training, batches: list[Batch]) -> tuple[dict[str, Tensor], Output]:
    """One optimiser step over the mean loss of `batches`; the scalars' means and the last batch's output.

    Dropout draws from (seed, step), so that a resumed run draws the same.
    """
    params = training.params
    torch.manual_seed((params.seed << 32) + training.step)
    training.criterion.set_step(training.step)
    training.optimizer.zero_grad(set_to_none=True)
    reported: list[dict[str, Tensor]] = []
    for i, batch in enumerate(map(training.to_device, batches), 1):
        with ranks.sharing(training.forward, now=i == len(batches)):
            loss, scalars, output = training.forward(batch)
            training.scaler.scale(loss / len(batches)).backward()
        reported.append({"loss": loss.detach(), **scalars})
    if params.gradient_clip:
        training.scaler.unscale_(training.optimizer)
        clip_grad_norm_(
            [p for group in training.optimizer.param_groups for p in group["params"]], params.gradient_clip)
    training.scaler.step(training.optimizer)
    training.scaler.update()
    if training.averaged is not None:
        training.averaged.update_parameters(training.network)
    return {name: torch.stack([scalars[name] for scalars in reported]).mean(dim=0) for name in reported[0]}, output
