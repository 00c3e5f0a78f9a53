"""The weights that a new run starts from."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from params.errors import Mistake, ParamsError
from params.schema import Params
from trainer import build
from trainer.model import Embedder
from trainer.pretrained import LoadReport, load_imagenet, load_pretrained


def initial_weights(network: Embedder, params: Params) -> list[str]:
    """Load what the params name into a fresh network; a line for each file, ParamsError where one does not fit."""
    told = []
    if params.imagenet_pretrain:
        source: Literal[True] | Path = True
        if isinstance(params.imagenet_pretrain, str):
            source = Path(params.imagenet_pretrain)
        told.append(_loaded("imagenet_pretrain", lambda: load_imagenet(network.backbone, source)))
    if snapshot := params.pretrain_snapshot:
        told.append(_loaded("pretrain_snapshot", lambda: load_pretrained(
            network, Path(snapshot.path), strict=snapshot.strict, min_coverage=snapshot.min_coverage)))
    return told


def weights_can_be_loaded(params: Params, num_classes: int) -> list[str]:
    """What loading the initial weights will say; ParamsError where they do not fit."""
    if not (params.imagenet_pretrain or params.pretrain_snapshot):
        return []
    return initial_weights(build.network(params, num_classes), params)


def _loaded(key: str, load: Callable[[], LoadReport]) -> str:
    try:
        return f"{key}: {load()}"
    except ValueError as error:
        raise ParamsError("params.json", [Mistake((key,), str(error).removeprefix(f"{key}: "))]) from None
