"""The re-identification protocol, ranked by hand and with every way to have nothing to rank."""

import numpy as np
import pytest

from data.records import DataError
from evaluate.distances import Cosine, unit
from evaluate.market_evaluate import run_eval
from evaluate.ranking import Matches, score
from evaluate.rerank import rerank
from evaluate.spectral import Spectral
from params.errors import ParamsError

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


def test_a_gallery_scores_as_worked_out_by_hand(fan):
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


def test_over_all_queries_those_without_a_match_score_nothing(reid):
    sides = ([[1, 0]] * 4, [1, 77, -1, 2], [1, 1, 1, 1]), (FAN, [1, 2, 3, 4, 5, 6], [2] * 6)
    metrics = run_eval(options(count="all"), reid(*sides))
    assert (metrics["mAP"], metrics["rank1"], metrics["rank5"], metrics["mINP"]) == (1.5 / 4, 1 / 4, 2 / 4, 1.5 / 4)
    assert (metrics["queries"], metrics["queries_without_match"]) == (2.0, 2.0)
    valid = run_eval(options(count="valid"), reid(*sides))
    assert valid["mAP"] == 1.5 / 2


@pytest.mark.parametrize("name, ap", [
    ("000_eval_rank_map_standard_ap", "standard"), ("002_004_eval_rank_map_trapezoid_ap", "trapezoid")])
def test_map_equals_that_of_the_original_codes(golden, reid, name, ap):
    # Embeddings whose products are the similarities: queries along the axes, the gallery brought to unit length.
    inputs, outputs = golden[name]["inputs"], golden[name]["outputs"]
    sim = np.array(inputs["sim"])
    gallery = np.column_stack([sim.T / 2, np.sqrt(1 - (sim**2).sum(axis=0) / 4)])
    predict = reid((np.eye(4)[:3], inputs["q_label"], inputs["q_cam"]), (gallery, inputs["g_label"], inputs["g_cam"]))
    metrics = run_eval(options(ap=ap, count="all"), predict)
    assert metrics["mAP"] == pytest.approx(outputs["mAP"])
    assert (metrics["rank1"], metrics["rank5"]) == pytest.approx((outputs["cmc"][0], outputs["cmc"][4]))


def test_re_ranked_scores_are_those_of_the_re_ranked_distances(splits):
    asked, held = splits["query"], splits["gallery"]
    for given, kept in ((True, {}), ({"k1": 4}, {"k1": 4}), ({"k1": 5, "k2": 2, "lambda_value": 0.1},) * 2):
        distances = rerank(unit(asked.embeddings), unit(held.embeddings), **kept)
        scores = score(-distances, Matches(asked.labels, asked.cameras, held.labels, held.cameras))
        metrics = run_eval(options(rerank=given), splits.__getitem__)
        assert metrics["mAP"] == pytest.approx(np.nanmean(scores.ap))


def test_spectral_scores_are_those_of_the_transformed_gallery(splits):
    asked, held = splits["query"], splits["gallery"]
    similarity = Spectral(Cosine(unit(asked.embeddings), unit(held.embeddings)), 0.3)
    scores = score(similarity, Matches(asked.labels, asked.cameras, held.labels, held.cameras))
    metrics = run_eval(options(spectral=0.3), splits.__getitem__)
    assert metrics["mAP"] == pytest.approx(np.nanmean(scores.ap))
    assert metrics["mAP"] != run_eval({}, splits.__getitem__)["mAP"]


def test_a_larger_margin_is_a_larger_distance(fan):
    # Of the gallery that counts, at 10, 20, 40 and 50 degrees, the matches at 20 and 50 have places 2 and 4.
    # One radian of margin for the two others puts the matches first.
    margins = np.array([0, 1, 0, 0, 1, 0], np.float32)
    predict = {"query": fan("query"), "gallery": fan("gallery")._replace(margins=margins)}.__getitem__
    assert run_eval(options(margin_weight=1.0), predict)["mAP"] == 1.0
    # Half a radian, 29 degrees, puts that at 10 between the matches, and that at 40 behind both.
    assert run_eval(options(margin_weight=0.5), predict)["mAP"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert run_eval(options(margin_weight=0.0), predict) == run_eval({}, predict)


def test_a_network_without_margins_cannot_weigh_them(fan):
    with pytest.raises(DataError, match="the network gives no margins for evaluation_params.margin_weight; choose"):
        run_eval(options(margin_weight=0.1), fan)


def test_of_several_images_the_mean_of_one_label_and_camera_asks(reid):
    sides = {"query": ([[1, 0, 0], [0, 1, 0]], [4, 4], [1, 2]),
             "gallery": ([[1, 0, 0], [0.6, 0.8, 0]], [9, 4], [3, 3]),
             "multi_query": ([[5, 0, 0], [0, 0.1, 0], [0, 1, 0]], [4, 4, 4], [1, 1, 2])}
    predict = {name: reid(side, side)("query") for name, side in sides.items()}.__getitem__
    assert run_eval({}, predict)["rank1"] == 0.5
    # The first query now asks with (1, 1, 0) / 2, whatever the lengths, and finds (0.6, 0.8, 0) first.
    assert run_eval(options(multi_query=True), predict)["rank1"] == 1.0


def test_a_query_without_images_to_average_is_named(splits):
    splits["multi_query"] = splits["multi_query"]._replace(cameras=splits["multi_query"].cameras + 10)
    first = splits["query"]
    who = rf"query 0 \(label {first.labels[0]}, camera {first.cameras[0]}\)"
    with pytest.raises(DataError, match=f"^multi_query: holds no image of {who}; pack the set again"):
        run_eval(options(multi_query=True), splits.__getitem__)


def test_deciles_average_precision_by_norm_and_margin_and_count_their_queries(splits):
    asked, held = splits["query"], splits["gallery"]
    ap = score(Cosine(unit(asked.embeddings), unit(held.embeddings)),
               Matches(asked.labels, asked.cameras, held.labels, held.cameras)).ap
    metrics = run_eval(options(deciles=True), splits.__getitem__)
    for name, values in (("norm", asked.norms), ("margin", asked.margins)):
        parts = np.array_split([row for row in np.argsort(values) if not np.isnan(ap[row])], 10)
        found = [(metrics[f"mAP/{name}_decile_{n}"], metrics[f"queries/{name}_decile_{n}"]) for n in range(1, 11)]
        assert found == [(pytest.approx(ap[part].mean()), len(part)) for part in parts]


def test_deciles_need_norms_and_ten_queries(splits, fan):
    without = {name: split._replace(norms=None) for name, split in splits.items()}
    with pytest.raises(DataError, match="the network gives no norms for evaluation_params.deciles; choose model_p"):
        run_eval(options(deciles=True), without.__getitem__)
    with pytest.raises(DataError, match="1 queries are too few for deciles; set evaluation_params.deciles to false"):
        run_eval(options(deciles=True), fan)


@pytest.mark.parametrize("given, message", [
    ({"rerank": True, "spectral": 0.3}, 'spectral: "rerank" changes the ranking too; keep one of rerank and spectral'),
    ({"spectral": 0.3, "margin_weight": 1}, 'margin_weight: "spectral" changes the ranking too'),
    ({"rerank": {"k1": 4}, "margin_weight": -1}, 'margin_weight: "rerank" changes the ranking too'),
])
def test_two_rankings_at_once_are_refused(fan, given, message):
    with pytest.raises(ParamsError, match=f"^params.json: evaluation_params.{message}"):
        run_eval(options(**given), fan)


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
