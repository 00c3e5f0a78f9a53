"""The nearest of every image against a sorted matrix of exact cosines."""

import tracemalloc

import numpy as np
import pytest

from evaluate.distances import Cosine, unit
from evaluate.neighbours import bytes_per_image, distance, neighbours
from tests.evaluate.loops import nearest_by_loops


def embeddings_of(kind, count=200):
    rng = np.random.default_rng(count)
    if kind == "repeated":  # 27 points, many times each
        return rng.integers(-1, 2, (count, 3))
    if kind == "half collapsed":
        return np.where(np.arange(count)[:, None] % 2, 0.3, rng.standard_normal((count, 5)))
    if kind.startswith("within"):  # closer to each other than float32 can tell
        return 1 + float(kind.split()[1]) * rng.standard_normal((count, 130))
    return rng.standard_normal((count, 5))


KINDS = ("spread", "repeated", "half collapsed", "within 1e-3", "within 1e-5", "within 1e-7")


@pytest.mark.parametrize("k", [1, 2, 9, 41, 300])
@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_equal_a_sorted_matrix_whatever_the_tiles(k, kind):
    rows = unit(embeddings_of(kind))
    cosines = Cosine(rows, rows)[0:200]
    expected = np.array(nearest_by_loops(cosines, k))
    others = np.where(np.eye(200, dtype=bool), np.inf, cosines)
    for tile_bytes in (1, 80 * 77**2, 2**28):
        found = neighbours(rows, k, tile_bytes=tile_bytes)
        np.testing.assert_array_equal(found.rows, expected)
        np.testing.assert_array_equal(found.cosines, np.take_along_axis(cosines, expected, axis=1))
        np.testing.assert_array_equal(found.farthest, np.maximum(distance(others.min(axis=1)), 1e-12))


def test_a_zero_embedding_is_its_own_nearest_and_the_others_follow_by_row():
    rows = unit(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]))
    found = neighbours(rows, 3)
    np.testing.assert_array_equal(found.rows, [[0, 1, 2], [1, 0, 2], [2, 0, 1]])
    np.testing.assert_array_equal(found.farthest, [2, 2, 2])


def test_a_single_image_has_itself():
    found = neighbours(unit(np.ones((1, 4))), 5)
    np.testing.assert_array_equal(found.rows, [[0]])
    assert found.farthest > 0


@pytest.mark.parametrize("kind", ["spread", "half collapsed", "within 1e-7"])
def test_memory_is_that_of_a_tile_and_of_a_few_numbers_an_image(kind):
    rows, tile_bytes, k = unit(embeddings_of(kind, 3000)), 2**20, 5
    tracemalloc.start()
    neighbours(rows, k, tile_bytes=tile_bytes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < tile_bytes + len(rows) * bytes_per_image(rows.shape[1], k)
