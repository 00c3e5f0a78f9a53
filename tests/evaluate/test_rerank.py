"""k-reciprocal re-ranking against the paper written densely, and the original code's numbers."""

import tracemalloc

import numpy as np
import pytest

from data.records import DataError
from evaluate.distances import Cosine, unit
from evaluate.rerank import Reranked, least_mib, rerank
from tests.evaluate.loops import nearest_by_loops


def dense_rerank(cosines, queries, k1, k2, lambda_value):
    """Sections 3.2 to 3.4 of the paper with whole matrices; the original distance is 2 - 2 cosine over its largest."""
    count = len(cosines)
    original = 2 - 2 * cosines
    original = original / np.maximum(original.max(axis=1, keepdims=True), 1e-12)
    order = nearest_by_loops(cosines, count)

    def reciprocal(i, k):
        return {j for j in order[i][:k + 1] if i in order[j][:k + 1]}

    encodings = np.zeros((count, count))
    for i in range(count):
        members = expanded = reciprocal(i, k1)
        for j in members:
            theirs = reciprocal(j, round(k1 / 2))
            if 3 * len(theirs & members) > 2 * len(theirs):
                expanded = expanded | theirs
        expanded = sorted(expanded)
        encodings[i, expanded] = np.exp(-original[i, expanded])
        encodings[i] /= encodings[i].sum()
    encodings = np.stack([encodings[order[i][:k2]].mean(axis=0) for i in range(count)])
    least = np.minimum(encodings[:, None], encodings[None]).sum(axis=2)
    most = np.maximum(encodings[:, None], encodings[None]).sum(axis=2)
    distances = (1 - lambda_value) * (1 - least / most) + lambda_value * original
    return distances[:queries, queries:]


def clustered(seed, queries, gallery):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((9, 8))
    return [centres[rng.integers(0, 9, count)] + 0.6 * rng.standard_normal((count, 8)) for count in (queries, gallery)]


def dense_of(query, gallery, **options):
    rows = np.concatenate([unit(query), unit(gallery)])
    return dense_rerank(Cosine(rows, rows)[0:len(rows)], len(query), **options)


@pytest.mark.parametrize("options", [
    {"k1": 20, "k2": 6, "lambda_value": 0.3}, {"k1": 5, "k2": 1, "lambda_value": 0.0},
    {"k1": 1, "k2": 4, "lambda_value": 0.5}, {"k1": 7, "k2": 2, "lambda_value": 1.0},
])
@pytest.mark.parametrize("seed", range(3))
def test_distances_equal_the_paper_written_densely(seed, options):
    query, gallery = clustered(seed, 11, 60)
    distances = rerank(query, gallery, **options)
    assert (distances.shape, distances.dtype) == ((11, 60), np.float32)
    np.testing.assert_allclose(distances, dense_of(query, gallery, **options), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_equal_images_are_ranked_by_row_as_the_dense_form_does(seed):
    rng = np.random.default_rng(seed)
    query, gallery = rng.integers(-1, 2, (6, 3)), rng.integers(-1, 2, (50, 3))
    options = {"k1": 6, "k2": 3, "lambda_value": 0.3}
    np.testing.assert_allclose(rerank(query, gallery, **options), dense_of(query, gallery, **options), atol=1e-6)


def test_distances_equal_those_of_the_original_code(golden):
    case = golden["004_rerank_k1_4_k2_2"]
    q_g, q_q, g_g = (np.array(case["inputs"][key]) for key in ("q_g_sim", "q_q_sim", "g_g_sim"))
    values, vectors = np.linalg.eigh(np.block([[q_q, q_g], [q_g.T, g_g]]))
    embeddings = vectors * np.sqrt(np.maximum(values, 0))  # whose products are the similarities
    distances = rerank(embeddings[:3], embeddings[3:], k1=4, k2=2, lambda_value=case["params"]["lambda"])
    np.testing.assert_allclose(distances, case["outputs"]["final_distance"], atol=1e-6)


def test_more_neighbours_than_images_is_all_of_them():
    query, gallery = clustered(0, 3, 4)
    options = {"k1": 20, "k2": 30, "lambda_value": 0.3}
    dense = dense_of(query, gallery, **options)
    np.testing.assert_allclose(rerank(query, gallery, **options), dense, atol=1e-6)


def test_a_collapsed_network_leaves_all_distances_equal():
    for width in (4, 129):
        distances = rerank(np.full((3, width), 0.3), np.full((70, width), 0.3))
        assert np.ptp(distances[:, :5]) == 0
        assert distances.min() >= -1e-6


def test_a_network_about_to_collapse_still_gives_distances_from_0_to_1():
    rng = np.random.default_rng(0)
    for spread in (1e-1, 1e-3, 1e-5, 1e-7):
        query, gallery = (1 + spread * rng.standard_normal((count, 129)) for count in (20, 90))
        distances = rerank(query, gallery)
        assert distances.min() >= -1e-6
        assert distances.max() <= 1 + 1e-6


def test_shared_neighbours_bring_a_straggler_before_an_impostor():
    # The impostor is nearer to the query, but its own neighbours are others; the straggler's are the query's.
    def at(*degrees):
        return np.column_stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    query, gallery = at(0), at(4, 8, 12, 16, -15, -16, -17, -18, -19)
    straggler, impostor = 3, 4
    cosines = Cosine(unit(query), unit(gallery))[0:1][0]
    assert cosines[impostor] > cosines[straggler]
    distances = rerank(query, gallery, k1=4, k2=1)[0]
    assert distances[straggler] < distances[impostor]


def test_an_embedding_that_is_not_finite_is_named_by_side_and_row():
    with pytest.raises(DataError, match="gallery: the embedding of row 1 is not finite"):
        rerank(np.ones((2, 2)), np.array([[1, 0], [np.nan, 0]]))


def test_one_query_and_one_image_are_each_others_neighbours():
    query, gallery = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]])
    # Both are encoded as exp(0) of themselves and exp(-1) of the other, then averaged: what they share is all.
    np.testing.assert_allclose(rerank(query, gallery, lambda_value=0.3), [[0.3]], atol=1e-6)


