"""Batches cut into parts that batch norm sees one after the other."""

import copy

import pytest
import torch


@pytest.fixture
def embedder(make_embedder):
    """A network in training."""
    return make_embedder("resnet18", feature_dim=8).train()


def test_a_batch_in_parts_is_its_parts_one_after_the_other(embedder, images, leaves):
    by_hand, whole = copy.deepcopy(embedder), copy.deepcopy(embedder)
    embedder.batch_norm_parts = 3
    outputs = [by_hand(part) for part in images.split(2)]
    for joined, *parts in zip(leaves(embedder(images)), *map(leaves, outputs), strict=True):
        assert torch.equal(joined, torch.cat(parts))
    for name, value in by_hand.state_dict().items():
        assert torch.equal(embedder.state_dict()[name], value), name
    assert not torch.allclose(embedder(images).features, whole(images).features)


def test_in_evaluation_a_batch_is_whole(embedder, images):
    embedder.eval()
    embedding = embedder(images).embedding
    embedder.batch_norm_parts = 3
    assert torch.equal(embedder(images).embedding, embedding)


def test_a_small_batch_makes_fewer_parts_and_none_of_one_image(embedder, images):
    embedder.batch_norm_parts = 3
    sizes = []
    embedder.backbone.register_forward_pre_hook(lambda backbone, given: sizes.append(len(given[0])))
    for count in (6, 5, 3, 2):
        assert len(embedder(images[:count]).embedding) == count
    assert sizes == [2, 2, 2, 3, 2, 3, 2]
