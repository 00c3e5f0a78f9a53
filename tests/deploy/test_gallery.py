import json
import threading
import tracemalloc

import numpy as np
import pytest

from deploy import FeatureExtractor, Gallery, GalleryError, Hit, nearest
from tests.deploy.inputs import drawn

DIM = 6
FINGERPRINT = "5eed" * 16


class Plain:
    """The contract, written as a dict and one search of all that is in it."""

    def __init__(self):
        self.entries = {}

    def add(self, embeddings, names, *, cameras, tags):
        for embedding, name, camera, tag in zip(embeddings, names, cameras, tags, strict=True):
            self.entries.pop(name, None)
            self.entries[name] = embedding, int(camera), tag

    def remove(self, names):
        return sum(self.entries.pop(name, None) is not None for name in names)

    def search(self, query, k, counts=lambda camera, tag: True):
        chosen = [(name, *entry) for name, entry in self.entries.items() if counts(*entry[1:])]
        rows = np.array([entry[1] for entry in chosen], np.float32).reshape(-1, DIM)
        found = nearest(query, rows, k)
        return [[Hit(chosen[row][0], float(similarity), *chosen[row][2:])
                 for row, similarity in zip(*of_query, strict=True)] for of_query in zip(*found, strict=True)]


@pytest.fixture(scope="module", params=[1, 40, 2**16])
def both(request):
    """A gallery after fifty additions and removals, and the same as a plain dict; parts up to so many rows merge."""
    gallery, plain = Gallery(FINGERPRINT, DIM), Plain()
    draw = np.random.default_rng(1)
    pool = drawn(30, seed=2)  # few vectors for many entries: similarities are often equal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deploy.gallery.entries.MERGED", request.param)
        for i in range(50):
            count = int(draw.integers(1, 20))
            names = [f"entry {number}" for number in draw.permutation(200)[:count]]
            if i % 5 == 4:
                assert gallery.remove(names) == plain.remove(names)
                continue
            cameras, tags = draw.integers(-1, 3, count), draw.choice(["", "red", "blue"], count).tolist()
            embeddings = pool[draw.integers(0, len(pool), count)]
            for each in (gallery, plain):
                each.add(embeddings, names, cameras=cameras, tags=tags)
    return gallery, plain


@pytest.mark.parametrize("k", [1, 10, 1000])
def test_a_changed_gallery_finds_what_one_search_of_all_entries_finds(both, k):
    gallery, plain = both
    assert gallery.search(drawn(9, seed=3), k) == plain.search(drawn(9, seed=3), k)


def test_entries_are_told_in_order_of_adding(both):
    gallery, plain = both
    assert len(gallery) == len(plain.entries) > 50
    assert gallery.names == list(plain.entries)
    assert gallery.cameras.tolist() == [camera for _, camera, _ in plain.entries.values()]
    assert gallery.tags == [tag for _, _, tag in plain.entries.values()]


FILTERS = {
    "one camera": ({"cameras": [2]}, lambda camera, tag: camera == 2),
    "two cameras": ({"cameras": {0, -1}}, lambda camera, tag: camera in (0, -1)),
    "one tag": ({"tags": ["red"]}, lambda camera, tag: tag == "red"),
    "no tag or another": ({"tags": {"", "blue"}}, lambda camera, tag: tag != "red"),
    "camera and tag": ({"cameras": np.array([1, 7]), "tags": ("red", "green")},
                       lambda camera, tag: camera == 1 and tag == "red"),
    "a camera that is not there": ({"cameras": [9]}, lambda camera, tag: False),
    "a tag that is not there": ({"tags": ["green"]}, lambda camera, tag: False),
    "none": ({"cameras": [], "tags": []}, lambda camera, tag: False),
}


@pytest.mark.parametrize("name", FILTERS)
def test_only_entries_that_pass_the_filters_are_found(both, name):
    gallery, plain = both
    filters, counts = FILTERS[name]
    assert gallery.search(drawn(9, seed=3), 5, **filters) == plain.search(drawn(9, seed=3), 5, counts)


def test_nothing_of_a_query_s_own_camera_is_found(both):
    gallery, plain = both
    query, own = drawn(9, seed=3), [0, 2, 2, -1, 0, 1, 5, 2, -1]
    found = gallery.search(query, 5, query_cameras=own, tags=["red"])
    for i in range(9):
        counts = {(camera, "red") for camera in (-1, 0, 1, 2) if camera != own[i] or camera == -1}
        assert found[i:i + 1] == plain.search(query[i:i + 1], 5, lambda *entry, counts=counts: entry in counts)


def test_four_entries_in_a_plane_are_found_by_hand():
    gallery = Gallery(FINGERPRINT, 2)
    gallery.add(np.array([[0, 1], [1, 0], [0.6, 0.8]], np.float32), ["up", "right", "between"], tags=["a", "", "b"])
    gallery.add(np.array([[0, 1]], np.float32), ["up too"], cameras=[3])
    up = np.array([[0, 1]], np.float32)
    best = [Hit("up", 1.0, -1, "a"), Hit("up too", 1.0, 3, ""), Hit("between", float(np.float32(0.8)), -1, "b")]
    assert gallery.search(up, 3) == [best]
    assert gallery.search(up, threshold=0.8) == [best]
    assert gallery.search(up, threshold=1) == [best[:2]]
    assert gallery.search(np.array([[-1, 0]], np.float32), threshold=0.5) == [[]]


