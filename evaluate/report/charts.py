"""Line charts in numbers: where each line, tick and mark stands. The template draws them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 460, 230  # of a chart, in units of the SVG
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 10, 42  # margins around the plot, for ticks and names
MARK = 15  # further margin at the top for each mark's word
MOST_POINTS = 240  # of a line: more cannot be told apart at this width
MOST_TICKS = 6

Points = Sequence[tuple[float, float]]


class Tick(NamedTuple):
    """A place on an axis, and what is written there."""

    at: float
    text: str


class Line(NamedTuple):
    """A polyline, and what the legend calls it."""

    name: str
    path: str  # "x,y x,y ...", as SVG has it


class Mark(NamedTuple):
    """A vertical line up to a word above the plot; `left`: the word ends at the line, else it begins there."""

    at: float
    top: float
    text: str
    left: bool


class Chart(NamedTuple):
    """Everything that the template needs to draw one chart."""

    title: str
    description: str  # in words, for those who do not see it
    x_name: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line]
    marks: Sequence[Mark]


class Axis(NamedTuple):
    """From values to pixels; `first` and `last` are where the values `low` and `high` stand."""

    low: float
    high: float
    first: float
    last: float

    def at(self, value: float) -> float:
        """The pixel of a value, to a tenth."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.first + share * (self.last - self.first), 1)

    def ticks(self) -> list[Tick]:
        """Round values within the axis, six at most."""
        step = _step(self.high - self.low)
        numbers = range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        return [Tick(self.at(number * step), _written(number * step, step)) for number in numbers]


def chart(title: str, lines: Mapping[str, Points], x_name: str, *,
          marks: Mapping[str, float] | None = None, from_zero: bool = False) -> Chart:
    """A chart of lines by name, each with one point at the least; long lines are thinned to means of neighbours."""
    drawn = {name: thinned(points) for name, points in lines.items()}
    xs, ys = (np.array([point[axis] for points in drawn.values() for point in points]) for axis in (0, 1))
    x = Axis(*_room(xs.min(), xs.max()), LEFT, WIDTH - RIGHT)
    marked = list(_marks({word: x.at(value) for word, value in (marks or {}).items()}))
    y = Axis(*_rounded(min(ys.min(), 0) if from_zero else ys.min(), ys.max()), HEIGHT - BOTTOM,
             TOP + MARK * len(marked))
    return Chart(
        title, "; ".join(_in_words(name, points) for name, points in lines.items()), x_name, x.ticks(), y.ticks(),
        [Line(name, " ".join(f"{x.at(a)},{y.at(b)}" for a, b in points)) for name, points in drawn.items()], marked)


def thinned(points: Points) -> Points:
    """At most MOST_POINTS points, each the mean of as many neighbours."""
    if len(points) <= MOST_POINTS:
        return points
    return [(float(x), float(y)) for x, y in
            (part.mean(axis=0) for part in np.array_split(np.array(points), MOST_POINTS))]


def number(value: float) -> str:
    """A number as people read it: four digits, and no power of ten where none is needed."""
    if float(value).is_integer() and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:.4f}" if 0.01 <= abs(value) < 10 else f"{value:.4g}"


def _marks(places: Mapping[str, float]) -> Iterator[Mark]:
    """Words on lines of their own, ordered so that labels do not overlap lines."""
    in_order = sorted((at > WIDTH / 2, -at if at > WIDTH / 2 else at, text) for text, at in places.items())
    for number, (left, _, text) in enumerate(in_order):
        yield Mark(places[text], TOP + MARK * number, text, left)


def _in_words(name: str, points: Points) -> str:
    (_, first), (_, last), values = points[0], points[-1], [value for _, value in points]
    return f"{name} from {number(first)} to {number(last)}, least {number(min(values))}, most {number(max(values))}"


def _room(low: float, high: float) -> tuple[float, float]:
    """Two ends that are apart."""
    if high > low:
        return low, high
    half = abs(low) / 2 or 0.5
    return low - half, high + half


def _rounded(low: float, high: float) -> tuple[float, float]:
    """Ends moved outwards to the next ticks."""
    low, high = _room(low, high)
    step = _step(high - low)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _step(span: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that cuts a span into MOST_TICKS - 1 parts at most."""
    least = span / (MOST_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(least))
    return power * next(factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def _written(value: float, step: float) -> str:
    """A tick's value with the digits that its step needs."""
    if not 1e-5 <= step < 1e6:
        return f"{value:.4g}"
    return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
