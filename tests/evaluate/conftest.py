"""Predictions small enough to score by hand or by slow loops."""

import numpy as np
import pytest

from data.records import Predictions
from evaluate.report.page import write_report
from tests.evaluate.pages import FACTS, Packed, Page


def _predictions(rng, centres, labels, cameras):
    embeddings = centres[labels] + 0.8 * rng.standard_normal((len(labels), centres.shape[1]))
    logits = rng.standard_normal((len(labels), len(centres))).astype(np.float32)
    margins, norms = rng.random((2, len(labels)), np.float32)
    return Predictions(embeddings.astype(np.float32), logits, labels, cameras, margins, norms)


@pytest.fixture
def splits():
    """A run's splits: 7 classes, 3 cameras, junk in the gallery, nobody's twin in another split.

    Of "multi_query" each query finds two images, and "test" holds pairs in 4 folds.
    """
    rng = np.random.default_rng(11)
    centres = rng.standard_normal((7, 6))
    made = {name: _predictions(rng, centres, rng.integers(0, 7, count), rng.integers(0, 3, count))
            for name, count in (("query", 23), ("gallery", 57), ("val", 31))}
    made["gallery"].labels[5:9] = -1
    made["multi_query"] = _predictions(rng, centres, *np.repeat(made["query"][2:4], 2, axis=1))
    first = rng.integers(0, 7, 40)
    pairs = np.column_stack([first, np.where(rng.random(40) < 0.5, first, rng.integers(0, 7, 40))])
    made["test"] = _predictions(rng, centres, pairs.ravel(), np.repeat(np.arange(40) % 4, 2))
    return made


@pytest.fixture
def reid():
    """Make `predict` of query and gallery sides given as (embeddings, labels, cameras)."""
    def make(query, gallery):
        sides = {"query": query, "gallery": gallery}
        return {name: Predictions(np.array(embeddings, np.float32), None, np.array(labels), np.array(cameras))
                for name, (embeddings, labels, cameras) in sides.items()}.__getitem__
    return make


@pytest.fixture
def fan(reid):
    """One query; of the gallery wrong, right, wrong, right count, at 10, 20, 40 and 50 degrees."""
    angles = np.radians([0, 10, 20, 30, 40, 50])
    gallery = np.column_stack([np.cos(angles), np.sin(angles)])
    return reid(([[1, 0]], [4], [1]), (gallery, [4, 0, 4, -1, 9, 4], [1, 1, 2, 2, 2, 3]))


@pytest.fixture
def page(tmp_path):
    """Write the page of these facts and read it."""
    def written(facts=FACTS, scored=None, packed=None):
        path = tmp_path / "report.html"
        write_report(path, facts, scored, packed or Packed())
        return Page(path.read_text(encoding="utf-8"))
    return written