def test_rows_are_those_of_the_whole_matrix_however_they_are_asked_for():
    query, gallery = clustered(1, 140, 90)
    found = Reranked(Cosine(unit(query), unit(gallery)), k1=7, k2=3)
    whole = rerank(query, gallery, k1=7, k2=3)
    assert found.shape == whole.shape
    for rows in (slice(None), slice(0, 1), slice(37, 41), slice(-3, None), slice(5, None, 30), slice(9, 9)):
        np.testing.assert_array_equal(found[rows], -whole[rows])


def sides_of_every_kind():
    rng = np.random.default_rng(3)
    return {"clustered": clustered(2, 60, 340),
            "repeated": [rng.integers(-1, 2, (count, 4)) for count in (60, 340)],
            "collapsed": [np.full((count, 4), 0.3) for count in (60, 340)]}


@pytest.mark.parametrize("kind", ["clustered", "repeated", "collapsed"])
@pytest.mark.parametrize("options", [{"k1": 20, "k2": 6}, {"k1": 100, "k2": 30}])
def test_a_budget_is_kept_and_changes_no_distance(kind, options):
    cosine = Cosine(*map(unit, sides_of_every_kind()[kind]))
    least = least_mib(sum(cosine.shape), cosine.query.shape[1], **options)
    ample = Reranked(cosine, **options)[:]
    for budget in (least, least + 60):
        tracemalloc.start()
        found = Reranked(cosine, **options, budget_mib=budget)[:]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(found, ample)
        assert peak - found.nbytes <= budget * 2**20


def test_images_that_all_name_the_same_few_keep_the_budget():
    cosine = Cosine(unit(np.full((60, 4), 0.3)), unit(np.full((2500, 4), 0.3)))
    budget = least_mib(2560, 4, 20, 6)
    tracemalloc.start()
    Reranked(cosine, budget_mib=budget)[:]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= budget * 2**20


def test_the_least_budget_loses_no_image_of_the_first_ten():
    query, gallery = clustered(4, 20, 180)
    options = {"k1": 20, "k2": 6, "lambda_value": 0.3}
    expected = np.argsort(dense_of(query, gallery, **options), axis=1)[:, :10]
    found = rerank(query, gallery, **options, budget_mib=least_mib(200, 8, 20, 6))
    np.testing.assert_array_equal(np.argsort(found, axis=1)[:, :10], expected)


def test_a_budget_too_small_is_refused_with_the_one_it_takes():
    query, gallery = clustered(0, 5, 40)
    least = least_mib(45, 8, 20, 6)
    with pytest.raises(DataError, match=rf"budget_mib: 45 images of 8 numbers need {least} .*{least - 1} are given"):
        rerank(query, gallery, budget_mib=least - 1)


def test_the_least_budget_grows_with_the_images_and_not_with_their_square():
    assert least_mib(800_000, 512, 20, 6) < 2.05 * least_mib(400_000, 512, 20, 6)


@pytest.mark.parametrize("seed", range(10))
def test_repeated_images_are_at_no_distance_below_zero(seed):
    embeddings = np.repeat(np.random.default_rng(seed).normal(size=(10, 2)), 5, axis=0).astype(np.float32)
    distances = rerank(embeddings[:5], embeddings[5:])
    assert distances.min() >= 0
    assert distances.max() <= 1


def test_a_side_without_images_gives_a_matrix_without_entries():
    embeddings = np.eye(3, dtype=np.float32)
    assert rerank(embeddings, embeddings[:0]).shape == (3, 0)
    assert rerank(embeddings[:0], embeddings).shape == (0, 3)
