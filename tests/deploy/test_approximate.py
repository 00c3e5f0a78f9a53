import importlib.util
import sys

import numpy as np
import pytest

from deploy import SearchError, nearest
from deploy.approximate import ApproximateIndex
from tests.deploy.inputs import unit

needs_faiss = pytest.mark.skipif(not importlib.util.find_spec("faiss"),
                                 reason="approximate search needs faiss: pip install faiss-cpu")


def identities(count, of_each, dim=32):
    """Unit vectors about random centres, one of each identity after the other, as a trained network gives them."""
    draw = np.random.default_rng(0)
    vectors = np.tile(draw.standard_normal((count, dim)), (of_each, 1))
    vectors += 0.5 * draw.standard_normal(vectors.shape)
    return unit(vectors)


@pytest.fixture(scope="module")
def vectors():
    return identities(200, 20)


@pytest.fixture(scope="module")
def gallery(vectors):
    return vectors[200:]


@pytest.fixture(scope="module")
def query(vectors):
    return vectors[:200]


@pytest.fixture(scope="module")
def index(gallery):
    pytest.importorskip("faiss", reason="approximate search needs faiss: pip install faiss-cpu")
    return ApproximateIndex.build(gallery)


def test_recall_of_clusters_is_nearly_full_and_falls_with_fewer_probes(index, query):
    few, some, many = (index.recall(query, 10, probes=probes) for probes in (1, 4, 16))
    assert 0.5 < few < some < many and many > 0.97


def test_recall_is_the_share_of_the_true_neighbours_found(index, query, gallery):
    truth, found = nearest(query, gallery, 10).rows, index.nearest(query, 10, probes=2).rows
    shared = [len(np.intersect1d(*pair)) / 10 for pair in zip(truth, found, strict=True)]
    assert index.recall(query, 10, probes=2) == pytest.approx(np.mean(shared))


def test_a_look_into_all_lists_gives_what_exact_search_gives(index, query, gallery):
    found, expected = index.nearest(query, 8, probes=10**6), nearest(query, gallery, 8)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.similarities, expected.similarities)
    assert (found.rows.dtype, found.similarities.dtype) == (np.int64, np.float32)


def test_rows_left_out_are_not_found(index, query, gallery):
    among = np.arange(len(gallery)) % 3 == 1
    found, expected = index.nearest(query, 5, among=among, probes=10**6), nearest(query, gallery, 5, among=among)
    np.testing.assert_array_equal(found.rows, expected.rows)
    of_rows = index.nearest(query, 5, among=np.flatnonzero(among), probes=10**6)
    np.testing.assert_array_equal(of_rows.rows, expected.rows)


def test_places_that_the_lists_cannot_fill_are_marked(index, query, gallery):
    found = index.nearest(query, len(gallery), probes=2)
    assert found.rows.shape == (200, len(gallery))
    missing = found.rows == -1
    assert missing.any() and (missing == np.isneginf(found.similarities)).all()
    assert (np.diff(missing.astype(int), axis=1) >= 0).all()  # they come last


def test_no_query_and_no_row_give_no_rows(index, query, gallery):
    assert index.nearest(query[:0], 3).rows.shape == (0, 3)
    assert index.nearest(query, 3, among=np.zeros(len(gallery), bool)).rows.shape == (200, 0)
    assert index.nearest(query, 10**6).rows.shape == (200, len(gallery))


def test_a_saved_index_finds_the_same_over_a_mapped_gallery(index, query, gallery, tmp_path):
    np.save(tmp_path / "gallery.npy", gallery)
    index.save(tmp_path / "gallery.index")
    assert {path.name for path in tmp_path.iterdir()} == {"gallery.npy", "gallery.index"}
    loaded = ApproximateIndex.load(tmp_path / "gallery.index", np.load(tmp_path / "gallery.npy", mmap_mode="r"))
    for found, expected in zip(loaded.nearest(query, 6), index.nearest(query, 6), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_index_that_does_not_fit_or_is_damaged_is_refused_by_name(index, gallery, tmp_path):
    path = tmp_path / "g.index"
    with pytest.raises(SearchError, match=r"g\.index: cannot be read: No such file or directory$"):
        ApproximateIndex.load(path, gallery)
    index.save(path)
    with pytest.raises(SearchError, match=r"g\.index: made for a gallery of 3800 x 32, this one is 3799 x 32; build"):
        ApproximateIndex.load(path, gallery[1:])
    for other in (gallery[::-1], np.roll(gallery, 1, axis=1), np.concatenate([gallery[:-1], gallery[:1]])):
        with pytest.raises(SearchError, match=r"g\.index: made for a gallery of other rows; build it again$"):
            ApproximateIndex.load(path, other)
    whole = path.read_bytes()
    for end in (0, 11, 12, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(SearchError, match=r"g\.index: damaged, or not an index; build it again$"):
            ApproximateIndex.load(path, gallery)
    path.write_bytes(whole[12:])  # as faiss would write it alone
    with pytest.raises(SearchError, match=r"g\.index: damaged, or not an index; build it again$"):
        ApproximateIndex.load(path, gallery)


def test_an_index_that_cannot_be_saved_says_why(index, tmp_path):
    with pytest.raises(SearchError, match=f"^{tmp_path}/absent/g.index: cannot be written: .* No such file or direct"):
        index.save(tmp_path / "absent" / "g.index")


def test_a_search_that_cannot_be_done_says_why(index, query):
    with pytest.raises(SearchError, match="^probes: a whole number from 1 expected, got 0$"):
        index.nearest(query, 3, probes=0)
    with pytest.raises(SearchError, match="^query: at least 1 expected to measure recall, got none$"):
        index.recall(query[:0], 3)
    with pytest.raises(SearchError, match="^query: the gallery's 32 dimensions expected, got 31;"):
        index.nearest(query[:, 1:], 3)


@needs_faiss
def test_a_gallery_that_cannot_be_indexed_is_refused(gallery):
    with pytest.raises(SearchError, match="^gallery: at least 39 rows expected, got 38; search it exactly$"):
        ApproximateIndex.build(gallery[:38])
    spoilt = gallery.copy()
    spoilt[1234] = np.nan
    with pytest.raises(SearchError, match="^gallery row 1234: length 1 expected, got nan;"):
        ApproximateIndex.build(spoilt)


def test_without_faiss_the_remedy_is_named(gallery, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SearchError, match="^approximate search needs faiss: pip install faiss-cpu$"):
        ApproximateIndex.build(gallery)
