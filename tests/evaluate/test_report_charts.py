"""Where lines, ticks and marks of a chart stand, and what a run's record becomes."""

import math

import pytest

from evaluate.report.charts import HEIGHT, LEFT, MARK, MOST_POINTS, RIGHT, TOP, WIDTH, Axis, chart, number, thinned
from evaluate.report.history import curves, exports, metrics, not_finite, times


@pytest.mark.parametrize("low, high, texts", [
    (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
    (0, 175, ["0", "50", "100", "150"]),
    (-0.6, 0.9, ["-0.5", "0.0", "0.5"]),
    (0, 0.001, ["0.0000", "0.0002", "0.0004", "0.0006", "0.0008", "0.0010"]),
    (0, 3e-7, ["0", "1e-07", "2e-07", "3e-07"]),
    (0, 24_000, ["0", "5,000", "10,000", "15,000", "20,000"]),
])
def test_ticks_are_few_and_round(low, high, texts):
    assert [tick.text for tick in Axis(low, high, 0, 100).ticks()] == texts


def test_a_chart_is_as_worked_out_by_hand():
    drawn = chart("Loss", {"loss": [(0, 0.0), (5, 10.0), (10, 5.0)]}, "step", marks={"best": 10})
    right, bottom, top = WIDTH - RIGHT, drawn.y_ticks[0].at, TOP + MARK
    middle, half = (LEFT + right) / 2, (bottom + top) / 2
    assert drawn.lines[0].path == f"{LEFT}.0,{bottom} {middle},{top}.0 {right}.0,{half}"
    assert [(tick.at, tick.text) for tick in drawn.x_ticks][::5] == [(LEFT, "0"), (right, "10")]
    assert [(mark.at, mark.text, mark.left) for mark in drawn.marks] == [(right, "best", True)]
    assert drawn.description == "loss from 0 to 5, least 0, most 10"
    assert bottom < HEIGHT


@pytest.mark.parametrize("points", [[(3, 0.5)], [(0, 7.0), (9, 7.0)], [(0, 0.0), (1, 0.0)], [(0, -1e-9), (1, 1e9)]])
def test_a_line_without_extent_is_drawn_within_the_plot(points):
    for pair in chart("x", {"x": points}, "step").lines[0].path.split():
        x, y = map(float, pair.split(","))
        assert LEFT <= x <= WIDTH - RIGHT and TOP <= y < HEIGHT


def test_words_of_marks_do_not_stand_on_other_marks_lines():
    marks = chart("x", {"x": [(0, 0), (1, 1)]}, "cosine", marks={"a": 0.6, "b": 0.9, "c": 0.7}).marks
    by_place = sorted(marks, key=lambda mark: mark.at)
    assert all(mark.left for mark in marks)
    assert [mark.text for mark in by_place] == ["a", "c", "b"]
    assert by_place[0].top > by_place[1].top > by_place[2].top  # a line does not reach the words to its right


def test_long_lines_are_means_of_neighbours():
    points = [(float(i), float(i % 2)) for i in range(10 * MOST_POINTS)]
    assert thinned(points)[0] == (4.5, 0.5) and len(thinned(points)) == MOST_POINTS
    assert thinned(points[:5]) == points[:5]


@pytest.mark.parametrize("value, text", [
    (0, "0"), (1.0, "1"), (1234567.0, "1,234,567"), (0.73496, "0.7350"), (0.00035, "0.00035"), (-0.5, "-0.5000"),
    (1.5e9, "1.5e+09"), (54.814, "54.81"),
])
def test_numbers_are_as_people_read_them(value, text):
    assert number(value) == text


def test_times_count_the_steps_that_were_not_logged():
    # Epochs of 5 steps, logged every 2 steps and the first: the clock of epoch 2 begins at step 5, so step 6 is a lap
    # of 1 s. 1 + 1 + 2 + 1 + 2 + 2 = 9 s for 9 of 10 steps, of which half was spent waiting.
    laps = [(1, 1, 1.0), (1, 2, 1.0), (1, 4, 2.0), (2, 6, 1.0), (2, 8, 2.0), (2, 10, 2.0)]
    rows = [{"epoch": epoch, "step": step, "loss": 1.0, "seconds": seconds, "data_wait": 0.5, "images_per_second": 8.0}
            for epoch, step, seconds in laps]
    found = times([*rows, {"epoch": 1, "evaluation": {}, "seconds": 3.0}], 5)
    assert found == (10.0, 5.0, [3.0], 8.0)
    assert times(rows[:0], 5) is None
    assert times(rows, 500).training == pytest.approx(9 / 7 * 10)  # where epochs were shorter, a lap is a step


def test_a_long_table_of_metrics_keeps_the_best_epoch():
    rows = [{"epoch": epoch, "evaluation": {"mAP": epoch / 1000}} for epoch in range(1, 1000)]
    found = metrics(rows, 500)
    assert len(found.rows) < 301 and (500, ("0.5000",)) in found.rows
    assert found.left_out == 999 - len(found.rows)


def test_a_metric_that_came_later_has_gaps():
    rows = [{"epoch": 1, "evaluation": {"a": 1.0}}, {"epoch": 2, "evaluation": {"a": 2.0, "b": 0.5}}]
    assert metrics(rows, 2) == (["a", "b"], [(1, ("1", "–")), (2, ("2", "0.5000"))], 0)


def test_a_number_that_is_not_finite_is_on_no_line_but_named():
    rows = [{"epoch": 1, "step": step, "loss": loss, "lr/neck": 0.1, "images_per_second": 8.0}
            for step, loss in ((1, 2.0), (2, math.nan), (3, 1.0), (4, math.inf))]
    drawn = {made.title: made for made in curves(rows, None)}
    assert drawn["Loss"].description == "loss from 2 to 1, least 1, most 2"
    assert drawn.keys() == {"Loss", "Learning rate", "Images per second"}
    assert not_finite(rows) == {"loss": 2}
    assert [made.title for made in curves(rows[1:2], None)] == ["Learning rate", "Images per second"]


def test_metrics_that_are_not_finite_or_no_fractions_make_no_chart():
    rows = [{"epoch": epoch, "step": epoch, "evaluation": {"error": 3.5 - epoch, "mAP": value}}
            for epoch, value in ((0, 0.5), (1, math.nan))]
    assert curves(rows, None) == [] and not_finite(rows) == {"mAP": 1}
    assert metrics(rows, None).rows == [(0, ("3.5000", "0.5000")), (1, ("2.5000", "nan"))]


def test_exports_tell_what_their_lines_say():
    metrics = {"rank1": 0.5, "mAP": 0.25}
    cost = {"bytes": [4_000_000, 1_000_000], "seconds": {"1": [0.2, 0.1], "32": [4.0, 3.0]}, "layers": 21,
            "kept": {"/stem": 0.9}}
    line = {"epoch": 3, "step": 9, "export": "model.onnx", "precision": "int8", "metrics": metrics}
    lower, old = exports([{"step": 1, "loss": 1.0}, {**line, "cost": cost, "cosine": 0.99}, {"export": "b"}], "mAP")
    assert lower == ("model.onnx", "int8", 3, "mAP 0.2500", "0.990000", "0.25 (1.0 MB)",
                     "0.50 (batch 1), 0.75 (batch 32)", "1 of 21")
    assert old == ("b", *[None] * 7)
    assert exports([line], "gone") == [("model.onnx", "int8", 3, "rank1 0.5000", *[None] * 4)]
