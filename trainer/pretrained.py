"""Weights to start from: ImageNet files and downloads, Kiln's snapshots, other state dicts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Size, Tensor, nn

from trainer.backbones.backbone import Backbone
from trainer.model import Embedder
from trainer.snapshot import FORMAT, deployed_weights

IMAGENET_CLASSIFIERS = ("fc.", "classifier.", "head.", "heads.", "aux1.", "aux2.")  # torchvision's and timm's names
BACKBONE = "backbone."  # before the names of a backbone's tensors in an Embedder


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a network a file has; `coverage` is their share of its weights, classifiers aside."""

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    shape_mismatched: dict[str, tuple[Size, Size]]  # name -> (in the file, in the network)
    coverage: float

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded, {self.coverage:.1%} of the weights"]
        lines += [f"not in the file: {_some(self.missing)}"] if self.missing else []
        lines += [f"only in the file: {_some(self.unexpected)}"] if self.unexpected else []
        shapes = [_shapes(name, *pair) for name, pair in self.shape_mismatched.items()]
        lines += [f"of another shape: {_some(shapes)}"] if shapes else []
        return "; ".join(lines)


def load_pretrained(
    embedder: Embedder, path: Path, *, strict: bool = True, min_coverage: float = 0.0
) -> LoadReport:
    """Start from a snapshot or state dict of a whole network.

    Strict: every tensor must fit. Otherwise what fits is loaded, and ValueError raised where its share of the
    parameters is below `min_coverage`. The network is left as it was where an error is raised.
    """
    state = read_weights(path)
    report = compare(embedder, state)
    misfits = [*(_shapes(name, *pair) for name, pair in report.shape_mismatched.items()),
               *(f"{name} is not there" for name in report.missing),
               *(f"{name} is only there" for name in report.unexpected)]
    if strict and misfits:
        raise ValueError(f"pretrain_snapshot: {path} is of another network: {_some(misfits, 1)}; "
                         'to load what fits: "pretrain_snapshot": {"path": ..., "strict": false}')
    if report.coverage < min_coverage:
        raise ValueError(f"pretrain_snapshot: {path}: {report}; expected at least {min_coverage:.0%}: "
                         "use the model_params that it was trained with, or lower min_coverage")
    _load(embedder, state, report)
    return report


def load_imagenet(backbone: Backbone, source: Literal[True] | Path) -> LoadReport:
    """Start from the ImageNet weights of the backbone's source (True), or from a file.

    The file is one of those weights or a snapshot of Kiln. It must hold every tensor of the backbone, and
    nothing else but the classifier.
    """
    state = _download(backbone) if source is True else read_weights(source)
    own = {name.removeprefix(BACKBONE): t for name, t in state.items() if name.startswith(BACKBONE)}
    state = own or backbone.adapt(state)
    report = compare(backbone, state)
    foreign = [name for name in report.unexpected
               if not name.removeprefix("network.").startswith(IMAGENET_CLASSIFIERS)]
    if report.missing or report.shape_mismatched or foreign:
        where = "the downloaded file" if source is True else source
        raise ValueError(f"imagenet_pretrain: {where} does not hold the weights of {backbone.name}: {report}")
    _load(backbone, state, report)
    return report


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors by name of a snapshot of Kiln or of a state dict, without "module." before the names.

    No code in the file is run. ValueError where the file is missing, damaged or holds something else.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a snapshot of Kiln or a state dict")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch tells of a damaged file in half a dozen ways
        raise ValueError(f"{path}: cannot be read ({type(error).__name__}); expected a snapshot of Kiln or a "
                         "state dict written by torch.save") from error
    state = _state_in(content)
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds no weights; expected a snapshot of Kiln or a state dict")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def compare(module: nn.Module, state: Mapping[str, Tensor]) -> LoadReport:
    """What loading these tensors into a module would do; nothing is loaded."""
    own = module.state_dict()
    shapes = {name: (state[name].shape, own[name].shape) for name in own if name in state}
    loaded = [name for name, (there, here) in shapes.items() if there == here]
    sizes = {name: p.numel() for name, p in module.named_parameters() if ".classifier." not in name}
    return LoadReport(
        loaded=loaded,
        # files older than the counters of batch norm have none, and nothing depends on them
        missing=[name for name in own if name not in state and not name.endswith("num_batches_tracked")],
        unexpected=[name for name in state if name not in own],
        shape_mismatched={name: pair for name, pair in shapes.items() if pair[0] != pair[1]},
        coverage=sum(sizes.get(name, 0) for name in loaded) / sum(sizes.values()),
    )


def _load(module: nn.Module, state: Mapping[str, Tensor], report: LoadReport) -> None:
    module.load_state_dict({name: state[name] for name in report.loaded}, strict=False)


def _state_in(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        return {}
    if content.get("format") == FORMAT:
        return deployed_weights(content)
    inner = [content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)]
    return inner[0] if inner else content


def _download(backbone: Backbone) -> dict[str, Tensor]:
    try:
        return backbone.download()
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"imagenet_pretrain: {backbone.name}'s weights cannot be downloaded ({reason}); "
                         'give a file that holds them: "imagenet_pretrain": "<path>"') from error


def _shapes(name: str, there: Iterable[int], here: Iterable[int]) -> str:
    return f"{name} is {tuple(there)} there and {tuple(here)} here"


def _some(items: list[str], count: int = 4) -> str:
    more = len(items) - count
    return ", ".join(items[:count]) + (f" and {more} more" if more > 0 else "")
