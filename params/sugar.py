"""Short and historical spellings of params.json, rewritten into the general form."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from params.errors import Mistake, Path, dotted
from params.tree import cut, get, put

RENAMED: dict[Path, Path] = {
    ("epochs",): ("epoch",),
    ("model_params", "model"): ("model_params", "backbone"),
    ("model_params", "last_conv_stride"): ("model_params", "last_stride"),
    ("model_params", "random_drop_branchs"): ("model_params", "random_drop_branches"),
    ("model_params", "feature_gobal_dim"): ("model_params", "pcb_global_dim"),
    ("lr", "warmup_epoch"): ("lr", "warmup"),
    ("data_augmentation", "colour_jitering"): ("data_augmentation", "colour_jitter"),
    ("data_augmentation", "colour_jiterring"): ("data_augmentation", "colour_jitter"),
}
SPELLED_OUT: dict[Path, str] = {  # "sgd" for {"type": "sgd"}
    ("optimizer",): "type", ("model_params", "neck"): "type", ("model_params", "pooling"): "type",
    ("model_params", "margin"): "type", ("pretrain_snapshot",): "path",
}
SHORT_FOR: dict[Path, Path] = {
    ("tri_loss_margin",): ("losses",),
    ("tri_loss_lambda_cls",): ("losses",),
    ("batch_sampling_params", "class_balanced"): ("batch_sampling_params", "type"),
    ("fine_tune",): ("stages",),
}
BATCH: dict[str, tuple[str | int, ...]] = {  # numbers, and keys for numbers, whose product is the batch size
    "pk": ("P", "K"),
    "pk_prop": ("P", "K"),
    "triplet_items": (3, "anchors"),
}


class Rewritten(NamedTuple):
    """A params.json on its way to the general form; what is malformed stays, for the schema to refuse."""

    raw: dict[str, Any]
    sugared: set[Path]  # paths whose value comes from another spelling
    mistakes: list[Mistake]
    notices: list[str]  # accepted, but worth a line


def spell_out(result: Rewritten) -> None:
    """Today's names, and objects where a string stands for one; nothing is lost, so overrides build on it."""
    for old, new in RENAMED.items():
        _rename(result, old, new)
    for path, key in SPELLED_OUT.items():
        value = get(result.raw, path)
        if isinstance(value, str) and value:
            put(result.raw, path, {key: value})
    if result.raw.get("pretrain_snapshot") == "":
        result.raw["pretrain_snapshot"] = None
    _backbone_name(result)


def today(path: Path) -> Path:
    """A path in today's names."""
    for old, new in RENAMED.items():
        if path[:len(old)] == old:
            return new + path[len(old):]
    return path


def make_way(result: Rewritten, path: Path) -> None:
    """Before a value is put at a path: drop what says the same in another spelling, or write it out to reach inside."""
    if path[0] == "losses" and len(path) > 1:
        _triplet_keys(result)
    for short, general in SHORT_FOR.items():
        if path == short:
            cut(result.raw, general)
        elif path == general:
            cut(result.raw, short)


def derive(result: Rewritten) -> None:
    """The general form for the short ones, and what follows from the other keys."""
    rules: list[Callable[[Rewritten], None]] = [
        _no_evaluator, _triplet_keys, _class_balanced, _derived_batch_size, _fine_tune, _decay_step]
    for rule in rules:
        rule(result)


def _section(result: Rewritten, name: str) -> dict[str, Any]:
    section = result.raw.get(name)
    return section if isinstance(section, dict) else {}


def _rename(result: Rewritten, old: Path, new: Path) -> None:
    section = result.raw if len(old) == 1 else _section(result, str(old[0]))
    if old[-1] not in section:
        return
    if new[-1] in section:
        result.mistakes.append(Mistake(old, f'another spelling of "{dotted(new)}", which is given too; keep one'))
    else:
        section[str(new[-1])] = section[str(old[-1])]
        result.sugared.add(new)
    del section[str(old[-1])]


def _backbone_name(result: Rewritten) -> None:
    """"resnet_50" is "resnet50"."""
    model = _section(result, "model_params")
    name = model.get("backbone")
    if isinstance(name, str) and name.startswith("resnet_"):
        model["backbone"] = name.replace("resnet_", "resnet")
        result.sugared.add(("model_params", "backbone"))


def _no_evaluator(result: Rewritten) -> None:
    """An evaluator of type null is none."""
    if "type" in (section := _section(result, "evaluation_params")) and section["type"] is None:
        result.raw["evaluation_params"] = None
        result.sugared.add(("evaluation_params",))


