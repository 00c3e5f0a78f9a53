"""Intervals and paired differences, against loops over the same draws and against what they promise."""

import numpy as np
import pytest

from evaluate.bootstrap import interval, paired


def means_by_loops(values, seed, resamples):
    draw = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        drawn = [values[row] for row in draw.integers(0, len(values), len(values))]
        means.append(sum(drawn) / len(drawn))
    return sorted(means)


def percentile(ascending, share):
    """Between the two values that the share falls between, in proportion."""
    place = share * (len(ascending) - 1)
    below = int(place)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (place - below) * (ascending[above] - ascending[below])


@pytest.mark.parametrize("queries, resamples", [(1, 10), (7, 100), (90, 37), (30_000, 80)])  # the last in two parts
def test_an_interval_is_that_of_a_loop(queries, resamples):
    values = np.random.default_rng(queries).random(queries)
    means = means_by_loops(values, 5, resamples)
    found = interval(values, seed=5, resamples=resamples, level=0.9)
    np.testing.assert_allclose(found, [percentile(means, 0.05), percentile(means, 0.95)], rtol=1e-12)


def test_an_interval_of_two_values_is_as_worked_out_by_hand():
    # Two draws of 0 and 1: the mean is 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4, so the middle half ends on
    # 0 or 1/2 below and 1/2 or 1 above, and the middle 95 % on 0 and 1.
    assert interval(np.array([0.0, 1.0])) == (0, 1)
    assert interval(np.array([0.0, 1.0]), level=0.4) == (0.5, 0.5)


def test_the_seed_alone_decides_the_draws():
    values = np.random.default_rng(0).random(50)
    assert interval(values, seed=3) == interval(values, seed=3) != interval(values, seed=4)


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    draw = np.random.default_rng(1)
    covered = []
    for seed in range(400):
        low, high = interval(draw.beta(0.6, 0.4, 80), seed=seed, resamples=300)  # as average precisions: 0, 1, between
        covered.append(low <= 0.6 <= high)
    assert 0.92 <= np.mean(covered) <= 0.97


def test_a_difference_is_paired_by_query():
    draw = np.random.default_rng(2)
    hardness = draw.random(200)  # what both runs share and pairing takes out
    first, second = hardness + 0.01, hardness + 0.001 * draw.standard_normal(200)
    found = paired(first, second)
    assert found.mean == pytest.approx(np.mean(first - second))
    assert (found.low, found.high) == interval(first - second)
    assert 0.009 < found.low < found.mean < found.high < 0.011
    assert found.p == 2 / 1001


def test_exchanged_runs_differ_by_the_opposite():
    first, second = np.random.default_rng(3).random((2, 40))
    there, back = paired(first, second), paired(second, first)
    assert (back.mean, back.p) == (-there.mean, there.p)
    np.testing.assert_allclose([back.low, back.high], [-there.high, -there.low], atol=1e-15)


def test_a_run_does_not_differ_from_itself():
    values = np.random.default_rng(4).random(40)
    assert paired(values, values) == (0, 0, 0, 1)


def test_runs_that_are_equally_good_are_told_apart_as_often_as_the_level_allows():
    draw = np.random.default_rng(5)
    found = [paired(*draw.random((2, 60)), seed=seed, resamples=400) for seed in range(400)]
    assert 0.03 <= np.mean([difference.p < 0.05 for difference in found]) <= 0.075
    assert 0.45 <= np.mean([difference.p < 0.5 for difference in found]) <= 0.55
    outside = [difference.low > 0 or difference.high < 0 for difference in found]
    assert np.mean([(difference.p < 0.05) == out for difference, out in zip(found, outside, strict=True)]) > 0.99


@pytest.mark.parametrize("values, said", [([0.5, np.nan], "1 of 2 scores are NaN"), ([], "0 of 0 scores are NaN")])
def test_scores_without_a_mean_are_refused(values, said):
    with pytest.raises(ValueError, match=f"^{said}; give those of the queries that have a match$"):
        interval(np.array(values))


def test_scores_of_other_queries_are_not_paired():
    with pytest.raises(ValueError, match=r"^\(3,\) and \(4,\) scores cannot be paired"):
        paired(np.zeros(3), np.zeros(4))
