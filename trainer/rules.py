"""Contradictions between sections of params.json that each hold by themselves."""

from collections.abc import Iterator

import torch

from params.errors import Mistake
from params.schema import Params
from trainer import build

CLASSES = 10  # any number serves to see whether the network can be built


def one_process(params: Params) -> Iterator[Mistake]:
    """Training runs in one process for now."""
    if len(params.parallels) > 1:
        yield Mistake(("parallels",), f"one process trains for now, {len(params.parallels)} asked; name one GPU, or [] "
                      "for the CPU, and use gradient_accumulation for larger batches")


def device_is_there(params: Params) -> Iterator[Mistake]:
    """A GPU that is asked for exists on this host."""
    if params.device == "cuda" and not params.parallels:
        yield Mistake(("device",), 'expected a GPU id in "parallels" beside "cuda", found []; e.g. "parallels": [0]')
    if params.device == "cpu":
        return
    there = torch.cuda.device_count()
    for i, gpu in enumerate(params.parallels):
        if gpu >= there:
            yield Mistake(("parallels", i), f"GPU {gpu} asked, this host has {there}; use [] for the CPU")


def batch_is_p_times_k(params: Params) -> Iterator[Mistake]:
    """batch_size says the same as P x K."""
    options = params.batch_sampling_params.choice.options
    if params.batch_sampling_params.type == "pk" and params.batch_size != options["P"] * options["K"]:
        p, k = options["P"], options["K"]
        yield Mistake(("batch_size",), f"expected P x K = {p} x {k} = {p * k}, found {params.batch_size}; "
                      "leave it out, or change P or K")


def batch_has_two_images(params: Params) -> Iterator[Mistake]:
    """Batch norm divides by the spread within a batch, and one image has none."""
    if params.batch_size == 1:
        yield Mistake(("batch_size",), "expected at least 2 images for batch norm to compare, found 1; raise it, or P "
                      "or K when class-balanced")


def one_kind_of_classifier(params: Params) -> Iterator[Mistake]:
    """All losses that read logits read the same ones."""
    try:
        build.classifier(params)
    except ValueError as error:
        yield _told(error, "losses")


def network_can_be_built(params: Params) -> Iterator[Mistake]:
    """Backbone, neck, stripes and image size fit together, and so do each loss's keys."""
    if list(one_kind_of_classifier(params)):
        return  # told by its own rule
    section = "model_params"
    try:
        with torch.device("meta"):
            network = build.network(params, CLASSES)
            section = "losses"
            build.criterion(params, network, CLASSES)
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
    named = words.startswith(("preprocess", "data_augmentation", "model_params", "losses"))
    return Mistake(() if named else (section,), words)


RULES = (one_process, device_is_there, batch_is_p_times_k, batch_has_two_images, one_kind_of_classifier,
         augmentation_can_be_built, network_can_be_built)
