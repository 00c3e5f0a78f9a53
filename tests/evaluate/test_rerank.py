"""k-reciprocal re-ranking against the paper written densely, and the original code's numbers."""

import numpy as np
import pytest

from data.records import DataError
from evaluate.distances import Cosine, unit
from evaluate.neighbours import neighbours
from evaluate.rerank import rerank


def nearest_by_loops(cosines, k):
    """Itself, then by falling cosine, then by row."""
    return [[i, *sorted((j for j in range(len(row)) if j != i), key=lambda j: (-row[j], j))][:k]
            for i, row in enumerate(cosines)]


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


@pytest.mark.parametrize("k", [2, 9, 41, 100, 300])
@pytest.mark.parametrize("repeated", [False, True])
def test_neighbours_equal_a_sorted_matrix_whatever_the_panels(k, repeated):
    rng = np.random.default_rng(k)
    rows = unit(rng.integers(-1, 2, (200, 3)) if repeated else rng.standard_normal((200, 5)))
    cosines = Cosine(rows, rows)[0:200]
    for panel_bytes in (1, 200 * 8 * 77, 2**20):
        found = neighbours(rows, 30, k, panel_bytes=panel_bytes)
        np.testing.assert_array_equal(found.rows, nearest_by_loops(cosines, k))
        distances = np.maximum(2 - 2 * cosines, 0)
        np.testing.assert_array_equal(found.farthest, distances.max(axis=1))
        np.testing.assert_array_equal(found.distances, distances[:30, 30:].astype(np.float32))
