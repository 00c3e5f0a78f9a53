"""DukeMTMC-reID as it is unpacked: identities, cameras and the distractors of its gallery."""

import pytest

from data.records import DataError
from data.sources import Item

FILES = ("bounding_box_train/0005_c2_f0046985.jpg", "bounding_box_train/0001_c2_f0046182.jpg",
         "bounding_box_train/0001_c8_f0052065.jpg",
         "query/0002_c1_f0044158.jpg", "query/0002_c6_f0050202.jpg",
         "bounding_box_test/7141_c8_f0127435.jpg", "bounding_box_test/0002_c2_f0045180.jpg",
         "CITATION.txt", "LICENSE_DukeMTMC-reID.txt", "LICENSE_DukeMTMC.txt", "README.md")


def test_duke_is_read_by_its_names(tmp_path, read, touch):
    splits = read("dukemtmc", touch(tmp_path, *FILES))
    assert list(splits["train"].items) == [Item("bounding_box_train/0001_c2_f0046182.jpg", "0001", 2),
                                           Item("bounding_box_train/0001_c8_f0052065.jpg", "0001", 8),
                                           Item("bounding_box_train/0005_c2_f0046985.jpg", "0005", 2)]
    assert [item.camera for item in splits["query"].items] == [1, 6]
    assert list(splits["gallery"].items) == [Item("bounding_box_test/0002_c2_f0045180.jpg", "0002", 2),
                                             Item("bounding_box_test/7141_c8_f0127435.jpg", "7141", 8)]


def test_duke_numbers_query_and_gallery_alike_with_the_distractors(tmp_path, read, touch):
    splits = read("dukemtmc", touch(tmp_path, *FILES))
    assert splits["query"].class_names == splits["gallery"].class_names == ["0002", "7141"]
    assert list(splits["train"].class_names) == ["0001", "0005"]


def test_duke_may_lie_in_the_folder_of_its_archive(tmp_path, read, touch):
    touch(tmp_path / "DukeMTMC-reID", *FILES)
    assert [item.path for item in read("dukemtmc", tmp_path)["query"].items] == [
        "DukeMTMC-reID/query/0002_c1_f0044158.jpg", "DukeMTMC-reID/query/0002_c6_f0050202.jpg"]


def test_duke_names_a_file_of_another_set(tmp_path, read, touch):
    touch(tmp_path, *FILES, "query/0002_c1s1_000451_03.jpg")
    with pytest.raises(DataError, match=r"query/0002_c1s1_000451_03\.jpg: expected a name like 0001_c2_f0046182"):
        read("dukemtmc", tmp_path)
