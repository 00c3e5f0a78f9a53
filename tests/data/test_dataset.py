"""data.dataset: a batch's pixels against the augmentation called by hand, and records that do not decode."""

import pickle

import numpy as np
import pytest
import torch

from data.archive import Meta, Record, open_archive, write_archive
from data.augment import Augment
from data.dataset import EvaluationImages, Key, TrainImages
from data.records import DataError
from deploy.preprocess import Preprocessing

SIZE = Preprocessing(16, 8)
AUGMENT = Augment(SIZE, mirror=True, padding=2, random_erasing=True)


@pytest.fixture
def archive(make_archive):
    """Six images with their cameras."""
    return open_archive(make_archive([0, 0, 1, 1, 2, 2], cameras=[5, 4, 3, 2, 1, -1]))


@pytest.fixture
def damaged(encoded_image, tmp_path):
    """Three records, the second of which is whole but no image."""
    images = [encoded_image(0), b"<html>404</html>", encoded_image(2)]
    records = [Record(image, 0, -1, -1, f"photos/{i}.jpg") for i, image in enumerate(images)]
    write_archive(tmp_path / "train.lmdb", records, Meta("folder", "train", ["only"]))
    return open_archive(tmp_path / "train.lmdb")


def test_a_batch_is_contiguous_uint8_with_the_images_labels_and_cameras(archive):
    batch = TrainImages(archive, AUGMENT, 1).__getitems__([Key(0, 0, 4), Key(0, 1, 1), Key(0, 2, 5)])
    assert (batch.images.shape, batch.images.dtype) == ((3, 3, 16, 8), torch.uint8)
    assert batch.images.is_contiguous()
    assert torch.equal(batch.labels, torch.tensor([2, 0, 2]))
    assert torch.equal(batch.cameras, torch.tensor([1, 4, -1]))


def test_pixels_are_a_function_of_seed_epoch_position_and_image(archive):
    keys = [Key(3, 7, 2), Key(3, 8, 2), Key(4, 7, 0)]
    batch = TrainImages(archive, AUGMENT, 1).__getitems__(keys)
    for pixels, (epoch, position, image) in zip(batch.images, keys, strict=True):
        drawn = AUGMENT(archive.read(image), np.random.default_rng([1, epoch, position]))
        np.testing.assert_array_equal(pixels.permute(1, 2, 0), drawn)
    assert not torch.equal(batch.images[0], batch.images[1])


def test_batches_of_one_dataset_do_not_share_memory(archive):
    images = TrainImages(archive, AUGMENT, 1)
    first = images.__getitems__([Key(0, 0, 0)])
    before = first.images.clone()
    images.__getitems__([Key(0, 1, 1)])
    assert torch.equal(first.images, before)


def test_evaluation_pixels_are_the_preprocessing_itself(archive):
    batch = EvaluationImages(archive, SIZE).__getitems__(range(2, 5))
    for pixels, image in zip(batch.images, range(2, 5), strict=True):
        np.testing.assert_array_equal(pixels.permute(1, 2, 0), SIZE(archive.read(image)))
    assert torch.equal(batch.labels, torch.tensor([1, 1, 2]))


def test_a_record_that_does_not_decode_is_named_with_its_archive_and_original_path(damaged):
    for error in (TrainImages(damaged, AUGMENT, 1).__getitems__([Key(0, 0, 0), Key(0, 1, 1)]),
                  EvaluationImages(damaged, SIZE).__getitems__([0, 1, 2])):
        assert isinstance(error, DataError)
        assert str(error).startswith(f"{damaged.path}: record 000000001 (photos/1.jpg): image bytes: not an image")
        assert "--skip_corrupt" in str(error) and "\n" not in str(error)


def test_a_dataset_that_has_been_read_is_pickled_without_its_open_file(archive):
    images = TrainImages(archive, AUGMENT, 1)
    batch = images.__getitems__([Key(0, 0, 3)])
    pickled = pickle.dumps(images)
    assert len(pickled) < 2_000
    assert torch.equal(pickle.loads(pickled).__getitems__([Key(0, 0, 3)]).images, batch.images)
