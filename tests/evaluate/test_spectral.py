"""The spectral transformation against the original code's numbers and a loop over queries."""

import numpy as np

from evaluate.distances import Cosine, unit
from evaluate.ranking import Matches, score
from evaluate.spectral import REFINED, Spectral, refined


def test_refined_embeddings_equal_those_of_the_original_code(golden):
    case = golden["002_spectral_postprocess_refine"]
    found = refined(np.array(case["inputs"]["x"]), case["params"]["temperature"])
    np.testing.assert_allclose(found, case["outputs"]["refined"], atol=1e-9)


def test_a_high_temperature_leaves_the_mean_and_a_low_one_the_embeddings():
    embeddings = unit(np.random.default_rng(0).standard_normal((20, 8)))
    np.testing.assert_allclose(refined(embeddings, 1e9), np.tile(embeddings.mean(axis=0), (20, 1)), atol=1e-8)
    np.testing.assert_allclose(refined(embeddings, 1e-4), embeddings, atol=1e-12)


def test_the_first_fifty_stay_first_and_are_ranked_by_their_refined_embeddings():
    rng = np.random.default_rng(1)
    cosine = Cosine(unit(rng.standard_normal((7, 4))), unit(rng.standard_normal((120, 4))))
    whole = Spectral(cosine, 0.3)[0:7]
    for query, before, after in zip(cosine.query, cosine[0:7], whole, strict=True):
        order = np.argsort(-before, kind="stable")
        first = np.sort(order[:REFINED])
        products = refined(cosine.gallery[first], 0.3) @ query
        expected = [*first[np.argsort(-products, kind="stable")], *order[REFINED:]]
        np.testing.assert_array_equal(np.argsort(-after, kind="stable"), expected)


def test_a_gallery_of_fewer_than_fifty_is_refined_as_a_whole():
    rng = np.random.default_rng(2)
    cosine = Cosine(unit(rng.standard_normal((3, 4))), unit(rng.standard_normal((9, 4))))
    order = np.argsort(-Spectral(cosine, 0.5)[0:3], axis=1)
    expected = np.argsort(-cosine.query @ refined(cosine.gallery, 0.5).T, axis=1)
    np.testing.assert_array_equal(order, expected)


def test_scores_do_not_depend_on_the_block_size():
    rng = np.random.default_rng(3)
    spectral = Spectral(Cosine(unit(rng.standard_normal((9, 4))), unit(rng.standard_normal((80, 4)))), 0.3)
    matches = Matches(rng.integers(0, 3, 9), rng.integers(0, 3, 9), rng.integers(-1, 3, 80), rng.integers(0, 3, 80))
    whole = score(spectral, matches)
    for part, expected in zip(score(spectral, matches, block_bytes=1), whole, strict=True):
        np.testing.assert_array_equal(part, expected)
