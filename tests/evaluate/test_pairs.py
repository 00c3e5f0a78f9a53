"""Genuine and impostor pairs and their thresholds, against lists of all pairs."""

import json
import math

import numpy as np
import pytest

from data.records import DataError, Predictions
from evaluate.market_evaluate import run_eval as market
from evaluate.pairs import BINS, pairs_of, thresholds
from evaluate.retrieval_evaluate import run_eval as retrieval


def search(run_eval, predict, **options):
    return run_eval.search({"evaluation_params": options}, predict)


def lists(found, cross_camera=True):
    """Every pair as (cosine, label, label), genuine and impostors, by loops."""
    genuine, impostors = [], []
    one_split = found.query_split == found.gallery_split
    for q, (a, label, camera) in enumerate(zip(*found.query[:1], *found.query[2:4], strict=True)):
        for g, (b, other, seen) in enumerate(zip(*found.gallery[:1], *found.gallery[2:4], strict=True)):
            a, b = np.float64(a), np.float64(b)
            if -1 in (label, other) or (one_split and g <= q):
                continue
            if not one_split and cross_camera and label == other and camera == seen != -1:
                continue
            cosine = float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))
            (genuine if label == other else impostors).append((cosine, label, other))
    return genuine, impostors


def counted(pairs):
    return np.histogram([cosine for cosine, _, _ in pairs], np.append(np.arange(-32768, 32769) / 32768, 2))[0]


@pytest.mark.parametrize("run_eval, options", [
    (market, {}), (market, {"cross_camera": False}), (market, {"rerank": True}), (market, {"spectral": 0.5}),
    (market, {"multi_query": True}), (retrieval, {"split": "gallery"}),
    (retrieval, {"query": "query", "gallery": "val"}),
])
def test_pairs_are_those_of_the_lists_whatever_the_search_ranks_by(splits, run_eval, options):
    if options.get("multi_query"):
        splits["query"] = Predictions(*(column[2:4] for column in splits["query"]))
    found = search(run_eval, splits.__getitem__, **options)
    genuine, impostors = lists(found, run_eval is market and options.get("cross_camera", True))
    for block_bytes in (1, 1500, 2**20):
        pairs = pairs_of(found, block_bytes=block_bytes)
        np.testing.assert_array_equal(pairs.genuine, counted(genuine))
        np.testing.assert_array_equal(pairs.impostors, counted(impostors))
    assert len(genuine) > 10 and len(impostors) > 50


def test_bins_are_as_worked_out_by_hand(reid):
    gallery = [[1, 0], [0, 2], [-3, 0], [1, 0], [5, 5], [1, 0], [1, 0]]
    labels, cameras = [1, 2, 2, 1, 1, -1, 1], [2, 1, 1, 2, 2, 2, 1]  # the last two: junk, and the query's camera
    pairs = pairs_of(search(market, reid(([[1, 0]], [1], [1]), (gallery, labels, cameras))))
    (at, count), (apart, others) = ((np.flatnonzero(counts), counts[counts > 0])
                                    for counts in (pairs.genuine, pairs.impostors))
    assert (at.tolist(), count.tolist()) == ([32768 + 23170, 65536], [1, 2])  # 32768 / sqrt 2 is 23170.475
    assert (apart.tolist(), others.tolist()) == ([0, 32768], [1, 1])
    assert pairs.edges[[0, 32768, 65536]].tolist() == [-1, 0, 1]
    assert len(pairs.edges) == BINS + 1 == len(pairs.genuine) + 1


def test_a_junk_query_makes_no_pair(reid):
    found = search(market, reid(([[1, 0], [1, 0]], [-1, 3], [0, 0]), ([[1, 0], [0, 1]], [3, 4], [1, 1])))
    pairs = pairs_of(found)
    assert (pairs.genuine.sum(), pairs.impostors.sum()) == (1, 1)


@pytest.fixture(scope="module")
def found():
    """A search of 36,000 pairs of 40 identities, some of which are harder than others."""
    return made_up(40, seed=0, queries=180, gallery=200)


def made_up(identities, seed, queries, gallery):
    draw = np.random.default_rng(seed)
    centres, noise = 0.4 + draw.standard_normal((identities, 12)), np.exp(0.4 * draw.standard_normal(identities) - 1)
    made = {}
    for name, count in (("query", queries), ("gallery", gallery)):
        labels = np.arange(count) % identities
        embeddings = centres[labels] + noise[labels, None] * draw.standard_normal((count, 12))
        made[name] = Predictions(embeddings.astype(np.float32), None, labels, np.full(count, -1))
    return search(market, made.__getitem__)


@pytest.fixture(scope="module")
def said(found):
    return thresholds(found, pairs_of(found))


@pytest.fixture(scope="module")
def listed(found):
    return lists(found)


def share(pairs, threshold):
    return np.mean([cosine >= threshold for cosine, _, _ in pairs])


@pytest.mark.parametrize("level, far", [("far=1e-2", 1e-2), ("far=1e-3", 1e-3)])
def test_a_threshold_is_the_lowest_edge_that_keeps_to_the_rate(said, listed, level, far):
    genuine, impostors = listed
    threshold = said[level]["threshold"]
    assert said[level]["far"] == share(impostors, threshold) <= far < share(impostors, threshold - 2**-15)
    assert said[level]["tar"] == share(genuine, threshold)
    assert threshold * 2**15 == round(threshold * 2**15) and np.float32(threshold) == threshold


