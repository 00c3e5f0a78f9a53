"""What a run wrote while it went on, made ready for the page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evaluate.report.charts import Chart, Points, chart

MOST_LINES = 6  # in one chart: as many as there are colours
MOST_ROWS = 300  # of the table of metrics

Row = Mapping[str, Any]


class Metrics(NamedTuple):
    """A table of metrics by epoch."""

    names: Sequence[str]
    rows: Sequence[tuple[int, Sequence[str]]]  # epoch, values
    left_out: int


class Export(NamedTuple):
    """A file in words, None for what its line does not say."""

    file: str
    precision: str | None
    epoch: int | None
    metric: str | None
    cosine: str | None  # of its embeddings and the network's, at the least
    size: str | None
    latency: str | None
    kept: str | None  # layers left in float32


class Times(NamedTuple):
    """Where the time of a run went, in seconds."""

    training: float  # of all steps, as the logged ones tell
    waiting: float  # of that, for data
    evaluations: Sequence[float]
    speed: float  # images/s, the median of the logged steps


def evaluations(rows: Sequence[Row]) -> list[Row]:
    """The lines that say metrics after an epoch."""
    return [row for row in rows if "evaluation" in row]


def steps(rows: Sequence[Row]) -> list[Row]:
    """The lines that say how a step went."""
    return [row for row in rows if "loss" in row]


def curves(rows: Sequence[Row], best: Mapping[str, Any] | None) -> list[Chart]:
    """Loss and its terms, learning rates and speed over the steps, metrics over the epochs; what there is of them."""
    logged, made = steps(rows), []
    if logged:
        losses = [name for name in logged[0] if name.split("/")[0] == "loss"]
        terms = losses if len(losses) > 2 else losses[:1]  # of one term, the sum says it all
        rates = _once({name.partition("/")[2]: _points(logged, name) for name in logged[0] if name.startswith("lr/")})
        made += [*_charts("Loss", {name: _points(logged, name) for name in terms}, "step"),
                 *_charts("Learning rate", rates, "step", from_zero=True),
                 *_charts("Images per second", {"images/s": _points(logged, "images_per_second")}, "step",
                          from_zero=True)]
    measured = evaluations(rows)
    if len(measured) > 1:
        scores = [{"epoch": row["epoch"], **row["evaluation"]} for row in measured]
        lines = {name: _points(scores, name, "epoch") for name in _drawn(measured, best)}
        marks = {f"best: epoch {best['epoch']}": best["epoch"]} if best else {}
        made += _charts("Metrics", lines, "epoch", marks=marks)
    return made


def not_finite(rows: Sequence[Row]) -> dict[str, int]:
    """What was recorded as NaN or infinite, which no line can show, and at which step first."""
    found: dict[str, int] = {}
    for row in rows:
        for name, value in {**row, **row.get("evaluation", {})}.items():
            if isinstance(value, float) and not math.isfinite(value):
                found.setdefault(name, row["step"])
    return found


def metrics(rows: Sequence[Row], best_epoch: int | None) -> Metrics:
    """Every metric after every epoch; of a long run, evenly spaced ones and the best."""
    measured = evaluations(rows)
    names = list(dict.fromkeys(name for row in measured for name in row["evaluation"]))
    every = -(-len(measured) // MOST_ROWS)
    shown = [row for i, row in enumerate(measured) if i % every == 0 or row["epoch"] == best_epoch]
    columns = [_column([row["evaluation"].get(name) for row in shown]) for name in names]
    cells = zip(*columns, strict=True)
    return Metrics(names, [(row["epoch"], values) for row, values in zip(shown, cells, strict=True)],
                   len(measured) - len(shown))


def exports(rows: Sequence[Row], monitored: str | None) -> list[Export]:
    """The files that were made of the run, in order; of a lower precision what it costs beside the float32 file."""
    return [_export(row, monitored) for row in rows if "export" in row]


def times(rows: Sequence[Row], steps_per_epoch: float) -> Times | None:
    """None before the first logged step. What was not logged is taken to be as fast as what was."""
    logged = [row for row in steps(rows) if "seconds" in row]
    if not logged:
        return None
    names = ("step", "epoch", "seconds", "data_wait", "images_per_second")
    reached, epochs, seconds, waits, speeds = (np.array([row[name] for row in logged], float) for name in names)
    begun = np.maximum([0, *reached[:-1]], (epochs - 1) * steps_per_epoch)  # each epoch has a clock of its own
    begun = np.minimum(begun, reached - 1)  # a run resumed with other batches has had epochs of other lengths
    training = float(seconds.sum() / (reached - begun).sum() * reached[-1])
    waiting = float((seconds * waits).sum() / seconds.sum() * training)
    return Times(training, waiting, [row["seconds"] for row in evaluations(rows)], float(np.median(speeds)))


def _column(values: Sequence[float | None]) -> list[str]:
    """Numbers alike: all whole, or all with four digits."""
    whole = all(float(value).is_integer() for value in values if value is not None)
    return ["–" if value is None else f"{value:,.{0 if whole else 4}f}" for value in values]


def _points(rows: Sequence[Row], name: str, along: str = "step") -> Points:
    """What a line can show: the values that are finite."""
    return [(row[along], row[name]) for row in rows if name in row and math.isfinite(row[name])]


def _charts(title: str, lines: Mapping[str, Points], x_name: str, **drawn: Any) -> list[Chart]:
    """The chart of the first few lines that have points; none where none has."""
    first_few = dict([(name, points) for name, points in lines.items() if points][:MOST_LINES])
    return [chart(title, first_few, x_name, **drawn)] if first_few else []


def _export(row: Row, monitored: str | None) -> Export:
    metrics, cost = row.get("metrics", {}), row.get("cost", {})
    metric = monitored if monitored in metrics else next(iter(metrics), None)
    exact, shipped = cost.get("bytes", (None, None))
    ratios = [f"{after / before:.2f} (batch {size})" for size, (before, after) in cost.get("seconds", {}).items()]
    return Export(
        row["export"], row.get("precision"), row.get("epoch"), metric and f"{metric} {metrics[metric]:.4f}",
        f"{row['cosine']:.6f}" if "cosine" in row else None,
        f"{shipped / exact:.2f} ({shipped / 1e6:,.1f} MB)" if exact else None, ", ".join(ratios) or None,
        f"{len(cost['kept'])} of {cost['layers']}" if "kept" in cost else None)


def _once(lines: Mapping[str, Points]) -> dict[str, Points]:
    """Lines that are the same as one, by all their names."""
    names: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name, points in lines.items():
        names.setdefault(tuple(points), []).append(name)
    return {", ".join(same): points for points, same in names.items()}


def _drawn(measured: Sequence[Row], best: Mapping[str, Any] | None) -> list[str]:
    """The metric that chooses the best epoch, and all that are fractions and change: counts are none, or do not."""
    monitored = [best["metric"]] if best else []
    values: dict[str, list[float]] = {}
    for row in measured:
        for name, value in row["evaluation"].items():
            if math.isfinite(value):
                values.setdefault(name, []).append(value)
    changing = [name for name, known in values.items() if "/" not in name and 0 <= min(known) < max(known) <= 1]
    return [name for name in dict.fromkeys(monitored + changing) if name in values]
