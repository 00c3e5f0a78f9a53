"""What a run wrote while it went on, made ready for the page."""

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
        made += [chart("Loss", _some({name: _points(logged, name) for name in terms}), "step"),
                 chart("Learning rate", _some(rates), "step", from_zero=True),
                 chart("Images per second", {"images/s": _points(logged, "images_per_second")}, "step",
                       from_zero=True)]
    measured = evaluations(rows)
    if len(measured) > 1:
        lines = {name: [(row["epoch"], row["evaluation"][name]) for row in measured if name in row["evaluation"]]
                 for name in _drawn(measured, best)}
        marks = {f"best: epoch {best['epoch']}": best["epoch"]} if best else {}
        made.append(chart("Metrics", _some(lines), "epoch", marks=marks))
    return made


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
    whole = all(value == int(value) for value in values if value is not None)
    return ["–" if value is None else f"{value:,.{0 if whole else 4}f}" for value in values]


def _points(rows: Sequence[Row], name: str) -> Points:
    return [(row["step"], row[name]) for row in rows if name in row]


def _once(lines: Mapping[str, Points]) -> dict[str, Points]:
    """Lines that are the same as one, by all their names."""
    names: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name, points in lines.items():
        names.setdefault(tuple(points), []).append(name)
    return {", ".join(same): points for points, same in names.items()}


def _some(lines: Mapping[str, Points]) -> dict[str, Points]:
    return dict(list(lines.items())[:MOST_LINES])


def _drawn(measured: Sequence[Row], best: Mapping[str, Any] | None) -> list[str]:
    """The metric that chooses the best epoch, and all that are fractions and change: counts are none, or do not."""
    monitored = [best["metric"]] if best else []
    values: dict[str, list[float]] = {}
    for row in measured:
        for name, value in row["evaluation"].items():
            values.setdefault(name, []).append(value)
    changing = [name for name, said in values.items()
                if "/" not in name and 0 <= min(said) < max(said) <= 1]
    return [name for name in dict.fromkeys(monitored + changing) if name in values]
