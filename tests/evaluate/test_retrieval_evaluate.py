"""Leave-one-out retrieval against loops and the original code's numbers."""

import sys

import numpy as np
import pytest

from data.records import DataError, Predictions
from evaluate.clustering import clustering_nmi, nmi
from evaluate.distances import Cosine, unit
from evaluate.retrieval_evaluate import run_eval
from params.errors import ParamsError


def predict_of(embeddings, labels):
    cameras = np.zeros(len(labels), int)  # one camera: leave-one-out takes no notice of it
    predictions = Predictions(np.array(embeddings, np.float32), None, np.array(labels), cameras)
    return {"test": predictions}.__getitem__


def options(**values):
    return {"evaluation_params": {"type": "retrieval_evaluate", **values}}


def metrics_by_loops(embeddings, labels, ks):
    rows = unit(embeddings)
    cosines = Cosine(rows, rows)[0:len(rows)]
    scores = []
    for q, row in enumerate(cosines):
        order = [g for g in sorted(range(len(row)), key=lambda g: (-row[g], g)) if g != q]
        hits = [bool(labels[g] == labels[q]) for g in order]
        r = sum(hits)
        if r:
            precisions = [sum(hits[:i + 1]) / (i + 1) for i in range(r) if hits[i]]
            scores.append([any(hits[:k]) for k in ks] + [sum(precisions) / r, sum(hits[:r]) / r])
    return np.mean(scores, axis=0)


def test_metrics_equal_those_of_the_original_code(golden):
    case = golden["003_retrieval_metrics"]
    inputs, outputs = case["inputs"], case["outputs"]
    metrics = run_eval(options(**case["params"]), predict_of(inputs["embeddings"], inputs["labels"]))
    assert [metrics[f"recall@{k}"] for k in (1, 2, 4)] == outputs["recall_at_k"]
    assert (metrics["map@r"], metrics["r_precision"]) == (outputs["map_at_r"], outputs["r_precision"])


@pytest.mark.parametrize("seed", range(10))
def test_metrics_equal_loops_over_the_sorted_split(seed):
    rng = np.random.default_rng(seed)
    embeddings = rng.integers(-1, 2, (40, 3))  # with repeated images
    labels = rng.integers(0, 14, 40)  # with lonely ones
    metrics = run_eval(options(k=[1, 3]), predict_of(embeddings, labels))
    found = [metrics[name] for name in ("recall@1", "recall@3", "map@r", "r_precision")]
    np.testing.assert_allclose(found, metrics_by_loops(embeddings, labels, [1, 3]), rtol=1e-12)


def test_an_image_is_kept_from_finding_itself_by_its_row_not_its_place():
    # Rows 0 and 1 are one picture under two labels: the first in the list of row 1 is row 0, not itself.
    metrics = run_eval(options(k=[1, 2]), predict_of([[1, 0], [1, 0], [0, 1], [0, 1]], [3, 4, 3, 4]))
    assert metrics["recall@1"] == 0.0
    assert metrics["recall@2"] == 0.5  # ties go by row: rows 0 and 2 meet their class second, 1 and 3 third


def test_images_alone_in_their_class_are_reported_and_not_averaged():
    metrics = run_eval({}, predict_of([[1, 0], [1, 0.1], [0, 1]], [3, 3, 8]))
    assert (metrics["recall@1"], metrics["queries"], metrics["queries_without_match"]) == (1.0, 2.0, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_query_split_asks_a_gallery_split_whatever_the_cameras(seed):
    rng = np.random.default_rng(seed)
    query, gallery = ((rng.integers(-1, 2, (count, 3)), rng.integers(0, 9, count)) for count in (12, 40))
    predict = {"query": predict_of(*query)("test"), "gallery": predict_of(*gallery)("test")}.__getitem__
    metrics = run_eval(options(query="query", gallery="gallery", k=[1, 10]), predict)
    cosines = Cosine(unit(query[0]), unit(gallery[0]))[0:12]
    places = [np.flatnonzero(gallery[1][np.argsort(-row, kind="stable")] == label)
              for row, label in zip(cosines, query[1], strict=True)]
    firsts = np.array([found[0] for found in places if found.size])
    assert [metrics["recall@1"], metrics["recall@10"]] == [np.mean(firsts < 1), np.mean(firsts < 10)]
    assert (metrics["queries"], metrics["queries_without_match"]) == (len(firsts), 12 - len(firsts))


@pytest.mark.parametrize("given", [
    {"query": "query"}, {"gallery": "gallery"}, {"split": "test", "query": "query", "gallery": "gallery"},
])
def test_splits_are_given_in_one_form_only(splits, given):
    message = "^params.json: evaluation_params: expected split alone, or query and gallery, found split "
    with pytest.raises(ParamsError, match=message):
        run_eval(options(**given), splits.__getitem__)


def test_a_gallery_without_the_queries_classes_is_an_error():
    predict = {"query": predict_of([[1, 0]], [3])("test"), "gallery": predict_of(np.eye(2), [4, 5])("test")}
    with pytest.raises(DataError, match="query against gallery: none of the 1 queries has a class that the gallery of "
                                        "2 images holds; pack both splits from one source"):
        run_eval(options(query="query", gallery="gallery"), predict.__getitem__)


def test_metrics_come_in_the_documented_order(splits):
    assert list(run_eval({}, splits.__getitem__)) == [
        "recall@1", "recall@2", "recall@4", "recall@8", "map@r", "r_precision", "queries",
        "queries_without_match"]


def test_a_split_of_lonely_images_is_an_error():
    with pytest.raises(DataError, match="test: none of its 3 images has another of its class"):
        run_eval({}, predict_of(np.eye(3), [0, 1, 2]))


def test_nmi_equals_the_original_code(golden):
    inputs, outputs = (golden["003_retrieval_metrics"][part] for part in ("inputs", "outputs"))
    assert nmi(inputs["labels"], inputs["clusters"]) == pytest.approx(outputs["nmi_geometric"])


def test_nmi_of_well_separated_classes_is_one_whatever_the_junk():
    labels = np.arange(30) % 3
    embeddings = np.eye(3)[labels] + 0.01 * np.random.default_rng(0).standard_normal((30, 3))
    predict = predict_of([*embeddings, *np.eye(3)], [*labels, -1, -1, -1])  # junk in every cluster
    assert run_eval(options(nmi=True), predict)["nmi"] == pytest.approx(1.0)


def test_nmi_of_more_than_a_thousand_classes_is_of_as_many_clusters():
    labels = np.arange(2002) % 1001
    pairs = np.random.default_rng(0).standard_normal((1001, 16))[labels]
    assert clustering_nmi(unit(pairs), labels) == pytest.approx(1.0)


def test_nmi_divides_by_the_geometric_mean_of_the_entropies():
    # Two classes, each split in two clusters: ln 2 / sqrt(ln 2 * ln 4)
    assert nmi([0, 0, 1, 1], [0, 1, 2, 3]) == pytest.approx(1 / np.sqrt(2))


def test_nmi_is_the_same_in_every_run(splits):
    values = {run_eval(options(nmi=True), splits.__getitem__)["nmi"] for _ in range(2)}
    assert len(values) == 1
    assert 0 < values.pop() < 1


def test_nmi_without_scikit_learn_is_one_clear_line(splits, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ValueError, match="^nmi needs scikit-learn, which is not installed; pip install .*$"):
        run_eval(options(nmi=True), splits.__getitem__)
