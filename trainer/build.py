"""From params.json to objects: the one place that knows which section makes which part."""

from typing import cast

import numpy as np
import torch

from data.augment import Augment
from data.records import BatchSampler
from data.samplers import SAMPLERS
from deploy.preprocess import Preprocessing
from params.plugin import Table
from params.schema import Params
from trainer import ranks
from trainer.backbones import BACKBONES
from trainer.batch_norm import synchronised
from trainer.classifiers import ClassifierKind
from trainer.criterion import Criterion, Term, classifier_of
from trainer.losses import LOSSES
from trainer.margins import MARGINS
from trainer.model import Embedder, build_embedder, group_of
from trainer.necks import NECKS
from trainer.optim import OPTIMIZERS, build_optimizer
from trainer.output import Loss
from trainer.pooling import POOLINGS
from trainer.schedule import SCHEDULES
from trainer.stages import Stages


def tables(evaluators: Table) -> dict[str, Table]:
    """Every table of plug-ins that params.json can choose from, by the name its section gives."""
    return {
        "augmentation": Table("augmentation", {"images": "data.augment:Augment"}),
        "backbone": BACKBONES,
        "evaluator": evaluators,
        "loss": LOSSES,
        "margin": MARGINS,
        "neck": NECKS,
        "optimizer": OPTIMIZERS,
        "pooling": POOLINGS,
        "preprocessing": Table("preprocessing", {"images": "deploy.preprocess:Preprocessing"}),
        "sampler": SAMPLERS,
        "schedule": SCHEDULES,
    }


def devices(params: Params) -> list[torch.device]:
    """Where each process's network runs."""
    on_gpu = params.parallels and params.device != "cpu"
    gpus = [torch.device("cuda", gpu) for gpu in params.parallels]
    return gpus if on_gpu else [torch.device("cpu")] * params.processes


def device(params: Params) -> torch.device:
    """Where this process's network runs."""
    return devices(params)[ranks.share().rank]


def preprocessing(params: Params) -> Preprocessing:
    """From encoded image to network pixels."""
    return Preprocessing(params.img_h, params.img_w, **params.preprocess.choice.options)


def augmentation(params: Params) -> Augment:
    """Preprocessing with the training's augmentation."""
    return Augment(preprocessing(params), **params.data_augmentation.choice.options)


def sampler(params: Params, labels: np.ndarray) -> BatchSampler:
    """Which images form which batch."""
    batches: BatchSampler = SAMPLERS.build(
        params.batch_sampling_params.choice, labels=labels, seed=params.seed, batch_size=params.whole_batch)
    return batches


def network(params: Params, num_classes: int) -> Embedder:
    """The network with fresh weights, which depend on the seed alone."""
    torch.manual_seed(params.seed)
    pixels = preprocessing(params)
    return build_embedder(
        params.model_params, classifier=classifier(params), num_classes=num_classes, height=params.img_h,
        width=params.img_w, mean=pixels.mean, std=pixels.std, batch_norm_parts=params.batch_norm_parts)


def training_network(params: Params, num_classes: int) -> Embedder:
    """The network as it is trained: where several processes do so, its batch norms may see the images of all."""
    built = network(params, num_classes)
    return synchronised(built, device(params)) if params.processes > 1 and params.sync_batch_norm else built


def classifier(params: Params) -> ClassifierKind | None:
    """The kind of classifier whose logits the losses read; ValueError when they read two."""
    return classifier_of((section.type, cast(type[Loss], LOSSES.load(section.type))) for section in params.losses)


def criterion(params: Params, embedder: Embedder, num_classes: int) -> Criterion:
    """The weighted losses."""
    return Criterion([
        Term(section.type, LOSSES.build(
            section.choice, embedding_dim=embedder.embedding_dim, num_classes=num_classes), section.weight, section.of)
        for section in params.losses
    ])


def stages(params: Params, steps_per_epoch: int) -> Stages:
    """What trains when and at which rates; the sampler "pk" counts steps, others epochs, unless told."""
    unit = "step" if params.batch_sampling_params.type == "pk" else "epoch"
    return Stages(params, unit, steps_per_epoch)


def optimizer(params: Params, embedder: Embedder, losses: Criterion) -> torch.optim.Optimizer:
    """The optimiser: the backbone at base_lr, everything else at fc_lr, and what parameter_rules say."""
    named = [(group_of(name), name, weight) for name, weight in embedder.named_parameters()]
    named += [("losses", name, weight) for name, weight in losses.named_parameters()]
    return build_optimizer(params.optimizer.choice, named, params.parameter_rules, params.weight_decay)
