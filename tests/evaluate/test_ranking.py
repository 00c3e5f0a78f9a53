"""Ranks and the scores that follow from them, against loops, hand-worked lists and the original codes."""

import tracemalloc

import numpy as np
import pytest

from evaluate.distances import Cosine, unit
from evaluate.ranking import (
    JUNK, SORTED, Matches, average_precision, average_precision_at_r, inverse_negative_penalty, nearest,
    positive_ranks, r_precision, ranks_of, score, trapezoid_average_precision,
)

SEEDS = range(25)
NOWHERE = -1  # the camera of an image whose camera is unknown


def case(seed):
    """Similarities on five levels, so that most are tied, with junk, unknown cameras and lonely labels."""
    rng = np.random.default_rng(seed)
    queries, gallery = rng.integers(1, 9), rng.integers(1, 30)
    similarity = rng.integers(0, 5, (queries, gallery)) / 4
    sides = (rng.integers(0, 5, queries), rng.integers(-1, 3, queries),
             rng.integers(-1, 4, gallery), rng.integers(-1, 3, gallery))
    return similarity, sides


def ranks_by_loops(row, label, camera, gallery_labels, gallery_cameras):
    place, ranks = 0, []
    for g in sorted(range(len(row)), key=lambda g: (-row[g], g)):
        same = gallery_labels[g] == label
        if gallery_labels[g] == -1 or (same and camera != -1 and gallery_cameras[g] == camera):
            continue
        if same:
            ranks.append(place)
        place += 1
    return ranks


