"""Everything that one run consists of while it is trained, and its state as plain types."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from data.archive import Images
from data.loader import TrainLoader
from data.records import Batch, DataError
from params.schema import Params
from trainer import build, ranks
from trainer.optim import set_learning_rate
from trainer.snapshot import State
from trainer.stages import Freezer, Span
from trainer.step import Step

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Training:
    """Network, losses, optimiser, loader and position of one run; every part follows from the params alone.

    `epoch` epochs are done, `batch` batches of the next one, and `step` optimiser steps in all.
    """

    def __init__(self, params: Params, resolved: dict[str, Any], archive: Images, device: torch.device) -> None:
        self.params = params
        self.device = device
        self.epoch = self.batch = self.step = 0
        self.metrics: dict[str, float] = {}
        self.class_names = archive.class_names
        self._data = str(archive)
        self._resolved = resolved
        self.network = build.training_network(params, len(archive.class_names)).to(device)
        self.criterion = build.criterion(params, self.network, len(archive.class_names)).to(device)
        if params.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = self._average() if params.ema_decay else None
        network = cast(nn.Module, torch.compile(self.network)) if params.compile else self.network
        self._step = Step(network, self.criterion, self.autocast)
        self.forward: nn.Module = self._step
        self.optimizer = build.optimizer(params, self.network, self.criterion)
        self.freezer = Freezer(self.network, self.criterion)
        self.scaler = torch.amp.GradScaler(device.type, enabled=params.precision == "fp16")
        self.loader = TrainLoader(
            archive, build.sampler(params, archive.labels), build.augmentation(params), seed=params.seed,
            workers=params.num_preprocess_workers, start_method=params.worker_start, pin_memory=device.type == "cuda",
            share=ranks.share())
        self.steps_per_epoch = -(-len(self.loader) // params.gradient_accumulation)
        self.stages = build.stages(params, self.steps_per_epoch)
        self._stage: Span | None = None

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * self.params.epoch

    @property
    def deployed(self) -> torch.nn.Module:
        """The network that is evaluated and exported."""
        return self.network if self.averaged is None else self.averaged.module

    def autocast(self) -> AbstractContextManager[None]:
        """The arithmetic of the forward pass."""
        mixed = self.params.precision != "fp32"
        return torch.autocast(self.device.type, DTYPES[self.params.precision], enabled=mixed)

    def begin_epoch(self) -> None:
        """Training mode, with what rests in the epoch's stage at rest."""
        stage = self.stages.at(self.epoch)
        if stage is not self._stage:  # what trains has changed, and with it whose gradients are shared
            self._stage = stage
            self.freezer.freeze(stage.freeze)
            self.forward = ranks.with_shared_gradients(self._step)
        self.network.train()

    def set_rates(self) -> None:
        """The learning rates of the next step."""
        set_learning_rate(self.optimizer, self.stages.at(self.epoch).lr, self.stages.factor(self.epoch, self.step))

    def groups(self) -> Iterator[list[Batch]]:
        """The batches of the epoch's remaining steps, as many a step as gradients are accumulated over."""
        batches = self.loader.epoch(self.epoch, first=self.batch)
        while group := list(islice(batches, self.params.gradient_accumulation)):
            yield group

    def to_device(self, batch: Batch) -> Batch:
        """The batch on the run's device."""
        return Batch(*(tensor.to(self.device, non_blocking=True) for tensor in batch))

    def state(self) -> State:
        """All that the next step depends on."""
        return {
            "params": self._resolved, "class_names": self.class_names, "metrics": self.metrics,
            "epoch": self.epoch, "batch": self.batch, "step": self.step,
            "network": self.network.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.module.state_dict(),
            "criterion": self.criterion.state_dict(), "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: State) -> None:
        """Continue from a state of the same run; rates, decay and momentum are those of the params.

        DataError when the data has other classes than the state was trained on.
        """
        if state["class_names"] != self.class_names:
            raise DataError(f"{self._data}: its classes are not those of the snapshot; give the data that "
                            "the run was trained on, or begin a new run")
        self.epoch, self.batch, self.step = state["epoch"], state["batch"], state["step"]
        self.metrics = state["metrics"]
        self.network.load_state_dict(state["network"])
        if self.averaged is not None:
            self.averaged.module.load_state_dict(state["averaged"])
            self.averaged.n_averaged.fill_(self.step)
        self.criterion.load_state_dict(state["criterion"])
        own = [{key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, options in zip(self.optimizer.param_groups, own, strict=True):
            group.update(options)
        if state["scaler"]:  # empty where the run has not been in fp16 so far
            self.scaler.load_state_dict(state["scaler"])

    def _average(self) -> AveragedModel:
        decay = self.params.ema_decay
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        return AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
