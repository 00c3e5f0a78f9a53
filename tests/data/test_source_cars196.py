"""Cars196 by its MATLAB file, written here as the set has it: fields of an array of structures."""

import sys

import numpy as np
import pytest
from scipy.io import savemat

from data.records import DataError
from data.sources import Item

FIELDS = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "relative_im_path", "test"]
CLASSES = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012", "smart fortwo 2012"]
ROWS = [(112, 7, 853, 717, 1, "car_ims/000001.jpg", 0), (48, 24, 441, 202, 2, "car_ims/000002.jpg", 1),
        (7, 4, 277, 180, 3, "car_ims/000003.jpg", 0), (33, 50, 197, 150, 4, "car_ims/000004.jpg", 1),
        (5, 8, 83, 58, 1, "car_ims/000005.jpg", 1)]


@pytest.fixture
def write(tmp_path):
    """Write cars_annos.mat -> the root of the set."""

    def make(rows=ROWS, fields=FIELDS):
        annotations = np.array([rows], dtype=[(field, object) for field in fields])  # (1, N), as MATLAB has it
        savemat(tmp_path / "cars_annos.mat", {"annotations": annotations, "class_names": np.array([CLASSES], object)},
                do_compression=True)
        return tmp_path

    return make


def test_cars_keep_the_second_half_of_the_classes_for_test(write, read):
    splits = read("cars196", write())
    assert list(splits["train"].items) == [Item("car_ims/000001.jpg", CLASSES[0]),
                                           Item("car_ims/000002.jpg", CLASSES[1]),
                                           Item("car_ims/000005.jpg", CLASSES[0])]
    assert [item.class_name for item in splits["test"].items] == CLASSES[2:]
    assert {name: list(split.class_names) for name, split in splits.items()} == {
        "train": CLASSES[:2], "test": CLASSES[2:]}


def test_cars_can_follow_their_official_split(write, read):
    splits = read("cars196", write(), split="official")
    assert {name: [item.path for item in split.items] for name, split in splits.items()} == {
        "train": ["car_ims/000001.jpg", "car_ims/000003.jpg"],
        "val": ["car_ims/000002.jpg", "car_ims/000004.jpg", "car_ims/000005.jpg"]}
    assert splits["train"].class_names == splits["val"].class_names == CLASSES


@pytest.mark.parametrize("wrong", [
    {"rows": [*ROWS, (1, 2, 3, 4, 5, "car_ims/000006.jpg", 0)]},  # of a class that there is not
    {"rows": [*ROWS, (1, 2, 3, 4, 0, "car_ims/000006.jpg", 0)]},  # they are counted from 1
    {"rows": [row[:-1] for row in ROWS], "fields": FIELDS[:-1]},  # of another file of the set, without `test`
])
def test_other_annotations_are_refused(write, read, wrong):
    with pytest.raises(DataError, match=r"cars_annos\.mat: not the annotations of Cars196 .*; take the original"):
        read("cars196", write(**wrong))


@pytest.mark.parametrize("damage", [lambda whole: whole[:300], lambda whole: whole[:50], lambda whole: b"",
                                    lambda whole: b"<html>404 not found</html>" * 20])
def test_a_file_that_is_not_of_matlab_is_refused(write, read, damage):
    path = write() / "cars_annos.mat"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"cars_annos\.mat: cannot be read as a MATLAB file \(.+\); take the original"):
        read("cars196", path.parent)


def test_cars_without_scipy_name_the_extra_to_install(write, read, monkeypatch):
    root = write()
    monkeypatch.setitem(sys.modules, "scipy.io", None)  # what an import finds where nothing is installed
    with pytest.raises(DataError, match=r'cars_annos\.mat: needs scipy, which is not installed; .*"\.\[cars\]"$'):
        read("cars196", root)
