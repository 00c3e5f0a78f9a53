"""Cosines that are exact, and so the same however they are computed."""

import numpy as np
import pytest

from data.records import DataError
from evaluate.distances import Cosine, ShiftedAngle, unit


@pytest.fixture
def embeddings():
    return (np.random.default_rng(3).standard_normal((70, 129)) * 40).astype(np.float32)


def test_cosines_equal_the_textbook_formula(embeddings):
    wide = embeddings.astype(np.float64)
    expected = wide @ wide.T / np.outer(np.linalg.norm(wide, axis=1), np.linalg.norm(wide, axis=1))
    np.testing.assert_allclose(Cosine(unit(embeddings), unit(embeddings))[0:70], expected, atol=5e-8)


def test_cosines_are_exact_sums_of_products(embeddings):
    rows = unit(embeddings)
    whole = (rows * 2**26).astype(int).astype(object)  # Python's integers do not round
    assert np.array_equal(rows * 2**26, whole.astype(float))
    assert np.array_equal(Cosine(rows, rows)[0:70] * 2**52, (whole @ whole.T).astype(float))
    assert np.abs(whole @ whole.T).max() < 2**53


def test_cosines_do_not_depend_on_block_or_neighbours(embeddings):
    rows = unit(embeddings)
    whole = Cosine(rows, rows)[0:70]
    order = np.random.default_rng(0).permutation(70)
    for q in range(70):
        np.testing.assert_array_equal(Cosine(rows, rows)[q:q + 1], whole[q:q + 1])
    np.testing.assert_array_equal(Cosine(rows, unit(embeddings[order]))[0:70], whole[:, order])


def test_equal_images_tie_wherever_they_stand(embeddings):
    gallery = embeddings[np.arange(70) % 5]
    cosines = Cosine(unit(embeddings), unit(gallery))[0:70]
    np.testing.assert_array_equal(cosines, cosines[:, np.arange(70) % 5])


def test_a_zero_vector_stays_zero_and_a_tiny_one_is_scaled():
    rows = unit(np.array([[0, 0], [3e-8, 4e-8]], np.float32))
    np.testing.assert_allclose(rows, [[0, 0], [0.6, 0.8]], atol=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_is_named_by_split_and_row(embeddings, value):
    embeddings[[7, 12], 3] = value
    with pytest.raises(DataError, match="gallery: the embedding of row 7 is not finite, nor are 2 of 70"):
        unit(embeddings, "gallery")


def test_a_shifted_angle_is_that_of_the_distance_less_the_shift(embeddings):
    rows = unit(embeddings)
    shift = np.linspace(-1, 1, 70)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    expected = -(2 * np.arcsin(np.minimum(distances / 2, 1)) + shift)
    found = ShiftedAngle(Cosine(rows, rows), shift)[0:70]
    apart = distances > 0.1
    np.testing.assert_allclose(found[apart], expected[apart], atol=1e-6)
    np.testing.assert_allclose(found[~apart], expected[~apart], atol=1e-3)  # of equal ones the arc cosine is steep
