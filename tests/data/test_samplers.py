"""data.samplers as a table, then each sampler's own promise."""

import numpy as np
import pytest

from data.samplers import SAMPLERS
from data.samplers.index import images_by_label
from data.samplers.pk import PK
from data.samplers.shuffled import Shuffled
from params.plugin import Choice

OPTIONS = {
    "identities": {"min": 2, "max": 4}, "ipc": {"images": 3}, "pk": {"P": 4, "K": 3}, "pk_prop": {"P": 4, "K": 3},
    "random": {"drop_last": True}, "triplet_items": {"anchors": 5, "negatives": "images"},
}
# Neither contiguous nor sorted labels, 1 to 9 images each.
LABELS = np.random.default_rng(5).permutation(np.repeat([0, 2, 3, 7, 8, 11, 40, 41, 50], range(1, 10)))


def build(name, seed=1, labels=LABELS):
    return SAMPLERS.build(Choice(name, OPTIONS[name]), labels=labels, seed=seed, batch_size=7)


def as_lists(batches):
    return [batch.tolist() for batch in batches]


def test_options_are_given_for_every_sampler_of_the_table():
    assert OPTIONS.keys() == set(SAMPLERS)
    for name, options in OPTIONS.items():
        assert SAMPLERS.options(name).model_validate(options).model_dump() == options


@pytest.mark.parametrize("name", SAMPLERS)
def test_batches_are_a_function_of_labels_seed_and_epoch(name):
    first = as_lists(build(name).batches(3))
    sampler = build(name)
    sampler.batches(0)
    np.random.seed(99)
    before = np.random.get_state()[1].copy()
    assert as_lists(sampler.batches(3)) == first
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert as_lists(sampler.batches(4)) != first
    assert as_lists(build(name, seed=2).batches(3)) != first


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("count", [20, 21, 22, 28, 45])
def test_the_length_is_exact_and_indices_are_in_range(name, count):
    sampler = build(name, labels=LABELS[:count])
    for epoch in range(3):
        batches = sampler.batches(epoch)
        assert len(batches) == len(sampler) > 0
        indices = np.concatenate(batches)
        assert indices.dtype == np.int64
        assert 0 <= indices.min() and indices.max() < count


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_labels_are_not_written_to(name):
    labels = LABELS.copy()
    labels.flags.writeable = False
    build(name, labels=labels).batches(0)


def test_shuffled_takes_every_image_once():
    batches = Shuffled(LABELS, 1, 7).batches(0)
    assert [len(batch) for batch in batches] == [7] * 6 + [3]
    assert sorted(np.concatenate(batches)) == list(range(45))


def test_shuffled_leaves_out_a_last_single_image_but_not_always_the_same():
    sampler = Shuffled(LABELS[:22], 1, 7)
    left_out = [set(range(22)) - set(np.concatenate(sampler.batches(epoch))) for epoch in range(20)]
    assert {len(images) for images in left_out} == {1}
    assert len(set.union(*left_out)) > 5


def test_shuffled_may_leave_out_a_last_smaller_batch_but_not_always_the_same_images():
    sampler = Shuffled(LABELS, 1, 7, drop_last=True)
    epochs = [sampler.batches(epoch) for epoch in range(20)]
    assert {tuple(map(len, batches)) for batches in epochs} == {(7,) * 6}
    left_out = [set(range(45)) - set(np.concatenate(batches)) for batches in epochs]
    assert {len(images) for images in left_out} == {3}
    assert len(set.union(*left_out)) > 15


@pytest.mark.parametrize("drop_last", [False, True])
def test_shuffled_keeps_every_image_where_the_batch_size_divides_them(drop_last):
    assert list(map(len, Shuffled(LABELS[:42], 1, 7, drop_last=drop_last).batches(0))) == [7] * 6


def test_shuffled_puts_images_at_every_place_equally_often():
    # 2,000 epochs of 10 images: each image at each place 200 times, standard deviation 13.4.
    sampler = Shuffled(np.zeros(10), 1, 5)
    orders = np.stack([np.concatenate(sampler.batches(epoch)) for epoch in range(2_000)])
    counts = np.stack([np.bincount(places, minlength=10) for places in orders.T])
    assert abs(counts - 200).max() < 5 * 13.4


@pytest.mark.parametrize("count, batch_size", [(0, 4), (1, 4)])
def test_shuffled_refuses_a_split_that_makes_no_batch(count, batch_size):
    with pytest.raises(ValueError, match=f"batch_size: 4 images a batch asked, the train split has {count}"):
        Shuffled(np.zeros(count, np.int64), 1, batch_size)


def test_shuffled_refuses_a_split_that_fills_no_batch_when_smaller_ones_are_left_out():
    message = "^batch_size: 4 images a batch asked, the train split has 3, too few for any batch; lower it or add "
    with pytest.raises(ValueError, match=message):
        Shuffled(np.zeros(3, np.int64), 1, 4, drop_last=True)


def test_pk_batches_are_p_identities_with_k_images_side_by_side():
    for batch in PK(LABELS, 1, P=4, K=3).batches(0):
        identities = LABELS[batch].reshape(4, 3)
        assert (identities == identities[:, :1]).all()
        assert len(set(identities[:, 0])) == 4


def test_pk_takes_every_identity_once_when_p_divides_their_number():
    identities = LABELS[np.concatenate(PK(LABELS, 1, P=3, K=2).batches(0))]
    assert sorted(identities[::2]) == sorted(set(LABELS))


def test_pk_repeats_images_only_of_identities_with_fewer_than_k():
    images = images_by_label(LABELS)
    for batch in PK(LABELS, 1, P=9, K=5).batches(0):
        for row in batch.reshape(9, 5):
            own = images[LABELS[row[0]]]
            assert len(set(row)) == min(5, len(own))  # 2 of 2 images, each at least once, or 5 distinct of 9


def test_pk_drops_another_tail_each_epoch_and_reaches_every_image():
    sampler = PK(LABELS, 1, P=4, K=3)  # 9 identities, one sits out
    epochs = [np.concatenate(sampler.batches(epoch)) for epoch in range(60)]
    sitting_out = [set(LABELS) - set(LABELS[drawn]) for drawn in epochs]
    assert {len(identities) for identities in sitting_out} == {1}
    assert len(set.union(*sitting_out)) == 9
    assert set(np.concatenate(epochs)) == set(range(45))


def test_pk_draws_an_identitys_images_equally_often():
    # 3 of 10 images, 3,000 times: each 900 times, standard deviation 25.
    sampler = PK(np.zeros(10, np.int64), 1, P=1, K=3)
    drawn = np.concatenate([sampler.batches(epoch)[0] for epoch in range(3_000)])
    assert abs(np.bincount(drawn, minlength=10) - 900).max() < 5 * 25


def test_pk_refuses_fewer_identities_than_p():
    with pytest.raises(ValueError, match="^batch_sampling_params.P: 10 .* the train split has 9; lower P$"):
        PK(LABELS, 1, P=10, K=2)


def test_the_index_lists_each_labels_images_in_order():
    index = images_by_label(np.array([7, 3, 7, -1, 3, 7]))
    assert {label: images.tolist() for label, images in index.items()} == {-1: [3], 3: [1, 4], 7: [0, 2, 5]}
