"""Verification of pairs: thresholds chosen on other folds, accept rates, and the splits that hold no pairs."""

import numpy as np
import pytest

from data.records import DataError, Predictions
from evaluate.lfw_evaluate import best_threshold, fold_accuracies, run_eval, true_accept_rate


def predict_of(degrees, labels, folds):
    """Pairs of which the first image stands at 0 degrees, the second at the angle given."""
    radians = np.radians(np.column_stack([np.zeros(len(degrees)), degrees]).ravel())
    embeddings = np.column_stack([np.cos(radians), np.sin(radians)]).astype(np.float32)
    return {"test": Predictions(embeddings, None, np.array(labels).ravel(), np.repeat(folds, 2))}.__getitem__


SAME, OTHER = (5, 5), (5, 6)
PAIRS = ([10, 30, 50, 90, 20, 70, 60, 80], [SAME, SAME, OTHER, OTHER, SAME, SAME, OTHER, OTHER], [1] * 4 + [2] * 4)


def test_the_accuracy_is_as_worked_out_by_hand():
    # Fold 2's best thresholds: between 20 and 60 degrees (3 right of 4), or 70 and 80; the lowest cosine counts,
    # 75 degrees: of fold 1, pairs at 10, 30 and 90 are right, that at 50 wrong. Fold 1's best is between 30 and
    # 50 degrees: of fold 2, the pairs at 20, 60 and 80 are right, that at 70 wrong.
    metrics = run_eval({}, predict_of(*PAIRS))
    assert (metrics["accuracy"], metrics["accuracy_std"]) == (0.75, 0.0)
    assert (metrics["folds"], metrics["genuine"], metrics["impostors"]) == (2.0, 4.0, 4.0)


def test_the_rate_of_true_accepts_is_that_beyond_every_impostor_where_these_are_few():
    # The most alike impostors stand at 50 degrees: of the genuine, those at 10, 20 and 30 are more alike.
    metrics = run_eval({}, predict_of(*PAIRS))
    assert metrics["tar@far=1e-2"] == metrics["tar@far=1e-3"] == 0.75


def test_metrics_come_in_the_documented_order_and_are_named_after_their_rates():
    config = {"evaluation_params": {"type": "lfw_evaluate", "far": [0.25, 1e-4]}}
    metrics = run_eval(config, predict_of(*PAIRS))
    assert list(metrics) == ["accuracy", "accuracy_std", "tar@far=2.5e-1", "tar@far=1e-4", "folds", "genuine",
                             "impostors"]
    assert metrics["tar@far=2.5e-1"] == 0.75  # the second most alike impostor, at 60 degrees


def thresholds_by_loops(similarity, same):
    """Every threshold that tells some pairs from others, lowest first, with its right answers."""
    values = sorted(set(similarity))
    bounds = [-np.inf, *((a + b) / 2 for a, b in zip(values, values[1:], strict=False)), np.inf]
    return [(bound, sum((s >= bound) == answer for s, answer in zip(similarity, same, strict=True)))
            for bound in bounds]


@pytest.mark.parametrize("seed", range(30))
def test_the_threshold_is_the_lowest_of_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 20)
    similarity, same = rng.integers(0, 6, count) / 8, rng.random(count) < 0.5
    candidates = thresholds_by_loops(similarity, same)
    most = max(right for _, right in candidates)
    assert best_threshold(similarity, same) == next(bound for bound, right in candidates if right == most)


def test_a_fold_has_no_say_in_its_own_threshold():
    similarity = np.array([0.1, 0.9, 0.6, 0.2, 0.8, 0.3])
    same = np.array([False, True, False, False, True, False])
    folds = np.array([1, 1, 1, 2, 2, 2])
    assert list(fold_accuracies(similarity, same, folds)) == [2 / 3, 1.0]  # thresholds 0.55 and 0.75
    answers = np.where(folds == 1, ~same, same)
    assert fold_accuracies(similarity, answers, folds)[0] == 1 / 3  # threshold 0.55 again


@pytest.mark.parametrize("far, accepted", [(0.29, 29), (0.5, 50), (0.999, 99), (0.001, 0)])
def test_a_share_of_impostors_is_rounded_down(far, accepted):
    impostors = np.random.default_rng(0).permutation(100) / 100  # 0.99, 0.98, ...
    genuine = np.arange(100) / 100 + 0.005
    assert true_accept_rate(genuine, impostors, far) == pytest.approx((accepted + 1) / 100)


def test_pairs_as_alike_as_a_refused_impostor_are_refused():
    assert true_accept_rate(np.array([0.5, 0.6]), np.array([0.5, 0.1]), 0.01) == 0.5


@pytest.mark.parametrize("degrees, labels, folds, message", [
    ([1, 2], [SAME, OTHER], [3, 3], "test: 1 folds, expected at least 2"),
    ([1, 2], [SAME, SAME], [1, 2], "test: 0 impostor pairs, expected at least 1"),
    ([1, 2], [OTHER, OTHER], [1, 2], "test: 0 genuine pairs, expected at least 1"),
])
def test_a_split_without_folds_or_without_pairs_of_a_kind_is_refused(degrees, labels, folds, message):
    with pytest.raises(DataError, match=f"^{message}; lfw_evaluate needs a split packed from lfw$"):
        run_eval({}, predict_of(degrees, labels, folds))


def test_images_that_do_not_stand_in_pairs_are_refused():
    whole = predict_of(*PAIRS)("test")
    odd = Predictions(*(column if column is None else column[:-1] for column in whole))
    with pytest.raises(DataError, match="^test: 15 images are no pairs; lfw_evaluate needs a split packed from lfw$"):
        run_eval({}, {"test": odd}.__getitem__)
    shifted = Predictions(*(column if column is None else column[1:-1] for column in whole))
    with pytest.raises(DataError, match="^test: images 6 and 7 are of folds 1 and 2, a pair has one"):
        run_eval({}, {"test": shifted}.__getitem__)
