"""Contradictions between sections of params.json that each hold by themselves."""

import math
import re
from collections.abc import Iterator
from typing import cast

import torch

from params.errors import Mistake
from params.schema import Params
from params.sugar import BATCH, batch_factors
from trainer import build
from trainer.losses import LOSSES
from trainer.output import Loss
from trainer.stages import Freezer, too_long

CLASSES = 10  # any number serves to see whether the network can be built


def device_is_there(params: Params) -> Iterator[Mistake]:
    """A GPU that is asked for exists on this host."""
    if params.device == "cuda" and not params.parallels:
        yield Mistake(("device",), 'expected a GPU id in "parallels" beside "cuda", found []; e.g. "parallels": [0]')
    if params.device == "cpu":
        return
    there = torch.cuda.device_count()
    for i, gpu in enumerate(params.parallels):
        if gpu in params.parallels[:i]:
            yield Mistake(("parallels", i), f"GPU {gpu} asked twice; each process needs one of its own")
        if gpu >= there:
            yield Mistake(("parallels", i), f"GPU {gpu} asked, this host has {there}; use [] for the CPU")


def batch_size_is_the_samplers(params: Params) -> Iterator[Mistake]:
    """batch_size says the same as the sampler's own keys."""
    sampler, options = params.batch_sampling_params.choice
    factors = batch_factors(sampler, options)
    expected = math.prod(factors)
    if factors and params.batch_size != expected:
        names, numbers = (" x ".join(map(str, row)) for row in (BATCH[sampler], factors))
        keys = " or ".join(name for name in BATCH[sampler] if isinstance(name, str))
        yield Mistake(("batch_size",), f"expected {names} = {numbers} = {expected}, found {params.batch_size}; leave "
                      f"it out, or change {keys}")


def batch_has_two_images(params: Params) -> Iterator[Mistake]:
    """Batch norm divides by the spread within a batch, and one image has none."""
    least, processes = 2 * params.processes, params.processes
    if params.whole_batch < least:
        each = f" in each of {processes} processes" if processes > 1 else ""
        yield Mistake(("batch_size",), f"expected at least 2 images{each} for batch norm to compare, found "
                      f"{params.whole_batch}{' in all' if each else ''}; raise it, or P or K when class-balanced")


def batch_norm_parts_are_batches(params: Params) -> Iterator[Mistake]:
    """Every part of a batch can be normalised by itself, and the parts' outputs joined."""
    parts, path = params.batch_norm_parts, ("batch_norm_parts",)
    if parts == 1:
        return
    if params.batch_size < 2 * parts:
        yield Mistake(path, f"expected 2 images a part or more, found batch_size {params.batch_size} in {parts} parts; "
                      "lower it or raise batch_size")
    if params.model_params.random_drop_branches:
        yield Mistake(path, "every part would drop other branches than the next; leave it out, or set "
                      "model_params.random_drop_branches 0")
    if len(params.parallels) > 1:
        yield Mistake(path, f"the parts are one process's, {len(params.parallels)} asked in parallels; leave it out, "
                      "or name one GPU")


def patterns_can_be_read(params: Params) -> Iterator[Mistake]:
    """Names of weights are found by regular expressions."""
    rules = [(("parameter_rules", i, "match"), rule.match) for i, rule in enumerate(params.parameter_rules)]
    stages = [(("stages", i, "freeze", j), pattern)
              for i, stage in enumerate(params.stages) for j, pattern in enumerate(stage.freeze)]
    for path, pattern in [*rules, *stages]:
        try:
            re.compile(pattern)
        except re.error as error:
            yield Mistake(path, f"expected a regular expression, found {pattern!r}: {error}")


def stages_fit_the_epochs(params: Params) -> Iterator[Mistake]:
    """Every stage has epochs of the run."""
    i = too_long(params)
    if i is not None:
        yield Mistake(("stages", i, "epochs"), f"the stages up to this one are longer than the run, which has epoch "
                      f"{params.epoch}; shorten one, or raise epoch")


def margins_are_made_and_read(params: Params) -> Iterator[Mistake]:
    """Losses that read margins have a network that makes them, and the other way round."""
    losses = [cast(type[Loss], LOSSES.load(section.type)) for section in params.losses]
    reading = [i for i, loss in enumerate(losses) if loss.reads_margins]
    made = params.model_params.margin is not None
    if reading and not made:
        name = params.losses[reading[0]].type
        yield Mistake(("losses", reading[0]), f'"{name}" reads margins, and the network makes none; '
                      'give model_params.margin, e.g. "nn"')
    if made and not reading:
        yield Mistake(("model_params", "margin"), "no loss reads the margins, so that they would never be trained; "
                      'leave it out, or take a loss that does, e.g. "uc-tri-n"')


def triplets_are_made(params: Params) -> Iterator[Mistake]:
    """What reads anchors, positives and negatives gets batches that are made of them."""
    made = params.batch_sampling_params.type == "triplet_items"
    remedy = 'take batch_sampling_params.type "triplet_items"'
    for i, section in enumerate(params.losses):
        reads = cast(type[Loss], LOSSES.load(section.type)).triplets
        if reads and not made:
            yield Mistake(("losses", i), f'"{section.type}" reads a positive and a negative of each anchor; {remedy}')
        if section.of == "anchors" and not made:
            yield Mistake(("losses", i, "of"), f'only batches of triplets have anchors; {remedy}, or leave it out')
        if section.of == "anchors" and reads:
            yield Mistake(("losses", i, "of"), f'"{section.type}" reads positives and negatives too; leave it out')


def one_kind_of_classifier(params: Params) -> Iterator[Mistake]:
    """All losses that read logits read the same ones."""
    try:
        build.classifier(params)
    except ValueError as error:
        yield _told(error, "losses")


def network_can_be_built(params: Params) -> Iterator[Mistake]:
    """Backbone, neck, stripes and image size fit together, and so do each loss's keys."""
    if list(one_kind_of_classifier(params)) or list(patterns_can_be_read(params)):
        return  # told by its own rule
    section = "model_params"
    try:
        with torch.device("meta"):
            network = build.training_network(params, CLASSES)
            section = "losses"
            criterion = build.criterion(params, network, CLASSES)
            freezer = Freezer(network, criterion)
            for i, stage in enumerate(params.stages):
                section = f"stages[{i}].freeze"
                freezer.freeze(stage.freeze)
            freezer.freeze(())
            section = "parameter_rules"
            build.optimizer(params, network, criterion)
    except ValueError as error:
        yield _told(error, section)


def augmentation_can_be_built(params: Params) -> Iterator[Mistake]:
    """Preprocessing and augmentation fit the image size and each other."""
    try:
        build.augmentation(params)
    except ValueError as error:
        yield _told(error, "data_augmentation")


def _told(error: ValueError, section: str) -> Mistake:
    """A plug-in's own words, which begin with the key that is wrong; else the section is put before them."""
    words = str(error)
    named = words.startswith(("preprocess", "data_augmentation", "model_params", "losses", "parameter_rules", "stages",
                              "sync_batch_norm"))
    return Mistake(() if named else (section,), words)


RULES = (device_is_there, batch_size_is_the_samplers, batch_has_two_images, batch_norm_parts_are_batches,
         patterns_can_be_read, stages_fit_the_epochs, margins_are_made_and_read, triplets_are_made,
         one_kind_of_classifier, augmentation_can_be_built, network_can_be_built)
