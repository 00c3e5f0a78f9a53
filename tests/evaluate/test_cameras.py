"""Scores by pairs of cameras, against the market evaluator on each pair alone."""

import numpy as np
import pytest

from data.records import Predictions
from evaluate.cameras import by_cameras
from evaluate.market_evaluate import run_eval, search


def of_camera(predictions, camera):
    rows = predictions.cameras == camera
    return Predictions(*(None if column is None else column[rows] for column in predictions))


@pytest.mark.parametrize("block_bytes", [1, 2**20])
def test_each_pair_scores_as_if_there_were_no_other_camera(splits, block_bytes):
    found = by_cameras(search(splits.__getitem__), block_bytes=block_bytes)
    assert (found.query.tolist(), found.gallery.tolist()) == ([0, 1, 2], [0, 1, 2])
    for row in range(3):
        for column in range(3):
            if row == column:  # a match must be of another camera
                assert found.queries[row, column] == 0 and np.isnan(found.ap[row, column])
                continue
            sides = {"query": of_camera(splits["query"], row), "gallery": of_camera(splits["gallery"], column)}
            alone = run_eval({}, sides.__getitem__)
            assert found.queries[row, column] == alone["queries"]
            assert found.ap[row, column] == pytest.approx(alone["mAP"])
            assert found.rank1[row, column] == pytest.approx(alone["rank1"])


def test_a_pair_is_scored_as_worked_out_by_hand(reid):
    # Of camera 2: wrong, right, so AP 1/2 and no first hit; of camera 3: right, so both 1.
    angles = np.radians([10, 20, 30])
    gallery = np.column_stack([np.cos(angles), np.sin(angles)])
    found = by_cameras(search(reid(([[1, 0]], [4], [1]), (gallery, [9, 4, 4], [2, 2, 3]))))
    assert found.ap.tolist() == [[0.5, 1.0]] and found.rank1.tolist() == [[0.0, 1.0]]
    assert found.queries.tolist() == [[1, 1]]


def test_queries_of_an_unknown_camera_are_left_out(reid):
    found = by_cameras(search(reid(([[1, 0], [1, 0]], [4, 4], [-1, 1]), ([[1, 0], [0, 1]], [4, 4], [2, -1]))))
    assert (found.query.tolist(), found.gallery.tolist(), found.queries.tolist()) == ([1], [2], [[1]])
