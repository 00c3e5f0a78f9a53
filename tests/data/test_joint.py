"""Several archives as one: whose image is which, and nothing merges."""

import pickle
import zlib

import pytest

from data.archive import open_archive
from data.dataset import EvaluationImages
from data.joint import Joint
from data.records import DataError
from deploy.preprocess import Preprocessing


@pytest.fixture
def archives(make_archive):
    """Two archives in folders of different names, both of classes c0 and c1, the second with junk and no camera 0."""
    return [open_archive(make_archive([0, 1, 1], cameras=[1, 3, 2], folder="one")),
            open_archive(make_archive([1, -1, 0, 0], cameras=[1, 2, -1, 5], folder="two"))]


def test_classes_and_cameras_of_different_archives_are_different(archives):
    joint = Joint(archives)
    assert joint.class_names == ["folder.1/c0", "folder.1/c1", "folder.2/c0", "folder.2/c1"]
    assert joint.labels.tolist() == [0, 1, 1, 3, -1, 2, 2]
    assert joint.cameras.tolist() == [1, 3, 2, 5, 6, -1, 9]
    assert archives[1].labels.tolist() == [1, -1, 0, 0]  # not written to


def test_an_image_is_read_and_named_by_the_archive_that_holds_it(archives):
    joint = Joint([*archives, archives[0]])
    places = [(archive, i) for archive in [*archives, archives[0]] for i in range(len(archive))]
    assert len(joint) == len(places)
    assert joint.checksums.tolist() == [zlib.crc32(joint.read(i)) for i in range(len(joint))]
    for number, (archive, i) in enumerate(places):
        assert (joint.read(number), joint.where(number)) == (archive.read(i), archive.where(i))
    for outside in (-1, len(joint)):
        with pytest.raises(IndexError):
            joint.read(outside)


def test_a_pickled_joint_holds_paths_alone(archives):
    joint = Joint(archives)
    pickled = pickle.dumps(joint)
    again = pickle.loads(pickled)
    assert len(pickled) < 1_000
    assert again.class_names == joint.class_names and again.labels.tolist() == joint.labels.tolist()
    assert again.read(5) == joint.read(5)


def test_a_damaged_image_is_named_by_its_own_archive(archives):
    path = archives[1].path
    whole, image = bytearray(path.read_bytes()), archives[1].read(2)
    whole[whole.index(image) + len(image) // 2] ^= 1
    path.write_bytes(whole)
    error = EvaluationImages(Joint(archives), Preprocessing(16, 8)).__getitems__([0, 5])
    assert isinstance(error, DataError)
    assert str(error).startswith(f"{path}: record 000000002 (train/2.jpg) is damaged")
