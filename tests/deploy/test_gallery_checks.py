"""What a gallery takes for thresholds, cameras, names and embeddings, and what it says of anything else."""

import numpy as np
import pytest

from deploy import Gallery, GalleryError, SearchError
from tests.deploy.inputs import drawn

DIM = 6
FINGERPRINT = "5eed" * 16
LAST = 2**63 - 1
LEVELS = {"far=1e-2": {"threshold": 0.25, "tar": 0.9}, "far=1e-4": {"needs": 300000, "has": 120000}, "split": "query"}


@pytest.mark.parametrize(("asked", "threshold"), [
    (None, None), (0.5, 0.5), (-1, -1), ("0.5", 0.5), (np.float32(0.5), 0.5), ("far=1e-2", 0.25)])
def test_a_threshold_is_a_cosine_or_a_level_of_the_model(asked, threshold):
    gallery = Gallery(FINGERPRINT, DIM, LEVELS)
    gallery.add(drawn(50), [str(i) for i in range(50)])
    assert gallery.threshold_of(asked) == threshold
    everything = gallery.search(drawn(2, seed=1), 50)
    accepted = [[hit for hit in hits if threshold is None or hit.similarity >= threshold] for hits in everything]
    assert gallery.search(drawn(2, seed=1), 50, threshold=asked) == accepted
    assert min(map(len, accepted)) < 50 or threshold in (None, -1)


def test_a_level_may_lie_above_every_cosine():
    gallery = Gallery(FINGERPRINT, DIM, {"far=1e-2": {"threshold": 1.00003, "tar": 0}})
    gallery.add(drawn(1), ["a"])
    assert gallery.threshold_of("far=1e-2") == 1.00003
    assert gallery.search(drawn(1), threshold="far=1e-2") == [[]]


WRONG_THRESHOLDS = {
    "thresholds: far=1e-2: numbers threshold, or needs and has, expected, got {'n': 1}": {"far=1e-2": {"n": 1}},
    "thresholds: far=1e-2: numbers threshold, or needs and has, expected, got {'needs': 9}": {"far=1e-2": {"needs": 9}},
    "thresholds: far=1e-2: numbers threshold, or needs and has, expected, got {'threshold': 'high'}":
        {"far=1e-2": {"threshold": "high"}},
    "thresholds: far=1e-2: numbers threshold, or needs and has, expected, got {'threshold': nan}":
        {"far=1e-2": {"threshold": float("nan")}},
    "thresholds: not as a model's metadata have them: Object of type float32 is not JSON serializable":
        {"far=1e-2": {"threshold": np.float32(0.5)}},
}


@pytest.mark.parametrize("message", WRONG_THRESHOLDS)
def test_thresholds_that_could_not_be_used_or_saved_are_refused(message):
    with pytest.raises(GalleryError) as raised:
        Gallery(FINGERPRINT, DIM, WRONG_THRESHOLDS[message])
    assert str(raised.value) == message


def test_cameras_are_whole_numbers_of_any_kind_up_to_the_last_of_64_bits():
    gallery = Gallery(FINGERPRINT, DIM)
    gallery.add(drawn(3), ["a", "b", "c"], cameras=np.array([LAST, 0, 7], np.uint64))
    gallery.add(drawn(2), ["d", "e"], cameras=(np.int8(-1), LAST))
    assert gallery.cameras.tolist() == [LAST, 0, 7, -1, LAST]


