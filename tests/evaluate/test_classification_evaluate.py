"""Top-1 and top-5, their ties and the predictions that they refuse."""

import numpy as np
import pytest

from data.records import DataError, Predictions
from evaluate.classification_evaluate import class_ranks, run_eval


def predict_of(logits, labels, split="val"):
    logits = None if logits is None else np.array(logits, np.float32)
    embeddings, cameras = np.ones((len(labels), 2), np.float32), np.full(len(labels), -1)
    return {split: Predictions(embeddings, logits, np.array(labels), cameras)}.__getitem__


def test_fractions_are_as_counted_by_hand():
    # Class 0 is first, sixth, third and first of six.
    logits = [[9, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2], [1, 0, 0, 0, 0, 0]]
    assert run_eval({}, predict_of(logits, [0, 0, 0, 0])) == {"top1": 0.5, "top5": 0.75}


def test_with_fewer_than_five_classes_top5_looks_at_all():
    assert run_eval({}, predict_of([[0, 1, 2]] * 2, [0, 2])) == {"top1": 0.5, "top5": 1.0}


def test_ranks_equal_a_stable_sort():
    rng = np.random.default_rng(5)
    logits, labels = rng.integers(0, 4, (200, 9)).astype(np.float32), rng.integers(0, 9, 200)
    order = np.argsort(-logits, axis=1, kind="stable")
    np.testing.assert_array_equal(class_ranks(logits, labels), np.argwhere(order == labels[:, None])[:, 1])


def test_equal_logits_rank_in_the_order_of_the_classes():
    assert run_eval({}, predict_of(np.zeros((10, 10)), range(10))) == {"top1": 0.1, "top5": 0.5}


def test_the_split_is_an_option():
    config = {"evaluation_params": {"type": "classification_evaluate", "split": "test"}}
    assert run_eval(config, predict_of([[1, 0]], [0], "test"))["top1"] == 1.0


def test_a_network_without_logits_is_refused_in_one_line():
    with pytest.raises(DataError, match="^val: the network gives no logits.*a classification loss$"):
        run_eval({}, predict_of(None, [0]))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_named(label):
    with pytest.raises(DataError, match=rf"val: row 1 has label {label}, but .* classes are 0\.\.2"):
        run_eval({}, predict_of([[0, 1, 2]] * 2, [0, label]))


def test_logits_that_are_not_finite_are_refused_by_row():
    with pytest.raises(DataError, match="val: the logits of row 1 are not finite"):
        run_eval({}, predict_of([[0, 1], [0, np.nan]], [0, 1]))
