"""pk_prop: chunks of K images, P identities a batch, in proportion to the chunks that are left."""

from collections import Counter
from functools import cache
from itertools import combinations

import numpy as np
import pytest

from data.samplers.pk_prop import PKProp, most_batches


def labels_of(*counts):
    return np.repeat(np.arange(len(counts)), counts)


def test_a_batch_is_p_identities_with_k_images_side_by_side():
    labels = labels_of(12, 9, 7, 7, 4, 2)
    for batch in PKProp(labels, 1, P=4, K=3).batches(0):
        identities = labels[batch].reshape(4, 3)
        assert (identities == identities[:, :1]).all() and len(set(identities[:, 0])) == 4


def test_an_image_comes_once_unless_its_identity_has_fewer_than_k():
    labels = labels_of(12, 12, 9, 9, 2)
    drawn = Counter(np.concatenate(PKProp(labels, 1, P=1, K=3).batches(0)).tolist())
    assert [drawn[image] for image in range(42)] == [1] * 42
    assert sum(drawn[image] for image in (42, 43)) == 3 and min(drawn[42], drawn[43]) == 1


def test_images_that_fill_no_chunk_are_others_each_epoch():
    sampler = PKProp(labels_of(5, 4), 1, P=2, K=4)
    drawn = [set(np.concatenate(sampler.batches(epoch))) for epoch in range(40)]
    assert {len(images) for images in drawn} == {8} and set.union(*drawn) == set(range(9))


def test_the_first_identities_are_drawn_in_proportion_to_their_chunks():
    # Chunks 4, 4, 2, 2, one identity after the other: 0 and 1 with 2 x 4/12 x 4/8, 2 and 3 with 2 x 2/12 x 2/10,
    # each mixed pair with 4/12 x 2/8 + 2/12 x 4/10. 3,000 epochs: standard deviations of at most 26.
    labels = labels_of(4, 4, 2, 2)
    sampler = PKProp(labels, 1, P=2, K=1)
    drawn = Counter(tuple(sorted(labels[sampler.batches(epoch)[0]].tolist())) for epoch in range(3_000))
    expected = {(0, 1): 1_000, (2, 3): 200, (0, 2): 450, (0, 3): 450, (1, 2): 450, (1, 3): 450}
    assert drawn.keys() == expected.keys()
    assert all(abs(drawn[pair] - expected[pair]) < 5 * 26 for pair in expected)


@pytest.mark.parametrize(("counts", "p", "batches"), [
    ((3, 1, 1), 2, 2),  # 1 and 2 together would leave nobody for a second batch
    ((9, 1, 1, 1), 2, 3), ((2, 2, 1), 3, 1), ((6, 4, 2, 2, 1, 1), 2, 8), ((5, 5), 2, 5), ((1,) * 7, 3, 2),
])
def test_no_draw_costs_a_batch_that_the_chunks_allow(counts, p, batches):
    labels = labels_of(*counts)
    for seed in range(50):
        drawn = PKProp(labels, seed, P=p, K=1).batches(seed)
        assert len(drawn) == batches
        assert all(len(set(labels[batch])) == p for batch in drawn)
        assert max(Counter(np.concatenate(drawn).tolist()).values()) == 1


def test_the_most_batches_are_those_of_a_search_through_all_draws():
    @cache
    def search(chunks, p):
        left = [i for i, count in enumerate(chunks) if count]
        return max((1 + search(tuple(count - (i in drawn) for i, count in enumerate(chunks)), p)
                    for drawn in combinations(left, p)), default=0)

    rng = np.random.default_rng(0)
    for _ in range(40):
        chunks = rng.integers(1, 5, rng.integers(2, 6))
        p = int(rng.integers(1, len(chunks) + 1))
        assert most_batches(chunks, p) == search(tuple(sorted(chunks.tolist())), p)


def test_fewer_identities_than_p_are_refused():
    with pytest.raises(ValueError, match="^batch_sampling_params.P: 4 .* the train split has 3; lower P$"):
        PKProp(labels_of(5, 5, 5), 1, P=4, K=2)
