"""identities: random identities with a random number of images, cut to the batch size."""

from collections import Counter

import numpy as np
import pytest

from data.samplers.identities import Identities

LABELS = np.repeat(np.arange(30), [1, 2, 3, 8, 20] * 6)


def sizes(labels, batch):
    """How many images each identity of a batch has, in the order of the batch."""
    return list(Counter(labels[batch].tolist()).values())


@pytest.mark.parametrize("batch_size", [16, 31, 50])
def test_a_batch_is_full_of_different_images_and_nobody_is_alone(batch_size):
    sampler = Identities(LABELS, 1, batch_size)
    assert len(sampler) == len(LABELS) // batch_size
    for epoch in range(30):
        for batch in sampler.batches(epoch):
            assert len(set(batch.tolist())) == batch_size == len(batch)
            assert min(sizes(LABELS, batch)) >= 2 and max(sizes(LABELS, batch)) <= 10


def test_an_identity_s_images_stand_side_by_side_and_it_comes_once_a_batch():
    for batch in Identities(LABELS, 1, 40).batches(0):
        changes = np.flatnonzero(np.diff(LABELS[batch]))
        assert len(changes) + 1 == len(set(LABELS[batch]))


def test_a_place_for_one_image_becomes_a_place_for_two():
    labels = np.repeat(np.arange(4), 3)
    assert {tuple(sizes(labels, batch)) for batch in Identities(labels, 1, 7, min=3, max=3).batches(0)} == {(2, 3, 2)}


def test_one_is_alone_where_all_others_are_pairs():
    labels = np.repeat(np.arange(4), 2)
    assert [sizes(labels, batch) for batch in Identities(labels, 1, 5).batches(0)] == [[2, 2, 1]]


def test_numbers_of_images_from_min_to_max_are_drawn_evenly():
    # The first of each batch has 5 to 10 with 1/6 each: 3,000 batches, 500 each, standard deviation 20. The
    # batches that end with two images are left out, because one of theirs may have given up a place.
    labels = np.repeat(np.arange(30), 20)
    sampler = Identities(labels, 1, 60)
    found = [sizes(labels, batch) for epoch in range(360) for batch in sampler.batches(epoch)]
    first = Counter(size[0] for size in found if size[-1] != 2)
    total = sum(first.values())
    assert first.keys() == set(range(5, 11)) and total > 2_500
    assert all(abs(count - total / 6) < 5 * 20 for count in first.values())


def test_identities_and_their_images_are_drawn_evenly():
    # 10 of 30 identities a batch, 2 of 4 images each: in 1,500 batches each image 250 times, standard deviation 14.
    labels = np.repeat(np.arange(30), 4)
    sampler = Identities(labels, 1, 20, min=2, max=2)
    drawn = np.concatenate([np.concatenate(sampler.batches(epoch)) for epoch in range(250)])
    assert len(drawn) == 250 * 6 * 20
    assert abs(np.bincount(drawn) - 250).max() < 5 * 14


def test_too_few_images_for_a_batch_are_told_with_what_there_is():
    line = ("batch_size: 200 images a batch asked, the train split's 24 identities of two images or more give 90 at 5 "
            "each; lower it or raise batch_sampling_params.min")
    with pytest.raises(ValueError, match=f"^{line}$"):
        Identities(LABELS, 1, 200)


def test_a_min_above_max_is_refused():
    with pytest.raises(ValueError, match="^batch_sampling_params.min: expected at most max 3, found 5; lower it"):
        Identities(LABELS, 1, 20, max=3)
