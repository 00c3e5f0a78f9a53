"""The re-identification protocol, ranked by hand and with every way to have nothing to rank."""

import numpy as np
import pytest

from data.records import DataError
from evaluate.market_evaluate import run_eval

ANGLES = np.radians([0, 10, 20, 30, 40, 50])
LENGTHS = [[1], [5], [1], [9], [1], [2]]  # which do not matter
FAN = np.column_stack([np.cos(ANGLES), np.sin(ANGLES)]) * LENGTHS


def options(**values):
    return {"evaluation_params": {"type": "market_evaluate", "every": 2, "monitor": "rank1", **values}}


@pytest.fixture
def fan(reid):
    """One query at 0 degrees of identity 4 and camera 1; the gallery stands around it at 0, 10, ... 50.

    In order: its own camera (out), a distractor, a match, junk (out), another identity, a match: the
    matches have places 2 and 4 of the 4 that count.
    """
    return reid(([[1, 0]], [4], [1]), (FAN, [4, 0, 4, -1, 9, 4], [1, 1, 2, 2, 1, 3]))


def test_a_gallery_ranked_by_hand(fan):
    assert run_eval({}, fan) == {
        "mAP": pytest.approx((1 / 2 + 2 / 4) / 2),
        "mAP_trapezoid": pytest.approx(((0 / 1 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2),
        "rank1": 0.0, "rank5": 1.0, "rank10": 1.0,
        "mINP": pytest.approx(2 / 4),
        "queries": 1.0, "queries_without_match": 0.0,
    }


def test_metrics_come_in_the_documented_order_as_plain_floats(fan):
    metrics = run_eval({}, fan)
    assert list(metrics) == ["mAP", "mAP_trapezoid", "rank1", "rank5", "rank10", "mINP", "queries",
                             "queries_without_match"]
    assert all(type(value) is float for value in metrics.values())


def test_ap_chooses_what_map_means(fan):
    standard, trapezoid = run_eval(options(), fan), run_eval(options(ap="trapezoid"), fan)
    assert trapezoid == {**standard, "mAP": standard["mAP_trapezoid"]}


def test_within_one_camera_the_match_of_the_same_camera_counts(fan):
    # places 1, 3 and 5 of the 5 that count
    assert run_eval(options(cross_camera=False), fan)["mAP"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


def test_an_unknown_camera_is_no_queries_own(reid):
    predict = reid(([[1, 0]], [4], [-1]), (FAN, [4, 0, 4, -1, 9, 4], [-1] * 6))
    assert run_eval({}, predict)["rank1"] == 1.0


def test_identity_zero_is_found_like_any_other(reid):
    assert run_eval({}, reid(([[1, 0]], [0], [1]), (FAN, [1, 0, 2, 3, 4, 5], [2] * 6)))["mAP"] == 0.5


def test_queries_without_a_match_are_reported_and_not_averaged(reid):
    gallery = (FAN, [1, 2, 3, 4, 5, 6], [2] * 6)
    metrics = run_eval({}, reid(([[1, 0], [1, 0], [1, 0]], [1, 77, -1], [1, 1, 1]), gallery))
    assert (metrics["mAP"], metrics["rank1"], metrics["mINP"]) == (1.0, 1.0, 1.0)
    assert (metrics["queries"], metrics["queries_without_match"]) == (1.0, 2.0)


def test_splits_may_have_other_names(fan):
    renamed = {"probe": fan("query"), "val": fan("gallery")}.__getitem__
    assert run_eval(options(query="probe", gallery="val"), renamed) == run_eval({}, fan)


@pytest.mark.parametrize("labels, cameras, reason", [
    ([4, 9], [1, 1], "query against gallery: all 2 queries share camera 1 with their only matches; "
                     "set evaluation_params.cross_camera to false"),
    ([4, 8], [1, 3], "1 of 2 queries have labels that the gallery lacks, the other 1 share camera 1 with"),
    ([2, 3], [1, 2], "none of the 2 queries has a label that the gallery of 2 images holds; "
                     "pack both splits from one source"),
    ([-1, -1], [5, 5], "none of the 2 queries has a label"),
])
def test_nothing_to_score_is_an_error_that_says_why(reid, labels, cameras, reason):
    predict = reid((FAN[:2], labels, cameras), (FAN[2:4], [4, 9], [1, 1]))
    with pytest.raises(DataError) as error:
        run_eval({}, predict)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_junk_on_both_sides_is_no_match(reid):
    with pytest.raises(DataError, match="none of the 1 queries has a label"):
        run_eval({}, reid((FAN[:1], [-1], [1]), (FAN[1:3], [-1, 5], [2, 2])))


def test_queries_of_several_cameras_share_theirs_with_their_matches(reid):
    predict = reid((FAN[:2], [4, 9], [1, 2]), (FAN[2:4], [4, 9], [1, 2]))
    with pytest.raises(DataError, match="all 2 queries share their camera with their only matches"):
        run_eval({}, predict)


@pytest.mark.parametrize("split", ["query", "gallery"])
def test_an_embedding_that_is_not_finite_names_its_split(splits, split):
    splits[split].embeddings[3, 0] = np.nan
    with pytest.raises(DataError, match=f"{split}: the embedding of row 3"):
        run_eval({}, splits.__getitem__)
