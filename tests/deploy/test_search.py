import re
import tracemalloc
from functools import partial

import numpy as np
import pytest

from deploy import Nearest, SearchError, nearest
from deploy.search import similarities
from tests.deploy import inputs
from tests.deploy.inputs import unit

DIM = 24
drawn = partial(inputs.drawn, dim=DIM)


def by_sorting(query, gallery, k):
    """The contract, written as a full sort of float64 sums."""
    products = (query[:, None].astype(np.float64) * gallery).sum(axis=2).astype(np.float32)
    rows = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return Nearest(rows, np.take_along_axis(products, rows, axis=1))


def assert_same(found, expected):
    """The same rows and, to the last bit, the same similarities."""
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.similarities, expected.similarities)
    assert (found.rows.dtype, found.similarities.dtype) == (np.int64, np.float32)


@pytest.fixture(scope="module")
def query():
    return drawn(7, seed=1)


@pytest.fixture(scope="module")
def gallery(query):
    """500 rows: of some there are ten copies, and near each query twenty that differ in the last bits."""
    rows = drawn(300)
    close = np.repeat(unit(query + 0.7 * drawn(7, seed=4)), 20, axis=0)
    close = close + np.random.default_rng(2).normal(0, 1e-7, close.shape)
    mixed = np.concatenate([rows, unit(close), np.repeat(rows[:6], 10, axis=0)])
    return np.random.default_rng(3).permutation(mixed)


def test_four_vectors_in_the_plane_are_ranked_by_hand():
    gallery = np.array([[0, 1], [0.6, 0.8], [1, 0], [0.6, 0.8]], np.float32)
    found = nearest(np.array([[0, 1], [1, 0]], np.float32), gallery, 3)
    assert found.rows.tolist() == [[0, 1, 3], [2, 1, 3]]
    np.testing.assert_array_equal(found.similarities, np.array([[1, 0.8, 0.8], [1, 0.6, 0.6]], np.float32))


@pytest.mark.parametrize("k", [1, 2, 9, 50, 499, 500, 501, 10**6])
@pytest.mark.parametrize("block_bytes", [1, 900, 5000, 2**24])
def test_rows_and_similarities_are_those_of_a_full_sort(query, gallery, k, block_bytes):
    assert_same(nearest(query, gallery, k, block_bytes=block_bytes), by_sorting(query, gallery, k))


@pytest.mark.parametrize("order", [1, -1])
def test_a_gallery_in_the_order_of_similarity_costs_no_exactness(query, gallery, order):
    gallery = gallery[np.argsort(order * (gallery @ query[0]))]
    assert_same(nearest(query, gallery, 5, block_bytes=1500), by_sorting(query, gallery, 5))


def test_of_equal_rows_the_first_are_found(query):
    found = nearest(query, np.repeat(query[:1], 200, axis=0), 4, block_bytes=1000)
    assert found.rows.tolist() == [[0, 1, 2, 3]] * len(query)


def test_one_query_is_answered_as_it_is_among_many():
    query, gallery = drawn(1500, seed=5), drawn(80)
    together = nearest(query, gallery, 3)
    assert_same(together, by_sorting(query, gallery, 3))
    for i in (0, 255, 256, 1499):
        assert_same(nearest(query[i:i + 1], gallery, 3), Nearest(*(part[i:i + 1] for part in together)))


def test_no_query_and_no_gallery_give_no_rows(query, gallery):
    assert nearest(query[:0], gallery, 3).rows.shape == (0, 3)
    assert nearest(query, gallery[:0], 3).rows.shape == (7, 0)
    assert nearest(query, gallery, 3, among=np.zeros(500, bool)).similarities.shape == (7, 0)


CHOICES = {
    "all": np.arange(500),
    "all but some": np.flatnonzero(np.arange(500) % 50),
    "one in three": np.arange(0, 500, 3),
    "a few far apart": np.array([3, 100, 101, 222, 499]),
    "a run": np.arange(120, 380),
    "a run and one far off": np.array([*range(100), 499]),
}


@pytest.mark.parametrize("block_bytes", [1, 900, 2**24])
@pytest.mark.parametrize("rows", CHOICES.values(), ids=CHOICES)
def test_only_rows_among_those_given_are_found(query, gallery, rows, block_bytes, monkeypatch):
    monkeypatch.setattr("deploy.search.COPIED", 2)
    of_them = by_sorting(query, gallery[rows], 9)
    expected = Nearest(rows[of_them.rows], of_them.similarities)
    mask = np.isin(np.arange(500), rows)
    any_order = np.random.default_rng(0).permutation(np.concatenate([rows, rows[:2]])).astype(np.int32)
    for among in (rows, mask, any_order):
        assert_same(nearest(query, gallery, 9, among=among, block_bytes=block_bytes), expected)


def test_what_stands_in_rows_left_out_does_not_matter(query, gallery):
    spoilt = gallery.copy()
    spoilt[::50] = np.nan
    rest = np.arange(500) % 50 > 0
    assert_same(nearest(query, spoilt, 9, among=rest), nearest(query, gallery, 9, among=rest))


