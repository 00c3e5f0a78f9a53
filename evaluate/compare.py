"""Two runs on the same queries: by how much one is better, and how likely that is chance."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.archive import Images
from data.records import DataError
from evaluate.bootstrap import Difference, paired
from evaluate.protocol import Scored
from params.describe import shown
from params.schema import Evaluation

# Keys of evaluation_params in which runs may differ: when to evaluate, what may be the very thing that is compared
# (how a gallery is ranked), and how much memory that takes.
SAME_METRICS = {*Evaluation.model_fields, "rerank", "spectral", "margin_weight", "block_mib"} - {"type"}


class Compared(NamedTuple):
    """A metric of both runs; the difference is first - second."""

    first: float
    second: float
    difference: Difference
    of: str  # what it is the mean of: "300 queries"


def refuse_other_metrics(params: Mapping[str, tuple[Any, Any]]) -> None:
    """DataError where params that differ (key -> both values) can make one metric's name mean two things."""
    kind = "evaluation_params.type"
    keys = [key for key in params if key.startswith("evaluation_params.") and key.split(".")[1] not in SAME_METRICS]
    if keys:
        told = [kind] if kind in keys else keys  # of two evaluators all else differs, too
        said = ", ".join(f"{key} {' and '.join(map(shown, params[key]))}" for key in told)
        remedy = ["'evaluation_params={...}'"] if kind in keys else [f"{key}=..." for key in keys]
        raise DataError(f"the runs' metrics are not the same: {said}; give both one with "
                        f"{' '.join(f'--set {setting}' for setting in remedy)}")


def refuse_other_images(split: str, first: Images, second: Images) -> None:
    """DataError unless two archives of a split hold the same images, by their checksums, in the same order."""
    sizes = len(first), len(second)
    if sizes[0] != sizes[1]:
        raise DataError(f"{split}: {first} has {sizes[0]:,} images, {second} {sizes[1]:,}; compare runs on one set")
    same = all(np.array_equal(*sides) for sides in ((first.labels, second.labels), (first.cameras, second.cameras)))
    if not same or first.class_names != second.class_names:
        raise DataError(f"{split}: {first} and {second} differ in labels or cameras; compare runs on one set")
    others = np.flatnonzero(first.checksums != second.checksums)
    if others.size:
        places = first.where(int(others[0])), second.where(int(others[0]))
        raise DataError(f"{split}: {others.size:,} of {sizes[0]:,} images differ, the first of them "
                        f"{' and '.join(places)}; compare runs on one set")


def compared(first: Scored, second: Scored) -> dict[str, Compared]:
    """Every metric that is a mean in both, paired; DataError where they are not means over the same."""
    if first.asked != second.asked:
        asked = " and ".join(", ".join(side.asked) for side in (first, second))
        raise DataError(f"the runs' evaluators asked for other splits ({asked}); give both the same "
                        "evaluation_params with --set")
    found = {}
    for name in (name for name in first.values if name in second.values):
        one, other = first.counted[name], second.counted[name]
        counts = (np.isnan(side.values[name]) for side in (first, second))
        if first.unit != second.unit or not np.array_equal(*counts):
            raise DataError(f"{name}: over {len(one)} {first.unit} of one run and other {len(other)} "
                            f"{second.unit} of the other; give both the same evaluation_params with --set")
        found[name] = Compared(float(one.mean()), float(other.mean()), paired(one, other), f"{len(one)} {first.unit}")
    if not found:
        raise DataError(f"no metric is known by query in both runs: {', '.join(first.values) or 'none'} in one, "
                        f"{', '.join(second.values) or 'none'} in the other; give both one evaluator of Kiln's with "
                        "--set evaluation_params.type=...")
    return found


def as_json(names: Sequence[str], found: Mapping[str, Compared], params: Mapping[str, tuple[Any, Any]]) -> str:
    """What `table` says, as one JSON object."""
    metrics = {name: {"first": one.first, "second": one.second, "difference": one.difference.mean,
                      "low": one.difference.low, "high": one.difference.high, "p": one.difference.p, "of": one.of}
               for name, one in found.items()}
    return json.dumps({"runs": names, "metrics": metrics, "params": params})


def table(names: Sequence[str], found: Mapping[str, Compared], params: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    """Both runs' metrics, their differences, and what differs in their params, for people."""
    one, other = (max(10, len(name)) for name in names)
    yield f"{'metric':<16}{names[0]:>{one}}  {names[1]:>{other}}{'difference':>12}{'95 % interval':>22}{'p':>8}"
    for name, (first, second, (mean, low, high, p), _) in found.items():
        interval = f"{low:+.4f} to {high:+.4f}"
        yield f"{name:<16}{first:>{one}.4f}  {second:>{other}.4f}{mean:>+12.4f}{interval:>22}{p:>8.3f}"
    yield f"paired over {next(iter(found.values())).of}; the difference is {names[0]} - {names[1]}"
    yield "params that differ:" if params else "no params differ"
    width = max(map(len, params), default=0)
    yield from (f"  {key:<{width}}  {shown(before)}  {shown(after)}" for key, (before, after) in params.items())
