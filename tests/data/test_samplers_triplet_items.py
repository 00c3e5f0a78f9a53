"""triplet_items: every image as an anchor, with a positive and a negative of its own."""

import numpy as np
import pytest

from data.samplers.triplet_items import TripletItems

LABELS = np.random.default_rng(3).permutation(np.repeat([2, 5, 6, 9], [1, 2, 4, 8]))  # 15 images, neither sorted


def triplets(sampler, epochs):
    """(anchors, positives, negatives) of all batches of the epochs."""
    batches = [batch.reshape(3, -1) for epoch in range(epochs) for batch in sampler.batches(epoch)]
    return np.concatenate(batches, axis=1)


@pytest.mark.parametrize("negatives", ["images", "identities"])
@pytest.mark.parametrize("anchors", [1, 4, 5, 15])
def test_every_image_is_an_anchor_once_but_for_those_that_fill_no_batch(anchors, negatives):
    sampler = TripletItems(LABELS, 1, anchors=anchors, negatives=negatives)
    assert len(sampler) == 15 // anchors
    batches = sampler.batches(0)
    assert all(len(batch) == 3 * anchors for batch in batches)
    drawn = np.concatenate([batch[:anchors] for batch in batches])
    assert len(set(drawn)) == len(drawn) == 15 // anchors * anchors


@pytest.mark.parametrize("negatives", ["images", "identities"])
def test_positives_are_others_of_the_identity_and_negatives_of_another(negatives):
    anchor, positive, negative = triplets(TripletItems(LABELS, 1, anchors=5, negatives=negatives), 50)
    assert (LABELS[positive] == LABELS[anchor]).all() and (LABELS[negative] != LABELS[anchor]).all()
    alone = LABELS[anchor] == 2
    assert (positive[alone] == anchor[alone]).all() and (positive[~alone] != anchor[~alone]).all()


def test_the_order_of_the_anchors_is_another_each_epoch():
    sampler = TripletItems(LABELS, 1, anchors=15)
    assert len({tuple(sampler.batches(epoch)[0][:15]) for epoch in range(20)}) == 20


def drawn_for(image, place, **keys):
    """How often each image was drawn with an anchor in 4,000 epochs."""
    drawn = triplets(TripletItems(LABELS, 1, anchors=15, **keys), 4_000)
    return np.bincount(drawn[place][drawn[0] == image], minlength=15)


def test_positives_are_drawn_evenly():
    # 7 others: 571 each, standard deviation 22.
    anchor = int(np.flatnonzero(LABELS == 9)[0])
    counts = drawn_for(anchor, 1)
    others = np.flatnonzero((LABELS == 9) & (np.arange(15) != anchor))
    assert counts.sum() == counts[others].sum() == 4_000 and abs(counts[others] - 4_000 / 7).max() < 5 * 22


def test_negatives_are_drawn_evenly_among_images():
    # Of an identity in the middle, 11 images of others: 364 each, standard deviation 18.
    counts = drawn_for(int(np.flatnonzero(LABELS == 6)[0]), 2)
    assert abs(counts[LABELS != 6] - 4_000 / 11).max() < 5 * 18


def test_negatives_are_drawn_evenly_among_identities():
    # 3 other identities: 1,333 each, of 1, 2 and 8 images, standard deviation 30.
    counts = drawn_for(int(np.flatnonzero(LABELS == 6)[0]), 2, negatives="identities")
    for label, images in ((2, 1), (5, 2), (9, 8)):
        assert abs(counts[LABELS == label] - 4_000 / 3 / images).max() < 5 * 30


def test_one_identity_has_no_negative():
    with pytest.raises(ValueError, match='^batch_sampling_params.type: "triplet_items" needs images of two identities'):
        TripletItems(np.zeros(9, np.int64), 1, anchors=2)


def test_more_anchors_than_images_are_refused():
    with pytest.raises(ValueError, match="^batch_sampling_params.anchors: 16 a batch asked, the train split has 15 im"):
        TripletItems(LABELS, 1, anchors=16)
