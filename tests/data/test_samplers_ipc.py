"""ipc: a fixed number of images per class, drawn with replacement."""

import numpy as np
import pytest

from data.samplers.ipc import ImagesPerClass

LABELS = np.repeat([3, 5, 8, 13], [1, 4, 6, 9])


@pytest.mark.parametrize(("batch_size", "images", "classes"), [(6, 2, 3), (7, 2, 3), (9, 4, 2), (4, 1, 4)])
def test_a_batch_is_as_many_classes_as_fit_with_so_many_images_each(batch_size, images, classes):
    sampler = ImagesPerClass(LABELS, 1, batch_size, images=images)
    assert len(sampler) == 20 // batch_size
    for batch in sampler.batches(0):
        rows = LABELS[batch].reshape(classes, images)
        assert (rows == rows[:, :1]).all() and len(set(rows[:, 0])) == classes


def test_classes_come_evenly_and_so_do_a_class_s_images():
    # 2,000 batches of 2 of 4 classes: each class 1,000 times, and each image of a class of 4 500 times; standard
    # deviation 22 of both.
    sampler = ImagesPerClass(LABELS, 1, 4, images=2)
    drawn = np.concatenate([np.concatenate(sampler.batches(epoch)) for epoch in range(400)])
    counts = np.bincount(drawn)
    by_class = np.array([counts[LABELS == label].sum() for label in (3, 5, 8, 13)])
    assert abs(by_class / 2 - 1_000).max() < 5 * 22
    assert abs(counts[1:5] - 500).max() < 5 * 22


@pytest.mark.parametrize(("batch_size", "images", "line"), [
    (4, 5, "batch_sampling_params.images: expected at most batch_size 4, found 5; lower it or raise batch_size"),
    (10, 2, "batch_size: 5 classes with 2 images each asked, the train split has 4; lower batch_size or raise"),
    (24, 6, "batch_size: 24 images a batch asked, the train split has 20; lower it"),
])
def test_what_cannot_be_filled_is_refused_with_the_key(batch_size, images, line):
    with pytest.raises(ValueError, match=f"^{line}"):
        ImagesPerClass(LABELS, 1, batch_size, images=images)