def _triplet_keys(result: Rewritten) -> None:
    """tri_loss_margin and tri_loss_lambda_cls for a list of softmax and batch-hard triplet."""
    short = [name for name in ("tri_loss_margin", "tri_loss_lambda_cls") if name in result.raw]
    if not short:
        return
    if "losses" in result.raw:
        result.mistakes.extend(Mistake((name,), 'short for "losses", which is given too; keep one') for name in short)
        margin, weight = 0, 0
    else:
        margin = _number(result, "tri_loss_margin", "soft_margin")
        weight = _number(result, "tri_loss_lambda_cls")
        result.raw["losses"] = _triplet_losses(margin, weight)
        result.sugared.add(("losses",))
        if weight and not margin:
            result.notices.append("tri_loss_lambda_cls: rests while tri_loss_margin is 0; softmax has weight 1")
    for name in short:
        del result.raw[name]


def _triplet_losses(margin: Any, weight: Any) -> list[dict[str, Any]]:
    softmax = [{"type": "softmax", "weight": weight if margin else 1.0}] if weight or not margin else []
    return softmax + ([{"type": "triplet", "margin": margin}] if margin else [])


def _number(result: Rewritten, name: str, word: str | None = None) -> Any:
    value = result.raw.get(name, 0)
    valid = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    if valid or (word is not None and value == word):
        return value
    expected = "a number >= 0" + (f' or "{word}"' if word else "")
    result.mistakes.append(Mistake((name,), f"expected {expected}, found {value!r}"))
    return 0


def _class_balanced(result: Rewritten) -> None:
    """class_balanced chooses between the samplers "pk" and "random"; P and K rest while it is false."""
    sampling = _section(result, "batch_sampling_params")
    if "class_balanced" not in sampling:
        return
    path: Path = ("batch_sampling_params", "class_balanced")
    balanced = sampling.pop("class_balanced")
    if not isinstance(balanced, bool):
        result.mistakes.append(Mistake(path, f"expected true or false, found {balanced!r}"))
    elif "type" in sampling:
        result.mistakes.append(Mistake(path, 'short for "batch_sampling_params.type", which is given too; keep one'))
    else:
        sampling["type"] = "pk" if balanced else "random"
        result.sugared.add(("batch_sampling_params", "type"))
        if not balanced and ("P" in sampling or "K" in sampling):
            sampling.pop("P", None)
            sampling.pop("K", None)
            result.notices.append("batch_sampling_params: P and K rest while class_balanced is false")


def _derived_batch_size(result: Rewritten) -> None:
    """Where the sampler's own keys tell how many images a batch holds, batch_size need not say it again."""
    sampling = _section(result, "batch_sampling_params")
    factors = batch_factors(sampling.get("type"), sampling)
    if factors and all(isinstance(factor, int) for factor in factors) and "batch_size" not in result.raw:
        result.raw["batch_size"] = math.prod(factors)
        result.sugared.add(("batch_size",))


def batch_factors(sampler: Any, options: Mapping[str, Any]) -> list[Any]:
    """What the batch size is the product of, by the sampler's own keys; nothing where they do not tell it."""
    return [options.get(factor) if isinstance(factor, str) else factor for factor in BATCH.get(str(sampler), ())]


def whole_batch(params: Mapping[str, Any]) -> int:
    """Images of a step over all processes; batch_size is one's, unless the sampler's own keys tell the whole batch."""
    told = params["batch_sampling_params"]["type"] in BATCH
    size: int = params["batch_size"] * (1 if told else max(len(params["parallels"]), 1))
    return size


def _fine_tune(result: Rewritten) -> None:
    """fine_tune is one stage in which the backbone rests to the end."""
    if "fine_tune" not in result.raw:
        return
    tuned = result.raw.pop("fine_tune")
    if not isinstance(tuned, bool):
        result.mistakes.append(Mistake(("fine_tune",), f"expected true or false, found {tuned!r}"))
    elif "stages" in result.raw:
        result.mistakes.append(Mistake(("fine_tune",), 'short for "stages", which is given too; keep one'))
    elif tuned:
        result.raw["stages"] = [{"freeze": ["^backbone"]}]
        result.sugared.add(("stages",))


def _decay_step(result: Rewritten) -> None:
    """decay_step alone asks for the step schedule, a list of them for multistep."""
    stages = result.raw.get("stages")
    count = len(stages) if isinstance(stages, list) else 0
    places: list[Path] = [("lr",), *(("stages", i, "lr") for i in range(count))]
    for place in places:
        lr = get(result.raw, place)
        if isinstance(lr, dict) and "decay_step" in lr and "schedule" not in lr:
            lr["schedule"] = "multistep" if isinstance(lr["decay_step"], list) else "step"
            result.sugared.add((*place, "schedule"))
