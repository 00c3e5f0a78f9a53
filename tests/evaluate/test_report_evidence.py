"""What the evaluator saw, on the page of a run: rank lists, pairs, cameras, confusions."""

import numpy as np

from data.records import Predictions
from evaluate.classification_evaluate import run_eval as classification
from evaluate.market_evaluate import run_eval as market
from evaluate.report.pictures import Pictures
from evaluate.retrieval_evaluate import run_eval as retrieval
from tests.evaluate.pages import Packed, predictions_of, scored_by


def test_rank_lists_frame_and_mark_what_is_right_and_what_is_wrong(page, fan):
    told = page(scored=scored_by(market, fan), packed=Packed("class {}"))
    assert [image["alt"] for image in told.all("img")][:5] == [
        "query: class 4, camera 1", "wrong: class 0, camera 1, similarity 0.985",
        "right: class 4, camera 2, similarity 0.940", "wrong: class 9, camera 2, similarity 0.766",
        "right: class 4, camera 3, similarity 0.643"]
    frames = [item.get("class") for item in told.all("li") if item.get("class") in ("query", "right", "wrong")]
    assert frames == ["query", "wrong", "right", "wrong", "right"] * 3  # the worst, the median and the best one
    assert "query class 4 camera 1 ✗ 0.985 class 0 camera 1 ✓ 0.940" in told.text
    assert "mAP 0.5000" in told.text


def test_pairs_cameras_and_missing_impostors_are_told(page, fan):
    told = page(scored=scored_by(market, fan)).text
    assert "2 genuine pairs (of one class) and 2 impostors (of two), query against gallery" in told
    assert "far=1e-2 needs 3,000 impostor pairs, has 2" in told
    # by camera 2 alone: right before wrong; by camera 3: right alone; by camera 1 nothing
    assert "query \\ gallery 1 2 3 1 – 1.000 1.000 1.000 1.000" in told


def test_more_cameras_than_a_table_has_room_for_are_told(page):
    sides = np.eye(80, dtype=np.float32), None, np.repeat(np.arange(40), 2), np.tile(np.arange(40), 2)
    told = page(scored=scored_by(market, lambda split: Predictions(*sides))).text
    assert "Cameras No table: 40 cameras, and one has room for 32." in told


def test_where_there_are_no_impostors_nothing_is_said_of_them(page):
    alike = Predictions(np.eye(3, dtype=np.float32), None, np.zeros(3, np.int64), np.arange(3))
    told = page(scored=scored_by(market, lambda split: alike))
    (words,) = [svg["aria-label"] for svg in told.all("svg") if "Share of pairs" in svg.get("aria-label", "")]
    assert words == "Share of pairs by cosine: half of the genuine pairs are above a cosine of 0"
    assert "far=1e-2 needs 3,000 impostor pairs, has 0" in told.text


def test_retrieval_without_cameras_has_rank_lists_and_no_table_of_cameras(page):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 5)
    predictions = Predictions(
        (np.eye(12)[labels] + 0.3 * rng.standard_normal((60, 12))).astype(np.float32), None, labels, np.full(60, -1))
    told = page(scored=scored_by(retrieval, {"test": predictions}.__getitem__)).text
    assert "Worst queries by map@r" in told and "no camera" not in told
    assert "120 genuine pairs" in told and "Cameras" not in told


def test_few_classes_have_a_confusion_matrix(page):
    told = page(scored=scored_by(classification, predictions_of(3, [(1, 2)]).__getitem__), packed=Packed("c{}")).text
    assert "true \\ predicted c0 c1 c2 c0 4 0 0 c1 0 3 1 c2 0 0 4" in told
    assert "class taken for images of c1 c2 1 4" in told
    # 11 of 12 right
    assert "top1 0.9167" in told and "means over 12 images" in told


def test_many_classes_have_the_pairs_that_are_confused_most(page):
    told = page(scored=scored_by(classification, predictions_of(40, [(7, 30)]).__getitem__), packed=Packed("c{}")).text
    assert "true \\ predicted" not in told and "class taken for images of c7 c30 1 4" in told
    right = page(scored=scored_by(classification, predictions_of(40, []).__getitem__))
    assert "No image was taken for another class than its own." in right.text


def test_a_class_that_the_split_does_not_name_has_its_number(page):
    told = page(scored=scored_by(classification, predictions_of(120, [(7, 110)]).__getitem__), packed=Packed("c{}"))
    assert "class taken for images of c7 class 110 1 4" in told.text


def test_images_that_the_page_has_no_room_for_are_left_out():
    pictures = Pictures(Packed(), budget=2000)
    uris = [pictures.uri("query", row) for row in range(10)]
    kept = [uri for uri in uris if uri]
    assert 0 < len(kept) < 10 and sum(map(len, kept)) <= 2000