def test_a_memory_mapped_gallery_is_searched_without_a_copy_of_it(tmp_path):
    rows, query = drawn(40_000, dim=128), drawn(3, seed=1, dim=128)
    np.save(tmp_path / "gallery.npy", rows)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    some = np.arange(0, 40_000, 3)
    expected = nearest(query, rows, 5), nearest(query, rows, 5, among=some)
    tracemalloc.start()
    found = nearest(query, mapped, 5, block_bytes=2**16), nearest(query, mapped, 5, among=some, block_bytes=2**16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)
    assert peak < rows.nbytes / 4


def test_the_layout_of_the_gallery_changes_nothing(query, gallery):
    expected = nearest(query, gallery, 20)
    assert_same(nearest(np.asfortranarray(query), np.asfortranarray(gallery), 20), expected)
    assert_same(nearest(query, np.repeat(gallery, 2, axis=0)[::2], 20), expected)


def test_embeddings_of_half_precision_are_long_enough_to_be_searched(query, gallery):
    half = gallery.astype(np.float16).astype(np.float32)
    assert np.linalg.norm(half, axis=1).max() > 1
    assert_same(nearest(query, half, 9), by_sorting(query, half, 9))


def test_similarities_of_pairs_are_sums_in_float64(query, gallery):
    queries, rows = np.array([6, 0, 0]), np.array([1, 499, 1])
    expected = [(query[q].astype(np.float64) * gallery[row]).sum() for q, row in zip(queries, rows, strict=True)]
    np.testing.assert_array_equal(similarities(query, gallery, queries, rows), np.float32(expected))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("count", [1, 7])
def test_a_row_that_is_not_finite_is_refused_by_its_number(count, value, gallery):
    query, spoilt = np.eye(DIM, dtype=np.float32)[:count], gallery.copy()
    spoilt[417, DIM - 1 if abs(value) == np.inf or np.isnan(value) else 0] = value  # met by no query but the last
    with pytest.raises(SearchError, match=r"^gallery row 417: length 1 expected, got (nan|inf); use .* gives them$"):
        nearest(query, spoilt, 3, block_bytes=2000)


MISTAKES = {
    "query: float32 of shape (N, D) expected, got float64 (7, 24)": lambda q, g: nearest(q.astype(float), g, 3),
    "query: float32 of shape (N, D) expected, got float32 (24,)": lambda q, g: nearest(q[0], g, 3),
    "gallery: float32 of shape (N, D) expected, got float16 (500, 24)":
        lambda q, g: nearest(q, g.astype(np.float16), 3),
    "query: the gallery's 23 dimensions expected, got 24; embed both with the same model":
        lambda q, g: nearest(q, g[:, :23], 3),
    "query: an array, float32 of shape (N, D), expected, got list": lambda q, g: nearest(q.tolist(), g, 3),
    "gallery: an array, float32 of shape (N, D), expected, got list": lambda q, g: nearest(q, [*g], 3),
    "k: a whole number from 1 expected, got 0": lambda q, g: nearest(q, g, 0),
    "k: a whole number from 1 expected, got 2.0": lambda q, g: nearest(q, g, 2.0),
    "k: a whole number from 1 expected, got None": lambda q, g: nearest(q, g, None),
    "query 0: length 1 expected, got 2; use embeddings as the model gives them": lambda q, g: nearest(2 * q, g, 3),
    "query 0: length 1 expected, got 0.5; use embeddings as the model gives them": lambda q, g: nearest(q / 2, g, 3),
    "query 0: length 1 expected, got 0; use embeddings as the model gives them": lambda q, g: nearest(0 * q, g, 3),
    "query 0: length 1 expected, got nan; use embeddings as the model gives them":
        lambda q, g: nearest(q * np.float32(np.nan), g, 3),
    "among: a mask (500,) or an array of rows expected, got bool (499,)":
        lambda q, g: nearest(q, g, 3, among=np.ones(499, bool)),
    "among: a mask (500,) or an array of rows expected, got float64 (2,)":
        lambda q, g: nearest(q, g, 3, among=np.array([1.0, 2.0])),
    "among: a mask (500,) or an array of rows expected, got list": lambda q, g: nearest(q, g, 3, among=[1, 2]),
    "among: rows from 0 to 499 expected, got -1 to 7": lambda q, g: nearest(q, g, 3, among=np.array([7, -1])),
    "among: rows from 0 to 499 expected, got 7 to 500": lambda q, g: nearest(q, g, 3, among=np.array([7, 500])),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_search_that_cannot_be_done_says_why_in_one_line(query, gallery, message):
    with pytest.raises(SearchError, match=f"^{re.escape(message)}$"):
        MISTAKES[message](query, gallery)


@pytest.mark.parametrize("length", [10, 0.5, 0])
def test_vectors_that_are_not_unit_are_refused_when_met(query, gallery, length):
    with pytest.raises(SearchError, match=rf"^gallery row \d+: length 1 expected, got {length};"):
        nearest(query, np.float32(length) * gallery, 3)


def test_a_whole_number_of_numpy_is_a_k(query, gallery):
    assert_same(nearest(query, gallery, np.int16(4)), nearest(query, gallery, 4))


def test_nothing_is_found_in_no_gallery_however_small_the_block(query, gallery):
    assert nearest(query, gallery[:0], 3, block_bytes=1).rows.shape == (len(query), 0)