def test_counts_and_split_are_said_and_a_level_without_enough_impostors_says_only_that(said, listed):
    genuine, impostors = map(len, listed)
    assert (said["genuine"], said["impostors"], said["split"]) == (genuine, impostors, "query against gallery")
    assert impostors >= 30_000
    assert said["far=1e-4"] == {"needs": 300_000, "has": impostors}
    assert said.keys() == {"far=1e-2", "far=1e-3", "far=1e-4", "genuine", "impostors", "split"}
    assert json.loads(json.dumps(said, allow_nan=False)) == said


def variance_by_loops(pairs, threshold):
    """Of the accepted share, were the identities drawn anew: what each one's pairs add to it, squared."""
    rate, identities = share(pairs, threshold), {label for pair in pairs for label in pair[1:]}
    adds = [sum((cosine >= threshold) - rate for cosine, *labels in pairs if identity in labels) / len(pairs)
            for identity in identities]
    return sum(add**2 for add in adds) * len(identities) / (len(identities) - 1)


def wilson(rate, trials, z=1.959964):
    """Rates from which the one observed is z standard deviations away, by halving."""
    def end(inside, outside):
        for _ in range(60):
            middle = (inside + outside) / 2
            near = (middle - rate)**2 <= z**2 * middle * (1 - middle) / trials
            inside, outside = (middle, outside) if near else (inside, middle)
        return inside
    return [end(rate, 0), end(rate, 1)]


@pytest.mark.parametrize("level", ["far=1e-2", "far=1e-3"])
def test_intervals_are_wilsons_for_the_variance_over_identities(said, listed, level):
    for rate, pairs in zip(("tar", "far"), listed, strict=True):
        value, interval = said[level][rate], said[level][f"{rate}_interval"]
        trials = value * (1 - value) / variance_by_loops(pairs, said[level]["threshold"])
        np.testing.assert_allclose(interval, wilson(value, trials), rtol=1e-6)
        assert trials < len(pairs) / 2 and interval[0] < value < interval[1]


def test_the_variance_is_that_of_drawing_identities_again(listed, said):
    """A pair of identities that were drawn u and v times counts u v times; the terms of second order add a tenth."""
    genuine, impostors = listed
    threshold, draw = said["far=1e-2"]["threshold"], np.random.default_rng(0)
    weights = draw.multinomial(40, np.full(40, 1 / 40), 300)
    for pairs, identities in ((impostors, 2), (genuine, 1)):
        cosines, labels, others = np.array(pairs).T
        drawn = weights[:, labels.astype(int)]
        if identities == 2:
            drawn = drawn * weights[:, others.astype(int)]
        rates = drawn @ (cosines >= threshold) / drawn.sum(axis=1)
        assert np.std(rates) == pytest.approx(math.sqrt(variance_by_loops(pairs, threshold)), rel=0.2)


def test_intervals_cover_the_true_rates_nearly_as_often_as_they_say():
    everyone = pairs_of(made_up(2000, seed=1, queries=2000, gallery=2000))
    true = {"far": everyone.impostors, "tar": everyone.genuine}
    covered = []
    for seed in range(2, 82):
        found = made_up(40, seed, queries=80, gallery=120)
        level = thresholds(found, pairs_of(found))["far=1e-2"]
        place = round((level["threshold"] + 1) * 2**15)
        covered.append([low <= counts[place:].sum() / counts.sum() <= high for name, counts in true.items()
                        for low, high in [level[f"{name}_interval"]]])
    far, tar = np.mean(covered, axis=0)
    assert 0.88 <= far <= 0.99 and 0.85 <= tar <= 0.97


def test_embeddings_that_are_all_one_are_never_accepted(reid):
    side = np.ones((100, 2)), np.arange(100) % 50, np.full(100, -1)
    found = search(market, reid(side, side))
    level = thresholds(found, pairs_of(found))["far=1e-2"]
    assert level["threshold"] > 1 and level["far"] == level["tar"] == 0
    # 50 identities, none of whose pairs is accepted, are 50 trials; of impostors 25, which have two each.
    assert level["tar_interval"] == pytest.approx([0, 3.841459 / 53.841459], abs=1e-6)
    assert level["far_interval"] == pytest.approx([0, 3.841459 / 28.841459], abs=1e-6)


def test_identities_that_do_not_differ_are_a_trial_each_whatever_the_share(reid):
    """Of each, 57 of 100 pairs are accepted, which is a share that floats only come near to."""
    axes, identities = np.eye(80), np.arange(40)
    found = search(market, reid((axes[::2], identities, np.full(40, -1)), (
        np.concatenate([np.repeat(axes[::2], 57, axis=0), np.repeat(axes[1::2], 43, axis=0)]),
        np.concatenate([np.repeat(identities, 57), np.repeat(identities, 43)]), np.full(4000, -1))))
    level = thresholds(found, pairs_of(found))["far=1e-2"]
    assert (level["far"], level["tar"]) == (0, 0.57)
    assert level["tar_interval"] == pytest.approx(wilson(0.57, 40))


def test_a_search_without_a_genuine_pair_is_refused(reid):
    found = search(market, reid(([[1, 0]], [1], [0]), ([[1, 0]], [2], [0])))
    with pytest.raises(DataError, match="^query against gallery: no two images of one identity"):
        thresholds(found, pairs_of(found))
