"""Predictions small enough to score by hand or by slow loops."""

import numpy as np
import pytest

from data.records import Predictions


def _predictions(rng, centres, labels):
    embeddings = centres[labels] + 0.8 * rng.standard_normal((len(labels), centres.shape[1]))
    logits = rng.standard_normal((len(labels), len(centres))).astype(np.float32)
    return Predictions(embeddings.astype(np.float32), logits, labels, rng.integers(0, 3, len(labels)))


@pytest.fixture
def splits():
    """A run's splits: 7 classes, 3 cameras, junk in the gallery, nobody's twin in another split."""
    rng = np.random.default_rng(11)
    centres = rng.standard_normal((7, 6))
    made = {name: _predictions(rng, centres, rng.integers(0, 7, count))
            for name, count in (("query", 23), ("gallery", 57), ("val", 31), ("test", 40))}
    made["gallery"].labels[5:9] = -1
    return made


@pytest.fixture
def reid():
    """Make `predict` of query and gallery sides given as (embeddings, labels, cameras)."""
    def make(query, gallery):
        sides = {"query": query, "gallery": gallery}
        return {name: Predictions(np.array(embeddings, np.float32), None, np.array(labels), np.array(cameras))
                for name, (embeddings, labels, cameras) in sides.items()}.__getitem__
    return make