def scores_by_loops(ranks):
    standard = trapezoid = 0.0
    for i, rank in enumerate(ranks):
        precision = (i + 1) / (rank + 1)
        standard += precision
        trapezoid += ((i / rank if rank else 1.0) + precision) / 2
    return ranks[0], standard / len(ranks), trapezoid / len(ranks), len(ranks) / (ranks[-1] + 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_ranks_equal_a_loop_over_the_sorted_gallery(seed):
    similarity, sides = case(seed)
    expected = [ranks_by_loops(row, sides[0][q], sides[1][q], *sides[2:]) for q, row in enumerate(similarity)]
    assert [list(ranks) for ranks in positive_ranks(similarity, Matches(*sides))] == expected


def ranks_by_sorting(row, label, camera, gallery_labels, gallery_cameras):
    order = np.argsort(-row, kind="stable")
    same = gallery_labels[order] == label
    seen = same & (camera != NOWHERE) & (gallery_cameras[order] == camera)
    counts = (gallery_labels[order] != JUNK) & ~seen
    return np.flatnonzero(same[counts]) if label != JUNK else np.empty(0, int)


def drawn_sides(rng, queries, gallery, labels):
    """Labels and cameras of both sides, junk and unknown cameras among them."""
    return (rng.integers(-1, labels, queries), rng.integers(-1, 4, queries),
            rng.integers(-1, labels, gallery), rng.integers(-1, 4, gallery))


LEVELS = {
    "no ties": lambda rng, shape: rng.standard_normal(shape),
    "few ties": lambda rng, shape: rng.integers(0, 300, shape) / 8,
    "many ties": lambda rng, shape: rng.integers(0, 3, shape) / 8,
    "infinite": lambda rng, shape: rng.choice([-np.inf, -0.0, 0.0, np.inf], shape),
    "collapsed": lambda rng, shape: np.full(shape, 0.25),
}


@pytest.mark.parametrize("labels", [1, 3, 30, 100, 1000])  # from half of the gallery positive to one row and none
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("level", LEVELS)
def test_ranks_equal_those_of_a_stable_sort_of_the_whole_gallery(level, dtype, labels):
    rng = np.random.default_rng(labels)
    for gallery in (*rng.integers(1, 300, 6), 2000):
        similarity = LEVELS[level](rng, (12, gallery)).astype(dtype)
        before = similarity.copy()
        sides = drawn_sides(rng, 12, gallery, labels)
        for q, ranks in enumerate(positive_ranks(similarity, Matches(*sides), block_bytes=5 * 8 * gallery)):
            expected = ranks_by_sorting(similarity[q], sides[0][q], sides[1][q], *sides[2:])
            np.testing.assert_array_equal(ranks, expected)
        np.testing.assert_array_equal(similarity, before)  # what was given is not written into


@pytest.mark.parametrize("positives", [1, 2, 30])
def test_few_contenders_are_sorted_and_many_counted_to_the_same_ranks(positives):
    rng = np.random.default_rng(positives)
    gallery = 2 * SORTED * positives
    labels, nowhere = np.zeros(gallery, int), np.full(gallery, NOWHERE)
    labels[rng.choice(gallery, positives, replace=False)] = 1
    for last in np.linspace(0, 1, 9):  # the similarity of the farthest positive: all rows contend, half, few
        row = rng.integers(0, 9, gallery) / 8
        row[labels == 1] = np.maximum(row[labels == 1], last)
        (ranks,) = positive_ranks(row[None], Matches(np.ones(1, int), nowhere[:1], labels, nowhere))
        np.testing.assert_array_equal(ranks, ranks_by_sorting(row, 1, NOWHERE, labels, nowhere))


@pytest.mark.parametrize("positives", [1, SORTED, 300])
def test_all_of_a_gallery_may_be_positive_and_all_alike(positives):
    labels, nowhere = np.full(positives, 7), np.full(positives, NOWHERE)
    (ranks,) = positive_ranks(np.zeros((1, positives)), Matches(labels[:1], nowhere[:1], labels, nowhere))
    np.testing.assert_array_equal(ranks, np.arange(positives))


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_equal_loops_and_are_nan_for_queries_without_a_positive(seed):
    similarity, sides = case(seed)
    scores = score(similarity, Matches(*sides))
    for q, row in enumerate(similarity):
        ranks = ranks_by_loops(row, sides[0][q], sides[1][q], *sides[2:])
        found = [column[q] for column in scores[:4]]
        assert scores.valid[q] == bool(ranks)
        np.testing.assert_allclose(found, scores_by_loops(ranks) if ranks else [np.nan] * 4, rtol=1e-14)


@pytest.mark.parametrize("name, scheme", [
    ("000_eval_rank_map_standard_ap", "ap"),
    ("001_eval_rank_map_standard_ap", "ap"),
    ("002_004_eval_rank_map_trapezoid_ap", "ap_trapezoid"),
])
def test_scores_equal_those_of_the_original_codes(golden, name, scheme):
    inputs, outputs = golden[name]["inputs"], golden[name]["outputs"]
    sides = [np.array(inputs[key]) for key in ("q_label", "q_cam", "g_label", "g_cam")]
    scores = score(np.array(inputs["sim"]), Matches(*sides))
    np.testing.assert_allclose(getattr(scores, scheme), outputs["per_query_ap"], atol=1e-9)
    cmc = [np.mean(scores.first_hit < k) for k in range(1, 6)]
    np.testing.assert_allclose(cmc, outputs["cmc"], atol=1e-9)


def test_scores_of_a_list_are_as_worked_out_by_hand():
    # Positives in places 1, 3 and 6 of a list: precisions 1/1, 2/3, 3/6 at them and 1, 1/2, 2/5 before.
    ranks = np.array([0, 2, 5])
    assert average_precision(ranks) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert trapezoid_average_precision(ranks) == pytest.approx((1 + 1 + 1 / 2 + 2 / 3 + 2 / 5 + 1 / 2) / 6)
    assert inverse_negative_penalty(ranks) == pytest.approx(3 / 6)
    assert average_precision_at_r(ranks) == pytest.approx((1 + 2 / 3) / 3)
    assert r_precision(ranks) == pytest.approx(2 / 3)


@pytest.mark.parametrize("formula", [
    average_precision, trapezoid_average_precision, inverse_negative_penalty, average_precision_at_r,
    r_precision])
def test_a_perfect_list_scores_one(formula):
    assert formula(np.arange(4)) == 1.0


def test_ties_are_broken_by_gallery_order():
    labels, nowhere = np.array([7, 3, 7, 3]), np.full(4, -1)
    (ranks,) = positive_ranks(np.zeros((1, 4)), Matches(np.array([3]), nowhere[:1], labels, nowhere))
    assert list(ranks) == [1, 3]


def test_label_zero_is_a_label_like_any_other_and_junk_is_none():
    gallery, nowhere = np.array([-1, 0, 5, 0]), np.full(4, -1)
    matches = Matches(np.array([0, -1]), nowhere[:2], gallery, nowhere)
    zero, junk = positive_ranks(np.array([[4.0, 3, 2, 1]] * 2), matches)
    assert list(zero) == [0, 2]
    assert not junk.size
    assert [list(rows) for rows in matches[1]] == [[], [0]]


@pytest.mark.parametrize("seed", SEEDS[:5])
def test_scores_do_not_depend_on_the_block_size(seed):
    rng = np.random.default_rng(seed)
    query, gallery = rng.integers(-2, 3, (37, 3)), rng.integers(-2, 3, (301, 3))  # many equal directions
    matches = Matches(rng.integers(0, 9, 37), rng.integers(0, 3, 37), rng.integers(-1, 9, 301),
                      rng.integers(0, 3, 301))
    cosine = Cosine(unit(query), unit(gallery))
    whole = score(cosine, matches)
    for rows in (0, 1, 5, 36):
        for part, expected in zip(score(cosine, matches, block_bytes=8 * 301 * rows), whole, strict=True):
            np.testing.assert_array_equal(part, expected)


def test_one_block_of_similarities_is_held_at_a_time():
    rng = np.random.default_rng(0)
    cosine = Cosine(unit(rng.standard_normal((64, 4))), unit(rng.standard_normal((8192, 4))))
    labels = np.arange(8192)
    matches = Matches(labels[:64], np.full(64, -1), labels, np.full(8192, -1))
    block = 8 * 8192 * 16
    tracemalloc.start()
    try:
        score(cosine, matches, block_bytes=block)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * block


def test_labels_of_another_size_than_the_similarities_are_refused():
    matches = Matches(np.zeros(2, int), np.zeros(2, int), np.zeros(4, int), np.zeros(4, int))
    with pytest.raises(ValueError, match=r"similarities are \(2, 3\), labels and cameras \(2, 4\)"):
        score(np.zeros((2, 3)), matches)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_nearest_are_the_first_of_a_stable_sort_without_the_ignored(seed):
    rng = np.random.default_rng(seed)
    similarity, ignored = rng.integers(0, 5, 30) / 4, rng.choice(30, 6, replace=False)
    order = [row for row in np.argsort(-similarity, kind="stable") if row not in ignored]
    for k in (1, 7, 24, 99):
        assert list(nearest(similarity, k, ignored)) == order[:k]
        assert list(nearest(similarity, k)) == list(np.argsort(-similarity, kind="stable"))[:k]


def test_a_similarity_that_is_not_a_number_is_refused_by_its_query():
    similarity = np.zeros((3, 2))
    similarity[2, 1] = np.nan
    with pytest.raises(ValueError, match="query 2: a similarity is not a number"):
        score(similarity, Matches(np.zeros(3, int), np.full(3, -1), np.zeros(2, int), np.full(2, -1)))


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float16])
def test_similarities_of_any_type_may_have_rows_that_do_not_count(dtype):
    similarity = np.array([1, 1, 1, 0], dtype)
    np.testing.assert_array_equal(ranks_of(similarity, np.array([1]), np.array([0])), [0])