def test_a_replaced_entry_counts_as_added_last():
    gallery = Gallery(FINGERPRINT, DIM)
    gallery.add(drawn(1)[[0, 0]], ["first", "second"], tags=["old", "old"])
    gallery.add(drawn(1), ["first"], tags=["new"])
    assert [(hit.name, hit.tag) for hit in gallery.search(drawn(1))[0]] == [("second", "old"), ("first", "new")]
    assert ("first" in gallery, "third" in gallery) == (True, False)


def test_what_was_removed_is_not_found_until_it_is_added_again():
    gallery = Gallery(FINGERPRINT, DIM)
    gallery.add(drawn(3), ["a", "b", "c"])
    assert gallery.remove(["b", "b", "unknown"]) == 1
    assert (gallery.names, len(gallery), "b" in gallery) == (["a", "c"], 2, False)
    assert gallery.remove(["b"]) == 0
    gallery.add(drawn(3)[1:2], ["b"])
    assert gallery.search(drawn(3)[1:2], 1)[0][0].name == "b"
    assert gallery.remove("abc"[i] for i in range(3)) == 3
    assert (gallery.search(drawn(3)), gallery.names) == ([[], [], []], [])


@pytest.mark.parametrize("at_once", [1, 500])
def test_what_was_removed_leaves_memory(at_once):
    rows, names = np.tile(drawn(2000), (1, 100)) / np.float32(10), [str(i) for i in range(2000)]
    gallery = Gallery(FINGERPRINT, DIM * 100)
    tracemalloc.start()
    for first in range(0, 2000, 500):
        gallery.add(rows[first:first + 500], names[first:first + 500])
    full, _ = tracemalloc.get_traced_memory()
    for first in range(0, 1900, at_once):
        gallery.remove(names[first:min(first + at_once, 1900)])
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert gallery.names == names[1900:]
    assert gallery.search(rows[1995:1996], 1)[0][0].name == "1995"
    assert full > rows.nbytes > 7 * left


def test_an_empty_gallery_finds_nothing_and_no_query_gives_no_answer():
    gallery = Gallery(FINGERPRINT, DIM)
    assert gallery.search(drawn(2)) == [[], []]
    gallery.add(drawn(0), [])
    gallery.add(drawn(3), ["a", "b", "c"])
    assert gallery.search(drawn(0)) == []


def test_the_gallery_keeps_a_copy_of_what_it_was_given():
    gallery, embeddings = Gallery(FINGERPRINT, DIM), drawn(2)
    gallery.add(embeddings, ["a", "b"])
    embeddings[:] = 0
    assert gallery.search(drawn(2)[:1], 1)[0][0].similarity == pytest.approx(1)


def test_a_search_beside_changes_sees_the_gallery_before_or_after_each():
    gallery = Gallery(FINGERPRINT, DIM)
    gallery.add(drawn(40), [str(i) for i in range(40)])
    done, seen = threading.Event(), set()

    def search():
        while not done.is_set():
            seen.add(len(gallery.search(drawn(1), 100)[0]))

    reader = threading.Thread(target=search)
    reader.start()
    for i in range(100):
        gallery.add(drawn(40, seed=i), [str(j) for j in range(40)])  # replaces all
    done.set()
    reader.join()
    assert seen == {40}


@pytest.fixture
def extractor(model):
    return FeatureExtractor(model, providers="CPUExecutionProvider", threads=1)


def test_a_gallery_of_a_model_has_its_fingerprint_size_and_thresholds(extractor, encoded):
    gallery = Gallery.of(extractor)
    assert (gallery.fingerprint, gallery.dim) == (FINGERPRINT, DIM)
    assert gallery.thresholds == extractor.metadata["thresholds"]
    gallery.add(extractor.extract(encoded), [str(i) for i in range(7)])
    [hits] = gallery.search(extractor.extract(encoded[3:4]), threshold="far=1e-3")
    assert hits[0].name == "3" and all(hit.similarity >= 0.99 for hit in hits)


def test_a_gallery_takes_the_thresholds_of_the_model_that_it_is_bound_to(extractor, with_metadata, tmp_path):
    def measure_again(properties):
        properties["thresholds"] = json.dumps({"far=1e-2": {"threshold": 0.8, "tar": 0.9}})

    again = FeatureExtractor(with_metadata("again.onnx", measure_again), providers="CPUExecutionProvider", threads=1)
    Gallery.of(extractor).save(tmp_path / "people")
    gallery = Gallery.load(tmp_path / "people")
    assert gallery.threshold_of("far=1e-2") == 0.9
    gallery.bind(again)
    assert gallery.thresholds == again.metadata["thresholds"]
    assert gallery.threshold_of("far=1e-2") == 0.8


def test_another_model_s_embeddings_are_refused(extractor, with_metadata):
    other = FeatureExtractor(with_metadata("b.onnx", lambda properties: properties.update(fingerprint='"beef"')),
                             providers="CPUExecutionProvider", threads=1)
    with pytest.raises(GalleryError, match="b.onnx: its fingerprint is beef, the gallery was built with a model "
                                           "of 5eed5eed5eed; take that one, or build the gallery again$"):
        Gallery.of(extractor).bind(other)


def test_a_model_without_fingerprint_makes_no_gallery(with_metadata):
    nameless = FeatureExtractor(with_metadata("c.onnx", lambda properties: properties.pop("fingerprint")),
                                providers="CPUExecutionProvider", threads=1)
    with pytest.raises(GalleryError, match="c.onnx: no fingerprint in its metadata; export it again$"):
        Gallery.of(nameless)