MISTAKES = {
    "threshold: the model has no level far=1e-3; give far=1e-2 or a cosine":
        lambda gallery: gallery.search(drawn(1), threshold="far=1e-3"),
    "threshold: the model has no level split; give far=1e-2 or a cosine": lambda gallery: gallery.threshold_of("split"),
    "threshold far=1e-4: not measured, needs 300,000 impostor pairs, has 120,000; "
    "give far=1e-2 or a cosine": lambda gallery: gallery.search(drawn(1), threshold="far=1e-4"),
    "threshold: a cosine from -1 to 1, or a level as far=1e-3, expected, got 61":
        lambda gallery: gallery.search(drawn(1), threshold=61),
    "threshold: a cosine from -1 to 1, or a level as far=1e-3, expected, got nan":
        lambda gallery: gallery.search(drawn(1), threshold=float("nan")),
    "threshold: a cosine from -1 to 1, or a level as far=1e-3, expected, got inf":
        lambda gallery: gallery.threshold_of("inf"),
    "threshold: a cosine from -1 to 1, or a level as far=1e-3, expected, got True":
        lambda gallery: gallery.search(drawn(1), threshold=True),
    "threshold: a cosine from -1 to 1, or a level as far=1e-3, expected, got [0.5]":
        lambda gallery: gallery.search(drawn(1), threshold=[0.5]),
    "k: a whole number from 1 expected, got 0": lambda gallery: gallery.search(drawn(1), 0),
    "k: a whole number from 1 expected, got 2.5": lambda gallery: gallery.search(drawn(1), 2.5),
    "query: the gallery's 6 dimensions expected, got 5; embed both with the same model":
        lambda gallery: gallery.search(drawn(1)[:, :5]),
    "query: float32 of shape (N, D) expected, got float64 (1, 6)":
        lambda gallery: gallery.search(drawn(1).astype(float)),
    "query 0: length 1 expected, got 3; use embeddings as the model gives them":
        lambda gallery: gallery.search(3 * drawn(1)),
    "tags: several texts expected, got 'red' alone; write ['red']":
        lambda gallery: gallery.search(drawn(1), tags="red"),
    "tags: texts expected, got 7": lambda gallery: gallery.search(drawn(1), tags=[7]),
    "cameras: several cameras expected, got 3 alone; write [3]": lambda gallery: gallery.search(drawn(1), cameras=3),
    f"cameras: a whole number from -1 (none) to {LAST} expected, got '3'":
        lambda gallery: gallery.search(drawn(1), cameras=["3"]),
    f"query_cameras: a whole number from -1 (none) to {LAST} expected, got True":
        lambda gallery: gallery.search(drawn(1), query_cameras=[True]),
    "query_cameras: one for each of 2 queries expected, got 1":
        lambda gallery: gallery.search(drawn(2), query_cameras=[1]),
    "embeddings: the gallery's 6 dimensions expected, got 5; embed with the model that it was built with":
        lambda gallery: gallery.add(drawn(1)[:, :5], ["x"]),
    "embeddings: float32 of shape (N, D) expected, got float32 (6,)": lambda gallery: gallery.add(drawn(1)[0], ["x"]),
    "embeddings: an array, float32 of shape (N, D), expected, got list": lambda gallery: gallery.add([[1, 0]], ["x"]),
    "embedding 1: length 1 expected, got 0.1; use embeddings as the model gives them":
        lambda gallery: gallery.add(drawn(2) * np.float32([[1], [0.1]]), ["x", "y"]),
    "embedding 0: length 1 expected, got 0; use embeddings as the model gives them":
        lambda gallery: gallery.add(np.zeros((1, DIM), np.float32), ["x"]),
    "query 0: length 1 expected, got 0; use embeddings as the model gives them":
        lambda gallery: gallery.search(np.zeros((1, DIM), np.float32)),
    "embedding 1: length 1 expected, got nan; use embeddings as the model gives them":
        lambda gallery: gallery.add(np.stack([drawn(1)[0], drawn(1)[0] * np.float32(np.nan)]), ["x", "y"]),
    "names: one for each of 2 embeddings expected, got 1": lambda gallery: gallery.add(drawn(2), ["x"]),
    "names: 'x' is there twice; give each entry a name of its own":
        lambda gallery: gallery.add(drawn(3), ["y", "x", "x"]),
    "names: several texts expected, got 'xy' alone; write ['xy']": lambda gallery: gallery.add(drawn(2), "xy"),
    "names: texts expected, got None": lambda gallery: gallery.add(drawn(1), [None]),
    "cameras: one for each of 1 embeddings expected, got 2":
        lambda gallery: gallery.add(drawn(1), ["x"], cameras=[1, 2]),
    f"cameras: a whole number from -1 (none) to {LAST} expected, got 1.5":
        lambda gallery: gallery.add(drawn(1), ["x"], cameras=[1.5]),
    f"cameras: a whole number from -1 (none) to {LAST} expected, got {LAST + 1}":
        lambda gallery: gallery.add(drawn(1), ["x"], cameras=np.array([LAST + 1], np.uint64)),
    f"cameras: a whole number from -1 (none) to {LAST} expected, got -3":
        lambda gallery: gallery.add(drawn(1), ["x"], cameras=[-3]),
    "tags: one for each of 1 embeddings expected, got 0": lambda gallery: gallery.add(drawn(1), ["x"], tags=[]),
    "names: several texts expected, got 'a' alone; write ['a']": lambda gallery: gallery.remove("a"),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_what_a_gallery_cannot_do_is_said_in_one_line_and_changes_nothing(message):
    gallery = Gallery(FINGERPRINT, DIM, LEVELS)
    gallery.add(drawn(1), ["a"])
    with pytest.raises(SearchError) as raised:
        MISTAKES[message](gallery)
    assert (str(raised.value), gallery.names) == (message, ["a"])


def test_a_gallery_without_thresholds_asks_for_a_cosine():
    with pytest.raises(GalleryError, match="^threshold: the model has no level far=1e-3; give a cosine$"):
        Gallery(FINGERPRINT, DIM).threshold_of("far=1e-3")
